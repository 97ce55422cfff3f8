"""Run checks over a slice: findings with their neighbouring rows, and counts per day."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from lake.model.dataset import RECEIVED_AT, Dataset
from lake.model.interpolate import is_guess
from lake.model.json_text import write_json
from lake.model.literals import time_literal
from lake.model.severity import severity_rank
from lake.model.time import DAY, iso
from lake.quality.check import CHECK_COLUMNS, complete_columns
from lake.quality.configure import WINDOW, ConfiguredCheck
from lake.quality.join import Joined, group_slices
from lake.quality.score import DAYS, DELAYS
from lake.quality.slice import Slice

FINDINGS = pl.Schema(
    {
        **CHECK_COLUMNS,
        "check": pl.String(),
        "dimension": pl.String(),
        "context": pl.String(),
    }
)
IS_DEFECT = (pl.col("check") != "gaps") | (pl.col("reason") != "no_trade")
"""Whether a finding is one: intervals without a trade count in scores, and are not recorded."""
FOLDED_PATTERN = r"^\d+ more like this: "
"""Pattern at the start of the message of a finding that stands for many findings of a day."""

_SAME = ("check", "reason", "against")
_ORDER = ("start", *_SAME, "end", "measured", "message")  # a total order
_MAX_PER_DAY = 100  # findings of one kind; the rest of them becomes one finding
_MAX_MESSAGES = 3  # texts of findings of one time and reason that their common finding has
_MAX_CONTEXTS = 20  # findings of one check and day that have neighbouring rows
_ROWS_AROUND = 3
_AT_ONCE = 2  # groups of slices
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class CheckResult:
    """The result of all checks of a slice.

    Attributes
    ----------
    findings
        `FINDINGS`, ordered by time; intervals without a trade are included.
    days
        `lake.quality.score.DAYS`.
    """

    findings: pl.DataFrame
    days: pl.DataFrame


def run_checks(data: Slice, checks: Sequence[ConfiguredCheck]) -> CheckResult:
    """Run checks over a slice."""
    lazy = [_run_check(check, data) for check in checks]
    *results, days = pl.collect_all([*lazy, _measure_days(data)])
    data.release()
    return _complete(data, results, days)


def run_all_checks(slices: Sequence[Slice], checks: Sequence[ConfiguredCheck]) -> list[CheckResult]:
    """Run checks over slices of one table: those of many markets in one plan, where it is the same.

    The results are those of `run_checks` of each slice.
    """
    windows = {int(c.thresholds[WINDOW]) for c in checks if WINDOW in c.thresholds}  # type: ignore[arg-type]
    results: dict[int, CheckResult] = {}
    for numbers, joined in group_slices(slices, windows):
        if joined is None:
            found = [run_checks(slices[number], checks) for number in numbers]
        else:
            found = _run_joined(joined, checks)
        results.update(zip(numbers, found, strict=True))
    return [results[number] for number in range(len(slices))]


def run_groups(
    groups: Iterable[Sequence[Slice]], checks: Sequence[ConfiguredCheck]
) -> Iterator[tuple[Slice, CheckResult]]:
    """Run checks over groups of slices of one table, in order.

    Two groups are worked on at once: while one is planned or read, the other one is computed. A
    user's own checks may not stand that, and with them groups are checked one by one.
    """
    if not all(check.is_builtin for check in checks):
        for slices in groups:
            yield from zip(slices, run_all_checks(slices, checks), strict=True)
        return
    running: deque[tuple[Sequence[Slice], Future[list[CheckResult]]]] = deque()
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="checks")
    try:
        for slices in groups:
            running.append((slices, pool.submit(run_all_checks, slices, checks)))
            if len(running) == _AT_ONCE:
                yield from _wait(*running.popleft())
        while running:
            yield from _wait(*running.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _wait(
    slices: Sequence[Slice], results: Future[list[CheckResult]]
) -> Iterator[tuple[Slice, CheckResult]]:
    return zip(slices, results.result(), strict=True)


def _run_joined(joined: Joined, checks: Sequence[ConfiguredCheck]) -> list[CheckResult]:
    """Run built-in checks over joined slices, and a user's own checks over each slice."""
    builtin = [check.is_builtin for check in checks]
    lazy = [
        _run_check(check, data)
        for check in checks
        for data in ([joined.slice] if check.is_builtin else joined.markets)
    ]
    *frames, days = pl.collect_all([*lazy, _measure_days(joined.slice)])
    joined.slice.release()
    left = iter(frames)
    by_check = [
        joined.split(next(left), "start", "end")
        if is_builtin
        else [next(left) for _ in joined.markets]
        for is_builtin in builtin
    ]
    days_of = joined.split(days, "timestamp")
    return [
        _complete(one, [parts[number] for parts in by_check], days_of[number])
        for number, one in enumerate(joined.markets)
    ]


def _complete(data: Slice, results: Sequence[pl.DataFrame], days: pl.DataFrame) -> CheckResult:
    """Fold the findings of each check, and add their context."""
    folded = [_fold(_merge_same(findings)) for findings in results if not findings.is_empty()]
    if not folded:
        return CheckResult(pl.DataFrame(schema=FINDINGS), days)
    rows = data.frame.collect()
    complete = [_add_context(findings, rows, data.dataset) for findings in folded]
    return CheckResult(pl.concat(complete).select(list(FINDINGS)).sort(_ORDER), days)


