"""Missing, doubled, displaced and impossible funding is found; real and clean funding is quiet."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lake.model.dataset import TIMESTAMP
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.quality.checks.funding import CHECKS
from lake.quality.slice import Slice
from lake.sandbox.synthetic import SyntheticMarkets
from tests.conftest import T0
from tests.paths import SHARED
from tests.quality.slices import outcome, slice_of

REAL = SHARED / "cex" / "funding"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no recorded data at {REAL}")
MARKET = Market("binanceusdm", "XRP/USDT:USDT")
HOUR = timedelta(hours=1)
COUNT = 90
ALARMS = ("funding_gaps", "funding_schedule", "funding_bounds")

intervals = st.sampled_from([1, 4, 8])
some = st.sets(st.integers(1, COUNT - 2), min_size=1, max_size=6)


def events(
    hours: int = 8, *, without: Collection[int] = (), first: datetime = T0, count: int = COUNT
) -> pl.DataFrame:
    """Events up to 20 ms late, but for those that are missing."""
    numbers = [n for n in range(count) if n not in without]
    late = [timedelta(milliseconds=7 * n % 21) for n in numbers]
    times = [first + n * hours * HOUR + delay for n, delay in zip(numbers, late, strict=True)]
    rates = [0.0001 + 0.00001 * (n % 5) for n in numbers]
    return pl.DataFrame({"timestamp": times, "funding_rate": rates})


def events_slice(frame: pl.DataFrame, **more: Any) -> Slice:
    return slice_of("funding", frame, market=MARKET, **more)


def moved(frame: pl.DataFrame, place: int, by: timedelta) -> pl.DataFrame:
    here = pl.int_range(pl.len()) == place
    later = pl.col("timestamp") + by
    return frame.with_columns(timestamp=pl.when(here).then(later).otherwise("timestamp"))


def with_rate(frame: pl.DataFrame, place: int, rate: float) -> pl.DataFrame:
    here = pl.int_range(pl.len()) == place
    return frame.with_columns(
        funding_rate=pl.when(here).then(rate).otherwise(pl.col("funding_rate"))
    )


@given(hours=intervals, missing=some, offset=st.integers(0, 7))
def test_every_missing_event_is_found_and_nothing_else(
    hours: int, missing: set[int], offset: int
) -> None:
    # Every second event of the first or the last ones missing is another interval.
    ends = ({1, 3, 5}, {COUNT - 2, COUNT - 4, COUNT - 6})
    assume(hours == 8 or not any(missing.issuperset(end) for end in ends))
    rows = events_slice(events(hours, without=missing, first=T0 + offset * HOUR))
    findings = outcome(CHECKS, "funding_gaps", rows)
    starts = {T0 + (offset + n * hours) * HOUR for n in missing}
    assert findings["rows"].sum() == len(missing)
    assert set(findings["reason"]) == {"unknown"}
    for time in starts:
        covering = findings.filter(pl.col("start") <= time, pl.col("end") > time)
        assert covering.height == 1
    days = (findings["end"] - timedelta(microseconds=1)).dt.date()
    assert (findings["start"].dt.date() == days).all()
    assert outcome(CHECKS, "funding_schedule", rows).is_empty()


@pytest.mark.parametrize("check", ALARMS)
def test_clean_funding_raises_no_alarm(check: str) -> None:
    for hours in (1, 4, 8):
        assert outcome(CHECKS, check, events_slice(events(hours))).is_empty()
    market = next(m for m in SyntheticMarkets().markets if m.settle)
    start_ms = int(T0.timestamp() * 1000)
    served = SyntheticMarkets().funding(market, start_ms, start_ms + 1000 * 8 * 3_600_000)
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(served.times_ms).cast(pl.Datetime("ms", "UTC")),
            "funding_rate": [float(rate) for rate in served.rates],
        }
    ).cast({"timestamp": pl.Datetime("us", "UTC")})
    assert outcome(CHECKS, check, events_slice(frame)).is_empty()


@needs_data
def test_real_funding_raises_no_alarm_and_its_crash_is_reported() -> None:
    rows = events_slice(pl.read_parquet(REAL / "binanceusdm_XRP-USDT-USDT.parquet"))
    for check in ALARMS:
        assert outcome(CHECKS, check, rows).is_empty()
    # On 4 December 2021 the market crashed in the night, and longs were paid 0.22 %.
    findings = outcome(CHECKS, "funding_outliers", rows)
    assert findings["start"].dt.date().to_list() == [datetime(2021, 12, 4, tzinfo=UTC).date()]
    assert findings["severity"].to_list() == ["info"]


@needs_data
@given(missing=some)
def test_events_taken_out_of_real_funding_are_found(missing: set[int]) -> None:
    frame = pl.read_parquet(REAL / "binanceusdm_XRP-USDT-USDT.parquet").with_row_index()
    left = frame.filter(~pl.col("index").is_in(list(missing))).drop("index")
    findings = outcome(CHECKS, "funding_gaps", events_slice(left))
    assert findings["rows"].sum() == len(missing)


def test_the_reason_of_a_gap_depends_on_what_was_requested() -> None:
    covered = (TimeRange(T0, T0 + 40 * HOUR), TimeRange(T0 + 80 * HOUR, T0 + COUNT * 8 * HOUR))
    rows = events_slice(events(without={2, 6, 7, 12}), coverage=covered)
    findings = outcome(CHECKS, "funding_gaps", rows)
    assert findings.select("start", "rows", "reason").rows() == [
        (T0 + 16 * HOUR, 1, "unknown"),
        (T0 + 48 * HOUR, 2, "not_fetched"),
        (T0 + 96 * HOUR, 1, "unknown"),
    ]


def test_events_are_missing_up_to_the_ends_of_the_range_where_the_market_has_more() -> None:
    frame = events(count=30)
    start, end = T0 - 48 * HOUR, T0 + 30 * 8 * HOUR + 24 * HOUR
    alone = events_slice(frame, start=start, end=end)
    assert outcome(CHECKS, "funding_gaps", alone).is_empty()
    within = events_slice(frame, start=start, end=end, span=TimeRange(start - 9 * HOUR, end + HOUR))
    findings = outcome(CHECKS, "funding_gaps", within)
    assert findings["rows"].sum() == 6 + 3
    assert (findings["start"].min(), findings["end"].max()) == (start, end)


def test_a_change_of_the_interval_is_no_defect() -> None:
    for before, after in [(8, 4), (4, 8), (8, 1), (1, 8)]:
        first = events(before, count=40)
        later = events(after, first=T0 + 40 * before * HOUR, count=40)
        rows = events_slice(pl.concat([first, later]))
        assert outcome(CHECKS, "funding_gaps", rows).is_empty(), (before, after)
        assert outcome(CHECKS, "funding_schedule", rows).is_empty(), (before, after)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize(("before", "after"), [(8, 4), (8, 1)])
def test_a_change_of_the_interval_shown_by_few_events_is_no_defect(
    count: int, before: int, after: int
) -> None:
    first = events(before, first=T0 + (8 - before) * HOUR, count=count)
    turn = first["timestamp"].dt.truncate("1h")[-1] + before * HOUR
    later = events(after, first=turn + (T0 - turn) % (after * HOUR), count=count + 1)
    rows = events_slice(pl.concat([first, later]))
    assert outcome(CHECKS, "funding_gaps", rows).is_empty()


def stepping(*steps: tuple[int, int]) -> pl.DataFrame:
    """Events by (hours between, how many), up to 20 ms early or late."""
    times, at = [T0], T0
    for hours, count in steps:
        times += [at + n * hours * HOUR for n in range(1, count + 1)]
        at = times[-1]
    off = [timedelta(milliseconds=(7 * n) % 41 - 20) for n in range(len(times))]
    late = [time + ms for time, ms in zip(times, off, strict=True)]
    return pl.DataFrame({"timestamp": late, "funding_rate": 0.0001}).with_columns(
        pl.col("timestamp").cast(TIMESTAMP)
    )


@pytest.mark.parametrize("count", [3, 4, 5, 7, 9, 10, 11, 12])
@pytest.mark.parametrize(("before", "after"), [(8, 4), (8, 1), (4, 1), (1, 4), (4, 8), (1, 8)])
def test_a_change_soon_after_the_first_event_is_no_defect(
    count: int, before: int, after: int
) -> None:
    rows = events_slice(stepping((before, count), (after, 60)))
    assert outcome(CHECKS, "funding_gaps", rows).is_empty()
    assert outcome(CHECKS, "funding_schedule", rows).is_empty()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 30])
@pytest.mark.parametrize(("before", "after"), [(8, 4), (8, 1), (4, 1), (8, 2)])
def test_a_shorter_interval_is_at_most_info(count: int, before: int, after: int) -> None:
    for steps in ([(before, 60), (after, count)], [(before, 40), (after, 4 * count), (before, 40)]):
        rows = events_slice(stepping(*steps))
        assert outcome(CHECKS, "funding_gaps", rows).is_empty()
        findings = outcome(CHECKS, "funding_schedule", rows)
        assert set(findings["reason"]) <= {"more_often"}
        assert set(findings["severity"]) <= {"info"}


@settings(max_examples=50)
@given(
    hours=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=5),
    counts=st.lists(st.integers(24, 50), min_size=5, max_size=5),
    places=st.sets(st.integers(3, 200), max_size=12),
)
def test_missing_events_are_distinguished_from_changes_of_the_interval(
    hours: list[int], counts: list[int], places: set[int]
) -> None:
    steps = list(zip(hours, counts, strict=False))
    frame = stepping(*steps)
    edges = [0, *accumulate(count for _, count in steps)]
    apart = [n for n in sorted(places) if all(abs(n - edge) > 2 for edge in edges)]
    lost = [n for k, n in enumerate(apart) if n < edges[-1] and not (k and n - apart[k - 1] < 5)]
    rows = events_slice(frame.filter(~pl.int_range(pl.len()).is_in(lost)))
    findings = outcome(CHECKS, "funding_gaps", rows)
    wanted = frame[lost]["timestamp"].dt.round("1h").to_list()
    assert findings["start"].to_list() == wanted
    assert findings["rows"].to_list() == [1] * len(wanted)
    assert set(outcome(CHECKS, "funding_schedule", rows)["severity"]) <= {"info"}


@pytest.mark.parametrize("check", CHECKS)
def test_no_event_and_one_event_stop_no_check(check: str) -> None:
    empty = events()[:0]
    assert outcome(CHECKS, check, events_slice(empty, start=T0, end=T0 + 8 * HOUR)).is_empty()
    assert outcome(CHECKS, check, events_slice(events()[:1])).is_empty()
    nothing = events().with_columns(funding_rate=pl.lit(None, pl.Float64))
    assert outcome(CHECKS, check, events_slice(nothing)).is_empty()


@pytest.mark.parametrize(("before", "after"), [(4, 8), (1, 8), (1, 4)])
def test_a_change_to_a_longer_interval_is_known_after_three_events(before: int, after: int) -> None:
    first = events(before, count=80)
    later = events(after, first=T0 + 80 * before * HOUR, count=4)
    frame = pl.concat([first, later])
    assert outcome(CHECKS, "funding_gaps", events_slice(frame)).is_empty()
    assert not outcome(CHECKS, "funding_gaps", events_slice(frame[:-1])).is_empty()


def test_no_venue_settles_more_rarely_than_every_eight_hours() -> None:
    rows = events_slice(events(without={COUNT - 2, COUNT - 4, COUNT - 6}))
    assert outcome(CHECKS, "funding_gaps", rows)["rows"].sum() == 3


def test_a_change_to_a_longer_interval_in_between_is_no_gap() -> None:
    hourly, later = events(1, count=38), events(8, first=T0 + 40 * HOUR, count=30)
    rows = events_slice(pl.concat([hourly, later]))
    assert outcome(CHECKS, "funding_gaps", rows).is_empty()
    assert outcome(CHECKS, "funding_schedule", rows).is_empty()


def test_what_is_not_due_yet_is_not_missing() -> None:
    whole = {"end": T0 + 40 * 8 * HOUR, "span": TimeRange(T0, T0 + 400 * 8 * HOUR)}
    rows = events_slice(events(count=30), **whole, now=T0 + 32 * 8 * HOUR + HOUR)
    assert outcome(CHECKS, "funding_gaps", rows)["rows"].sum() == 3


def test_a_given_interval_needs_no_events_around() -> None:
    rows = events_slice(events(without={1}, count=3))
    assert outcome(CHECKS, "funding_gaps", rows).is_empty()
    assert outcome(CHECKS, "funding_gaps", rows, interval="8h")["rows"].to_list() == [1]


@given(place=st.integers(1, COUNT - 2), minutes=st.integers(2, 29), early=st.booleans())
def test_an_event_off_its_schedule_is_found(place: int, minutes: int, early: bool) -> None:
    frame = moved(events(), place, (-1 if early else 1) * timedelta(minutes=minutes))
    findings = outcome(CHECKS, "funding_schedule", events_slice(frame))
    assert findings["reason"].to_list() == ["off_schedule"]
    assert abs(abs(findings["measured"][0]) - 60 * minutes) < 1
    assert outcome(CHECKS, "funding_gaps", events_slice(frame)).is_empty()


@given(place=st.integers(1, COUNT - 2), hours=st.sampled_from([-3, -2, -1, 1, 2, 3]))
def test_an_event_off_by_whole_hours_is_found(place: int, hours: int) -> None:
    findings = outcome(
        CHECKS, "funding_schedule", events_slice(moved(events(), place, hours * HOUR))
    )
    assert findings["reason"].to_list() == ["off_schedule"]
    assert abs(findings["measured"][0] - 3600 * hours) < 1


@given(place=st.integers(0, COUNT - 2), seconds=st.integers(1, 1700))
def test_two_events_in_one_interval_are_found(place: int, seconds: int) -> None:
    frame = events()
    again = frame[place].with_columns(pl.col("timestamp") + timedelta(seconds=seconds))
    findings = outcome(CHECKS, "funding_schedule", events_slice(pl.concat([frame, again])))
    assert findings["reason"].to_list() == ["repeated"]
    assert findings["start"].to_list() == again["timestamp"].to_list()


def test_a_venue_may_settle_more_often_for_a_while() -> None:
    extra = events(1, first=T0 + 81 * HOUR, count=6)
    findings = outcome(CHECKS, "funding_schedule", events_slice(pl.concat([events(), extra])))
    assert set(findings["reason"]) == {"more_often"}
    assert set(findings["severity"]) == {"info"}
    assert findings["rows"].sum() == 7
    assert outcome(CHECKS, "funding_gaps", events_slice(pl.concat([events(), extra]))).is_empty()


@given(
    place=st.integers(0, COUNT - 1),
    rate=st.sampled_from([0.0301, -0.0301, 0.5, -75.0, float("inf"), float("nan")]),
)
def test_a_rate_beyond_the_limit_is_found(place: int, rate: float) -> None:
    findings = outcome(CHECKS, "funding_bounds", events_slice(with_rate(events(), place, rate)))
    assert findings["reason"].to_list() == ["beyond_limit"]
    assert findings["expected"].to_list() == [0.03]


def test_percent_are_distinguished_from_fractions() -> None:
    frame = events().with_columns(pl.col("funding_rate") * 100)
    findings = outcome(CHECKS, "funding_bounds", events_slice(frame))
    assert set(findings["reason"]) == {"unit"}
    assert findings["rows"].sum() == COUNT


@pytest.mark.parametrize(("limit", "found"), [(None, 1), (0.04, 0), (0.02, 1)])
def test_the_bound_of_the_contract_counts_before_that_of_all(
    limit: float | None, found: int
) -> None:
    rows = events_slice(with_rate(events(), 30, 0.035), funding_limit=limit)
    findings = outcome(CHECKS, "funding_bounds", rows)
    assert findings.height == found
    assert findings["expected"].to_list() == [0.03 if limit is None else limit] * found
