"""Reads a folder of recorded Parquet files into columns, a recording for each market."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.errors import ConfigError
from lake.sandbox.intervals import INTERVALS
from lake.sandbox.market import Market

_NAME = re.compile(
    r"(?P<exchange>[a-z0-9]+)_(?P<base>[A-Z0-9]+)-(?P<quote>[A-Z0-9]+)(-(?P<settle>[A-Z0-9]+))?"
    r"(_(?P<interval>[0-9]+[smhdwM]))?"
)
_TIME, _NUMBER, _ID, _SIDE = "time", "number", "id", "side"
_KINDS: Mapping[str, Mapping[str, str]] = {
    "bars": {"timestamp": _TIME}
    | dict.fromkeys(("open", "high", "low", "close", "volume"), _NUMBER),
    "trades": {
        "timestamp": _TIME,
        "id": _ID,
        "side": _SIDE,
        "price": _NUMBER,
        "amount": _NUMBER,
    },
    "funding": {"timestamp": _TIME, "funding_rate": _NUMBER},
}


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of one file, in order of time.

    `times_ms` is int64; numbers are lists of floats, ids of integers, sides of `buy` and `sell`.
    """

    times_ms: NDArray[np.int64]
    columns: Mapping[str, list[Any]]


@dataclass(slots=True)
class Recording:
    """What was recorded of one market: bars by interval, trades, funding."""

    bars: dict[str, Table] = field(default_factory=dict)
    trades: Table | None = None
    funding: Table | None = None


def read_recordings(folder: Path) -> dict[Market, Recording]:
    """Read all files of a folder whose names say what they are.

    Raises
    ------
    ConfigError
        The folder is missing or has no such files, or one of them cannot be used.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"There is no folder {folder} of recorded markets.",
            "Give one that has bars/, trades/ or funding/ with Parquet files.",
        )
    found: dict[tuple[str, str, str, str | None], Recording] = {}
    for kind in _KINDS:
        for path in sorted((folder / kind).glob("*.parquet")):
            name = _NAME.fullmatch(path.stem)
            interval = name["interval"] if name else None
            if name is None or (interval is not None) != (kind == "bars"):
                continue
            recording = found.setdefault(_market_key(name), Recording())
            _add_table(recording, kind, interval, path)
    if not found:
        raise ConfigError(
            f"The folder {folder} has no recorded markets.",
            "Files are named like bars/binance_BTC-USDT_1m.parquet.",
        )
    return {_build_market(key, recording): recording for key, recording in found.items()}


def _market_key(name: re.Match[str]) -> tuple[str, str, str, str | None]:
    """Exchange, base, quote and settle, on the Binance host that serves such markets."""
    exchange, quote, settle = name["exchange"], name["quote"], name["settle"]
    if settle or exchange == "binanceusdm":
        return "binanceusdm", name["base"], quote, settle or quote
    return exchange if exchange == "binanceus" else "binance", name["base"], quote, None


def _add_table(recording: Recording, kind: str, interval: str | None, path: Path) -> None:
    table = _read_table(path, _KINDS[kind])
    taken = recording.bars.get(interval) if interval else getattr(recording, kind)
    if taken is not None:
        raise ConfigError(
            f"Two files of {kind} are of the same market as {path}.", "Remove one of them."
        )
    if interval is None:
        setattr(recording, kind, table)
        return
    if interval not in INTERVALS:
        raise ConfigError(
            f"{path} has bars of {interval}, which Binance does not have.",
            f"Binance has {', '.join(INTERVALS)}.",
        )
    recording.bars[interval] = table


def _read_table(path: Path, columns: Mapping[str, str]) -> Table:
    import polars as pl

    casts = {
        _TIME: lambda column: pl.col(column).dt.epoch("ms"),
        _NUMBER: lambda column: pl.col(column).cast(pl.Float64),
        _ID: lambda column: pl.col(column).cast(pl.Int64),
        _SIDE: lambda column: pl.col(column).cast(pl.Enum(["buy", "sell"])).cast(pl.String),
    }
    order = ["timestamp", *(name for name, kind in columns.items() if kind == _ID)]
    try:
        frame = pl.read_parquet(path, columns=list(columns)).select(
            casts[kind](name) for name, kind in columns.items()
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", "Replace it by a whole file, or remove it."
        ) from error
    whole = not frame.is_empty() and frame.drop_nulls().height == frame.height
    ordered = all(frame[name].is_sorted() for name in order)
    if not (whole and ordered and frame.select(order).is_unique().all()):
        raise ConfigError(
            f"{path} is empty, or has empty cells, or is not in strict order of its "
            f"{' and '.join(order)}.",
            "Repair the file, or remove it.",
        )
    return Table(
        frame["timestamp"].to_numpy(),
        {name: frame[name].to_list() for name in columns if name != "timestamp"},
    )


def _build_market(key: tuple[str, str, str, str | None], recording: Recording) -> Market:
    exchange, base, quote, settle = key
    tables = [*recording.bars.values(), recording.trades, recording.funding]
    times = [table.times_ms for table in tables if table is not None]
    ends = [int(each[-1]) + 1 for each in times]
    for name, table in recording.bars.items():
        interval = INTERVALS[name]
        ends.append(interval.opens(interval.index(int(table.times_ms[-1])) + 1))
    return Market(
        exchange,
        base,
        quote,
        price_places=8,  # ticks and lots were not recorded: the finest that Binance has
        amount_places=8,
        min_notional="0",
        settle=settle,
        since_ms=min(int(each[0]) for each in times),
        until_ms=max(ends),
    )
