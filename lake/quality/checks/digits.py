"""Count the decimal digits that amounts have."""

from __future__ import annotations

import polars as pl

_FEWEST, _MOST = -6, 9
_NEAR = 1e-6  # how near to a whole number counts, in units of the last digit
_LEAST = 0.5  # smaller multiples of a unit are none
_PRECISION = 4e-16  # relative rounding error of a double


def count_digits(values: pl.Expr) -> pl.Expr:
    """Count the digits after the decimal point (Int8): 1.25 has 2, 1300 has -2; at most 9.

    Sums of doubles are taken for the decimal number next to them.
    """
    count = pl.lit(_MOST, dtype=pl.Int8)
    for digits in range(_MOST - 1, _FEWEST - 1, -1):
        scaled = values * 10.0**digits if digits >= 0 else values / 10.0**-digits
        size, away = scaled.abs(), (scaled - scaled.round()).abs()
        is_whole = (away <= _NEAR + _PRECISION * size) & (size >= _LEAST)
        count = pl.when(is_whole).then(pl.lit(digits, dtype=pl.Int8)).otherwise(count)
    return count


def count_figures(values: pl.Expr, digits: str) -> pl.Expr:
    """Count the significant figures (Int8): 1.25 has 3, 1300 has 2.

    Parameters
    ----------
    digits
        Name of the column with the result of `count_digits`.
    """
    return pl.col(digits) + values.log10().floor().cast(pl.Int8) + 1
