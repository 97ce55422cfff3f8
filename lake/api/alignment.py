"""`lake.align` and `lake.grid`: align frames, with times as datetimes or text."""

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
    """Align several sources to one grid, without look-ahead.

    Each time of the grid uses only rows that were available by then. Rows whose `closed` is not
    true are excluded, because such bars may not be final.

    Parameters
    ----------
    sources
        By name, rows with `available_at`, as `Bundle.available` returns them, in order of their
        events. The same rows may occur under two names, with a different `how` for each.
    every
        The step: a duration, or a timeframe such as `5m`, `1d`, `1M` (calendar months).
    since, until
        Range `[since, until)` of the grid, which starts at `since`: datetimes with a zone, or text
        such as `2026-01-01`, `7d` (ago) or `now`.
    how
        How to align each source, or all of them: `AsOf` or `Resample`.
    by
        Columns that identify markets in all sources. The result has one row per time and market,
        from the time when the first row of the market is available in any source. By default, each
        source holds one market, and the result has one row per time.

    Raises
    ------
    UsageError
        The range, the step or a policy is invalid; a column is missing, not a number, or would
        occur twice; times are not in UTC; a source holds several markets without `by`.
    """
    now = utc_now()
    first, last = resolve_time(since, now), resolve_time(until, now)
    return aligning.align(sources, every, since=first, until=last, how=how, by=by)


def grid(every: timedelta | str, *, since: Time, until: Time) -> pl.DataFrame:
    """Return the times from `since`, one step apart, before `until`.

    Parameters
    ----------
    every
        The step: a duration, or a timeframe such as `5m`, `1d`, `1M` (calendar months).
    since, until
        The range `[since, until)`: datetimes with a zone, or text such as `2026-01-01`, `7d` (ago)
        or `now`.

    Returns
    -------
    DataFrame
        One column, `time` (Datetime us UTC), ascending.

    Raises
    ------
    UsageError
        The range is empty, a bound has no zone, or the step is invalid.
    """
    now = utc_now()
    first, last = resolve_time(since, now), resolve_time(until, now)
    return asof.grid(every, since=first, until=last)
