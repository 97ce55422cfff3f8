"""What the package offers: its names, their one-line texts, and parameters that tools know."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import get_type_hints

import polars as pl
import pytest

import lake as package
from lake import errors
from lake.align.policies import AsOf
from lake.api import Lake
from lake.api.alerts import Alerts
from lake.api.bundles import Bundles
from lake.api.maintenance import Maintenance
from lake.api.quality import Quality
from lake.replay.events import Event
from tests.conftest import DAY, T0, bars, trades, write

NAMES = [
    "AlertOutcome", "AlertReport", "AlignInput", "Aligned", "AppliedRepair", "AsOf", "Bar",
    "Batch", "Bundle", "CheckReport", "CommitConflictError", "ConfigError", "DamagedError",
    "Dataset", "Event", "FailedRepair", "Failure", "FindingCounts", "Funding", "IngestReport",
    "Lake", "LakeError", "Manifest", "Market", "NoProgress", "OrderBook", "PlannedRepair",
    "Problem", "Progress", "QualityError", "RepairReport", "Report", "Resample", "SchemaError",
    "Settings", "Slice", "SourceError", "SourceRefusedError", "SourceUnavailableError",
    "StorageError", "TableReport", "TableVerification", "TimeRange", "Touched", "Trade",
    "Unanswered", "UndoReport", "UnknownNameError", "UsageError", "VacuumReport", "WriteResult",
    "align", "as_of_join", "grid", "open", "open_bundle",
]  # fmt: skip


def test_the_public_names_are_these_and_no_others_are_shown() -> None:
    assert package.__all__ == NAMES
    assert dir(package) == NAMES
    for name in NAMES:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = package.Nothing


def test_every_error_is_public() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    public = {kind.__name__ for kind in kinds if issubclass(kind, Exception)}
    assert "UsageError" in public
    assert public <= set(NAMES)


def test_public_classes_can_annotate() -> None:
    def work(market_lake: package.Lake, bundle: package.Bundle) -> package.IngestReport | None:
        event: package.Event | package.Bar | None = next(bundle.replay(), None)
        return market_lake.ingest() if event else None

    hints = get_type_hints(work)
    assert hints["market_lake"] is package.Lake
    assert hints["bundle"] is package.Bundle
    assert isinstance(package.Bar, type)
    assert package.Event is Event


def test_a_function_is_not_replaced_by_the_package_of_its_name() -> None:
    code = """
import lake, lake.api, lake.align.align, lake.align.asof
assert callable(lake.align), lake.align
from lake import align
assert callable(align)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_texts_are_one_short_line(lake: Lake) -> None:
    write(lake, "bars_1m", bars(9))
    write(lake, "trades", trades(9))
    bundle = lake.bundles.pin("b", table=["bars", "trades"])
    how = AsOf(staleness=None, columns=["close"])
    things = [
        lake,
        lake.bundles,
        lake.quality,
        lake.alerts,
        lake.maintenance,
        bundle,
        lake.quality.check(),
        lake.quality.report(),
        lake.quality.repair(offline=True),
        lake.quality.repair(dry_run=True),
        lake.alerts.run(),
        lake.maintenance.vacuum(dry_run=True),
        lake.align({"x": "bars_1m"}, "1m", since=T0, until=T0 + DAY, how=how),
        next(bundle.replay(batch=5)),
        lake.write("trades", trades(3)),
    ]
    for thing in things:
        text = repr(thing)
        assert len(text) <= 160, text
        assert "\n" not in text
        assert type(thing).__name__ in text or text.startswith("<Lake.")


def test_checks_see_a_slice_with_a_short_text(lake: Lake) -> None:
    write(lake, "bars_1m", bars(9))
    texts: list[str] = []

    def own(rows: package.Slice) -> pl.LazyFrame:
        texts.append(repr(rows))
        return rows.frame.select(start="timestamp").head(0)

    lake.quality.check("bars_1m", own={"own": own})
    assert texts == [f"<Slice of bars_1m binance BTC/USDT: {_day()}>"]


def _day() -> package.TimeRange:
    return package.TimeRange(T0, T0 + DAY)


@pytest.mark.parametrize("owner", [package.Lake, package.Bundle])
def test_reads_have_parameters_that_tools_know(owner: type) -> None:
    names = ["table", "timeframe", "exchange", "symbol"]
    for method in ("scan", "available", "to_pandas", "latest", "at"):
        parameters = inspect.signature(getattr(owner, method)).parameters
        assert list(parameters)[1:5] == names
        kinds = {parameters[name].kind for name in names[1:]}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}
        with pytest.raises(TypeError, match="symbl"):
            getattr(owner, method)(None, "trades", symbl="BTC/USDT")


METHODS = {
    package.Lake: "alerts align at audit available bundles coverage create dataset describe ingest "
    "instruments jobs latest maintenance order_books quality scan sql status tables to_pandas "
    "versions write",
    Bundles: "diff export import_ ls open pin resolve rm verify warm",
    Quality: "check finding findings gaps repair repairs report scores undo",
    Alerts: "ls run test",
    Maintenance: "checkpoint gc migrate optimize vacuum verify",
}
ORDER = ("table", "timeframe", "exchange", "symbol", "since", "until")


@pytest.mark.parametrize("owner", METHODS)
def test_a_lake_and_its_namespaces_have_these_methods(owner: type) -> None:
    public = [name for name in dir(owner) if not name.startswith("_")]
    assert public == METHODS[owner].split()


@pytest.mark.parametrize("owner", [*METHODS, package.Bundle])
def test_parameters_have_one_set_of_names_in_one_order(owner: type) -> None:
    for name in dir(owner):
        method = inspect.getattr_static(owner, name)
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        parameters = inspect.signature(method).parameters
        assert not {"start", "end", "tables", "datasets", "meter"} & parameters.keys(), name
        shared = [parameter for parameter in parameters if parameter in ORDER]
        assert shared == sorted(shared, key=ORDER.index), name
        for parameter in shared[1:]:
            assert parameters[parameter].kind is inspect.Parameter.KEYWORD_ONLY, name
