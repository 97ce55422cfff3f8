"""Defects at random places of clean rows, with the truth of what was done and where.

gap, duplicate, local_time, unit_seconds, unit_milliseconds     any rows with a time
ohlc, level_mismatch, price_factor, zero_volume, frozen         bars
whole, close, open, high, low                                   bars: spikes, by shape
day_jump                                                        bars: all from a midnight on
id_skip, id_conflict, trade_spike                               trades
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lake.sandbox import SyntheticMarkets
from lake.sandbox.intervals import INTERVALS

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]

SPIKES = ("whole", "close", "open", "high", "low")
PRICES = ("open", "high", "low", "close")
WINDOW_ROWS = 240
EDGE_ROWS = 130  # nothing is done so near the ends: a check needs to see what is around
LEAST_DEVIATION = 1e-4


@dataclass(frozen=True)
class Defect:
    """What was done: the kind, the interval `[start, end)` by the clean rows, and how many rows."""

    kind: str
    start: datetime
    end: datetime
    rows: int


@dataclass(frozen=True)
class Injected:
    """The rows with the defects, and the truth."""

    frame: pl.DataFrame
    truth: list[Defect]


def inject(
    frame: pl.DataFrame,
    kind: str,
    random: np.random.Generator,
    *,
    count: int = 1,
    rows: int = 1,
    size: float = 10.0,
    pure: bool = False,
) -> Injected:
    """Inject `count` defects of a kind into clean rows, each in its own part of the rows.

    Parameters
    ----------
    frame
        Clean rows of one market, in order of time.
    rows
        How many neighbouring rows each defect takes.
    size
        Of spikes and jumps: how many deviations. Of `price_factor`: the factor. Of `local_time`:
        hours. Of `level_mismatch`: how many units in the last place of a price.
    pure
        Whether a deviation is the bare median absolute return, however the market jumps.
    """
    places = _midnights(frame, random, count) if kind == "day_jump" else None
    if places is None:
        places = _places(frame.height, random, count, rows)
    injected = _KINDS[kind](_Task(frame, kind, random, places, rows, size, pure))
    times = frame["timestamp"]
    step = times.diff().min()
    assert isinstance(step, timedelta)
    truth = [Defect(kind, times[p], times[p + rows - 1] + step, rows) for p in places.tolist()]
    return Injected(injected, truth)


@dataclass(frozen=True)
class _Task:
    frame: pl.DataFrame
    kind: str
    random: np.random.Generator
    places: Numbers
    rows: int
    size: float
    pure: bool

    def all_rows(self) -> Numbers:
        """Every row of every defect."""
        return np.asarray((self.places[:, None] + np.arange(self.rows)).ravel())

    def mask(self) -> pl.Series:
        marks = np.zeros(self.frame.height, dtype=np.bool_)
        marks[self.all_rows()] = True
        return pl.Series(marks)

    def column(self, name: str) -> Floats:
        return self.frame[name].to_numpy().copy()

    def signs(self) -> Floats:
        return self.random.choice(np.array([-1.0, 1.0]), len(self.places))


def _places(height: int, random: np.random.Generator, count: int, rows: int) -> Numbers:
    """First rows, one in each of `count` equal parts, so that no defect touches another."""
    bounds = np.linspace(EDGE_ROWS, height - EDGE_ROWS, count + 1).astype(np.int64)
    free = np.diff(bounds) - rows - 1
    assert (free > 0).all(), "too many defects for so few rows"
    return np.asarray(bounds[:-1] + (random.random(count) * free).astype(np.int64))


def _midnights(frame: pl.DataFrame, random: np.random.Generator, count: int) -> Numbers:
    days = frame["timestamp"].dt.date()
    firsts = np.flatnonzero((days != days.shift(1)).fill_null(value=False).to_numpy())
    return np.sort(random.choice(firsts, count, replace=False))


def deviations(frame: pl.DataFrame, places: Numbers, *, pure: bool = False) -> Floats:
    """The size of a deviation at some rows of bars: of the window around each, in logarithms."""
    opens, closes = np.log(frame["open"].to_numpy()), np.log(frame["close"].to_numpy())
    returns, jumps = np.abs(np.diff(closes)), np.abs(opens[1:] - closes[:-1])
    sizes = []
    for place in places.tolist():
        window = slice(max(place - WINDOW_ROWS // 2, 0), place + WINDOW_ROWS // 2)
        edge = 0.0 if pure else np.quantile(jumps[window], 0.9)
        sizes.append(max(float(np.median(returns[window])), float(edge), LEAST_DEVIATION))
    return np.array(sizes)


def _gap(task: _Task) -> pl.DataFrame:
    return task.frame.filter(~task.mask())


def _duplicate(task: _Task) -> pl.DataFrame:
    return pl.concat([task.frame, task.frame.filter(task.mask())]).sort("timestamp")


def _moved(change: Callable[[pl.Expr, float], pl.Expr]) -> Callable[[_Task], pl.DataFrame]:
    def apply(task: _Task) -> pl.DataFrame:
        time = pl.col("timestamp")
        moved = change(time, task.size)
        return task.frame.with_columns(pl.when(task.mask()).then(moved).otherwise(time))

    return apply


def _ohlc(task: _Task) -> pl.DataFrame:
    """The high below both ends of the bar, or the low above them."""
    high, low = task.column("high"), task.column("low")
    rows = task.all_rows()
    ends = np.stack([task.column("open")[rows], task.column("close")[rows]])
    below = task.random.random(len(rows)) < 0.5
    high[rows] = np.where(below, ends.min(axis=0) * 0.999, high[rows])
    low[rows] = np.where(below, low[rows], ends.max(axis=0) * 1.001)
    return _with(task, high=high, low=low)


def _level_mismatch(task: _Task) -> pl.DataFrame:
    """One column of a bar, by a little: prices in the last digits, a volume by a millionth."""
    names = ("high", "low", "volume")
    columns = {name: task.column(name) for name in names}
    factors = {"high": 1 + task.size * 1e-9, "low": 1 - task.size * 1e-9, "volume": 1 + 1e-6}
    for row in task.all_rows().tolist():
        name = names[int(task.random.integers(len(names)))]
        columns[name][row] *= factors[name]
    return _with(task, **columns)


def _price_factor(task: _Task) -> pl.DataFrame:
    return _with(task, **{name: _times(task, name, task.size) for name in PRICES})


def _zero_volume(task: _Task) -> pl.DataFrame:
    return _with(task, volume=_times(task, "volume", 0.0))


def _frozen(task: _Task) -> pl.DataFrame:
    """All prices of the run are the close before it."""
    closes = task.column("close")
    columns = {name: task.column(name) for name in PRICES}
    for place in task.places.tolist():
        for column in columns.values():
            column[place : place + task.rows] = closes[place - 1]
    return _with(task, **columns)


def _day_jump(task: _Task) -> pl.DataFrame:
    """All prices from a midnight on, up to the next of the places."""
    moves = np.zeros(task.frame.height)
    scale = deviations(task.frame, task.places, pure=task.pure)
    for place, move in zip(task.places.tolist(), scale * task.size * task.signs(), strict=True):
        moves[place:] += move
    return _with(task, **{name: task.column(name) * np.exp(moves) for name in PRICES})


def _spike(task: _Task) -> pl.DataFrame:
    """One price, or all of a bar; high and low still hold the others."""
    columns = {name: task.column(name) for name in PRICES}
    scale = deviations(task.frame, task.places, pure=task.pure)
    signs = {"high": 1.0, "low": -1.0}.get(task.kind, task.signs())
    move = np.exp(scale * task.size * signs)
    at = task.places
    top = np.maximum(columns["open"][at], columns["close"][at])
    bottom = np.minimum(columns["open"][at], columns["close"][at])
    if task.kind == "high":
        columns["high"][at] = np.maximum(columns["high"][at], top * move)
    elif task.kind == "low":
        columns["low"][at] = np.minimum(columns["low"][at], bottom * move)
    else:
        for name in PRICES if task.kind == "whole" else (task.kind,):
            columns[name][at] *= move
        columns["high"][at] = np.maximum(columns["high"][at], columns[_price_of(task.kind)][at])
        columns["low"][at] = np.minimum(columns["low"][at], columns[_price_of(task.kind)][at])
    return _with(task, **columns)


def _price_of(kind: str) -> str:
    return "open" if kind == "open" else "close"


def _id_conflict(task: _Task) -> pl.DataFrame:
    """The same id again, a second later."""
    again = task.frame.filter(task.mask()).with_columns(pl.col("timestamp").dt.offset_by("1s"))
    return pl.concat([task.frame, again]).sort("timestamp")


def _trade_spike(task: _Task) -> pl.DataFrame:
    return _with(task, price=_times(task, "price", 1 + task.size / 100))


def _times(task: _Task, name: str, factor: float) -> Floats:
    values = task.column(name)
    values[task.all_rows()] *= factor
    return values


def _with(task: _Task, **columns: Floats) -> pl.DataFrame:
    return task.frame.with_columns(**{name: pl.Series(data) for name, data in columns.items()})


def _scaled(factor: float) -> Callable[[pl.Expr, float], pl.Expr]:
    def change(time: pl.Expr, _: float) -> pl.Expr:
        scaled = (time.dt.timestamp("us") * factor).cast(pl.Int64)
        return scaled.cast(pl.Datetime("us", "UTC"))

    return change


def _shifted(time: pl.Expr, hours: float) -> pl.Expr:
    return time + timedelta(hours=hours)


_KINDS: dict[str, Callable[[_Task], pl.DataFrame]] = {
    "gap": _gap,
    "duplicate": _duplicate,
    "local_time": _moved(_shifted),
    "unit_seconds": _moved(_scaled(1e-3)),  # seconds taken for milliseconds: times in 1970
    "unit_milliseconds": _moved(_scaled(50.0)),  # too late by far: the year 4677
    "ohlc": _ohlc,
    "level_mismatch": _level_mismatch,
    "price_factor": _price_factor,
    "zero_volume": _zero_volume,
    "frozen": _frozen,
    "day_jump": _day_jump,
    "id_skip": _gap,
    "id_conflict": _id_conflict,
    "trade_spike": _trade_spike,
} | dict.fromkeys(SPIKES, _spike)


def sandbox_bars(market: int, start: datetime, days: int, timeframe: str = "1m") -> pl.DataFrame:
    """Clean bars of one of the sandbox's markets, by number."""
    synthetic = SyntheticMarkets()
    first = int(start.timestamp()) * 1000
    end = first + days * 86_400_000
    bars = synthetic.bars(synthetic.markets[market], INTERVALS[timeframe], first, end)
    columns = {
        "timestamp": bars.open_ms,
        **{name: getattr(bars, name) for name in (*PRICES, "volume", "quote_volume")},
        "trade_count": bars.trades,
        "taker_buy_volume": bars.taker_volume,
        "taker_buy_quote_volume": bars.taker_quote_volume,
    }
    return _typed(pl.DataFrame(columns))


def sandbox_trades(market: int, start: datetime, days: int) -> pl.DataFrame:
    """Clean trades of one of the sandbox's markets, by number."""
    synthetic = SyntheticMarkets()
    first = int(start.timestamp()) * 1000
    named = synthetic.markets[market]
    span = [synthetic.position_at(named, first + n * 86_400_000) for n in (0, days)]
    trades = synthetic.trades(named, *span)
    frame = pl.DataFrame(
        {
            "timestamp": trades.times_ms,
            "trade_id": [str(number) for number in trades.ids],
            "price": trades.prices,
            "amount": trades.amounts,
            "side": ["sell" if sell else "buy" for sell in trades.sells],
            "first_id": trades.ids,
            "last_id": trades.ids,
        }
    )
    return _typed(frame)


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    texts = [name for name in frame.columns if name not in {"trade_id", "side"}]
    numbers = [pl.col(name).cast(pl.Float64) for name in texts if frame[name].dtype == pl.String]
    time = pl.from_epoch("timestamp", time_unit="ms").cast(pl.Datetime("us")).dt
    return frame.with_columns(*numbers, time.replace_time_zone("UTC"))
