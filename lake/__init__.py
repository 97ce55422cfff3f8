"""A market data lakehouse for crypto trading: data that a backtest can trust.

>>> import lake
>>> bars = lake.open("lake-data").scan("bars_1m", symbol="BTC/USDT").collect()
>>> bundle = lake.open_bundle("research-1", "lake-data")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lake.errors import (
    CommitConflictError,
    ConfigError,
    DamagedError,
    LakeError,
    SchemaError,
    SourceError,
    SourceUnavailableError,
    StorageError,
    UnknownNameError,
    UsageError,
)

if TYPE_CHECKING:
    from lake.api import Lake
    from lake.read.bundles.bundle import Bundle

__all__ = [
    "CommitConflictError",
    "ConfigError",
    "DamagedError",
    "LakeError",
    "SchemaError",
    "SourceError",
    "SourceUnavailableError",
    "StorageError",
    "UnknownNameError",
    "UsageError",
    "open",
    "open_bundle",
]


def open(uri: str | Path | None = None, *, config: Path | None = None) -> Lake:  # noqa: A001
    """Open a lake.

    Parameters
    ----------
    uri
        Its folder; by default what `LAKE_URI` or the nearest `lake.toml` says.
    config
        A settings file to read instead of the nearest `lake.toml`.

    Raises
    ------
    ConfigError
        There is no lake there, or a setting is wrong.
    """
    from lake.api import open_lake

    return open_lake(uri, config=config)


def open_bundle(reference: str, uri: str | Path | None = None) -> Bundle:
    """Open a pinned bundle by its name, its id (at least eight digits), or `NAME@ID`.

    Raises
    ------
    UnknownNameError
        The lake has no such bundle.
    ConfigError
        There is no lake there.
    """
    return open(uri).bundle(reference)
