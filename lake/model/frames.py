"""Small things that several parts do with frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import polars as pl

from lake.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


def find_varying(frame: pl.DataFrame, columns: Iterable[str]) -> list[str]:
    """The columns that do not hold one value throughout: constant ones cost much in sorting."""
    return [name for name in columns if frame[name].min() != frame[name].max()]


def sort_by(frame: pl.DataFrame, columns: Iterable[str]) -> pl.DataFrame:
    """The rows in order of the columns, which hold no nulls; ties are in any order.

    Rows mostly are in order already, and to see that costs a tenth of sorting them.
    """
    names = find_varying(frame, columns)
    return frame if _is_sorted(frame, names) else frame.sort(names)


def to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """The frame as a pandas frame; pandas is an extra.

    Raises
    ------
    UsageError
        It is not installed.
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
