"""Time that a source no longer serves: a loss, also before the first row; and its repair."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lake.api import Lake
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.coverage import NOT_GIVEN, CoveredRange, part_of
from lake.store.ledger import Ledger
from lake.store.store import Origin
from tests.conftest import DAY, MINUTE, ORIGIN, T0, bars, store_of, trades, write

MARKET = Market("binance", "BTC/USDT")
LOST = TimeRange(T0 - 2 * DAY, T0)
GIVEN = TimeRange(T0, T0 + DAY)


def record(lake: Lake, table: str, ranges: Sequence[CoveredRange], source: str = "test") -> None:
    Ledger(store_of(lake)).record_coverage({part_of(table, MARKET): ranges}, Origin("job", source))


def fill(lake: Lake, table: str, rows: pl.DataFrame) -> None:
    """Store rows of a day, of which the source did not give the two days before."""
    write(lake, table, rows)
    record(lake, table, [CoveredRange(LOST, 0, NOT_GIVEN), CoveredRange(GIVEN, rows.height)])


def test_trades_that_are_not_given_lower_completeness_on_their_days(lake: Lake) -> None:
    fill(lake, "trades", trades(1440, step=MINUTE, side=["buy"] * 1440))
    report = lake.quality.check("trades")
    assert report.findings.select("timestamp", "check", "rows").sort("timestamp").rows() == [
        (T0 - 2 * DAY, "not_given", 1469),
        (T0 - DAY, "not_given", 1469),
    ]
    scores = lake.quality.scores("trades").select("timestamp", "rows", "completeness", "not_given")
    assert scores.rows() == [
        (T0 - 2 * DAY, 0, 0.0, 1469),
        (T0 - DAY, 0, 0.0, 1469),
        (T0, 1440, 1.0, 0),
    ]
    assert report.scores["completeness"] is not None
    assert report.scores["completeness"] < 0.34


def test_bars_that_are_not_given_are_gaps(lake: Lake) -> None:
    fill(lake, "bars_1m", bars(1440))
    lake.quality.check("bars_1m")
    assert lake.quality.gaps("bars_1m").select("start", "end", "slots", "reason").rows() == [
        (LOST.start, LOST.end, 2880, "not_given")
    ]
    assert lake.quality.scores("bars_1m")["completeness"].to_list() == [0.0, 0.0, 1.0]


def test_a_market_of_which_nothing_is_given_is_checked(lake: Lake) -> None:
    store_of(lake).create(lake.dataset("bars_1h"))
    record(lake, "bars_1h", [CoveredRange(LOST, 0, NOT_GIVEN)])
    lake.quality.check()
    assert lake.quality.scores("bars_1h").select("expected", "completeness").rows() == [
        (24, 0.0),
        (24, 0.0),
    ]


def test_the_findings_close_when_another_source_gives_the_rows(lake: Lake) -> None:
    fill(lake, "bars_1m", bars(1440))
    lake.quality.check("bars_1m")
    assert lake.quality.findings().height == 2
    write(lake, "bars_1m", bars(2880, start=LOST.start))
    record(lake, "bars_1m", [CoveredRange(LOST, 2880, "imported")], source="files")
    lake.quality.check("bars_1m")
    assert lake.quality.findings().is_empty()
    assert ORIGIN.source == "test"


def test_a_repair_does_not_ask_again_for_what_is_not_given(lake: Lake) -> None:
    fill(lake, "trades", trades(60, step=MINUTE, side=["buy"] * 60))
    lake.quality.check("trades")
    assert lake.quality.repair(dry_run=True).planned == ()
    assert {item.reason for item in lake.quality.repair().failed} == {
        "the source no longer serves this time; --again asks it once more"
    }
    assert len(lake.quality.repair(dry_run=True, again=True).planned) > 0
