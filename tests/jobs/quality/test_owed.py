"""What was stored and not checked is checked by the next run, whatever it was that did not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import polars as pl
import pytest

from lake.api import Lake, utc_now
from lake.errors import UsageError
from lake.jobs.ingest.ingest import Ingestion
from lake.jobs.ingest.request import IngestRequest
from lake.jobs.repairs.repair import Repairer
from lake.model.market import Market
from lake.model.progress import NoProgress
from lake.model.time import TimeRange
from lake.query.unchecked import Unchecked, find_unchecked
from lake.sources import registry
from lake.store.coverage import NOT_GIVEN, CoveredRange, part_of
from lake.store.ledger import Ledger
from lake.store.log import locate_log_file
from lake.store.store import Store
from tests.conftest import DAY, MINUTE, ORIGIN, T0, bars, store_of, trades, write
from tests.jobs.conftest import NOW, MakeLake

MIDNIGHT = NOW.replace(hour=0, minute=0, second=0)
BTC = Market("binance", "BTC/USDT")
RANGE = TimeRange(MIDNIGHT - timedelta(hours=2), MIDNIGHT)


def unchecked(lake: Lake) -> set[tuple[str, str]]:
    """Tables and symbols that `status` calls unchecked."""
    rows = lake.status().filter(pl.col("unchecked_since").is_not_null())
    return set(rows.select("table", "symbol").iter_rows())


def ingest_without_check(lake: Lake, table: str = "bars_1m") -> None:
    """Ingest, and die before the check."""
    store = Store(lake.root, lake._context.now)

    def connect(exchange: str) -> object:
        return registry.connect(exchange, settings=lake.settings, now=store.now)

    request = IngestRequest(lake.dataset(table), BTC, RANGE.start, RANGE.end)
    ingestion = Ingestion(store, lake.settings, connect, NoProgress())  # type: ignore[arg-type]
    asyncio.run(ingestion.run([request]))


def again(lake: Lake) -> object:
    return lake.ingest(
        "bars_1m", exchange="binance", symbol="BTC/USDT", since=RANGE.start, until=RANGE.end
    )


@pytest.mark.parametrize(
    "run",
    [
        again,
        lambda lake: lake.quality.repair(offline=True),
        lambda lake: lake.quality.check("trades"),
    ],
    ids=["ingest", "repair", "check of another table"],
)
def test_an_ingestion_that_died_before_its_check_is_checked_by_the_next_run(
    make_lake: MakeLake, run: Callable[[Lake], object]
) -> None:
    lake = make_lake()
    write(lake, "trades", trades(1, start=RANGE.start, side=["buy"]))
    lake.quality.check()
    ingest_without_check(lake)
    assert ("bars_1m", "BTC/USDT") in unchecked(lake)
    assert lake.quality.scores("bars_1m").is_empty()
    run(lake)
    assert lake.quality.scores("bars_1m")["rows"].to_list() == [120]
    assert unchecked(lake) == set()


def test_a_run_that_is_checked_owes_nothing(make_lake: MakeLake) -> None:
    lake = make_lake()
    again(lake)
    assert unchecked(lake) == set()
    assert lake.jobs()["command"].sort().to_list() == ["check bars_1m", "ingest bars_1m"]
    again(lake)  # there is nothing to do, and nothing to check
    assert lake.jobs().height == 2


def test_a_repair_that_died_before_its_check_is_checked_by_the_next(
    make_lake: MakeLake,
) -> None:
    lake = make_lake()
    again(lake)
    gap = TimeRange(RANGE.start + 10 * MINUTE, RANGE.start + 13 * MINUTE)
    store = store_of(lake)
    store.replace(lake.dataset("bars_1m"), BTC, gap, lambda rows: rows.clear(), ORIGIN)
    lake.quality.check()
    findings = lake.quality.findings(check="gaps")
    assert findings["rows"].to_list() == [3]

    def connect(exchange: str, settings: object) -> object:
        return registry.connect(
            exchange,
            settings=lake.settings,
            now=lambda: NOW,
            exchange_settings=settings,  # type: ignore[arg-type]
        )

    repairer = Repairer(store, lake.settings, connect, NoProgress())  # type: ignore[arg-type]
    asyncio.run(repairer.run(findings))
    assert lake.quality.findings(check="gaps").height == 1
    lake.quality.repair()
    assert lake.quality.findings(check="gaps").is_empty()
    assert lake.quality.scores("bars_1m")["completeness"].to_list() == [1.0]


def test_rows_of_a_user_are_owed_and_a_partial_check_leaves_the_rest(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    write(lake, "bars_1m", bars(3, start=T0 + 9 * DAY, symbol="ETH/USDT"))
    assert unchecked(lake) == {("bars_1m", "BTC/USDT"), ("bars_1m", "ETH/USDT")}
    store = store_of(lake)
    since = lake.status()["unchecked_since"].min()
    assert since == lake.versions("bars_1m").filter(version=1)["time"].item()
    lake.quality.check("bars_1m", symbol="BTC/USDT")
    assert find_unchecked(store) == []
    assert set(lake.quality.scores("bars_1m")["symbol"]) == {"BTC/USDT", "ETH/USDT"}


def test_only_commits_after_the_last_check_are_read(lake: Lake) -> None:
    for day in range(3):
        write(lake, "bars_1m", bars(3, start=T0 + day * DAY))
    lake.quality.check()
    for version in range(4):
        locate_log_file(lake.root.tables / "bars_1m", version).touch()
    log = locate_log_file(lake.root.tables / "bars_1m", 1)
    log.rename(log.with_suffix(".away"))
    store = store_of(lake)
    assert find_unchecked(store) == []


def test_a_compaction_owes_no_check(lake: Lake) -> None:
    for first in range(3):
        write(lake, "bars_1m", bars(3, start=T0 + first * 3 * MINUTE))
    lake.quality.check()
    version = store_of(lake).version(lake.dataset("bars_1m"))
    lake.maintenance.optimize()
    assert store_of(lake).version(lake.dataset("bars_1m")) > version
    assert unchecked(lake) == set()


def test_rows_that_were_deleted_are_checked(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    write(lake, "bars_1m", bars(3, start=T0 + DAY))
    lake.quality.check()
    day = TimeRange(T0, T0 + DAY)
    store = store_of(lake)
    store.replace(lake.dataset("bars_1m"), BTC, day, lambda rows: rows.clear(), ORIGIN)
    [item] = find_unchecked(store)
    assert (item.market, item.range) == (item.market, day)


def test_answers_without_rows_are_checked(lake: Lake) -> None:
    write(lake, "trades", trades(3, side=["buy"] * 3))
    lake.quality.check()
    lost = CoveredRange(TimeRange(T0 - DAY, T0), 0, NOT_GIVEN)
    Ledger(store_of(lake)).record_coverage({part_of("trades", BTC): [lost]}, ORIGIN)
    assert unchecked(lake) == {("trades", "BTC/USDT")}
    lake.quality.repair(offline=True)
    assert unchecked(lake) == set()
    assert lake.quality.findings(check="not_given").height == 1


def test_rejected_rows_are_checked(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    lake.quality.check()
    write(lake, "bars_1m", bars(1, start=T0 + 3 * MINUTE, high=[1.0]))
    assert unchecked(lake) == {("bars_1m", "BTC/USDT")}
    lake.quality.repair(offline=True)
    assert unchecked(lake) == set()
    assert lake.quality.findings(check="refused").height == 1


def test_a_rejected_trade_is_not_replaced_by_another_of_the_same_moment(lake: Lake) -> None:
    good = trades(2, step=timedelta(0), side=["buy"] * 2)
    bad = trades(1, first=7, step=timedelta(0), price=[-1.0], side=["buy"])
    write(lake, "trades", pl.concat([good, bad]))
    lake.quality.check()
    [finding] = lake.quality.findings(check="refused").rows(named=True)
    assert (finding["rows"], finding["timestamp"]) == (1, T0)
    write(lake, "trades", bad.with_columns(price=5.0))
    lake.quality.check()
    assert lake.quality.findings(check="refused").is_empty()


def test_a_partial_check_says_what_it_found_in_what_was_owed(lake: Lake) -> None:
    write(lake, "bars_1m", bars(9, start=T0 + DAY))
    write(lake, "bars_1m", bars(9, start=T0 + 2 * DAY))
    start, end = T0 + 2 * DAY, T0 + 3 * DAY
    report = lake.quality.check("bars_1m", since=start, until=end)
    assert report.findings.is_empty()
    assert report.owed is not None
    assert report.owed.new_findings["timestamp"].to_list() == [T0 + DAY + 9 * MINUTE]
    said = "lso checked what was owed: 1 new finding in bars_1m of binance BTC/USDT on 2024-01-02"
    assert report.describe_owed() == f"A{said}"
    assert f"; a{said}" in repr(report)
    again = lake.quality.check("bars_1m", since=start, until=end)
    assert (again.owed, again.describe_owed()) == (None, None)


def test_rejected_rows_of_a_new_table_are_shown_and_checked(lake: Lake) -> None:
    written = lake.write("trades", trades(3, price=[-1.0] * 3))
    assert (written.rejected, written.inserted) == (3, 0)
    assert unchecked(lake) == {("trades", "BTC/USDT")}
    report = lake.quality.check()
    assert report.findings["check"].to_list() == ["refused"]
    assert report.findings["rows"].to_list() == [3]
    [status] = lake.status().rows(named=True)
    assert (status["table"], status["rows"], status["unchecked_since"]) == ("trades", 0, None)


def test_rows_that_are_no_frame_are_refused(lake: Lake) -> None:
    with pytest.raises(UsageError, match="rows for trades are a dict, not a Polars DataFrame"):
        lake.write("trades", {"price": [1.0]})  # type: ignore[arg-type]


def test_of_a_grown_interval_only_what_was_added_is_owed(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    _answer(lake, TimeRange(T0, T0 + DAY))
    lake.quality.check()
    _answer(lake, TimeRange(T0 + DAY, T0 + 2 * DAY))
    assert [item.range for item in _owed(lake)] == [TimeRange(T0 + DAY, T0 + 2 * DAY)]
    Lake(lake.settings, now=lambda: utc_now() + DAY).maintenance.vacuum(keep="1h")
    [owed] = _owed(lake)
    assert owed.range == TimeRange(T0, T0 + 2 * DAY), "what was checked before cannot be told"
    lake.quality.check()
    assert _owed(lake) == []


def _answer(lake: Lake, span: TimeRange) -> None:
    answers = {part_of("bars_1m", BTC): [CoveredRange(span, 0, "fetched")]}
    Ledger(store_of(lake)).record_coverage(answers, ORIGIN)


def _owed(lake: Lake) -> list[Unchecked]:
    return [item for item in find_unchecked(store_of(lake)) if item.origin == "coverage"]


def test_the_status_tells_of_each_market_since_its_first_unchecked_change(lake: Lake) -> None:
    """Of commits that can tell nothing new, none is read; one of another market still is."""
    write(lake, "bars_1m", bars(3))
    write(lake, "bars_1m", bars(3, symbol="ETH/USDT"))
    write(lake, "bars_1m", bars(3, start=T0 + DAY))
    commits = lake.versions("bars_1m").sort("version").filter(pl.col("rows") > 0)["time"]
    since = lake.status().sort("symbol").select("symbol", "unchecked_since").rows()
    assert since == [("BTC/USDT", commits[0]), ("ETH/USDT", commits[1])]
