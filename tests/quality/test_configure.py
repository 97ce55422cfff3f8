"""Checks are declared in dataset files and changed by settings; errors say where."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lake.errors import ConfigError
from lake.model.catalog import builtin
from lake.quality.checks.registry import BUILTIN
from lake.quality.configure import ConfiguredCheck, Overrides, configure
from lake.quality.run import run_checks
from lake.quality.slice import Slice
from tests.conftest import MINUTE, T0, bars
from tests.quality.slices import slice_of

CORE = ("gaps", "refused", "implausible_time", "order", "duplicates", "off_grid")
BARS, HOURS = (
    replace(dataset, checks=tuple(check for check in dataset.checks if check.name in CORE))
    for dataset in map(builtin().dataset, ("bars_1m", "bars_1h"))
)
ROWS = slice_of(BARS, bars(10, volume=[float(n) for n in range(10)]))


ALLOWED = ("no.such", "lake.quality", "own_checks")


def named(overrides: Overrides | None = None, **more: Any) -> dict[str, ConfiguredCheck]:
    return {check.name: check for check in configure(BARS, overrides, **more)}


def refusal(overrides: Overrides, **more: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        configure(BARS, overrides, **{"modules": ALLOWED, **more})
    return caught.value


def findings(overrides: Overrides | None = None, **more: Any) -> pl.DataFrame:
    """Findings of checks in ten bars; bar n has the volume n."""
    checks = configure(BARS, overrides, **{"modules": ALLOWED, **more})
    mine = [check for check in checks if check.name.startswith("my_")]
    return run_checks(ROWS, mine).findings


@pytest.mark.parametrize("table", ["bars_1m", "trades", "funding", "orderbooks"])
def test_every_declared_check_exists_and_takes_its_thresholds(table: str) -> None:
    dataset = builtin().dataset(table)
    assert {check.name for check in configure(dataset)} == {c.name for c in dataset.checks}
    assert {check.name for check in configure(dataset)} <= set(BUILTIN)


def test_severity_thresholds_and_presence_are_overridden() -> None:
    checks = named(
        {
            "bars": {
                "gaps": {"severity": "info"},
                "implausible_time": {"ahead_seconds": 5},
                "order": {"enabled": False},
            }
        }
    )
    assert checks["gaps"].severity == "info"
    assert checks["gaps"].dimension == "completeness"
    assert checks["implausible_time"].thresholds == {"ahead_seconds": 5}
    assert "order" not in checks


def test_the_table_has_the_last_word_before_its_family() -> None:
    overrides: Overrides = {
        "bars_1m": {"gaps": {"severity": "warning"}},
        "bars": {"gaps": {"severity": "info"}, "order": {"enabled": False}},
        "bars_1h": {"gaps": {"severity": "critical"}},
    }
    assert named(overrides)["gaps"].severity == "warning"
    assert "order" not in named(overrides)
    hours = {check.name: check.severity for check in configure(HOURS, overrides)}
    assert hours["gaps"] == "critical"


@pytest.mark.parametrize(
    ("table", "name", "values", "says"),
    [
        ("bars", "gasp", {"severity": "info"}, "there is no check 'gasp'"),
        ("bars", "gasp", {"enabled": False}, "there is no check 'gasp'"),
        ("bars_1m", "gaps", {"longest": 3}, "there is no threshold 'longest'"),
        ("bars", "implausible_time", {"ahead_seconds": "5"}, "'5' is not of type float"),
        ("bars", "implausible_time", {"ahead_seconds": True}, "True is not of type float"),
        ("bars", "gaps", {"severity": "bad"}, "'bad' is not one of info, warning, error, critical"),
        ("bars", "gaps", {"enabled": "no"}, "'no' is not of type bool"),
        ("bars", "mine", {"sql": 3}, "3 is not of type str"),
        ("bars", "mine", {"sql": "SELECT 1", "dimension": "size"}, "'size' is not one of"),
        ("bars", "mine", {"sql": "SELECT 1", "python": "a:b"}, "both sql and python"),
        ("bars", "mine", {"sql": "SELECT 1", "factor": 3}, "there is no threshold 'factor'"),
        ("bars", "mine", {"python": "no.such.module:check"}, "cannot be imported"),
        ("bars", "mine", {"python": "lake.quality.checks.times:nothing"}, "cannot be imported"),
        ("bars", "mine", {"python": "lake.quality.checks.times"}, "cannot be imported"),
        ("bars", "mine", {"python": "lake.quality.checks.times:CHECKS"}, "is not a function"),
    ],
)
def test_a_mistake_in_the_settings_is_reported_with_its_place(
    table: str, name: str, values: dict[str, Any], says: str
) -> None:
    error = refusal({table: {name: values}})
    assert f"settings: quality.checks.{table}.{name}" in error.message
    assert says in error.message


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    assert refusal({"bars": {"gasp": {}}}).hint == "Did you mean gaps?"
    assert "implausible_time" in refusal({"bars": {"xyz": {}}}).hint


def test_a_check_in_sql_finds_rows() -> None:
    query = "SELECT timestamp, volume AS measured FROM rows WHERE volume > 7"
    findings_ = findings({"bars": {"my_sql": {"sql": query, "severity": "error"}}})
    assert findings_["start"].to_list() == [T0 + 8 * MINUTE, T0 + 9 * MINUTE]
    assert findings_["measured"].to_list() == [8.0, 9.0]
    assert set(findings_["severity"]) == {"error"}
    assert set(findings_["dimension"]) == {"accuracy"}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT nothing FROM rows", "nothing"),
        ("SELEC timestamp FROM rows", "SELEC"),
        ("SELECT volume FROM rows", "no column start or timestamp"),
        ("SELECT timestamp, CAST(open AS STRING) || 'x' AS measured FROM rows", "check failed"),
    ],
)
def test_an_error_in_sql_is_reported_with_its_place(query: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        findings({"bars_1m": {"my_sql": {"sql": query}}})
    assert caught.value.message.startswith("settings: quality.checks.bars_1m.my_sql")


OWN = """
from __future__ import annotations
from typing import TYPE_CHECKING
import polars as pl
if TYPE_CHECKING:
    from lake.quality.slice import Slice

