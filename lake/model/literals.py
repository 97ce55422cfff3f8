"""Times as constants of expressions, for queries that are built again and again."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.time import EPOCH, MICROSECOND


def time_literal(time: datetime) -> pl.Expr:
    """Return a time as a constant (`TIMESTAMP`).

    `pl.lit` of a datetime with a zone runs a query of its own, which takes half a millisecond; a
    check has hundreds of them. A cast of a constant is made once, when the query is optimized.

    Parameters
    ----------
    time
        A moment, with its time zone.

    Returns
    -------
    Expr
        Of type `TIMESTAMP`.
    """
    return pl.lit((time - EPOCH) // MICROSECOND, dtype=pl.Int64).cast(TIMESTAMP)
