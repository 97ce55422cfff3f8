"""Configure the checks of a table: those of its dataset file, with the changes of the settings."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, get_args

import polars as pl
from polars.exceptions import PolarsError

from lake.errors import ConfigError, LakeError
from lake.model.dataset import TIMESTAMP, Check, Dataset, Dimension, Threshold
from lake.model.severity import SEVERITIES, Severity
from lake.model.timeframe import Timeframe
from lake.quality.check import CheckFunction, complete_columns
from lake.quality.checks.registry import BUILTIN
from lake.quality.slice import Slice

Overrides = Mapping[str, Mapping[str, Mapping[str, Any]]]
OwnChecks = Mapping[str, CheckFunction]
Bounds = Mapping[str, tuple[float, float]]
WINDOW = "window_rows"
"""Threshold of built-in checks: the number of slots around a row in which it is compared."""
_FIELDS = ("severity", "enabled", "sql", "python", "dimension")
_CHOICES = {"severity": SEVERITIES, "dimension": get_args(Dimension)}
_TYPES: Mapping[str, type] = {"enabled": bool, "sql": str, "python": str}
_BOUNDS: Bounds = {
    "window_rows": (3, math.inf),
    "factor": (1.1, math.inf),
    "consecutive_share": (0, 1),
    "poor": (-1, 1),
    "excellent": (-1, 1),
}
"""Limits of thresholds, some for one check only; all other thresholds must not be negative."""


@dataclass(frozen=True)
class ConfiguredCheck:
    """A check with its thresholds: calling it runs `function(slice, **thresholds)`."""

    name: str
    severity: Severity
    dimension: Dimension
    function: CheckFunction
    thresholds: Mapping[str, Threshold]

    @property
    def is_builtin(self) -> bool:
        """Whether it is a check of `lake`, and not of a user."""
        builtin = BUILTIN.get(self.name)
        return builtin is not None and builtin.function is self.function

    def __call__(self, data: Slice) -> pl.LazyFrame:
        return self.function(data, **self.thresholds)


def configure(
    dataset: Dataset,
    overrides: Overrides | None = None,
    own: OwnChecks | None = None,
    modules: Collection[str] = (),
) -> tuple[ConfiguredCheck, ...]:
    """Return the enabled checks of a table.

    Parameters
    ----------
    overrides
        By family (`bars`) or table (`bars_1m`, which wins), and by check: values that override the
        dataset file, or a check of your own with `sql` or `python`.
    own
        Your own check functions by name: `function(slice)` returns a frame with at least `start`.
    modules
        The modules, with all below them, from which checks with `python` may be imported.

    Raises
    ------
    ConfigError
        A check or threshold is unknown, or has the wrong type, or its code is not allowed to run;
        the message says where.
    """
    checks, where = _merge(dataset, overrides or {})
    bounds = {**_BOUNDS, **_window_bounds(dataset)}
    enabled = ((name, check) for name, check in checks.items() if check.enabled)
    configured = (_configure_check(check, where[name], bounds, modules) for name, check in enabled)
    added = (_configure_own(name, function, checks) for name, function in (own or {}).items())
    return (*configured, *added)


def _merge(dataset: Dataset, overrides: Overrides) -> tuple[dict[str, Check], dict[str, str]]:
    """Return the checks of a table by name, and the place where each is configured."""
    checks = {check.name: check for check in dataset.checks}
    where = {name: f"schemas/{dataset.family}.toml: checks.{name}" for name in checks}
    for table in (dataset.family, dataset.name):
        for name, values in overrides.get(table, {}).items():
            where[name] = f"settings: quality.checks.{table}.{name}"
            checks[name] = _override(checks.get(name), name, values, where[name])
    for name, check in checks.items():
        _require_known(check, where[name])
    return checks, where


def _configure_own(
    name: str, function: CheckFunction, checks: Mapping[str, Check]
) -> ConfiguredCheck:
    if name in checks:
        raise ConfigError(f"a check {name!r} already exists", "Give your check another name.")
    return ConfiguredCheck(name, "warning", "accuracy", _guard(function, f"check {name}"), {})


def _override(check: Check | None, name: str, values: Mapping[str, Any], where: str) -> Check:
    _require_fields(values, where)
    base = check or Check(name, "warning", {})
    thresholds = {key: value for key, value in values.items() if key not in _FIELDS}
    fields = {key: value for key, value in values.items() if key in _FIELDS}
    return replace(base, thresholds={**base.thresholds, **thresholds}, **fields)


def _require_fields(values: Mapping[str, Any], where: str) -> None:
    """Require allowed values and types of all that is not a threshold."""
    for key, choices in _CHOICES.items():
        if key in values and values[key] not in choices:
            raise ConfigError(f"{where}.{key}: {values[key]!r} is not one of {', '.join(choices)}")
    for key, expected in _TYPES.items():
        if key in values and not isinstance(values[key], expected):
            raise ConfigError(f"{where}.{key}: {values[key]!r} is not of type {expected.__name__}")


def _require_known(check: Check, where: str) -> None:
    if check.sql is not None and check.python is not None:
        raise ConfigError(f"{where}: both sql and python are given", "Give one of them.")
    if check.name not in BUILTIN and check.sql is None and check.python is None:
        close = difflib.get_close_matches(check.name, BUILTIN, n=3, cutoff=0.5)
        raise ConfigError(
            f"{where}: there is no check {check.name!r}",
            f"Did you mean {', '.join(close)}?"
            if close
            else "Give `sql` or `python` for a check of your own; built-in checks are "
            f"{', '.join(sorted(BUILTIN))}.",
        )


def _window_bounds(dataset: Dataset) -> Bounds:
    """Return the limits of windows, which must fit into the margin around each day."""
    if dataset.timeframe is None:
        return {}
    slots = dataset.margin // timedelta(seconds=dataset.timeframe.seconds)
    half = (20, slots // 2)
    return {
        "spikes.window_rows": half,
        "excursions.window_rows": half,
        "jumps.window_rows": (20, slots),
    }


def _configure_check(
    check: Check, where: str, bounds: Bounds, modules: Collection[str]
) -> ConfiguredCheck:
    builtin = BUILTIN.get(check.name)
    if check.sql is not None:
        function = _build_sql_check(check.sql, where)
    elif check.python is not None:
        function = _import_check(check.python, where, modules)
    else:
        function = BUILTIN[check.name].function
    dimension = check.dimension or (builtin.dimension if builtin else "accuracy")
    _require_thresholds(function, check.thresholds, where)
    if builtin is not None and function is builtin.function:
        _require_sensible(check, where, bounds)
    if check.sql is not None or check.python is not None:
        function = _guard(function, where)
    return ConfiguredCheck(check.name, check.severity, dimension, function, check.thresholds)


def _guard(function: CheckFunction, where: str) -> CheckFunction:
    """Run a user's check at once, so that an error in it can be reported with its place."""

    def run(data: Slice, **thresholds: Threshold) -> pl.LazyFrame:
        try:
            result = function(data, **thresholds)
            if not isinstance(result, (pl.LazyFrame, pl.DataFrame)):
                raise TypeError(f"it returned {type(result).__name__}, not a LazyFrame")  # noqa: TRY301
            if "start" not in result.collect_schema():
                raise TypeError("its result has no column start")  # noqa: TRY301
            frame = complete_columns(result.lazy()).collect()
        except ConfigError:
            raise
        except Exception as error:  # a user's code may raise anything: report its place
            reason = str(error).splitlines()[0] if str(error) else ""
            raise ConfigError(
                f"{where}: the check failed on {data.dataset.name} of {data.market}: "
                f"{type(error).__name__}: {reason}",
                "A check gets a lake.quality.slice.Slice and returns a frame with at least start.",
            ) from error
        unknown = set(frame["severity"].drop_nulls()) - set(_CHOICES["severity"])
        if unknown:
            raise ConfigError(
                f"{where}: the check returned the severity {unknown.pop()!r}",
                f"Severities are {', '.join(_CHOICES['severity'])}.",
            )
        return frame.lazy()

    return run


