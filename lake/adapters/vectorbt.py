"""Wide frames for vectorbt (https://vectorbt.dev): one row per bar, one column per symbol.

>>> close = prices(bundle, "bars_1h", exchange="binance")
>>> vectorbt.Portfolio.from_signals(close, entries, exits)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from lake.adapters.rows import find_bar_timeframe, read_timely_bars, require_package
from lake.bundles.bundle import Bundle
from lake.errors import UsageError
from lake.model.ohlcv import OHLCV
from lake.model.selection import Selection
from lake.model.time import Time
from lake.model.timeframe import Timeframe

if TYPE_CHECKING:
    import pandas as pd

_UNITS = {"s": "s", "m": "min", "h": "h", "d": "D", "M": "MS"}


def prices(
    bundle: Bundle,
    table: str,
    column: str = "close",
    *,
    exchange: str,
    symbol: str | Sequence[str] = (),
    since: Time | None = None,
    until: Time | None = None,
    max_delay: timedelta | None = None,
) -> pd.DataFrame:
    """Return one column of the closed bars of several symbols.

    Parameters
    ----------
    table
        A table of bars, such as `bars_1m`.
    column
        A numeric column of the table, such as `close`, `volume` or `trade_count`.
    symbol
        One or several symbols; all symbols in the bundle by default.
    since, until
        Select bars that open in `[since, until)`; a datetime needs a zone.
    max_delay
        Bars received later than this after their end are left out, with a warning: this format
        shows a bar at its end, when a trader did not have it yet. By default, the length of a bar.

    Returns
    -------
    pandas.DataFrame
        float64, one column per symbol, in the order of `symbol` or sorted by default; the name of
        the columns is `symbol`. Bars that the bundle lacks are NaN, never filled. The index
        `timestamp` is the open time: a DatetimeIndex of nanoseconds in UTC from the first to the
        last bar of any symbol, with `freq` set. If a bar is off the timeframe's grid, the index
        holds the times of the bars, without `freq`.

    Raises
    ------
    UnknownNameError
        The bundle has no such table, column or market, or no closed bar of the market in the range.
    UsageError
        The table holds no bars, the column is not numeric, or pandas is not installed.
    """
    selection = bundle.select(exchange, symbol=symbol, since=since, until=until)
    return _pivot_columns(bundle, table, (column,), selection, max_delay)[column]


def ohlcv(
    bundle: Bundle,
    table: str,
    *,
    exchange: str,
    symbol: str | Sequence[str] = (),
    since: Time | None = None,
    until: Time | None = None,
    max_delay: timedelta | None = None,
) -> dict[str, pd.DataFrame]:
    """Return open, high, low, close (quote units) and volume (base units): a frame per column name.

    Each frame is like the result of `prices`; all have the same index and columns. Parameters and
    errors are those of `prices`.
    """
    selection = bundle.select(exchange, symbol=symbol, since=since, until=until)
    return _pivot_columns(bundle, table, OHLCV, selection, max_delay)


def _pivot_columns(
    bundle: Bundle,
    table: str,
    columns: Sequence[str],
    selection: Selection,
    max_delay: timedelta | None,
) -> dict[str, pd.DataFrame]:
    pandas = require_package("pandas", "vectorbt")
    _require_numbers(bundle, table, columns)
    bars = read_timely_bars(bundle, table, columns, selection, max_delay)
    bars = bars.with_columns(pl.col(columns).cast(pl.Float64))
    symbols = selection.symbols or tuple(bars["symbol"].unique().sort())
    times = bars["timestamp"].unique().sort()
    index = _build_index(times, find_bar_timeframe(bundle, table))
    frames = {}
    for column in columns:
        wide = bars.pivot("symbol", index="timestamp", values=column).sort("timestamp")
        data = {name: wide[name].to_numpy() for name in symbols}
        sparse = pandas.DataFrame(data, index=_to_pandas_times(times))
        frames[column] = sparse.reindex(index).rename_axis(columns="symbol")
    return frames


def _require_numbers(bundle: Bundle, table: str, columns: Sequence[str]) -> None:
    schema = bundle.scan(table).collect_schema()
    for name in columns:
        if name in schema and not schema[name].is_numeric():
            numbers = [column for column, dtype in schema.items() if dtype.is_numeric()]
            raise UsageError(
                f"column {name} of {table} is not numeric", f"Choose from {', '.join(numbers)}."
            )


def _build_index(times: pl.Series, timeframe: Timeframe) -> pd.DatetimeIndex:
    """Return the grid of the timeframe over the times, or the times if one of them is off it."""
    pandas = require_package("pandas", "vectorbt")
    pandas_times = _to_pandas_times(times)
    grid = pandas.date_range(
        pandas_times[0],
        pandas_times[-1],
        freq=_format_frequency(timeframe),
        name="timestamp",
        unit="ns",
    )
    return grid if pandas_times.isin(grid).all() else pandas_times


def _format_frequency(timeframe: Timeframe) -> str:
    """Return pandas' name of a timeframe."""
    if timeframe.unit == "w":
        return f"{7 * timeframe.count}D"
    return f"{timeframe.count}{_UNITS[timeframe.unit]}"


def _to_pandas_times(times: pl.Series) -> pd.DatetimeIndex:
    pandas = require_package("pandas", "vectorbt")
    naive = times.dt.replace_time_zone(None).dt.cast_time_unit("ns").to_numpy()
    return pandas.DatetimeIndex(naive, name="timestamp").tz_localize("UTC")
