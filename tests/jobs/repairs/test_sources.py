"""Sources that are down or far away, and findings by the hundred: what is asked, read and told."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import SourceUnavailableError
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.sandbox import Sandbox, SyntheticMarkets
from lake.settings import Settings, load_settings
from lake.store.reader import TableReader
from tests.conftest import ORIGIN
from tests.jobs.conftest import Clock, MakeLake
from tests.jobs.repairs.damage import (
    BTC,
    DAY,
    SINCE,
    UNTIL,
    damage,
    delete,
    finding,
    findings,
    minutes,
    repair,
    rows,
    spike,
    store_of,
    versions,
)

GAP = minutes(12)
FOUND = findings(finding("bars_1m", BTC, GAP))


@pytest.fixture
def lake(make_lake: MakeLake) -> Lake:
    """A day of bars and trades, of which some minutes have no bar."""
    lake = make_lake()
    for table in ("bars_1m", "trades"):
        lake.ingest(table, exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL)
    delete(lake, "bars_1m", BTC, GAP)
    return lake


def _with_fallback(lake: Lake, url: str) -> Settings:
    chosen = lake.settings.model_dump()
    chosen["exchanges"]["binance"]["fallback_url"] = url
    return load_settings(chosen)


def test_where_a_source_is_down_its_fallback_is_asked(
    lake: Lake, sandbox: Sandbox, clock: Clock
) -> None:
    sandbox.go_down()
    with Sandbox(SyntheticMarkets(seed=7), now=clock, weight_limit=False) as second:
        report = repair(lake, FOUND, _with_fallback(lake, second.url))
    [applied] = report.applied
    assert (applied.source, applied.inserted) == ("ccxt:binance (fallback)", 12)
    assert rows(lake, "bars_1m")["fill"].null_count() == 1440


def test_what_a_source_may_still_give_is_not_derived_while_it_is_down(
    lake: Lake, sandbox: Sandbox
) -> None:
    before = versions(lake)
    sandbox.go_down()
    with pytest.raises(SourceUnavailableError, match="binance") as told:
        repair(lake, FOUND)
    assert "--offline" in told.value.hint
    assert versions(lake) == before
    sandbox.recover()
    assert repair(lake, FOUND).inserted == 12
    assert rows(lake, "bars_1m")["fill"].null_count() == 1440


def test_all_sources_that_are_down_are_told_and_asked_once(
    make_lake: MakeLake, sandbox: Sandbox
) -> None:
    lake = make_lake()
    store, places = store_of(lake), ("binance", "binanceus")
    lake.ingest("bars_1m", exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL)
    bars = rows(lake, "bars_1m").drop("date")
    for table in ("bars_1m", "bars_2m"):
        for exchange in places:
            moved = bars.with_columns(exchange=pl.lit(exchange))
            store.write(store.catalog.dataset(table), moved, ORIGIN)
    gaps = [
        finding(table, Market(exchange, "BTC/USDT"), minutes(60))
        for table in ("bars_1m", "bars_2m")
        for exchange in places
    ]
    for gap in gaps:
        delete(lake, gap["dataset"], Market(gap["exchange"], "BTC/USDT"), minutes(60))
    sandbox.go_down()
    sandbox.clear_log()
    with pytest.raises(SourceUnavailableError) as told:
        repair(lake, findings(*gaps))
    assert [text.split()[0] for text in told.value.message.split("; ")] == list(places)
    asked = Counter(entry.path for entry in sandbox.log)
    assert set(asked.values()) == {lake.settings.retry.attempts}


def test_offline_bars_are_derived_and_no_source_is_asked(lake: Lake, sandbox: Sandbox) -> None:
    sandbox.clear_log()
    [planned] = repair(lake, FOUND, dry_run=True, offline=True).planned
    assert planned.method == "derive"
    [applied] = repair(lake, FOUND, offline=True).applied
    assert (applied.source, applied.inserted) == ("derived:trades", 12)
    assert not sandbox.log
    lost = findings(finding("trades", BTC, minutes(2), "ids_skip"))
    [failed] = repair(lake, lost, offline=True).failed
    assert "no source was asked" in failed.reason


def test_of_an_exchange_that_no_source_serves_nothing_is_asked(lake: Lake) -> None:
    pool = Market("ethereum:uniswap_v3", "BTC/USDT")
    moved = rows(lake, "bars_1m").drop("date").with_columns(exchange=pl.lit(pool.exchange))
    store = store_of(lake)
    store.write(store.catalog.dataset("bars_1m"), moved, ORIGIN)
    lost = findings(finding("bars_1m", pool, GAP))
    assert not repair(lake, lost, dry_run=True).planned
    [failed] = repair(lake, lost).failed
    assert f"no source serves {pool.exchange}" in failed.reason


def test_hundreds_of_findings_take_few_reads_and_each_tells_of_itself(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.ingest(
        "bars_1m", exchange="binance", symbol="BTC/USDT", since=UNTIL - 20 * DAY, until=UNTIL
    )
    times = [UNTIL - 20 * DAY + n * timedelta(minutes=97) for n in range(1, 240)]
    gone = pl.col("timestamp").is_in(times)
    whole = TimeRange(UNTIL - 20 * DAY, UNTIL)
    truth = rows(lake, "bars_1m")
    damage(lake, "bars_1m", BTC, whole, lambda bars: bars.filter(~gone))
    reads: Counter[str] = Counter()
    original = TableReader.sort_rows

    def counted(self: TableReader, *arguments: object) -> pl.DataFrame:
        reads[self.dataset.name] += 1
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(
        TableReader, "sort_rows", counted
    )  # nothing tells how often files were read
    report = repair(lake, findings(*(finding("bars_1m", BTC, minutes(1, t)) for t in times)))
    assert report.inserted == len(times)
    assert_frame_equal(rows(lake, "bars_1m"), truth)
    assert reads["bars_1m"] < 10 * 21
    evidence = [json.loads(text)["asked"] for text in rows(lake, "repairs")["evidence"]]
    assert {len(asked) for asked in evidence} == {1}

    reads.clear()
    found = findings(*(spike("bars_1m", BTC, t, 1.0) for t in times))
    assert len(repair(lake, found).marked) == len(times)
    assert reads["bars_1m"] < 10 * 21
