"""A market data lakehouse for crypto trading: data that a backtest can trust.

>>> import lake
>>> bars = lake.open("lake-data").scan("bars_1m", symbol="BTC/USDT").collect()
>>> bundle = lake.open_bundle("research-1", "lake-data")
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lake.errors import (
    CommitConflictError,
    ConfigError,
    DamagedError,
    LakeError,
    QualityError,
    SchemaError,
    SourceError,
    SourceUnavailableError,
    StorageError,
    UnknownNameError,
    UsageError,
)

if TYPE_CHECKING:
    from typing import Any

    from lake.align.align import Aligned, AlignInput
    from lake.align.asof import as_of_join
    from lake.align.policies import AsOf, Resample
    from lake.api import Lake
    from lake.api.alignment import align, grid
    from lake.bundles.bundle import Bundle
    from lake.quality.slice import Slice

__all__ = [
    "AlignInput",
    "Aligned",
    "AsOf",
    "CommitConflictError",
    "ConfigError",
    "DamagedError",
    "LakeError",
    "QualityError",
    "Resample",
    "SchemaError",
    "Slice",
    "SourceError",
    "SourceUnavailableError",
    "StorageError",
    "UnknownNameError",
    "UsageError",
    "align",
    "as_of_join",
    "grid",
    "open",
    "open_bundle",
]

_LAZY = {
    "Aligned": "lake.align.align",
    "AsOf": "lake.align.policies",
    "AlignInput": "lake.align.align",
    "Resample": "lake.align.policies",
    "Slice": "lake.quality.slice",
    "align": "lake.api.alignment",
    "as_of_join": "lake.align.asof",
    "grid": "lake.api.alignment",
}


# The package `lake.align` must not take the place of the function of its name: what is imported
# before is not bound here by a later import.
import_module("lake.align")
del globals()["align"]


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


def open_bundle(
    reference: str | Path, uri: str | Path | None = None, *, cache: bool = True
) -> Bundle:
    """Open a pinned bundle of a lake, or one that was exported, for which no lake is needed.

    Parameters
    ----------
    reference
        Its name, its id (at least eight digits), or `NAME@ID`; or the path of an export, a
        `.tar.zst` or a folder. Text without a slash is a path where it names an export that is
        there and no `uri` is given.
    uri
        The folder of the lake; by default what `LAKE_URI` or the nearest `lake.toml` says.
    cache
        Whether rows are kept mapped for the next read, and archives unpacked.

    Raises
    ------
    UnknownNameError
        The lake has no such bundle, or there is nothing at the path.
    ConfigError
        There is no lake there.
    DamagedError
        It is not as it was pinned, or not as it was exported.
    """
    from lake.api import utc_now
    from lake.bundles.archive.opening import is_export_path, open_exported

    if isinstance(reference, str) and (uri is not None or not is_export_path(reference)):
        return open(uri).bundles.open(reference, cache=cache)
    from lake.bundles.cache import open_cache
    from lake.settings import load_settings

    kept = open_cache(load_settings().cache) if cache else None
    return open_exported(Path(reference), kept, now=utc_now)


def __getattr__(name: str) -> Any:
    """What needs Polars is loaded when it is asked for."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'lake' has no attribute {name!r}")
