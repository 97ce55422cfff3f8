"""Bars that a user's covered time lacks at its ends count like those in the middle."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import QualityError
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
from lake.store.store import Origin
from tests.conftest import DAY, MINUTE, T0, bars, store_of, trades

ROWS = bars(100)
ALL = (T0, T0 + 100 * MINUTE)


def _found(lake: Lake) -> list[tuple[object, ...]]:
    lake.quality.check()
    rows = lake.quality.findings().filter(status="open", check="gaps")
    return sorted(rows.select("timestamp", "rows", "reason", "severity").rows())


def _pin(lake: Lake) -> None:
    since, until = ALL
    lake.bundles.pin(
        "whole", table="bars_1m", since=since, until=until, require_complete=True, min_quality=1.0
    )


@pytest.mark.parametrize("first", [0, 40, 90])
def test_missing_bars_count_wherever_they_are(lake: Lake, first: int) -> None:
    missing = pl.int_range(pl.len()).is_between(first, first + 9)
    lake.write("bars_1m", ROWS.filter(~missing), covers=ALL)
    start = T0 + first * MINUTE
    assert _found(lake) == [(start, 10, "unknown", "error")]
    gaps = lake.quality.gaps("bars_1m")
    assert gaps.select("start", "end", "slots").rows() == [(start, start + 10 * MINUTE, 10)]
    [score] = lake.quality.scores("bars_1m")["score"]
    assert score == pytest.approx(0.9)
    with pytest.raises(QualityError, match=r"quality score of this selection is 0\.9"):
        _pin(lake)
    assert lake.status().select("holes", "rows_missing").rows() == [(0, 0)]
    lake.write("bars_1m", ROWS)
    assert _found(lake) == []
    _pin(lake)


def test_days_without_any_bar_are_missing(lake: Lake) -> None:
    hours = bars(24, step=timedelta(hours=1), start=T0 + 2 * DAY)
    lake.write("bars_1h", hours, covers=(T0, T0 + 4 * DAY))
    assert [row[:2] for row in _found(lake)] == [
        (T0, 24), (T0 + DAY, 24), (T0 + 3 * DAY, 24)
    ]  # fmt: skip
    assert lake.quality.gaps("bars_1h")["slots"].to_list() == [48, 24]


def test_a_market_whose_rows_are_all_outside_of_what_it_covers(lake: Lake) -> None:
    lake.write("bars_1m", ROWS, covers=(T0 - 10 * MINUTE, T0))
    assert [row[:2] for row in _found(lake)] == [(T0 - 10 * MINUTE, 10)]


def test_an_end_that_a_venue_answered_is_no_loss(lake: Lake) -> None:
    lake.write("bars_1m", ROWS)
    answer = CoveredRange(TimeRange(T0 - DAY, T0 + DAY), 100)
    market, origin = Market("binance", "BTC/USDT"), Origin("job", "ccxt:binance")
    Ledger(store_of(lake)).record_coverage({part_of("bars_1m", market): [answer]}, origin)
    assert _found(lake) == []


def test_a_venue_that_omits_bars_without_a_trade_is_not_reproached(lake: Lake) -> None:
    rows = ROWS.with_columns(exchange=pl.lit("coinbase"))
    lake.write("bars_1m", rows.slice(10, 80), covers=ALL)
    assert _found(lake) == []


def test_trades_need_none_at_the_ends(lake: Lake) -> None:
    lake.write("trades", trades(5), covers=(T0 - DAY, T0 + DAY))
    lake.quality.check()
    assert lake.quality.findings().filter(status="open", dimension="completeness").is_empty()
