"""Rows of a bundle for all adapters; tables, markets or rows that it lacks are errors."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from datetime import timedelta
from types import ModuleType

import polars as pl

from lake.bundles.bundle import Bundle
from lake.errors import UnknownNameError, UsageError
from lake.log import get_logger
from lake.model.dataset import RECEIVED_AT, Dataset
from lake.model.selection import Selection
from lake.model.time import iso
from lake.model.timeframe import Timeframe

_log = get_logger(__name__)


def require_package(module: str, extra: str) -> ModuleType:
    """Import a package that an extra of this package installs.

    Raises
    ------
    UsageError
        The package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"package {error.name} is not installed",
            f"Install it: pip install 'marketlake[{extra}]'",
        ) from error


def find_bar_timeframe(bundle: Bundle, table: str) -> Timeframe:
    """Return the timeframe of a table of bars.

    Raises
    ------
    UnknownNameError
        The bundle has no such table.
    UsageError
        The table holds no bars.
    """
    columns = bundle.scan(table).collect_schema()
    if "closed" not in columns:
        raise UsageError(f"table {table} holds no bars", "Name a table of bars, such as bars_1m.")
    return Timeframe.of_table_suffix(table.rpartition("_")[2])


def read_closed_bars(
    bundle: Bundle,
    table: str,
    columns: Sequence[str],
    selection: Selection,
    *,
    max_delay: timedelta | None = None,
) -> pl.DataFrame:
    """Read the closed bars of one exchange that open within the selection, by symbol and time.

    Parameters
    ----------
    max_delay
        Bars received later than this after their end are left out, with a warning; None: none is.

    Returns
    -------
    DataFrame
        `symbol`, `timestamp` (open time, UTC, microseconds) and the requested columns.

    Raises
    ------
    UnknownNameError
        The bundle has no such table, column or market, or no closed bar of the market in the range.
    UsageError
        The table holds no bars.
    """
    timeframe = find_bar_timeframe(bundle, table)
    names = list(dict.fromkeys(["symbol", "timestamp", *columns]))
    receipt = [] if max_delay is None else list_receipt_columns(bundle.dataset(table))
    wanted = list(dict.fromkeys([*names, *receipt, "closed"]))
    rows = _scan(bundle, table, wanted, selection).filter("closed").collect()
    if receipt and max_delay is not None:
        rows = _drop_late(rows, table, timeframe, max_delay)
    return _require_rows(rows.select(names), bundle, table, selection)


def read_timely_bars(
    bundle: Bundle,
    table: str,
    columns: Sequence[str],
    selection: Selection,
    max_delay: timedelta | None,
) -> pl.DataFrame:
    """Read closed bars for a format that shows each bar at its end, whenever it was received.

    As `read_closed_bars`; `max_delay` is the length of a bar by default.
    """
    if max_delay is None:
        max_delay = find_bar_timeframe(bundle, table).longest
    return read_closed_bars(bundle, table, columns, selection, max_delay=max_delay)


def _drop_late(
    rows: pl.DataFrame, table: str, timeframe: Timeframe, max_delay: timedelta
) -> pl.DataFrame:
    """Drop bars that were received too late after their end."""
    end = pl.col("timestamp").dt.offset_by(timeframe.table_suffix)
    timely = rows.filter((pl.col(RECEIVED_AT) <= end + max_delay).fill_null(value=True))
    if timely.height < rows.height:
        _log.warning(
            "bars are left out: they were received too late",
            table=table,
            bars=rows.height - timely.height,
            max_delay=str(max_delay),
        )
    return timely


def add_known_times(
    dataset: Dataset, rows: pl.DataFrame, timeframe: Timeframe | None = None
) -> pl.DataFrame:
    """Add when each row had happened and when it was available, and sort by the latter.

    Parameters
    ----------
    rows
        Have the time column, `list_receipt_columns` of the dataset, and `closed` if it has that.
    timeframe
        That of bars: a bar has happened at its end, whatever its dataset says.

    Returns
    -------
    DataFrame
        With the columns `happened_at` and `available_at` (UTC, microseconds).
    """
    happened_at = dataset.happened_at()
    if timeframe is not None:
        # The suffix of a table is Polars' name for the same duration: 1m, 1h, 1mo.
        happened_at = pl.col(dataset.time_column).dt.offset_by(timeframe.table_suffix)
    available_at = pl.max_horizontal(happened_at, dataset.availability())
    known = rows.with_columns(happened_at=happened_at, available_at=available_at)
    return known.sort("available_at", maintain_order=True)


def list_receipt_columns(dataset: Dataset) -> list[str]:
    """List the columns that, with the time column, say when a row was available."""
    return [RECEIVED_AT] if dataset.records_receipt else []


def read_rows(
    bundle: Bundle, table: str, columns: Sequence[str], selection: Selection
) -> pl.DataFrame:
    """Read rows of one exchange within the selection: `symbol` and the requested columns.

    Raises
    ------
    UnknownNameError
        The bundle has no such table, column or market, or no row of the market in the range.
    """
    rows = _scan(bundle, table, ["symbol", *columns], selection).collect()
    return _require_rows(rows, bundle, table, selection)


def _scan(bundle: Bundle, table: str, columns: Sequence[str], selection: Selection) -> pl.LazyFrame:
    return bundle.scan(
        table,
        exchange=selection.exchanges,
        symbol=selection.symbols,
        since=selection.start,
        until=selection.end,
        columns=columns,
    )


def _require_rows(
    rows: pl.DataFrame, bundle: Bundle, table: str, selection: Selection
) -> pl.DataFrame:
    """Return the rows if every requested market has at least one."""
    symbols_with_rows = set(rows["symbol"].unique())
    missing = [symbol for symbol in selection.symbols if symbol not in symbols_with_rows]
    if symbols_with_rows and not missing:
        return rows
    start, end = (iso(time) if time else "any time" for time in (selection.start, selection.end))
    what = " ".join([*selection.exchanges, ", ".join(missing)]).strip()
    raise UnknownNameError(
        f"{table} of bundle {bundle.id[:12]} has no rows in this range: {what} from {start} to "
        f"{end}",
        "`lake bundle show` lists its tables and markets.",
    )
