"""Bars from trades and from finer bars: what a naive loop gives, and only where all is there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.model.dataset import TIMESTAMP
from lake.model.derive import (
    BARS,
    derive_from_bars,
    derive_from_trades,
    find_complete_slots,
    floor_times,
    list_slots,
    nests,
)
from lake.model.grid import Grid
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from tests.conftest import MINUTE, SECOND, T0
from tests.paths import SHARED

DATA = SHARED / "cex"
M1, M5 = Grid(Timeframe.parse("1m")), Grid(Timeframe.parse("5m"))
HOUR = timedelta(hours=1)
GRIDS = [
    *(Grid(Timeframe.parse(n)) for n in ("1s", "1m", "7m", "1h", "1d", "3d", "1w", "2w")),
    *(Grid(Timeframe.parse(n)) for n in ("1M", "3M")),
    *(Grid(Timeframe.parse(n), hours * HOUR) for n, hours in (("1d", 16), ("1w", 72), ("1M", -8))),
]
TIMES = st.integers(-(10**15), 2 * 10**15).map(lambda us: T0 + timedelta(microseconds=us))


def _trades(
    times: list[datetime], prices: list[float] | None = None, **columns: Any
) -> pl.DataFrame:
    """Trades with whole numbers, so that sums are exact, and ids that count."""
    count = len(times)
    return pl.DataFrame(
        {
            "timestamp": times,
            "trade_id": [str(n) for n in range(count)],
            "price": prices or [float(n % 7 + 1) for n in range(count)],
            "amount": [float(n % 3 + 1) for n in range(count)],
            "side": ["buy" if n % 2 else "sell" for n in range(count)],
            "first_id": [None] * count,
            "last_id": [None] * count,
            **columns,
        },
        schema_overrides={"timestamp": TIMESTAMP, "first_id": pl.Int64, "last_id": pl.Int64},
    )


def _opens(times: list[datetime]) -> pl.Series:
    return pl.Series("timestamp", times, dtype=TIMESTAMP)


@given(TIMES, st.sampled_from(GRIDS))
def test_open_times_are_those_of_the_timeframe(time: datetime, grid: Grid) -> None:
    assert floor_times(_opens([time]), grid).to_list() == [grid.floor(time)]


@given(TIMES, st.sampled_from(GRIDS), st.integers(0, 30), st.floats(0.01, 0.99))
def test_slots_are_all_open_times_of_a_range(
    time: datetime, grid: Grid, bars: int, part: float
) -> None:
    last = grid.after(grid.ceiling(time), bars)
    window = TimeRange(time, last + part * (grid.after(last) - last))
    expected, at = [], grid.ceiling(window.start)
    while at < window.end:
        expected.append(at)
        at = grid.after(at)
    assert len(expected) == bars + 1
    assert list_slots(window, grid).to_list() == expected


MOMENTS = st.lists(st.integers(0, 3600 * 10), min_size=1, max_size=80).map(sorted)


@given(MOMENTS, st.sampled_from([M1, M5]))
def test_bars_of_trades_are_what_a_loop_gives(moments: list[int], grid: Grid) -> None:
    trades = _trades([T0 + SECOND * n / 10 for n in moments])
    expected: dict[datetime, dict[str, Any]] = {}
    for trade in trades.iter_rows(named=True):
        price, amount, bought = trade["price"], trade["amount"], trade["side"] == "buy"
        bar = expected.setdefault(
            grid.floor(trade["timestamp"]),
            {"open": price, "high": price, "low": price, "trade_count": 0}
            | dict.fromkeys(list(BARS)[5:7], 0.0)
            | dict.fromkeys(list(BARS)[8:10], 0.0),
        )
        bar["high"], bar["low"] = max(bar["high"], price), min(bar["low"], price)
        bar["close"] = price
        bar["volume"] += amount
        bar["quote_volume"] += price * amount
        bar["trade_count"] += 1
        bar["taker_buy_volume"] += amount * bought
        bar["taker_buy_quote_volume"] += price * amount * bought
    rows = [
        {"timestamp": time, **bar, "closed": True, "fill": "derived:trades"}
        for time, bar in sorted(expected.items())
    ]
    derived = derive_from_trades(trades, grid)
    assert_frame_equal(derived, pl.DataFrame(rows, schema=BARS), check_exact=True)
    shuffled = trades.sample(fraction=1, shuffle=True, seed=1)
    assert_frame_equal(derive_from_trades(shuffled, grid), derived)


@given(MOMENTS)
def test_bars_of_bars_of_trades_are_bars_of_the_trades(moments: list[int]) -> None:
    """Minutes without a trade are flat, as venues send them: they change nothing."""
    trades = _trades([T0 + SECOND * n / 10 for n in moments])
    bars = derive_from_trades(trades, M1).with_columns(fill=pl.lit(None, pl.String))
    whole = TimeRange(T0, T0 + timedelta(hours=1, minutes=5))
    every = pl.DataFrame({"timestamp": list_slots(whole, M1)})
    prices = ("open", "high", "low", "close")
    flat = (
        every.join(bars, on="timestamp", how="left")
        .sort("timestamp")
        .with_columns(
            pl.col("close").forward_fill().backward_fill(), pl.lit(value=True).alias("closed")
        )
    )
    flat = flat.with_columns(
        *(pl.col(name).fill_null(pl.col("close")) for name in prices),
        pl.col(
            "volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume"
        ).fill_null(0),
    )
    derived = derive_from_bars(flat, M1, M5)
    assert derived.height == 13
    assert set(derived["fill"]) == {"derived:bars_1m"}
    direct = derive_from_trades(trades, M5).drop("fill")
    assert_frame_equal(derived.filter(pl.col("volume") > 0).drop("fill"), direct, check_exact=True)


def _minutes(count: int = 5, **columns: Any) -> pl.DataFrame:
    trades = _trades([T0 + n * MINUTE for n in range(count)])
    return derive_from_trades(trades, M1).with_columns(
        **{"fill": pl.lit(None, pl.String), **columns}
    )


FIRST = pl.col("timestamp") == T0


@pytest.mark.parametrize(
    "bars",
    [
        _minutes(4),
        _minutes(closed=~FIRST),
        _minutes(fill=pl.when(FIRST).then(pl.lit("interpolated:flat"))),
    ],
    ids=["missing", "open", "interpolated"],
)
def test_a_bar_of_which_a_part_is_no_data_is_not_made(bars: pl.DataFrame) -> None:
    assert derive_from_bars(bars, M1, M5).is_empty()
    assert derive_from_bars(_minutes(), M1, M5).height == 1


def test_parts_that_were_derived_count_and_unknown_sums_stay_unknown() -> None:
    bars = _minutes(
        fill=pl.lit("derived:trades"), quote_volume=pl.when(~FIRST).then("quote_volume")
    )
    [derived] = derive_from_bars(bars, M1, M5).rows(named=True)
    assert derived["quote_volume"] is None
    assert derived["trade_count"] == 5


@pytest.mark.parametrize(
    ("finer", "coarser", "does"),
    [
        ("1m", "5m", True),
        ("5m", "1m", False),
        ("1m", "1m", False),
        ("3m", "5m", False),
        ("1d", "1w", True),
        ("7d", "2w", False),
        ("2d", "1w", False),
        ("1w", "2w", True),
        ("1d", "1M", True),
        ("1w", "1M", False),
        ("1M", "3M", True),
        ("2M", "3M", False),
        ("1M", "1w", False),
        ("5h", "1d", False),
        ("5h", "1M", False),
    ],
)
def test_what_nests_in_what(finer: str, coarser: str, does: bool) -> None:
    assert nests(Grid(Timeframe.parse(finer)), Grid(Timeframe.parse(coarser))) is does


def test_a_month_is_made_of_as_many_days_as_it_has() -> None:
    days, month = Grid(Timeframe.parse("1d")), Grid(Timeframe.parse("1M"))
    trades = _trades([datetime(2024, 2, 1, tzinfo=UTC) + timedelta(days=n) for n in range(29)])
    bars = derive_from_trades(trades, days).with_columns(fill=pl.lit(None, pl.String))
    assert derive_from_bars(bars, days, month)["timestamp"].to_list() == [
        datetime(2024, 2, 1, tzinfo=UTC)
    ]
    assert derive_from_bars(bars.head(28), days, month).is_empty()


def test_aggregated_trades_count_the_trades_inside() -> None:
    trades = _trades([T0, T0 + SECOND], first_id=[10, 14], last_id=[13, 14])
    assert derive_from_trades(trades, M1)["trade_count"].to_list() == [5]


def test_unknown_sides_leave_the_takers_volume_unknown() -> None:
    trades = _trades([T0, T0 + SECOND], side=pl.Series([None, "buy"], dtype=pl.String))
    [bar] = derive_from_trades(trades, M1).rows(named=True)
    assert bar["taker_buy_volume"] is bar["taker_buy_quote_volume"] is None
    assert bar["volume"] == 3.0


def test_a_bar_whose_first_price_cannot_be_known_is_left_out() -> None:
    ids = {"trade_id": ["a", "b", "c"]}
    at_once = _trades([T0, T0, T0 + SECOND], [1.0, 2.0, 3.0], **ids)
    assert derive_from_trades(at_once, M1).is_empty()
    assert (
        derive_from_trades(_trades([T0, T0, T0 + SECOND], [1.0, 1.0, 3.0], **ids), M1).height == 1
    )
    assert derive_from_trades(_trades([T0, T0, T0 + SECOND], [1.0, 2.0, 3.0]), M1).height == 1


ONE = _opens([T0 + MINUTE])
COVERED = (TimeRange(T0, T0 + 5 * MINUTE),)


def _at(seconds: list[int], ids: list[Any]) -> pl.DataFrame:
    return _trades([T0 + n * SECOND for n in seconds], trade_id=[str(number) for number in ids])


@pytest.mark.parametrize(
    ("trades", "covered", "complete"),
    [
        (_at([50, 70, 130], [1, 2, 3]), (), True),
        (_at([50, 130], [1, 2]), (), True),
        (_at([60, 70, 130], [1, 2, 3]), (), False),
        (_at([50, 70, 119], [1, 2, 3]), (), False),
        (_at([50, 70, 120], [1, 2, 3]), (), True),
        (_at([50, 70, 130], [1, 2, 4]), (), False),
        (_at([50, 70, 130, 140, 150], [1, 2, 4, 5, 6]), COVERED, False),
        (_at([30, 40, 50, 70, 130], [1, 3, 4, 5, 6]), (), True),
        (_at([50, 70, 130], [1, 2, 3]), COVERED, True),
        (_at([70], [1]), COVERED, True),
        (_at([70], [1]), (TimeRange(T0, T0 + 1.5 * MINUTE),), False),
        (_at([50, 70, 130], [17, 99, 1234]), COVERED, True),
        (_at([50, 70, 130], [17, 99, 1234]), (), False),
        (_at([50, 70, 130], ["a", "b", "c"]), COVERED, True),
        (_at([50, 70, 130], ["a", "b", "c"]), (), False),
        (_at([], []), COVERED, True),
        (_at([], []), (), False),
    ],
)
def test_when_all_trades_of_a_bar_are_there(
    trades: pl.DataFrame, covered: tuple[TimeRange, ...], complete: bool
) -> None:
    assert find_complete_slots(trades, ONE, M1, covered).to_list() == [complete]


@given(st.sets(st.integers(0, 299), max_size=20), st.integers(1, 9))
def test_no_bar_with_a_lost_trade_passes_for_complete(lost: set[int], step: int) -> None:
    every = _trades([T0 + n * step * SECOND for n in range(300)])
    kept = every.filter(~pl.col("trade_id").is_in([str(n) for n in lost]))
    end = T0 + 300 * step * SECOND
    opens = list_slots(TimeRange(T0, end), M1)
    for covered in ((), (TimeRange(T0, end + MINUTE),)):
        complete = opens.filter(find_complete_slots(kept, opens, M1, covered))
        kinds = [derive_from_trades(rows, M1) for rows in (kept, every)]
        bars, truth = (b.filter(pl.col("timestamp").is_in(complete.implode())) for b in kinds)
        inner = sorted(lost) and (min(lost) == 0 or max(lost) == 299)
        if not (covered and inner):  # a loss at the edge of what was asked for leaves no skip
            assert_frame_equal(bars, truth)


def test_bars_of_recorded_trades_equal_the_2469_of_the_venue() -> None:
    if not DATA.is_dir():
        pytest.skip("recorded data are not beside the checkout (../shared/data/cex)")
    trades = pl.read_parquet(DATA / "trades" / "binance_XRP-ETH.parquet")
    trades = trades.with_columns(
        pl.col("timestamp").cast(TIMESTAMP),
        pl.col("id").cast(pl.String).alias("trade_id"),
        pl.col("side").cast(pl.String),
        first_id=pl.lit(None, pl.Int64),
        last_id=pl.lit(None, pl.Int64),
    )
    truth = pl.read_parquet(DATA / "bars" / "binance_XRP-ETH_1m.parquet")
    columns = ["timestamp", "open", "high", "low", "close", "volume"]
    derived = derive_from_trades(trades, M1)
    assert derived.height == 2_469
    expected = truth.select(columns).with_columns(pl.col("timestamp").cast(TIMESTAMP))
    assert_frame_equal(derived.select(columns), expected, check_exact=True)
