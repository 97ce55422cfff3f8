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
    SourceRefusedError,
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
    from lake.bundles.manifest import Manifest
    from lake.bundles.verify import Problem
    from lake.jobs.alerts import AlertOutcome, AlertReport
    from lake.jobs.ingest.report import Failure, IngestReport, Unanswered
    from lake.jobs.job import TableReport
    from lake.jobs.quality.check import CheckReport
    from lake.jobs.quality.findings import FindingCounts
    from lake.jobs.repairs.report import (
        AppliedRepair,
        FailedRepair,
        PlannedRepair,
        RepairReport,
        UndoReport,
    )
    from lake.jobs.touched import Touched
    from lake.model.dataset import Dataset
    from lake.model.market import Market
    from lake.model.progress import NoProgress, Progress
    from lake.model.time import TimeRange
    from lake.quality.report.document import Report
    from lake.quality.slice import Slice
    from lake.replay.events import Bar, Event, Funding, OrderBook, Trade
    from lake.replay.merge import Batch
    from lake.settings import Settings
    from lake.store.store import WriteResult
    from lake.store.vacuum import VacuumReport
    from lake.store.verify import TableVerification

__all__ = [
    "AlertOutcome",
    "AlertReport",
    "AlignInput",
    "Aligned",
    "AppliedRepair",
    "AsOf",
    "Bar",
    "Batch",
    "Bundle",
    "CheckReport",
    "CommitConflictError",
    "ConfigError",
    "DamagedError",
    "Dataset",
    "Event",
    "FailedRepair",
    "Failure",
    "FindingCounts",
    "Funding",
    "IngestReport",
    "Lake",
    "LakeError",
    "Manifest",
    "Market",
    "NoProgress",
    "OrderBook",
    "PlannedRepair",
    "Problem",
    "Progress",
    "QualityError",
    "RepairReport",
    "Report",
    "Resample",
    "SchemaError",
    "Settings",
    "Slice",
    "SourceError",
    "SourceRefusedError",
    "SourceUnavailableError",
    "StorageError",
    "TableReport",
    "TableVerification",
    "TimeRange",
    "Touched",
    "Trade",
    "Unanswered",
    "UndoReport",
    "UnknownNameError",
    "UsageError",
    "VacuumReport",
    "WriteResult",
    "align",
    "as_of_join",
    "grid",
    "open",
    "open_bundle",
]

# Modules that need Polars, ccxt or DuckDB are imported on first use.
_NAMES_BY_MODULE = {
    "lake.align.align": "AlignInput Aligned",
    "lake.align.asof": "as_of_join",
    "lake.align.policies": "AsOf Resample",
    "lake.api": "Lake",
    "lake.api.alignment": "align grid",
    "lake.bundles.bundle": "Bundle",
    "lake.bundles.manifest": "Manifest",
    "lake.bundles.verify": "Problem",
    "lake.jobs.alerts": "AlertOutcome AlertReport",
    "lake.jobs.ingest.report": "Failure IngestReport Unanswered",
    "lake.jobs.job": "TableReport",
    "lake.jobs.quality.check": "CheckReport",
    "lake.jobs.quality.findings": "FindingCounts",
    "lake.jobs.repairs.report": "AppliedRepair FailedRepair PlannedRepair RepairReport UndoReport",
    "lake.jobs.touched": "Touched",
    "lake.model.dataset": "Dataset",
    "lake.model.market": "Market",
    "lake.model.progress": "NoProgress Progress",
    "lake.model.time": "TimeRange",
    "lake.quality.report.document": "Report",
    "lake.quality.slice": "Slice",
    "lake.replay.events": "Bar Event Funding OrderBook Trade",
    "lake.replay.merge": "Batch",
    "lake.settings": "Settings",
    "lake.store.store": "WriteResult",
    "lake.store.vacuum": "VacuumReport",
    "lake.store.verify": "TableVerification",
}
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}

# The package `lake.align` must not replace the function of the same name: a package that is already
# imported is not bound here by a later import.
import_module("lake.align")
del globals()["align"]


def open(uri: str | Path | None = None, *, config: Path | None = None) -> Lake:  # noqa: A001
    """Open a lake.

    Parameters
    ----------
    uri
        Folder of the lake. Default: the setting of `LAKE_URI` or the nearest `lake.toml`.
    config
        A settings file to read instead of the nearest `lake.toml`.

    Raises
    ------
    ConfigError
        There is no lake at the URI, or a setting is invalid.
    """
    from lake.api import open_lake

    return open_lake(uri, config=config)


def open_bundle(
    reference: str | Path, uri: str | Path | None = None, *, cache: bool = True
) -> Bundle:
    """Open a pinned bundle of a lake, or an exported bundle, which needs no lake.

    Parameters
    ----------
    reference
        Name, id (at least eight digits) or `NAME@ID` of a bundle; or the path of an export, a
        `.tar.zst` file or a folder. Text without a slash is a path only if an export exists there
        and no `uri` is given.
    uri
        Folder of the lake. Default: the setting of `LAKE_URI` or the nearest `lake.toml`.
    cache
        Whether to keep rows memory-mapped, and archives unpacked, for the next read.

    Raises
    ------
    UnknownNameError
        The bundle or the path does not exist.
    ConfigError
        There is no lake at the URI.
    DamagedError
        The bundle has changed since it was pinned or exported.
    """
    from lake.api import utc_now
    from lake.bundles.archive.opening import is_export_path, open_exported

    if isinstance(reference, str) and (uri is not None or not is_export_path(reference)):
        return open(uri).bundles.open(reference, cache=cache)
    from lake.bundles.cache import open_cache
    from lake.settings import load_settings

    opened_cache = open_cache(load_settings().cache) if cache else None
    return open_exported(Path(reference), opened_cache, now=utc_now)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'lake' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