def large(rows: Slice, *, least: float) -> pl.LazyFrame:
    return rows.frame.filter(pl.col("volume") >= least).select(start="timestamp")

def broken(rows):
    raise KeyError("volume of what")

def nothing(rows):
    return None

def severe(rows):
    return rows.frame.select(start="timestamp", severity=pl.lit("terrible"))

def late(rows):
    return rows.frame.select(start=pl.col("no_such_column"))

def nameless(rows):
    return rows.frame.select("volume")
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's, on the path."""
    package = tmp_path / "own_checks"
    package.mkdir()
    (package / "mine.py").write_text(OWN, encoding="utf-8")
    (package / "mine_broken.py").write_text("1 / 0", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "own_checks"]:
        monkeypatch.delitem(sys.modules, name)
    return "own_checks.mine"


def test_a_check_in_python_is_given_its_thresholds(own_module: str) -> None:
    mine = {"python": f"{own_module}:large", "least": 8, "dimension": "timeliness"}
    result = findings({"bars": {"my_python": mine}})
    assert result["start"].to_list() == [T0 + 8 * MINUTE, T0 + 9 * MINUTE]
    assert set(result["dimension"]) == {"timeliness"}
    assert set(result["message"]) == {"reported by my_python"}


@pytest.mark.parametrize(
    ("modules", "is_allowed"),
    [
        ((), False),
        (("own_checks.min",), False),
        (("own_checks.mine.large",), False),
        (("other",), False),
        (("own_checks.mine",), True),
        (("other", "own_checks"), True),
    ],
)
def test_code_runs_only_from_modules_that_are_allowed(
    own_module: str, modules: tuple[str, ...], *, is_allowed: bool
) -> None:
    mine = {"bars": {"my_python": {"python": f"{own_module}:large", "least": 8}}}
    if is_allowed:
        assert findings(mine, modules=modules).height == 2
        return
    error = refusal(mine, modules=modules)
    assert "would run code that you have not allowed" in error.message
    assert "quality.python_modules" in error.hint
    assert own_module not in sys.modules