def _require_thresholds(
    function: CheckFunction, given: Mapping[str, Threshold], where: str
) -> None:
    """Require thresholds to be exactly the function's keyword parameters."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # annotations that only type checkers can resolve: types are not checked
        signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1:]
    types = {parameter.name: parameter.annotation for parameter in parameters}
    for name, value in given.items():
        if name not in types:
            listed = ", ".join(types) or "no thresholds"
            raise ConfigError(f"{where}: there is no threshold {name!r}", f"It has {listed}.")
        if not _is_of_type(value, types[name]):
            expected = types[name].__name__
            raise ConfigError(f"{where}.{name}: {value!r} is not of type {expected}")
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in given:
            raise ConfigError(f"{where}: threshold {parameter.name!r} is missing", "Give a value.")


def _is_of_type(value: Threshold, annotation: object) -> bool:
    """Whether a threshold has the type of a parameter; whole numbers are floats, too."""
    is_number = annotation is float and isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(annotation, type) or is_number or type(value) is annotation


def _require_sensible(check: Check, where: str, bounds: Bounds) -> None:
    """Refuse thresholds with which a built-in check would report nothing, or everything."""
    for name, value in check.thresholds.items():
        if isinstance(value, str) and (name, value) != ("interval", "auto"):
            _require_length(value, f"{where}.{name}")
        if isinstance(value, (str, list)):
            continue
        low, high = bounds.get(f"{check.name}.{name}", bounds.get(name, (0, math.inf)))
        if not low <= value <= high:
            limits = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise ConfigError(f"{where}.{name}: {value!r} is out of bounds", f"Give {limits}.")


def _require_length(text: str, where: str) -> None:
    try:
        Timeframe.parse(text)
    except LakeError as error:
        raise ConfigError(f"{where}: {error.message}", error.hint) from error


def _build_sql_check(query: str, where: str) -> CheckFunction:
    """Build a check from a query over `rows`; its result needs the time column or `start`."""

    def run(data: Slice) -> pl.LazyFrame:
        try:
            result = pl.SQLContext(rows=data.frame).execute(query)
            schema = result.collect_schema()
        except PolarsError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{where}.sql: {query!r} does not work: {reason}") from error
        if "start" not in schema:
            result = result.rename({data.dataset.time_column: "start"}, strict=False)
        if result.collect_schema().get("start") != TIMESTAMP:
            raise ConfigError(
                f"{where}.sql: the result has no column start or {data.dataset.time_column}",
                "Select the time column; end, measured, expected and message are optional.",
            )
        return result

    return run


def _import_check(place: str, where: str, modules: Collection[str]) -> CheckFunction:
    module, _, name = place.partition(":")
    if not any(f"{module}.".startswith(f"{allowed}.") for allowed in modules):
        raise ConfigError(
            f"{where}.python: {place!r} would run code that you have not allowed",
            f"If you trust whoever wrote it, add {module!r} to quality.python_modules in your own "
            "settings: ~/.config/lake/lake.toml, LAKE_QUALITY__PYTHON_MODULES, or --config FILE.",
        )
    try:
        function: CheckFunction = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module may raise anything when it is imported
        raise ConfigError(
            f"{where}.python: {place!r} cannot be imported: {error}",
            "Write package.module:function; the package must be installed, or on PYTHONPATH.",
        ) from error
    if not callable(function):
        raise ConfigError(f"{where}.python: {place!r} is not a function")
    return function
