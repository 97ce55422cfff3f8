"""Objects and catalogs of NautilusTrader (https://nautilustrader.io).

>>> market = instrument(bundle, "binance", "BTC/USDT")
>>> engine.add_instrument(market)
>>> engine.add_data(bars(bundle, "bars_1m", market, exchange="binance", symbol="BTC/USDT"))

Prices and sizes in Nautilus are decimals with the precision of the instrument. A stored value
that has more decimal places is refused, never rounded: today's tick can be coarser than the tick
of years ago. In that case, pass a finer precision to `instrument`.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lake.adapters.nautilus_instrument import instrument, to_nanoseconds
from lake.adapters.rows import (
    add_known_times,
    find_bar_timeframe,
    list_receipt_columns,
    read_closed_bars,
    read_rows,
    require_package,
)
from lake.bundles.bundle import Bundle
from lake.errors import StorageError, UsageError
from lake.model.ohlcv import OHLCV, PRICES
from lake.model.selection import as_tuple
from lake.model.time import Time, iso
from lake.model.timeframe import Timeframe

if TYPE_CHECKING:
    from nautilus_trader.model.data import Bar, TradeTick
    from nautilus_trader.model.instruments import CryptoPerpetual, CurrencyPair
    from nautilus_trader.persistence.catalog import ParquetDataCatalog

__all__ = ["bars", "instrument", "trade_ticks", "write_catalog"]

_TRADES = "trades"
_AGGREGATIONS = {"s": "SECOND", "m": "MINUTE", "h": "HOUR", "d": "DAY", "w": "WEEK", "M": "MONTH"}
_LONGEST_ID = 36
# Sums of decimals are off by a few units in the last place of a double. A value with more decimal
# places differs by more than that.
_RELATIVE_ERROR = 1e-12


def bars(
    bundle: Bundle,
    table: str,
    *,
    exchange: str,
    symbol: str,
    since: Time | None = None,
    until: Time | None = None,
    specification: CurrencyPair | CryptoPerpetual | None = None,
) -> list[Bar]:
    """Return the closed bars of one market, with bar type `ID-1-MINUTE-LAST-EXTERNAL`.

    Parameters
    ----------
    table
        A table of bars, such as `bars_1m`.
    since, until
        Select bars that open in `[since, until)`; a datetime needs a zone.
    specification
        The result of `instrument`; by default, with the precisions in the bundle.

    Returns
    -------
    list[Bar]
        In order of `ts_init`. `ts_event` is the end of the bar, `ts_init` the time when it was
        received, or its end if that was not recorded or is later, in nanoseconds: no strategy sees
        the bar earlier. Bars that the bundle lacks are absent.

    Raises
    ------
    UnknownNameError
        The bundle has no such table or market, no closed bar of the market in the range, or no
        specification of the market.
    UsageError
        The table holds no bars, a value has more decimal places than the precision or is too
        large, or Nautilus is not installed.
    """
    data = require_package("nautilus_trader.model.data", "nautilus")
    market = specification or instrument(bundle, exchange, symbol)
    selection = bundle.select(exchange, symbol=symbol, since=since, until=until)
    timeframe = find_bar_timeframe(bundle, table)
    dataset = bundle.dataset(table)
    columns = (*OHLCV, "closed", *list_receipt_columns(dataset))
    rows = read_closed_bars(bundle, table, columns, selection)
    frame = add_known_times(dataset, rows, timeframe)
    _require_exact(frame, PRICES, ("volume",), market)
    return list(
        data.Bar.from_raw_arrays_to_list(
            data.BarType.from_str(f"{market.id}-{_format_step(timeframe)}-LAST-EXTERNAL"),
            market.price_precision,
            market.size_precision,
            *(frame[name].to_numpy(writable=True) for name in OHLCV),
            to_nanoseconds(frame["happened_at"]),
            to_nanoseconds(frame["available_at"]),
        )
    )


def trade_ticks(
    bundle: Bundle,
    *,
    exchange: str,
    symbol: str,
    since: Time | None = None,
    until: Time | None = None,
    specification: CurrencyPair | CryptoPerpetual | None = None,
) -> list[TradeTick]:
    """Return the trades of one market.

    The parameters are those of `bars`.

    Returns
    -------
    list[TradeTick]
        In order of `ts_init`. `ts_event` is the time at which the venue executed the trade,
        `ts_init` the time at which it was received, in nanoseconds. Both are equal if the trade
        was not recorded live, or if the local clock was behind the venue's. The aggressor is the
        taker's side. Nautilus refuses ids of more than 36 characters; a digest replaces them.

    Raises
    ------
    UnknownNameError
        The bundle has no trades, no trade of the market in the range, or no specification of the
        market.
    UsageError
        A value has more decimal places than the precision or is too large, or Nautilus is not
        installed.
    """
    data = require_package("nautilus_trader.model.data", "nautilus")
    market = specification or instrument(bundle, exchange, symbol)
    selection = bundle.select(exchange, symbol=symbol, since=since, until=until)
    dataset = bundle.dataset(_TRADES)
    columns = ("timestamp", *list_receipt_columns(dataset), "trade_id", "price", "amount", "side")
    frame = add_known_times(dataset, read_rows(bundle, _TRADES, columns, selection))
    _require_exact(frame, ("price",), ("amount",), market)
    return list(
        data.TradeTick.from_raw_arrays_to_list(
            market.id,
            market.price_precision,
            market.size_precision,
            frame["price"].to_numpy(writable=True),
            frame["amount"].to_numpy(writable=True),
            _to_aggressors(frame["side"]),
            [_shorten_id(trade_id) for trade_id in frame["trade_id"]],
            to_nanoseconds(frame["timestamp"]),
            to_nanoseconds(frame["available_at"]),
        )
    )


def write_catalog(
    bundle: Bundle,
    path: Path,
    *,
    exchange: str,
    symbol: str | Sequence[str],
    tables: str | Sequence[str] = (),
    since: Time | None = None,
    until: Time | None = None,
    specifications: Mapping[str, CurrencyPair | CryptoPerpetual] | None = None,
) -> ParquetDataCatalog:
    """Write a new catalog with the specifications, bars and trades of some markets.

    The catalog appears only when it is complete. Memory holds the objects of one table and market
    at a time.

    Parameters
    ----------
    path
        A folder that does not exist.
    tables
        Tables of bars, or `trades`; by default, all of these in the bundle.
    since, until
        Select rows with times in `[since, until)`; a datetime needs a zone.
    specifications
        Results of `instrument` by symbol; by default, with the precisions in the bundle.

    Returns
    -------
    ParquetDataCatalog
        The opened catalog.

    Raises
    ------
    UnknownNameError
        The bundle has no such table, no row of a market in a table, or no specification of a
        market.
    UsageError
        The folder exists, a table holds neither bars nor trades, or for the reasons in `bars`.
    StorageError
        The folder cannot be written.
    """
    persistence = require_package("nautilus_trader.persistence.catalog", "nautilus")
    if path.exists():
        raise UsageError(
            f"{path} already exists", "Name a folder that does not exist, or remove this one."
        )
    table_names = as_tuple(tables) or _list_supported(bundle)
    with _new_folder(path) as folder:
        catalog = persistence.ParquetDataCatalog(str(folder))
        for name in as_tuple(symbol):
            market = (specifications or {}).get(name) or instrument(bundle, exchange, name)
            catalog.write_data([market])
            for table in table_names:
                selection = {"exchange": exchange, "symbol": name, "since": since, "until": until}
                catalog.write_data(_read_objects(bundle, table, selection, market))
    return persistence.ParquetDataCatalog(str(path.absolute()))


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; rename it to `path` when the context ends without an error."""
    temporary = path.absolute().with_name(f"{path.name}.{secrets.token_hex(4)}.unconfirmed")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}",
            "Check its permissions and the free disk space.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _list_supported(bundle: Bundle) -> tuple[str, ...]:
    return tuple(
        name
        for name in bundle.tables
        if name == _TRADES or "closed" in bundle.scan(name).collect_schema()
    )


