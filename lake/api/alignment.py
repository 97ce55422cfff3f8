"""`lake.align` and `lake.grid`: the alignment of frames, with times as users give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import polars as pl

from lake.align import align as aligning
from lake.align import asof
from lake.align.align import Aligned, Frame
from lake.align.policies import How
from lake.api.context import utc_now
from lake.model.time import Time, resolve_time


def align(
    sources: Mapping[str, Frame],
    every: timedelta | str,
    *,
    since: Time,
    until: Time,
    how: How | Mapping[str, How],
    by: str | Sequence[str] = (),
) -> Aligned:
    """Put several sources on one grid; at each time only what was known by then counts.

    Rows whose `closed` is not true are left out: such a bar may not be final at its end.

    Parameters
    ----------
    sources
        By name, rows with `available_at`, as `Bundle.available` gives them, in order of their
        events. The same rows may be there under two names, with another `how` each.
    every
        The step: a duration, or a timeframe such as `5m`, `1d`, `1M` (months of the calendar).
    since, until
        Times of the grid are in `[since, until)`, from `since` on: datetimes with a zone, or text
        as `2026-01-01`, `7d` (ago) or `now`.
    how
        How each source gets onto the grid, or one way for all: `AsOf` or `Resample`.
    by
        Columns that all sources have and that tell markets apart: then there is a row a time and
        market, from when the first of its rows is known in any source. Without, each source is of
        one market, and there is a row a time.

    Raises
    ------
    UsageError
        The range, step or a policy cannot be; a column is missing, no number, or would be there
        twice; times are not in UTC; a source has several markets that nothing tells apart.
    """
    now = utc_now()
    first, last = resolve_time(since, now), resolve_time(until, now)
    return aligning.align(sources, every, since=first, until=last, how=how, by=by)


def grid(every: timedelta | str, *, since: Time, until: Time) -> pl.DataFrame:
    """Times from `since` on, `every` apart, before `until`.

    Parameters
    ----------
    every
        The step: a duration, or a timeframe such as `5m`, `1d`, `1M` (months of the calendar).
    since, until
        The range `[since, until)`: datetimes with a zone, or text as `2026-01-01`, `7d` (ago) or
        `now`.

    Returns
    -------
    DataFrame
        One column, `time` (Datetime us UTC), ascending.

    Raises
    ------
    UsageError
        The range is empty, a bound has no zone, or the step is not positive or no timeframe.
    """
    now = utc_now()
    first, last = resolve_time(since, now), resolve_time(until, now)
    return asof.grid(every, since=first, until=last)
