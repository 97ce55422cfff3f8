"""Why something is missing: it was never asked for, or nobody knows."""

from __future__ import annotations

import polars as pl

from lake.model.intervals import RangeSet


def loss(time: pl.Expr, covered: RangeSet | None) -> pl.Expr:
    """The reason of a loss: `unknown` where a time was asked for, else `not_fetched`.

    Parameters
    ----------
    covered
        Of which intervals the source's answer is known; None where nobody recorded it: `unknown`.
    """
    if covered is None:
        return pl.lit("unknown")
    known = [time.is_between(item.start, item.end, closed="left") for item in covered]
    asked = pl.any_horizontal(known) if known else pl.lit(value=False)
    return pl.when(asked).then(pl.lit("unknown")).otherwise(pl.lit("not_fetched"))
