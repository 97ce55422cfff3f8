"""The tie rule: the order of a replay's rows that have the same ordering time.

1. The rank of the dataset, then the shorter timeframe, then the name of the table. The dataset
   files rank bars first, because they describe the time before; then funding, trades, order books,
   then others.
2. Exchange, then symbol.
3. The sort columns of the dataset, then its key. Nulls come first, and a shorter string comes
   before a longer one (in bytes of UTF-8), so that decimal ids are in numeric order: `999` before
   `1000`. Strings of one length are in order of their code points.

No two rows have the same place, and the order does not depend on the layout of files, the order of
arguments, or the size of batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lake.model.dataset import Dataset
from lake.model.frames import sort_by


def rank_dataset(dataset: Dataset) -> tuple[int, int, str]:
    """Return the sort key of a dataset: the order of datasets among rows of one instant."""
    seconds = dataset.timeframe.seconds if dataset.timeframe else 0
    return dataset.rank, seconds, dataset.name


def read_times(frame: pl.DataFrame, column: str) -> NDArray[np.int64]:
    """Return a column of times as microseconds since 1970, int64."""
    return frame[column].to_physical().to_numpy()


def arrange(dataset: Dataset, frames: Sequence[pl.DataFrame], column: str) -> pl.DataFrame:
    """Sort the rows of one table by the times in a column, then by the tie rule.

    `frames` has one frame per market, in order of exchange and symbol.
    """
    frame = pl.concat(frames, rechunk=True)
    times = read_times(frame, column)
    order = np.argsort(times, kind="stable")
    markets = np.repeat(np.arange(len(frames)), [part.height for part in frames])
    times, markets = times[order], markets[order]
    level = (times[1:] == times[:-1]) & (markets[1:] == markets[:-1])
    order = _break_ties(dataset, frame, order, level)
    return frame if np.all(order[1:] > order[:-1]) else frame[order]


def _break_ties(
    dataset: Dataset, frame: pl.DataFrame, order: NDArray[np.intp], level: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Break ties of an order; `level` marks rows with time and market of the row before."""
    if not level.any():
        return order
    runs = np.concatenate([[0], np.cumsum(~level)])
    places = np.flatnonzero(np.concatenate([[False], level]) | np.concatenate([level, [False]]))
    rows = order[places]
    columns = {column.name: column for column in dataset.columns}
    names = dict.fromkeys([*dataset.sort, *dataset.key])
    keys = frame.select(list(names))[rows].select(
        pl.Series("run of ties", runs[places]),
        *(key for name in names for key in _build_sort_keys(name, columns[name].type)),
        pl.Series("row number", rows),
    )
    total_order = order.copy()
    total_order[places] = sort_by(keys, keys.columns)["row number"].to_numpy()
    return total_order


def _build_sort_keys(name: str, kind: str) -> list[pl.Expr]:
    """Build the sort keys of a column: they are never null, and nulls come first."""
    column = pl.col(name)
    if kind == "string":
        length = column.str.len_bytes().cast(pl.Int64).fill_null(-1)
        return [length.alias(f"{name} length"), column.fill_null("")]
    return [column.is_not_null().alias(f"{name} is set"), column.fill_null(strategy="zero")]
