"""Rows that become known at a time, and their alignment on a short grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from lake.align.align import Aligned, align
from lake.align.policies import How
from tests.conftest import SECOND, T0, TIME

NAMES = pl.Schema({"exchange": pl.String(), "symbol": pl.String()})
UNTIL = T0 + 12 * SECOND
STEP = 3 * SECOND


class Fact(NamedTuple):
    """A row: when it became known in seconds, its value, its market, and its `fill`."""

    known_at: int
    value: int | None
    symbol: str
    fill: str | None


def rows_of(facts: Sequence[Fact]) -> pl.DataFrame:
    values = [fact.value for fact in facts]
    schema: dict[str, pl.DataType] = {"available_at": TIME, **NAMES, "fill": pl.String()}
    schema |= dict.fromkeys(("open", "high", "low", "close", "value"), pl.Int64())
    columns: dict[str, Any] = {
        "available_at": [T0 + fact.known_at * SECOND for fact in facts],
        "exchange": ["a"] * len(facts),
        "symbol": [fact.symbol for fact in facts],
        "fill": [fact.fill for fact in facts],
        "value": values,
    }
    for price in ("open", "high", "low", "close"):
        columns[price] = [0 if value is None else value for value in values]
    return pl.DataFrame({name: columns[name] for name in schema}, schema=schema)


def rows_known_at(*seconds: float, value: Sequence[float] = (), **columns: Any) -> pl.DataFrame:
    """Build rows without market columns, with the values 1, 2, … by default."""
    values = list(value) or list(range(1, len(seconds) + 1))
    times = pl.Series(values=[T0 + second * SECOND for second in seconds], dtype=TIME)
    return pl.DataFrame({"available_at": times, "value": values, **columns})


def align_rows(rows: pl.DataFrame, how: How, seconds: int = 12, every: Any = STEP) -> Aligned:
    return align({"x": rows}, every, since=T0, until=T0 + seconds * SECOND, how=how)
