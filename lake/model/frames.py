"""Small things that several parts do with frames."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl


def varying(frame: pl.DataFrame, columns: Iterable[str]) -> list[str]:
    """The columns that do not hold one value throughout: constant ones cost much in sorting."""
    return [name for name in columns if frame[name].min() != frame[name].max()]


def sorted_by(frame: pl.DataFrame, columns: Iterable[str]) -> pl.DataFrame:
    """The rows in order of the columns, which hold no nulls; ties are in any order."""
    names = varying(frame, columns)
    if not names or (len(names) == 1 and frame[names[0]].is_sorted()):
        return frame
    return frame.sort(names)
