"""Data folders for freqtrade (https://www.freqtrade.io) in the layout of its FeatherDataHandler.

Writing needs pyarrow only; the extra installs freqtrade, which reads the folders.

>>> write(bundle, Path("user_data/data/binance"), "bars_5m", exchange="binance")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import feather

from lake.adapters.rows import find_bar_timeframe, read_rows, read_timely_bars
from lake.bundles.bundle import Bundle
from lake.errors import StorageError
from lake.model.ohlcv import OHLCV
from lake.model.selection import Selection
from lake.model.time import Time
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
    since: Time | None = None,
    until: Time | None = None,
    max_delay: timedelta | None = None,
    funding_timeframe: str = "1h",
) -> list[Path]:
    """Write closed bars or funding rates to a data folder, one file per symbol; replace old files.

    File names: `BTC_USDT-1m.feather` for a spot market, `futures/BTC_USDT_USDT-1m-futures.feather`
    for a derivative, `futures/BTC_USDT_USDT-1h-funding_rate.feather` for its funding. All files are
    written under temporary names first and then renamed, so that no file is ever incomplete.

    Bars that the bundle lacks are absent from the file. By default, freqtrade fills them with flat
    bars without volume when it loads the file.

    Parameters
    ----------
    datadir
        The folder of one exchange, such as `user_data/data/binance`; created if it does not exist.
    table
        A table of bars, or `funding`.
    symbol
        One or several symbols; all symbols in the bundle by default.
    since, until
        Select rows with times in `[since, until)`; a datetime needs a zone.
    max_delay
        Bars received later than this after their end are left out, with a warning: this format
        shows a bar at its end, when a trader did not have it yet. By default, the length of a
        bar. Funding is written whole: freqtrade charges it, whenever it became known.
    funding_timeframe
        The timeframe under which freqtrade looks for funding, whatever the venue's interval is:
        its exchange option `funding_fee_timeframe`.

    Returns
    -------
    list[Path]
        The files. Their columns are `date` (milliseconds, UTC; funding times are rounded down) and
        `open`, `high`, `low`, `close`, `volume` or `funding_rate`, all double.

    Raises
    ------
    UnknownNameError
        The bundle has no such table or market, or no row of the market in the range.
    UsageError
        The table holds neither bars nor funding, or `funding_timeframe` is not a timeframe.
    StorageError
        The folder cannot be written.
    """
    selection = bundle.select(exchange, symbol=symbol, since=since, until=until)
    rows = _read_rows(bundle, table, selection, max_delay)
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
            "Check its permissions and the free disk space.",
        ) from error
    return list(files)


def _read_rows(
    bundle: Bundle, table: str, selection: Selection, max_delay: timedelta | None
) -> pl.DataFrame:
    date = pl.col("timestamp").dt.cast_time_unit("ms").alias("date")
    if table == _FUNDING:
        rates = read_rows(bundle, table, ["timestamp", "funding_rate"], selection)
        return rates.select("symbol", date, "funding_rate")
    return read_timely_bars(bundle, table, OHLCV, selection, max_delay).select(
        "symbol", date, *OHLCV
    )


def _format_file_name(table: str, symbol: str, timeframe: Timeframe) -> str:
    """Return the path of a file in the data folder."""
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
