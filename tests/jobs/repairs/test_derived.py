"""What no source gives is derived where finer data are complete."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.jobs.repairs.repair import undo
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.sandbox import RecordedMarkets, Sandbox
from tests.conftest import ORIGIN
from tests.jobs.conftest import NOW, MakeLake, settings_for
from tests.jobs.repairs.damage import (
    BTC,
    MINUTE,
    SINCE,
    UNTIL,
    delete,
    finding,
    findings,
    repair,
    rows,
    store_of,
    versions,
)
from tests.jobs.repairs.lakes import (
    DATA,
    GAP,
    GONE,
    SUMS,
    copy_to_gone_venue,
    ingest_all,
    rows_of_market,
)


def _require_same_bars(bars: pl.DataFrame, truth: pl.DataFrame) -> None:
    """All but sums of doubles are exact."""
    exact = [name for name in truth.columns if name not in {*SUMS, "fill"}]
    assert_frame_equal(bars.select(exact), truth.select(exact), check_exact=True)
    assert_frame_equal(bars.select(SUMS), truth.select(SUMS), rel_tol=1e-12, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("table", "finer", "fill"),
    [("bars_1m", "trades", "derived:trades"), ("bars_5m", "bars_1m", "derived:bars_1m")],
)
def test_bars_of_a_venue_that_is_gone_are_derived_and_say_so(
    make_lake: MakeLake, table: str, finer: str, fill: str
) -> None:
    lake = copy_to_gone_venue(ingest_all(make_lake(), table, finer), table, finer)
    truth = rows_of_market(lake, table, GONE)
    delete(lake, table, GONE, GAP)
    damaged = rows(lake, table)
    found = findings(finding(table, GONE, GAP))
    [planned] = [one for one in repair(lake, found, dry_run=True).planned if one.rows]
    assert (planned.method, planned.source) == ("derive", fill)
    report = repair(lake, found)
    [applied] = report.applied
    assert (applied.method, applied.source) == ("derive", fill)
    made = rows_of_market(lake, table, GONE)
    _require_same_bars(made, truth)
    inside = pl.col("timestamp").is_between(GAP.start, GAP.end, closed="left")
    assert set(made.filter(inside)["fill"]) == {fill}
    assert made.filter(~inside)["fill"].null_count() == made.filter(~inside).height
    assert not report.failed

    before = versions(lake)
    assert not repair(lake, found).applied
    assert versions(lake) == before
    undo(store_of(lake), applied.repair_id)
    assert_frame_equal(rows(lake, table), damaged)


def test_nothing_is_derived_from_trades_of_which_some_are_missing(make_lake: MakeLake) -> None:
    lake = copy_to_gone_venue(ingest_all(make_lake(), "bars_1m", "trades"), "bars_1m", "trades")
    delete(lake, "bars_1m", GONE, GAP)
    lost = GAP.start + 4 * MINUTE
    delete(lake, "trades", GONE, TimeRange(lost + MINUTE / 4, lost + MINUTE / 2))
    report = repair(lake, findings(finding("bars_1m", GONE, GAP)))
    [applied] = report.applied
    made = rows_of_market(lake, "bars_1m", GONE).filter(pl.col("fill").is_not_null())
    assert applied.inserted == made.height
    assert lost not in made["timestamp"].to_list()
    assert made.height >= 8
    [failed] = report.failed
    assert "gone" in failed.reason


def test_trades_that_are_counted_in_another_unit_make_no_bars(make_lake: MakeLake) -> None:
    lake = ingest_all(make_lake(), "bars_1m", "trades")
    store = store_of(lake)
    contracts = rows(lake, "trades").drop("date").with_columns(pl.col("amount") * 100)
    for table, stored in (("trades", contracts), ("bars_1m", rows(lake, "bars_1m").drop("date"))):
        moved = stored.with_columns(exchange=pl.lit("gone"))
        store.write(store.catalog.dataset(table), moved, ORIGIN)
    delete(lake, "bars_1m", GONE, GAP)
    assert not repair(lake, findings(finding("bars_1m", GONE, GAP))).applied


def test_an_observed_bar_replaces_a_derived_one_and_never_the_other_way(
    make_lake: MakeLake,
) -> None:
    lake = ingest_all(make_lake(), "bars_1m", "trades")
    truth = rows(lake, "bars_1m")
    store = store_of(lake)
    bars = store.catalog.dataset("bars_1m")
    filled = truth.drop("date").with_columns(volume=0.0, fill=pl.lit("interpolated:flat"))
    assert store.write(bars, filled, ORIGIN).updated == 0
    assert_frame_equal(rows(lake, "bars_1m"), truth)
    delete(lake, "bars_1m", BTC, GAP)
    assert store.write(bars, filled, ORIGIN).inserted == 10
    lake.ingest(
        "bars_1m", exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL, refetch=True
    )
    assert_frame_equal(rows(lake, "bars_1m"), truth)


@pytest.fixture(scope="module")
def recorded() -> Iterator[Sandbox]:
    if not DATA.is_dir():
        pytest.skip("recorded data are not beside the checkout (../shared/data/cex)")
    with Sandbox(RecordedMarkets(DATA), weight_limit=False) as running:
        yield running


def test_bars_of_recorded_trades_equal_all_that_the_venue_sent(
    tmp_path: Path, recorded: Sandbox
) -> None:
    since, until = datetime(2019, 10, 11, tzinfo=UTC), datetime(2019, 10, 14, tzinfo=UTC)
    lake = Lake.create(settings_for(tmp_path / "lake", recorded.url), now=lambda: NOW)
    for table in ("bars_1m", "trades"):
        lake.ingest(table, exchange="binance", symbol="XRP/ETH", since=since, until=until)
    truth = rows(lake, "bars_1m")
    assert truth.height == 2_469
    copy_to_gone_venue(lake, "bars_1m", "trades")
    market = Market("gone", "XRP/ETH")
    first, last = truth["timestamp"][100], truth["timestamp"][-100]
    delete(lake, "bars_1m", market, TimeRange(first, last))
    report = repair(lake, findings(finding("bars_1m", market, TimeRange(first, last))))
    assert report.inserted == 2_469 - 200
    bars = rows_of_market(lake, "bars_1m", market)
    prices = ["timestamp", "open", "high", "low", "close", "volume"]
    assert_frame_equal(bars.select(prices), truth.select(prices), check_exact=True)
