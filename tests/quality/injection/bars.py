"""Kinds of defects of bars of one minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any

import numpy as np
import polars as pl

from lake.model.severity import Severity
from tests.quality.injection.count import Defect, Kind, Trial, find_all, pick_places, share_out
from tests.quality.injection.rows import FILES, PRICES, bars_slice, clean_bars

Columns = dict[str, np.ndarray[Any, np.dtype[np.float64]]]
VALUES = (*PRICES, "volume")
EDGE_ROWS = 130
SHARES = {"ftx_BTC-PERP_1m": 17, "binance_UNITTEST-BTC_1m": 17, "binance_XRP-ETH_1m": 16}
MOST = {"ftx_BTC-PERP_1m": 17, "binance_UNITTEST-BTC_1m": 9, "binance_XRP-ETH_1m": 4}  # of a run
DAY_SHARES = {"ftx_BTC-PERP_1m": 30, "binance_UNITTEST-BTC_1m": 18, "binance_XRP-ETH_1m": 2}
DAYS_OF_A_RUN = {"ftx_BTC-PERP_1m": 10, "binance_UNITTEST-BTC_1m": 3, "binance_XRP-ETH_1m": 1}
DAYS_APART = 3
DAY = pl.col("timestamp").dt.truncate("1d")
SEEN = 1e-3  # least distance of two closes, as a logarithm, of bars that are told apart
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Spot:
    """Where a defect is put: the first of its rows, and their number."""

    columns: Columns
    place: int
    rows: int
    random: np.random.Generator

    @property
    def part(self) -> slice:
        """The rows of the defect."""
        return slice(self.place, self.place + self.rows)


def scale_prices(spot: Spot, *, low: float, high: float) -> None:
    """Multiply or divide all prices by one factor."""
    factor = np.exp(spot.random.uniform(np.log(low), np.log(high)))
    factor = factor if spot.random.random() < 0.5 else 1 / factor
    for name in PRICES:
        spot.columns[name][spot.part] *= factor


def stretch(spot: Spot) -> None:
    """Raise the high, or lower the low, by 1 %."""
    if spot.random.random() < 0.5:
        spot.columns["high"][spot.part] *= 1.01
    else:
        spot.columns["low"][spot.part] *= 0.99


def stick(spot: Spot) -> None:
    """Let all prices be the last one before, while the volume goes on."""
    for name in PRICES:
        spot.columns[name][spot.part] = spot.columns["close"][spot.place - 1]


def repeat(spot: Spot) -> None:
    """Repeat the whole bar before."""
    for name in VALUES:
        spot.columns[name][spot.part] = spot.columns[name][spot.place - 1]


def multiply_volume(spot: Spot) -> None:
    """Multiply the volume by a thousand."""
    spot.columns["volume"][spot.part] *= 1000


def swap(spot: Spot) -> None:
    """Swap two neighbouring bars."""
    for name in VALUES:
        spot.columns[name][spot.part] = spot.columns[name][spot.part][::-1].copy()


def trades_on(spot: Spot) -> bool:
    """Whether all bars, and the one before, have volume."""
    return bool((spot.columns["volume"][spot.place - 1 : spot.part.stop] > 0).all())


def moves(spot: Spot) -> bool:
    """Whether the price visibly moves meanwhile."""
    closes = spot.columns["close"][spot.place - 1 : spot.part.stop]
    return trades_on(spot) and bool(np.ptp(np.log(closes)) >= 2 * SEEN)


def differs(spot: Spot) -> bool:
    """Whether two neighbouring bars visibly differ."""
    closes = np.log(spot.columns["close"][spot.part])
    return trades_on(spot) and abs(closes[1] - closes[0]) >= SEEN


Change = Callable[[Spot], None]
Fits = Callable[[Spot], bool]


@cache
def find_in_clean(name: str, witness: str) -> pl.DataFrame:
    """Findings of the bars as they were recorded."""
    return find_all(bars_slice(name, clean_bars(name), witness))


def make_trials(
    random: np.random.Generator,
    count: int,
    witness: str,
    *,
    change: Change,
    lengths: Sequence[int] = (1,),
    fits: Fits = trades_on,
) -> list[Trial]:
    """Make trials in all files, with lengths drawn from `lengths`."""
    trials = []
    for name, number in share_out(count, SHARES, MOST):
        clean = clean_bars(name)
        original = {column: clean[column].to_numpy() for column in VALUES}
        rows = int(random.choice(lengths))
        spots = (Spot(original, place, rows, random) for place in range(clean.height - rows))
        fitting = [spot.place for spot in spots if spot.place > 0 and fits(spot)]
        places = pick_places(random, fitting, number, edge=EDGE_ROWS, rows=rows)
        columns = {column: values.copy() for column, values in original.items()}
        for place in places:
            change(Spot(columns, place, rows, random))
        wrong = clean.with_columns(**{n: pl.Series(values) for n, values in columns.items()})
        defects = [Defect(tuple(clean["timestamp"][p : p + rows])) for p in places]
        wrong_slice = bars_slice(name, wrong, witness)
        trials.append(Trial(find_in_clean(name, witness), wrong_slice, defects))
    return trials


def shift_days(random: np.random.Generator, count: int, witness: str) -> list[Trial]:
    """Shift whole days by one hour; where that meets rows of another day, those stay."""
    trials = []
    for name, number in share_out(count, DAY_SHARES, DAYS_OF_A_RUN):
        clean = clean_bars(name)
        days = clean.select(DAY.unique().sort()).to_series().to_list()[1:-1]
        first = int(random.integers(max(1, len(days) - DAYS_APART * (number - 1))))
        picked = days[first::DAYS_APART][:number]
        hour = HOUR if random.random() < 0.5 else -HOUR
        time = pl.col("timestamp")
        wrong = (
            clean.with_columns(_moved=DAY.is_in(picked))
            .with_columns(pl.when("_moved").then(time + hour).otherwise(time))
            .sort("timestamp", "_moved")
            .unique("timestamp", keep="first", maintain_order=True)
            .drop("_moved")
        )
        defects = [_shifted_rows(clean, day, hour) for day in picked]
        wrong_slice = bars_slice(name, wrong, witness)
        trials.append(Trial(find_in_clean(name, witness), wrong_slice, defects))
    return trials


def _shifted_rows(clean: pl.DataFrame, day: datetime, hour: timedelta) -> Defect:
    """Return the times of the rows of a day, and those that they were shifted to."""
    times = clean.filter(day == DAY)["timestamp"].to_list()
    return Defect(tuple({*times, *(time + hour for time in times)}))


def _kind(
    name: str,
    change: Change,
    least: dict[str, int],
    *,
    lengths: Sequence[int] = (1,),
    fits: Fits = trades_on,
    severity: dict[str, Severity] | None = None,
) -> Kind:
    trials = partial(make_trials, change=change, lengths=lengths, fits=fits)
    return Kind(name, trials, least, severity)


def _scale(low: float, high: float) -> Change:
    return partial(scale_prices, low=low, high=high)


BAR_KINDS = (
    _kind("OHLC x1.05 to x1.5, 2 or 3 bars", _scale(1.05, 1.5),
          {"alone": 0, "venue": 48, "trades": 48}, lengths=(2, 3)),
    _kind("OHLC x1.5 to x2, 2 or 3 bars", _scale(1.5, 2.0),
          {"alone": 48, "venue": 48, "trades": 48}, lengths=(2, 3)),
    _kind("OHLC x1.05 to x2, 10 bars", _scale(1.05, 2.0),
          {"alone": 0, "venue": 50, "trades": 50}, lengths=(10,)),
    _kind("OHLC x2, 10 bars", _scale(2.0, 2.0),
          {"alone": 48, "venue": 50, "trades": 50}, lengths=(10,)),
    _kind("high or low 1 % farther", stretch, {"alone": 0, "venue": 50, "trades": 50}),
    _kind("one price for 15 bars, with volume", stick,
          {"alone": 0, "venue": 48, "trades": 50}, lengths=(15,), fits=moves),
    _kind("same bar for 15 bars", repeat,
          {"alone": 50, "venue": 50, "trades": 50}, lengths=(15,)),
    _kind("same bar for 60 bars", repeat,
          {"alone": 50, "venue": 50, "trades": 50}, lengths=(60,)),
    _kind("bar before duplicated", repeat, {"alone": 48, "venue": 48, "trades": 50}),
    _kind("volume x1000", multiply_volume, {"alone": 48, "venue": 48, "trades": 48},
          severity={"trades": "error"}),
    _kind("neighbours swapped", swap, {"alone": 0, "venue": 50, "trades": 50},
          lengths=(2,), fits=differs),
    Kind("day shifted by one hour", shift_days, {"alone": 48, "venue": 50},
         named={"alone": 0.0}),
)  # fmt: skip
"""Kinds of defects of bars, with the least number of 50 that must be found."""

assert set(SHARES) == set(FILES)
