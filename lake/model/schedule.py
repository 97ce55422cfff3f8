"""Scheduled times: venues stamp events some milliseconds off, and not always in the same way.

A row less than the tolerance of its dataset from a multiple of its `schedule`, such as a full hour,
is the event of that time. Another is that of the nearest multiple of the tolerance: a venue may
settle at odd minutes. The scheduled time is a function of the exact one alone, so that neither the
order in which rows come nor a change of the interval between events matters.
"""

from __future__ import annotations

import polars as pl

from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.time import MICROSECOND


def scheduled_at(dataset: Dataset, time: pl.Expr | None = None) -> pl.Expr:
    """Return an expression for the scheduled time of a row: the same for all rows of one event.

    Without a schedule, it is the time itself. Its type is Datetime us UTC.

    Parameters
    ----------
    time
        The time of a row; by default the time column.
    """
    time = pl.col(dataset.time_column) if time is None else time
    if dataset.schedule is None:
        return time
    us, tolerance = time.dt.timestamp("us"), dataset.time_tolerance // MICROSECOND
    due = _round(us, dataset.schedule // MICROSECOND)
    is_due = (us - due).abs() < tolerance
    return pl.when(is_due).then(due).otherwise(_round(us, tolerance)).cast(TIMESTAMP)


def _round(us: pl.Expr, step: int) -> pl.Expr:
    """Round to the nearest multiple of a step, in microseconds."""
    return (us + step // 2) // step * step
