"""Derive bars from finer data: from trades, and from bars of a finer timeframe. Pure.

A derived bar has its method in `fill`, and is derived only where no finer data are missing. It is
known when the last of them is: if that was received after the end of the bar, the bar has its
`received_at`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from lake.model.dataset import RECEIVED_AT, TIMESTAMP
from lake.model.grid import Grid, end_of
from lake.model.intervals import RangeSet
from lake.model.ohlcv import aggregate_bars, aggregate_trades, mark_traded_prices, weigh_trades
from lake.model.time import EPOCH, MICROSECOND, TimeRange
from lake.model.timeframe import Timeframe
from lake.model.units import Units
from lake.model.visibility import carry_receipt

FROM_TRADES = "derived:trades"
INTERPOLATED = "interpolated:"
"""Prefix of `fill` where a value is not made of data of the venue."""

BARS = pl.Schema(
    {
        "timestamp": TIMESTAMP,
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),
        "quote_volume": pl.Float64(),
        "trade_count": pl.Int64(),
        "taker_buy_volume": pl.Float64(),
        "taker_buy_quote_volume": pl.Float64(),
        "closed": pl.Boolean(),
        "fill": pl.String(),
        RECEIVED_AT: TIMESTAMP,
    }
)
"""Columns of derived bars: those of the dataset `bars` without the market."""

_DAY_SECONDS = 86400
_BASE = Units()
_LAST_RECEIPT = {RECEIVED_AT: pl.col(RECEIVED_AT).max()}
# Share of steps of one between ids of a venue that numbers the trades of each market one by one.
_CONSECUTIVE = 0.5


def list_slots(window: TimeRange, grid: Grid) -> pl.Series:
    """List the open times of all bars that open in a range."""
    first, timeframe = grid.ceiling(window.start), grid.timeframe
    if timeframe.unit == "M":
        opens = []
        while first < window.end:
            opens.append(first)
            first = grid.after(first)
        return pl.Series("timestamp", opens, dtype=TIMESTAMP)
    # Polars' own range of times is five times slower, which matters for many windows.
    start, end = ((time - EPOCH) // MICROSECOND for time in (first, max(first, window.end)))
    every = np.arange(start, end, timeframe.seconds * 1_000_000, dtype=np.int64)
    return pl.Series("timestamp", every).cast(TIMESTAMP)


def floor_times(times: pl.Series, grid: Grid) -> pl.Series:
    """Round times down to the open time of their bar."""
    timeframe = grid.timeframe
    if timeframe.unit == "M":
        months = (times - grid.offset).dt.truncate("1mo")
        opens = {month: timeframe.floor(month) + grid.offset for month in months.unique()}
        return months.replace_strict(opens, return_dtype=TIMESTAMP).alias("timestamp")
    origin = (grid.floor(datetime(2000, 1, 1, tzinfo=UTC)) - EPOCH) // MICROSECOND
    step = timeframe.seconds * 1_000_000
    passed = times.to_physical() - origin
    return (passed - passed % step + origin).cast(TIMESTAMP).alias("timestamp")


def derive_from_trades(trades: pl.DataFrame, grid: Grid, units: Units = _BASE) -> pl.DataFrame:
    """Derive bars from trades, one for each interval with a trade.

    Bars whose first or last price is unknown are omitted: several trades have the same time and
    different prices, and their ids do not define an order, or run against the time. Sums are
    of doubles: they differ from the venue's decimals by some units in the last place.

    Parameters
    ----------
    trades
        `timestamp`, `trade_id`, `price`, `amount`, `side`, `first_id`, `last_id`, and
        `received_at` if it is recorded, of one market.
    units
        Units of its amounts and volumes.

    Returns
    -------
    DataFrame
        `BARS`, in order; `trade_count` counts the trades inside aggregated ones.
    """
    number = pl.col("trade_id").cast(pl.Int64, strict=False).alias("_number")
    rows = add_receipt(trades).with_columns(number)
    by_number = rows.sort("_number", maintain_order=True)
    is_numbered = not rows["_number"].null_count() and by_number["timestamp"].is_sorted()
    rows = by_number if is_numbered else rows.sort("timestamp", maintain_order=True)
    rows = rows.with_columns(
        floor_times(rows["timestamp"], grid).alias("_opens"), **weigh_trades(units)
    )
    price, time = pl.col("price"), pl.col("timestamp")
    unsure = [price.filter(time == end).n_unique() > 1 for end in (time.min(), time.max())]
    counts = {"trade_count": pl.coalesce("_inside", 1).sum()}
    bars = rows.group_by("_opens").agg(
        **{**aggregate_trades(), **counts},
        **_LAST_RECEIPT,
        _unsure=pl.lit(value=False) if is_numbered else pl.any_horizontal(unsure),
    )
    return _finish_bars(bars.filter(~pl.col("_unsure")), FROM_TRADES, grid)


def find_complete_slots(
    trades: pl.DataFrame, opens: pl.Series, grid: Grid, covered: RangeSet
) -> pl.Series:
    """Find bars of which all trades are stored.

    They are if the venue has answered for the whole bar, or if ids are consecutive from a trade
    before the bar to one after it. Where ids are mostly consecutive, a missing id within the bar
    excludes it in both cases.

    Parameters
    ----------
    trades
        `timestamp` and `trade_id` of one market, in and around the bars.
    opens
        Open times of bars, sorted.
    covered
        Ranges of trades that were fetched.

    Returns
    -------
    Series
        One boolean per open time.
    """
    starts = opens.to_physical().to_numpy()
    ends = _find_ends(opens, grid)
    inside = _is_inside(starts, ends, covered)
    ids = trades.select("timestamp", pl.col("trade_id").cast(pl.Int64, strict=False).alias("id"))
    if ids.is_empty() or ids["id"].null_count():
        return pl.Series(inside)
    ids = ids.sort("id")
    times, steps = ids["timestamp"].to_physical().to_numpy(), np.diff(ids["id"].to_numpy())
    skips = np.flatnonzero(steps != 1)
    whole = ~_is_touched(starts, ends, times[skips], times[skips + 1])
    around = (times[0] < starts) & (times[-1] >= ends)
    consecutive = len(steps) and float((steps == 1).mean()) > _CONSECUTIVE
    return pl.Series((inside & whole if consecutive else inside) | (around & whole))


def nests(finer: Grid, coarser: Grid) -> bool:
    """Whether each bar of the coarser grid consists of whole bars of the finer."""
    if finer.timeframe.unit == "M":
        is_aligned = finer.offset == coarser.offset
    else:
        step = timedelta(seconds=finer.timeframe.seconds)
        is_aligned = not (coarser.offset - finer.offset) % step
    return is_aligned and _divides(finer.timeframe, coarser.timeframe)


def _divides(finer: Timeframe, coarser: Timeframe) -> bool:
    if finer.unit == "M":
        longer = finer.count < coarser.count
        return coarser.unit == "M" and longer and coarser.count % finer.count == 0
    if finer.seconds >= coarser.seconds:
        return False
    if coarser.unit in "wM" and finer.unit != coarser.unit:
        return finer.unit != "w" and _DAY_SECONDS % finer.seconds == 0
    return coarser.seconds % finer.seconds == 0


def derive_from_bars(bars: pl.DataFrame, finer: Grid, grid: Grid) -> pl.DataFrame:
    """Derive bars from finer bars, one for each interval of which all finer bars are stored.

    Prices are those of finer bars with a volume, if there are any: a bar without trades repeats the
    last price from before. Bars that are still open, or were interpolated, count as missing.

    Parameters
    ----------
    bars
        Columns of the dataset `bars`, of one market; `finer` must nest in `grid`.

    Returns
    -------
    DataFrame
        `BARS`, in order. A sum is null where one of its parts is.
    """
    invented = pl.col("fill").str.starts_with(INTERPOLATED).fill_null(value=False)
    rows = add_receipt(bars).filter("closed", ~invented).sort("timestamp")
    rows = rows.with_columns(
        floor_times(rows["timestamp"], grid).alias("_opens"), **mark_traded_prices()
    )
    bars = rows.group_by("_opens").agg(**aggregate_bars(), **_LAST_RECEIPT, _parts=pl.len())
    parts = [_count_parts(opens, finer.timeframe, grid) for opens in bars["_opens"]]
    whole = bars.filter(pl.col("_parts") == pl.Series(parts, dtype=pl.UInt32))
    return _finish_bars(whole, f"derived:bars_{finer.timeframe.table_suffix}", grid)


def add_receipt(rows: pl.DataFrame) -> pl.DataFrame:
    """Add a column `received_at` of nulls to rows of which no receipt is recorded."""
    if RECEIVED_AT in rows.columns:
        return rows
    return rows.with_columns(pl.lit(None, dtype=TIMESTAMP).alias(RECEIVED_AT))


def _finish_bars(bars: pl.DataFrame, fill: str, grid: Grid) -> pl.DataFrame:
    marked = bars.with_columns(
        carry_receipt(end_of(pl.col("_opens"), grid.timeframe), pl.col(RECEIVED_AT)),
        timestamp=pl.col("_opens"),
        closed=pl.lit(value=True),
        fill=pl.lit(fill),
    )
    return marked.select(BARS.names()).cast(BARS).sort("timestamp")


def _count_parts(opens: datetime, finer: Timeframe, grid: Grid) -> int:
    """Count the finer bars of a bar."""
    if finer.unit == "M":
        return grid.timeframe.count // finer.count
    return (grid.after(opens) - opens) // timedelta(seconds=finer.seconds)


def _find_ends(opens: pl.Series, grid: Grid) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if grid.timeframe.unit == "M":
        ends = pl.Series([grid.after(time) for time in opens], dtype=TIMESTAMP)
        return ends.to_physical().to_numpy()
    return opens.to_physical().to_numpy() + grid.timeframe.seconds * 1_000_000


def _is_inside(
    starts: np.ndarray[tuple[int], np.dtype[np.int64]],
    ends: np.ndarray[tuple[int], np.dtype[np.int64]],
    covered: RangeSet,
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each interval is within one of the ranges."""
    if not covered:
        return np.zeros(len(starts), dtype=np.bool_)
    bounds = pl.DataFrame(
        [(item.start, item.end) for item in covered],
        schema={"start": TIMESTAMP, "end": TIMESTAMP},
        orient="row",
    )
    first, last = (bounds[name].to_physical().to_numpy() for name in ("start", "end"))
    at = np.searchsorted(first, starts, side="right") - 1
    return np.asarray((at >= 0) & (last[np.maximum(at, 0)] >= ends))


def _is_touched(
    starts: np.ndarray[tuple[int], np.dtype[np.int64]],
    ends: np.ndarray[tuple[int], np.dtype[np.int64]],
    before: np.ndarray[tuple[int], np.dtype[np.int64]],
    after: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each interval touches a gap, given the times before and after each gap."""
    low, high = np.minimum(before, after), np.maximum(before, after)
    change = np.zeros(len(starts) + 1, dtype=np.int64)
    np.add.at(change, np.searchsorted(ends, low, side="right"), 1)
    np.add.at(change, np.searchsorted(starts, high, side="right"), -1)
    return np.asarray(np.cumsum(change)[:-1] > 0)
