"""Reads a folder of recorded Parquet files: one recording of columns per market."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lake.errors import ConfigError
from lake.sandbox.intervals import INTERVALS
from lake.sandbox.market import Market

if TYPE_CHECKING:
    import polars as pl

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
    """The recorded rows of one market: bars by interval, trades, funding."""

    bars: dict[str, Table] = field(default_factory=dict)
    trades: Table | None = None
    funding: Table | None = None


def read_recordings(folder: Path) -> dict[Market, Recording]:
    """Read all files of a folder whose names follow the convention.

    Raises
    ------
    ConfigError
        The folder does not exist or has no such files, or a file cannot be used.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"The folder {folder} of recorded markets does not exist.",
            "Name a folder that has bars/, trades/ or funding/ with Parquet files.",
        )
    recordings: dict[tuple[str, str, str, str | None], Recording] = {}
    for kind in _KINDS:
        for path in sorted((folder / kind).glob("*.parquet")):
            name = _NAME.fullmatch(path.stem)
            interval = name["interval"] if name else None
            if name is None or (interval is not None) != (kind == "bars"):
                continue
            recording = recordings.setdefault(_market_key(name), Recording())
            _add_table(recording, kind, interval, path)
    if not recordings:
        raise ConfigError(
            f"The folder {folder} has no recorded markets.",
            "Name its files like bars/binance_BTC-USDT_1m.parquet.",
        )
    return {_build_market(key, recording): recording for key, recording in recordings.items()}


def _market_key(name: re.Match[str]) -> tuple[str, str, str, str | None]:
    """Return exchange, base, quote and settle on the Binance host that serves such markets."""
    exchange, quote, settle = name["exchange"], name["quote"], name["settle"]
    if settle or exchange == "binanceusdm":
        return "binanceusdm", name["base"], quote, settle or quote
    return exchange if exchange == "binanceus" else "binance", name["base"], quote, None


def _add_table(recording: Recording, kind: str, interval: str | None, path: Path) -> None:
    table = _read_table(path, _KINDS[kind])
    existing = recording.bars.get(interval) if interval else getattr(recording, kind)
    if existing is not None:
        raise ConfigError(
            f"{path} is a second file of {kind} for the same market.", "Remove one of them."
        )
    if interval is None:
        setattr(recording, kind, table)
        return
    if interval not in INTERVALS:
        raise ConfigError(
            f"{path} has bars of {interval}, an interval that Binance does not have.",
            f"Use one of {', '.join(INTERVALS)}.",
        )
    recording.bars[interval] = table


def _read_table(path: Path, columns: Mapping[str, str]) -> Table:
    frame = _read_frame(path, columns)
    order = ["timestamp", *(name for name, kind in columns.items() if kind == _ID)]
    if not _is_complete(frame) or not _is_in_strict_order(frame, order):
        raise ConfigError(
            f"{path} is empty, has empty cells, or is not in strict order of its "
            f"{' and '.join(order)}.",
            "Repair the file, or remove it.",
        )
    return Table(
        frame["timestamp"].to_numpy(),
        {name: frame[name].to_list() for name in columns if name != "timestamp"},
    )


def _read_frame(path: Path, columns: Mapping[str, str]) -> "pl.DataFrame":
    import polars as pl

    casts = {
        _TIME: lambda column: pl.col(column).dt.epoch("ms"),
        _NUMBER: lambda column: pl.col(column).cast(pl.Float64),
        _ID: lambda column: pl.col(column).cast(pl.Int64),
        _SIDE: lambda column: pl.col(column).cast(pl.Enum(["buy", "sell"])).cast(pl.String),
    }
    try:
        return pl.read_parquet(path, columns=list(columns)).select(
            casts[kind](name) for name, kind in columns.items()
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", "Replace it by an intact file, or remove it."
        ) from error


def _is_complete(frame: "pl.DataFrame") -> bool:
    return not frame.is_empty() and frame.drop_nulls().height == frame.height


def _is_in_strict_order(frame: "pl.DataFrame", order: list[str]) -> bool:
    is_sorted = all(frame[name].is_sorted() for name in order)
    return is_sorted and bool(frame.select(order).is_unique().all())


def _build_market(key: tuple[str, str, str, str | None], recording: Recording) -> Market:
    exchange, base, quote, settle = key
    tables = [*recording.bars.values(), recording.trades, recording.funding]
    times = [table.times_ms for table in tables if table is not None]
    ends = [int(column[-1]) + 1 for column in times]
    for name, table in recording.bars.items():
        interval = INTERVALS[name]
        ends.append(interval.opens(interval.index(int(table.times_ms[-1])) + 1))
    return Market(
        exchange,
        base,
        quote,
        price_places=8,  # ticks and lots were not recorded: the finest on Binance
        amount_places=8,
        min_notional="0",
        settle=settle,
        since_ms=min(int(column[0]) for column in times),
        until_ms=max(ends),
    )
