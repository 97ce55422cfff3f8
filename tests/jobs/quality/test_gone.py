"""Rows that are gone at the ends of a market, where no gap shows them, are found by coverage."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from lake.api import Lake
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.coverage import NOT_GIVEN, CoveredRange, part_of
from lake.store.ledger import Ledger
from lake.store.store import Origin
from tests.conftest import DAY, MINUTE, T0, bars, store_of, trades, write
from tests.jobs.repairs.damage import delete

BTC = Market("binance", "BTC/USDT")
COUNT = 240
ALL = TimeRange(T0, T0 + COUNT * MINUTE)


def _cover(lake: Lake, table: str, span: TimeRange, rows: int, status: str | None = None) -> None:
    answer = CoveredRange(span, rows, status)
    origin = Origin("job", "ccxt:binance")
    Ledger(store_of(lake)).record_coverage({part_of(table, BTC): [answer]}, origin)


def _part(first: int, last: int) -> TimeRange:
    return TimeRange(T0 + first * MINUTE, T0 + last * MINUTE)


def _found(lake: Lake) -> list[tuple[object, ...]]:
    lake.quality.check()
    rows = lake.quality.findings().filter(
        pl.col("check").is_in(["gaps", "not_given"]), status="open"
    )
    return sorted(rows.select("timestamp", "end", "rows", "reason").rows())


@pytest.mark.parametrize("lost", [(0, 12), (228, 240)])
def test_lost_heads_and_tails_of_covered_bars_are_found(lake: Lake, lost: tuple[int, int]) -> None:
    write(lake, "bars_1m", bars(COUNT))
    _cover(lake, "bars_1m", ALL, COUNT)
    assert _found(lake) == []
    part = _part(*lost)
    delete(lake, "bars_1m", BTC, part)
    # Of one answer, the tail is named: which end it was cannot be told if both may have had rows.
    assert _found(lake) == [(part.start, part.end, 12, "gone")]


def test_an_end_without_rows_that_was_never_given_any_is_no_loss(lake: Lake) -> None:
    write(lake, "bars_1m", bars(COUNT))
    _cover(lake, "bars_1m", TimeRange(T0 - DAY, T0 - DAY / 2), 0, "empty")
    _cover(lake, "bars_1m", TimeRange(T0 - DAY / 2, ALL.end), COUNT)
    _cover(lake, "bars_1m", TimeRange(ALL.end, ALL.end + DAY), 0)
    assert _found(lake) == []


def test_of_an_answer_that_began_before_its_rows_as_many_slots_as_are_gone(lake: Lake) -> None:
    write(lake, "bars_1m", bars(COUNT))
    _cover(lake, "bars_1m", TimeRange(T0 - DAY / 2, ALL.end), COUNT)
    delete(lake, "bars_1m", BTC, _part(0, 7))
    assert _found(lake) == [(T0, T0 + 7 * MINUTE, 7, "gone")]


def test_a_gap_is_not_reported_at_an_end_as_well(lake: Lake) -> None:
    write(lake, "bars_1m", bars(COUNT))
    _cover(lake, "bars_1m", TimeRange(T0 - DAY / 2, ALL.end), COUNT)
    delete(lake, "bars_1m", BTC, _part(100, 110))
    assert [row[2:] for row in _found(lake)] == [(10, "unknown")]


def test_a_market_of_which_all_rows_are_gone_is_found(lake: Lake) -> None:
    write(lake, "bars_1m", bars(COUNT))
    _cover(lake, "bars_1m", ALL, COUNT)
    delete(lake, "bars_1m", BTC, ALL)
    assert _found(lake) == [(ALL.start, ALL.end, COUNT, "gone")]


def test_lost_tails_of_trades_are_found_and_what_was_not_given_is_not(lake: Lake) -> None:
    write(lake, "trades", trades(3))
    last = T0 + timedelta(hours=1)
    _cover(lake, "trades", TimeRange(T0, last), 3)
    assert _found(lake) == []
    _cover(lake, "trades", TimeRange(last, last + timedelta(hours=1)), 5)
    _cover(lake, "trades", TimeRange(T0 - timedelta(hours=1), T0), 0, NOT_GIVEN)
    reasons = {(row[0], row[3]) for row in _found(lake)}
    after_last_row = T0 + timedelta(seconds=2, milliseconds=1)
    assert reasons == {(after_last_row, "gone"), (T0 - timedelta(hours=1), "not_given")}