def test_a_missing_threshold_is_reported(own_module: str) -> None:
    error = refusal({"bars": {"my_python": {"python": f"{own_module}:large"}}})
    assert "threshold 'least' is missing" in error.message


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("broken", "KeyError: 'volume of what'"),
        ("nothing", "it returned NoneType"),
        ("severe", "severity 'terrible'"),
        ("late", "no_such_column"),
        ("nameless", "start"),
    ],
)
def test_an_error_in_python_is_reported_with_its_place(
    own_module: str, function: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        findings({"bars": {"my_python": {"python": f"{own_module}:{function}"}}})
    assert caught.value.message.startswith("settings: quality.checks.bars.my_python")


def test_a_module_that_cannot_be_imported_is_reported(own_module: str) -> None:
    error = refusal({"bars": {"my_python": {"python": f"{own_module}_broken:check"}}})
    assert "cannot be imported: division by zero" in error.message


def test_functions_of_the_caller_are_checks_too() -> None:
    def mine(rows: Slice) -> pl.LazyFrame:
        return rows.frame.filter(pl.col("volume") == 3).select(start="timestamp")

    result = findings(own={"my_own": mine})
    assert result.select("start", "check", "severity").rows() == [
        (T0 + 3 * MINUTE, "my_own", "warning")
    ]
    with pytest.raises(ConfigError, match="a check 'gaps' already exists"):
        configure(BARS, own={"gaps": mine})


def test_an_error_in_a_function_of_the_caller_names_it() -> None:
    def mine(rows: Slice) -> pl.LazyFrame:
        raise ZeroDivisionError(rows.dataset.name)

    with pytest.raises(ConfigError, match="check my_own: the check failed on bars_1m of binance"):
        findings(own={"my_own": mine})


@pytest.mark.parametrize(
    ("check", "threshold", "value", "says"),
    [
        ("spikes", "window_rows", 1, "from 20 to 250"),
        ("spikes", "window_rows", 251, "from 20 to 250"),
        ("spikes", "deviations", -1.0, "at least 0"),
        ("spikes", "deviations", float("nan"), "at least 0"),
        ("scale", "factor", -1.0, "at least 1.1"),
        ("time_shift", "excellent", 2.0, "from -1 to 1"),
    ],
)
def test_a_threshold_with_which_a_check_would_find_nothing_or_all_is_refused(
    check: str, threshold: str, value: float, says: str
) -> None:
    overrides = {"bars": {check: {threshold: value}}}
    with pytest.raises(
        ConfigError, match=rf"checks\.bars\.{check}\.{threshold}: .*bounds"
    ) as caught:
        configure(builtin().dataset("bars_1m"), overrides)
    assert says in caught.value.hint


@pytest.mark.parametrize(
    ("check", "rows", "says"), [("spikes", 51, "from 20 to 50"), ("jumps", 101, "from 20 to 100")]
)
def test_a_window_of_rows_lies_within_the_margin_of_the_dataset(
    check: str, rows: int, says: str
) -> None:
    dataset = replace(builtin().dataset("bars_1h"), margin=timedelta(hours=100))
    short = {"bars": {name: {"window_rows": 20} for name in ("spikes", "excursions", "jumps")}}
    assert configure(dataset, short)
    short["bars"][check]["window_rows"] = rows
    with pytest.raises(ConfigError, match=r"window_rows: .* is out of bounds") as caught:
        configure(dataset, short)
    assert says in caught.value.hint


@pytest.mark.parametrize("value", ["abc", "auto", ""])
def test_a_duration_that_is_none_is_refused_with_its_place(value: str) -> None:
    overrides = {"bars": {"venue_deviation": {"duration": value}}}
    with pytest.raises(ConfigError, match=r"checks\.bars\.venue_deviation\.duration"):
        configure(builtin().dataset("bars_1m"), overrides)
