"""Gaps equal those of an oracle in plain Python, for any cut of the range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.intervals import RangeSet, split, union
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from lake.quality.checks.completeness import gaps
from lake.quality.slice import Slice
from tests.conftest import DAY, SECOND, T0, bars, trades
from tests.quality.slices import collect_findings, reference_of, slice_of

SLOTS = {"1m": 1600, "1h": 60, "1d": 12, "1w": 5, "1M": 4}


@dataclass(frozen=True)
class Case:
    """A market, as an oracle and the check can see it; `trades`: time, first and last id."""

    timeframe: Timeframe
    present: tuple[datetime, ...]
    span: TimeRange
    coverage: RangeSet | None
    trades: tuple[tuple[datetime, int, int], ...] | None
    trades_coverage: RangeSet | None
    outages: RangeSet
    omits: bool

    def slice(self, checked: TimeRange) -> Slice:
        table = f"bars_{self.timeframe.table_suffix}"
        frame = bars(len(self.present), timestamp=list(self.present))
        reference = None
        if self.trades is not None:
            times, firsts, lasts = zip(*self.trades, strict=True) if self.trades else ((), (), ())
            rows = trades(
                len(times), timestamp=list(times), first_id=list(firsts), last_id=list(lasts)
            )
            reference = reference_of("trades", rows, coverage=self.trades_coverage)
        return slice_of(
            table,
            frame,
            start=checked.start,
            end=checked.end,
            now=self.span.end + 100 * DAY,
            span=self.span,
            coverage=self.coverage,
            trades=reference,
            outages=self.outages,
            omits_empty_bars=self.omits,
        )


def oracle(case: Case) -> dict[datetime, str]:
    """The open times of missing bars, with the reason."""
    missing, present = {}, set(case.present)
    start = case.timeframe.floor(case.span.start)
    while start < case.span.end:
        end = case.timeframe.after(start)
        if start not in present:
            missing[start] = reason_of(case, start, end)
        start = end
    return missing


def reason_of(case: Case, start: datetime, end: datetime) -> str:
    times = case.trades or ()
    if any(start <= time < end for time, _, _ in times):
        return "lost"
    before = [trade for trade in times if trade[0] < start]
    after = [trade for trade in times if trade[0] >= end]
    if case.trades is not None and within(case.trades_coverage, start, end):
        return "no_trade"
    if before and after:
        last = max(trade[2] for trade in before if trade[0] == before[-1][0])
        first = min(trade[1] for trade in after if trade[0] == after[0][0])
        if first - last == 1:
            return "no_trade"
    if within(case.outages, start, end):
        return "venue_outage"
    if case.coverage is not None and not within(case.coverage, start, end):
        return "not_fetched"
    return "no_trade" if case.omits and case.coverage is not None else "unknown"


def within(ranges: Sequence[TimeRange] | None, start: datetime, end: datetime) -> bool:
    return any(item.start <= start and end <= item.end for item in ranges or ())


@st.composite
def cases(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(sorted(SLOTS)))
    timeframe, count = Timeframe.parse(name), SLOTS[name]
    opens = [T0]
    while len(opens) < count:
        opens.append(timeframe.after(opens[-1]))
    first, last = sorted(draw(st.tuples(*[st.integers(0, count - 1)] * 2)))
    holes = draw(st.lists(st.tuples(st.integers(0, count), st.integers(1, count // 3)), max_size=6))
    gone = {n for start, length in holes for n in range(start, start + length)}
    inside = [n for n in range(first, last + 1) if n in (first, last) or n not in gone]
    at = st.floats(0, 1).map(lambda part: moment(opens, timeframe, part))
    ranges = st.lists(
        st.tuples(at, at).map(sorted).filter(lambda pair: pair[0] < pair[1]), max_size=3
    ).map(lambda pairs: union(TimeRange(*pair) for pair in pairs))
    return Case(
        timeframe=timeframe,
        present=tuple(opens[n] for n in inside),
        span=TimeRange(opens[first], opens[last] + SECOND),
        coverage=draw(st.none() | ranges),
        trades=draw(st.none() | some_trades(at)),
        trades_coverage=draw(st.none() | ranges),
        outages=draw(ranges),
        omits=draw(st.booleans()),
    )


@st.composite
def some_trades(
    draw: st.DrawFn, at: st.SearchStrategy[datetime]
) -> tuple[tuple[datetime, int, int], ...]:
    times = sorted(draw(st.lists(at, max_size=12)))
    listed, number = [], 0
    for time in times:
        number += draw(st.sampled_from([1, 1, 1, 2]))
        listed.append((time, number, number + draw(st.integers(0, 2))))
        number = listed[-1][2]
    return tuple(listed)


def moment(opens: Sequence[datetime], timeframe: Timeframe, part: float) -> datetime:
    """A time of the market; half of them on the grid, where mistakes are made."""
    place = part * (len(opens) - 1)
    start = opens[int(place)]
    within_bar = place % 1
    return start if within_bar < 0.5 else start + (timeframe.after(start) - start) * within_bar


def slots_of(frame: pl.DataFrame, timeframe: Timeframe) -> dict[datetime, str]:
    """Each slot of the intervals, by its open time; the slots must add up."""
    slots: dict[datetime, str] = {}
    for start, end, rows, reason in frame.select("start", "end", "rows", "reason").iter_rows():
        time, count = start, 0
        while time < end:
            assert time not in slots
            slots[time] = reason
            time, count = timeframe.after(time), count + 1
        assert (time, count) == (end, rows)
    return slots


@settings(max_examples=60)
@given(cases())
def test_gaps_are_those_of_the_oracle_however_the_range_is_cut(case: Case) -> None:
    whole = TimeRange(T0 - DAY, case.span.end + 3 * DAY)
    whole_findings = [collect_findings(gaps(case.slice(whole)))]
    assert slots_of(whole_findings[0], case.timeframe) == oracle(case)

    in_days = pl.concat([collect_findings(gaps(case.slice(day))) for day in split(whole, DAY)])
    for start, end in in_days.select("start", "end").iter_rows():
        longer = case.timeframe.seconds > DAY.total_seconds()
        assert longer or end <= start.replace(hour=0, minute=0) + DAY
    assert in_days.sort("start").equals(whole_findings[0])


@settings(max_examples=60)
@given(cases(), st.floats(0, 1), st.floats(0, 1))
def test_a_range_within_a_day_is_checked_by_the_slots_that_open_in_it(
    case: Case, first: float, second: float
) -> None:
    length = case.span.end - case.span.start
    start, end = sorted(case.span.start + length * part for part in (first, second))
    checked = TimeRange(start, end + SECOND)
    expected = {t: why for t, why in oracle(case).items() if checked.start <= t < checked.end}
    assert slots_of(collect_findings(gaps(case.slice(checked))), case.timeframe) == expected
