"""Frames for backtesting.py (https://kernc.github.io/backtesting.py).

>>> frame = ohlcv(bundle, "bars_1h", exchange="binance", symbol="BTC/USDT")
>>> Backtest(frame, Strategy).run()
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from lake.adapters.rows import read_timely_bars, require_package
from lake.bundles.bundle import Bundle
from lake.model.ohlcv import OHLCV
from lake.model.time import Time

if TYPE_CHECKING:
    import pandas as pd


def ohlcv(
    bundle: Bundle,
    table: str,
    *,
    exchange: str,
    symbol: str,
    since: Time | None = None,
    until: Time | None = None,
    max_delay: timedelta | None = None,
) -> pd.DataFrame:
    """Return the closed bars of one market in the format of `Backtest`.

    Bars that the bundle lacks are absent from the frame, because backtesting.py refuses NaN and
    nothing is invented. backtesting.py shows a strategy whole bars, and fills its orders at the
    open of the next row.

    Parameters
    ----------
    table
        A table of bars, such as `bars_1m`.
    since, until
        Select bars that open in `[since, until)`; a datetime needs a zone.
    max_delay
        Bars received later than this after their end are left out, with a warning: this format
        shows a bar at its end, when a trader did not have it yet. By default, the length of a bar.

    Returns
    -------
    pandas.DataFrame
        Columns Open, High, Low, Close (quote units) and Volume (base units), float64. The index
        `timestamp` is the open time of the bars: a naive DatetimeIndex of nanoseconds in UTC,
        ascending.

    Raises
    ------
    UnknownNameError
        The bundle has no such table or market, or no closed bar of the market in the range.
    UsageError
        The table holds no bars, or pandas is not installed.
    """
    pandas = require_package("pandas", "backtesting")
    selection = bundle.select(exchange, symbol=symbol, since=since, until=until)
    bars = read_timely_bars(bundle, table, OHLCV, selection, max_delay)
    times = bars["timestamp"].dt.replace_time_zone(None).dt.cast_time_unit("ns").to_numpy()
    return pandas.DataFrame(
        {name.capitalize(): bars[name].to_numpy() for name in OHLCV},
        index=pandas.DatetimeIndex(times, name="timestamp"),
    )