def _read_objects(
    bundle: Bundle, table: str, selection: dict[str, Any], market: CurrencyPair | CryptoPerpetual
) -> list[Any]:
    if table == _TRADES:
        return trade_ticks(bundle, **selection, specification=market)
    return bars(bundle, table, **selection, specification=market)


def _require_exact(
    frame: pl.DataFrame,
    prices: Sequence[str],
    sizes: Sequence[str],
    market: CurrencyPair | CryptoPerpetual,
) -> None:
    """Refuse values that Nautilus would round or cannot represent."""
    objects = require_package("nautilus_trader.model.objects", "nautilus")
    kinds = {
        "price": (prices, market.price_precision, objects.PRICE_MAX),
        "size": (sizes, market.size_precision, objects.QUANTITY_MAX),
    }
    for kind, (names, places, largest) in kinds.items():
        for name in names:
            value = pl.col(name)
            off = (value.round(places) - value).abs() > _RELATIVE_ERROR * value.abs()
            misfits = frame.filter(off | (value.abs() > largest))
            if not misfits.is_empty():
                raise UsageError(
                    f"{name} {misfits[name][0]!r} at {iso(misfits['timestamp'][0])} does not fit "
                    f"{market.id}: it has {places} decimal places, and the largest number in "
                    f"Nautilus is {largest:g}",
                    f"For more decimal places, call `instrument` with a {kind}_precision, and pass "
                    "the result as `specification`.",
                )


def _format_step(timeframe: Timeframe) -> str:
    return f"{timeframe.count}-{_AGGREGATIONS[timeframe.unit]}"


def _to_aggressors(sides: pl.Series) -> np.ndarray[Any, np.dtype[np.uint8]]:
    side = require_package("nautilus_trader.model.enums", "nautilus").AggressorSide
    numbers = {"buy": int(side.BUYER), "sell": int(side.SELLER)}
    aggressors = sides.replace_strict(
        numbers, default=int(side.NO_AGGRESSOR), return_dtype=pl.UInt8
    )
    return aggressors.to_numpy(writable=True)


def _shorten_id(trade_id: str) -> str:
    if len(trade_id) <= _LONGEST_ID:
        return trade_id
    return hashlib.sha256(trade_id.encode()).hexdigest()[:_LONGEST_ID]