def format_context(frame: pl.DataFrame, times: pl.Series, start: datetime, end: datetime) -> str:
    """Format the rows around an interval as JSON: three before, the first three in it, three after.

    Parameters
    ----------
    frame, times
        Rows ordered by time, and their times.
    """
    first = int(times.search_sorted(start, side="left"))
    last = max(first, int(times.search_sorted(end, side="left")))
    low, high = max(0, first - _ROWS_AROUND), min(frame.height, last + _ROWS_AROUND)
    if last - first > _ROWS_AROUND:
        parts = [frame[low : first + _ROWS_AROUND], frame[last:high]]
        around = pl.concat(parts)
    else:
        around = frame[low:high]
    skipped = {"exchange", "symbol", "date"}
    rows = [
        {name: _to_json_value(value) for name, value in row.items() if value is not None}
        for row in around.drop(skipped & set(around.columns)).iter_rows(named=True)
    ]
    return write_json(rows, separators=(",", ":"))


def _run_check(check: ConfiguredCheck, data: Slice) -> pl.LazyFrame:
    start = pl.col("start")
    first, end = time_literal(data.range.start), time_literal(data.range.end)
    return (
        complete_columns(check(data))
        .filter(start.is_between(first, end, closed="left"))
        .with_columns(
            pl.col("reason", "against").fill_null(""),
            pl.col("severity").fill_null(check.severity),
            pl.col("message").fill_null(f"reported by {check.name}"),
            check=pl.lit(check.name),
            dimension=pl.lit(check.dimension),
        )
    )


def _measure_days(data: Slice) -> pl.LazyFrame:
    """Count the rows per day, and measure their delays if receive times are known."""
    inside = data.frame.filter(data.is_inside())
    # Interpolated rows do not count.
    has_fill = "fill" in data.dataset.polars_schema
    rows = (~is_guess(pl.col("fill"))).sum() if has_fill else pl.len()
    aggregates = [rows.cast(pl.Int64).alias("rows")]
    if data.dataset.records_receipt:
        delay = pl.col(RECEIVED_AT) - data.dataset.happened_at()
        delay_ms = delay.dt.total_microseconds() / 1e3
        quantiles = zip(DELAYS, _QUANTILES, strict=True)
        aggregates += [delay_ms.quantile(q).alias(name) for name, q in quantiles]
    else:
        aggregates += [pl.lit(None, dtype=pl.Float64).alias(name) for name in DELAYS]
    return (
        inside.group_by(data.time.dt.truncate("1d").alias("timestamp"))
        .agg(aggregates)
        .select(list(DAYS))
        .sort("timestamp")
    )


def _merge_same(findings: pl.DataFrame) -> pl.DataFrame:
    """Make one finding of those of the same time and reason: they would have the same id.

    Of different values, the first of the worst severity is kept.
    """
    same = ["start", *_SAME]
    is_several = pl.struct(same).is_duplicated()
    several = findings.filter(is_several)
    if several.is_empty():
        return findings
    text = pl.col("message").unique(maintain_order=True)
    others = text.len().cast(pl.Int64) - _MAX_MESSAGES
    merged = (
        several.sort(severity_rank(), *_ORDER, descending=[True, *(False for _ in _ORDER)])
        .group_by(same, maintain_order=True)
        .agg(
            pl.col("end").max(),
            pl.col("rows").sum(),
            pl.exclude(*same, "end", "rows", "message").first(),
            message=pl.format(
                "{}{}{}",
                text.head(_MAX_MESSAGES).str.join("; "),
                pl.when(others > 0).then(pl.format("; and {} more", others)).otherwise(pl.lit("")),
                pl.when(text.len() == 1)
                .then(pl.format(" ({} times)", pl.len()))
                .otherwise(pl.lit("")),
            ),
        )
        .select(findings.columns)
    )
    return pl.concat([findings.filter(~is_several), merged])


def _fold(findings: pl.DataFrame) -> pl.DataFrame:
    """Keep at most a hundred findings of a kind and day; the rest becomes one finding."""
    day = pl.col("start").dt.date()
    number = pl.int_range(pl.len()).over(day, *_SAME)
    numbered = findings.sort(_ORDER).with_columns(_number=number)
    kept = numbered.filter(pl.col("_number") < _MAX_PER_DAY).drop("_number")
    rest = numbered.filter(pl.col("_number") >= _MAX_PER_DAY)
    if rest.is_empty():
        return kept
    folded = (
        rest.group_by(day.alias("_day"), *_SAME, "severity", "dimension", maintain_order=True)
        .agg(
            pl.col("start").min(),
            pl.col("end").max(),
            pl.col("rows").sum(),
            pl.col("measured", "expected").first(),
            message=pl.format("{} more like this: {}", pl.len(), pl.col("message").first()),
        )
        .select(kept.columns)
    )
    return pl.concat([kept, folded])


def _add_context(findings: pl.DataFrame, frame: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    times = frame[dataset.time_column]
    number = pl.int_range(pl.len()).over(pl.col("start").dt.date())
    numbered = findings.sort("start", maintain_order=True).with_columns(_number=number)
    texts = [
        _format_day_context(frame, times, dataset, start, end)
        if number < _MAX_CONTEXTS and is_defect
        else "[]"
        for start, end, number, is_defect in numbered.select(
            "start", "end", "_number", is_defect=IS_DEFECT
        ).iter_rows()
    ]
    return numbered.drop("_number").with_columns(context=pl.Series(texts, dtype=pl.String))


def _format_day_context(
    frame: pl.DataFrame, times: pl.Series, dataset: Dataset, start: datetime, end: datetime
) -> str:
    """Format the context within the day and its margin, so that it depends on no other day."""
    day, margin = start.replace(hour=0, minute=0, second=0, microsecond=0), dataset.margin
    low = int(times.search_sorted(day - margin, side="left"))
    high = int(times.search_sorted(day + DAY + margin, side="left"))
    return format_context(frame[low:high], times[low:high], start, end)


def _to_json_value(value: object) -> object:
    return iso(value.astimezone(UTC)) if isinstance(value, datetime) else value
