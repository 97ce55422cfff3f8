"""Binance's bar intervals: number the bars since the epoch, and compute when each one opens."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
_MONDAY_MS = 4 * DAY_MS  # 1970-01-05, the first Monday of the Unix epoch


@dataclass(frozen=True, slots=True)
class Interval:
    """Bars numbered from the Unix epoch; consecutive bars are also grouped into blocks.

    Parameters
    ----------
    name : str
        As in Binance's `interval` parameter, such as `1m` or `1M`.
    step : int
        Width in milliseconds; 0 means calendar months.
    per_block : int
        Number of bars that are computed and cached together.
    anchor : int, default 0
        A time, in milliseconds since the epoch, at which a bar opens.
    """

    name: str
    step: int
    per_block: int
    anchor: int = 0

    def indices(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the bar that contains each time (milliseconds), as int64."""
        if self.step:
            return (times - self.anchor) // self.step
        months = times.astype("datetime64[ms]").astype("datetime64[M]")
        return cast("NDArray[np.int64]", months.astype(np.int64))

    def index(self, time_ms: int) -> int:
        """Return the number of the bar that contains a time."""
        if self.step:
            return (time_ms - self.anchor) // self.step
        return int(self.indices(np.array([time_ms], dtype=np.int64))[0])

    def opens(self, index: int) -> int:
        """Return the opening time of a bar in milliseconds; it closes when the next bar opens."""
        if self.step:
            return self.anchor + index * self.step
        return int(np.datetime64(index, "M").astype("datetime64[ms]").astype(np.int64))

    def floor(self, time_ms: int) -> int:
        """Return the opening time of the bar that contains a time."""
        return self.opens(self.index(time_ms))

    def block(self, time_ms: int) -> int:
        """Return the number of the block that contains a time."""
        return self.index(time_ms) // self.per_block

    def block_opens(self, block: int) -> int:
        """Return the opening time of the first bar of a block."""
        return self.opens(block * self.per_block)


# A block spans at most one day of seconds or minutes, and a few dozen days of longer bars: long
# enough to spread the cost of computing it, short enough that a single page does not wait long.
INTERVALS = {
    interval.name: interval
    for interval in (
        Interval("1s", SECOND_MS, 3600),
        Interval("1m", MINUTE_MS, 1440),
        Interval("3m", 3 * MINUTE_MS, 480),
        Interval("5m", 5 * MINUTE_MS, 288),
        Interval("15m", 15 * MINUTE_MS, 96),
        Interval("30m", 30 * MINUTE_MS, 48),
        Interval("1h", HOUR_MS, 168),
        Interval("2h", 2 * HOUR_MS, 84),
        Interval("4h", 4 * HOUR_MS, 84),
        Interval("6h", 6 * HOUR_MS, 84),
        Interval("8h", 8 * HOUR_MS, 84),
        Interval("12h", 12 * HOUR_MS, 56),
        Interval("1d", DAY_MS, 28),
        Interval("3d", 3 * DAY_MS, 10),
        Interval("1w", 7 * DAY_MS, 4, _MONDAY_MS),
        Interval("1M", 0, 1),
    )
}
