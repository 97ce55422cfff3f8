"""Helpers for frames: sort rows that are mostly sorted, convert to pandas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import polars as pl

from lake.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


def find_varying(frame: pl.DataFrame, columns: Iterable[str]) -> list[str]:
    """Return the columns with more than one value: constant ones make sorting slow."""
    return [name for name in columns if frame[name].min() != frame[name].max()]


def sort_by(frame: pl.DataFrame, columns: Iterable[str]) -> pl.DataFrame:
    """Sort rows by columns without nulls; ties keep their order.

    Rows are mostly sorted already, and checking that costs a tenth of a sort.
    """
    names = find_varying(frame, columns)
    return frame if _is_sorted(frame, names) else frame.sort(names, maintain_order=True)


def to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """Convert a frame to a pandas frame; pandas is an extra.

    Raises
    ------
    UsageError
        pandas is not installed.
    """
    try:
        return frame.to_arrow().to_pandas()
    except ModuleNotFoundError as error:
        raise UsageError(
            "pandas is not installed", "Install the extra: pip install 'marketlake[pandas]'."
        ) from error


def _is_sorted(frame: pl.DataFrame, names: Sequence[str]) -> bool:
    if len(names) <= 1:
        return not names or frame[names[0]].is_sorted()
    ahead, same = pl.lit(value=False), pl.lit(value=True)
    for name in names:
        before = pl.col(name).shift(1)
        ahead = ahead | (same & (before < pl.col(name)))
        same = same & (before == pl.col(name))
    return bool(frame.select((ahead | same).slice(1).all()).item())
