"""Data folders for freqtrade (https://www.freqtrade.io), as its FeatherDataHandler lays them out.

Written with pyarrow alone; the extra brings freqtrade, to read them.

>>> write(bundle, Path("user_data/data/binance"), "bars_5m", exchange="binance")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import feather

from lake.adapters.rows import find_bar_timeframe, read_closed_bars, read_rows
from lake.bundles.bundle import Bundle, as_tuple
from lake.errors import StorageError
from lake.model.ohlcv import OHLCV
from lake.model.selection import Selection
from lake.model.timeframe import Timeframe

_FUNDING = "funding"
_TO_UNDERSCORE = str.maketrans(dict.fromkeys("/ .@$+:", "_"))  # freqtrade.misc.pair_to_filename


def write(
    bundle: Bundle,
    datadir: Path,
    table: str,
    *,
    exchange: str,
    symbol: str | Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    funding_timeframe: str = "1h",
) -> list[Path]:
    """Write closed bars or funding rates to a data folder: a file a symbol, replacing older ones.

    `BTC_USDT-1m.feather` for a spot market; `futures/BTC_USDT_USDT-1m-futures.feather` for a
    derivative; `futures/BTC_USDT_USDT-1h-funding_rate.feather` for its funding. All files are
    written before the first of them is put in its place, each whole or not at all.

    Bars missing in the bundle are missing in the file; freqtrade itself fills them with flat bars
    without volume when it loads, unless told otherwise.

    Parameters
    ----------
    datadir
        The folder of one exchange, as `user_data/data/binance`; made where it is not there.
    table
        A table of bars, or `funding`.
    symbol
        One or several; all that the bundle has by default.
    since, until
        Rows with their time in `[since, until)`; with time zone.
    funding_timeframe
        Under which freqtrade looks for funding, whatever the venue's interval is: its exchange
        option `funding_fee_timeframe`.

    Returns
    -------
    list[Path]
        The files. Columns `date` (milliseconds, UTC; of funding rounded down to them), and
        `open`, `high`, `low`, `close`, `volume` or `funding_rate`, all double.

    Raises
    ------
    UnknownNameError
        The bundle has no such table or market, or no row of it in the range.
    UsageError
        The table holds neither bars nor funding, or the timeframe of funding is none.
    StorageError
        The folder cannot be written.
    """
    selection = Selection((exchange,), as_tuple(symbol), since, until)
    rows = _read_rows(bundle, table, selection)
    timeframe = (
        Timeframe.parse(funding_timeframe)
        if table == _FUNDING
        else find_bar_timeframe(bundle, table)
    )
    files = {
        datadir / _format_file_name(table, str(name), timeframe): part.drop("symbol").to_arrow()
        for (name,), part in rows.partition_by("symbol", as_dict=True).items()
    }
    try:
        _replace_all(files)
    except OSError as error:
        raise StorageError(
            f"{datadir} cannot be written: {error.strerror or error}",
            "Check its permissions, and the space that is left.",
        ) from error
    return list(files)


def _read_rows(bundle: Bundle, table: str, selection: Selection) -> pl.DataFrame:
    date = pl.col("timestamp").dt.cast_time_unit("ms").alias("date")
    if table == _FUNDING:
        rates = read_rows(bundle, table, ["timestamp", "funding_rate"], selection)
        return rates.select("symbol", date, "funding_rate")
    return read_closed_bars(bundle, table, OHLCV, selection).select("symbol", date, *OHLCV)


def _format_file_name(table: str, symbol: str, timeframe: Timeframe) -> str:
    """A file's path in the data folder."""
    name = f"{symbol.translate(_TO_UNDERSCORE)}-{str(timeframe).replace('M', 'Mo')}"
    if ":" not in symbol:
        return f"{name}.feather"
    kind = "funding_rate" if table == _FUNDING else "futures"
    return f"futures/{name}-{kind}.feather"


def _replace_all(files: Mapping[Path, pa.Table]) -> None:
    temporary_files = {path: path.with_name(f"{path.name}.unconfirmed") for path in files}
    try:
        for path, table in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            feather.write_feather(
                table, temporary_files[path], compression="lz4", compression_level=9
            )
        for path, temporary_file in temporary_files.items():
            temporary_file.replace(path)
    finally:
        for temporary_file in temporary_files.values():
            if temporary_file.exists():
                temporary_file.unlink()
