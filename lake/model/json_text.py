"""Write JSON that any reader accepts: it has no NaN and no infinity, which `json` would write."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

_BARE_NUMBER = r"([:\[,]\s*)(NaN|-?Infinity)"  # and what stands before it


def write_json(value: Any, default: Callable[[Any], Any] | None = None, **options: Any) -> str:
    """Write a value as JSON; numbers that are not finite become texts: "NaN", "-Infinity".

    Parameters
    ----------
    default, options
        As of `json.dumps`.
    """
    try:
        return json.dumps(value, default=default, allow_nan=False, **options)
    except ValueError:
        named = _name_numbers(value)
        return json.dumps(named, default=default, allow_nan=False, **options)


def match_path(text: pl.Expr, path: str) -> pl.Expr:
    """Return the value at a path of JSON, also of texts in which numbers are not finite."""
    repaired = text.str.replace_all(_BARE_NUMBER, '$1"$2"')
    return pl.coalesce(text.str.json_path_match(path), repaired.str.json_path_match(path))


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises
    ------
    ValueError
        The text is not JSON: for example, it has a number that is not finite.
    """
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _name_numbers(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    if isinstance(value, Mapping):
        return {key: _name_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_name_numbers(item) for item in value]
    return value
