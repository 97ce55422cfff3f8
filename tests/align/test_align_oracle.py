"""Alignment equals a naive search through all rows at each point."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.align.align import align
from lake.align.policies import AsOf, How, Resample
from tests.align.rows import NAMES, STEP, UNTIL, Fact, rows_of
from tests.conftest import SECOND, T0

# A second, naive implementation of alignment.


class Cell(NamedTuple):
    """The cell at a point: value, age, number of rows, and fill."""

    value: Any
    age: timedelta | None
    rows: int
    fill: str | None


def expected(facts: Sequence[Fact], how: How, at: int) -> Cell:
    """Compute the cell of one market at a time from all of its rows."""
    seen = sorted((fact for fact in facts if fact.known_at <= at), key=lambda fact: fact.known_at)
    inside = [fact for fact in seen if fact.known_at > at - STEP // SECOND]
    newest = seen[-1] if seen else None
    age = None if newest is None else (at - newest.known_at) * SECOND
    nothing = Cell(0, None, 0, "zero") if how.fill == "zero" else Cell(None, None, 0, "none")
    if isinstance(how, AsOf):
        if newest is None or age is None:
            return nothing
        if how.fresh is None or age <= how.fresh:
            return Cell(newest.value, age, 0, stored([newest]))
        carried = how.fill == "last" and how.reach is not None and age <= how.reach
        return Cell(newest.value, age, 0, "last") if carried else nothing
    if inside:
        return Cell(made(how.aggregate, inside), age, len(inside), stored(inside))
    if newest is None or age is None or how.reach is None or age > how.reach:
        return nothing
    return Cell(carried_value(how, newest), age, 0, how.fill)


def made(aggregate: str, inside: Sequence[Fact]) -> Any:
    values = [fact.value for fact in inside]
    present = [value for value in values if value is not None]
    total = sum(present) if len(present) == len(values) else None
    if aggregate == "ohlcv":
        prices = [value or 0 for value in values]
        return prices[0], max(prices), min(prices), prices[-1], total
    if aggregate == "mean":
        return sum(present) / len(present) if present else None
    return total if aggregate == "sum" else values[-1]


def carried_value(how: Resample, newest: Fact) -> Any:
    return (*[newest.value or 0] * 4, 0) if how.fill == "flat" else newest.value


def stored(facts: Sequence[Fact]) -> str | None:
    fills = [fact.fill for fact in facts if fact.fill is not None]
    return f"stored:{fills[-1]}" if fills else None


lengths = st.integers(0, 8).map(lambda count: count * SECOND)
limits = st.integers(9, 14).map(lambda count: count * SECOND)
policies: st.SearchStrategy[How] = st.one_of(
    st.builds(AsOf, staleness=st.none() | lengths),
    st.builds(AsOf, staleness=st.none() | lengths, fill=st.just("zero")),
    st.builds(AsOf, staleness=lengths, fill=st.just("last"), limit=limits),
    st.builds(Resample, st.sampled_from(["ohlcv", "sum", "mean", "last"])),
    st.builds(Resample, st.just("ohlcv"), fill=st.just("flat"), limit=lengths),
    st.builds(Resample, st.sampled_from(["mean", "last"]), fill=st.just("last"), limit=lengths),
    st.builds(Resample, st.sampled_from(["sum", "mean", "last"]), fill=st.just("zero")),
)
one_fact = st.builds(
    Fact,
    st.integers(-15, 14),
    st.none() | st.integers(1, 9),
    st.sampled_from("XY"),
    st.none() | st.sampled_from(["flat", "linear"]),
)
facts_of = st.lists(one_fact, max_size=12)


def cell(row: dict[str, Any], how: How) -> Cell:
    prices = isinstance(how, Resample) and how.aggregate == "ohlcv"
    names = ("open", "high", "low", "close", "value") if prices else ("value",)
    values = tuple(row[f"x_{name}"] for name in names)
    value = values if prices and row["x_fill"] != "none" else values[-1]
    return Cell(value, row["x_age"], row.get("x_rows", 0), row["x_fill"])


@given(facts_of, policies)
def test_a_point_equals_a_search_through_all_rows(facts: list[Fact], how: How) -> None:
    result = align({"x": rows_of(facts)}, STEP, since=T0, until=UNTIL, how=how, by=tuple(NAMES))
    expected_cells = {}
    for at in range(0, 12, 3):
        for symbol in sorted({fact.symbol for fact in facts if fact.known_at <= at}):
            market = [fact for fact in facts if fact.symbol == symbol]
            expected_cells[T0 + at * SECOND, symbol] = expected(market, how, at)
    rows = result.frame.to_dicts()
    assert {(row["time"], row["symbol"]): cell(row, how) for row in rows} == expected_cells
    assert [(row["time"], row["symbol"]) for row in rows] == list(expected_cells)


@given(facts_of, facts_of, policies, policies, st.integers(0, 11))
def test_rows_known_after_a_time_change_nothing_before_it(
    facts: list[Fact], others: list[Fact], how: How, also: How, at: int
) -> None:
    past = [fact for fact in facts if fact.known_at <= at]
    future = [fact for fact in others if fact.known_at > at]
    before = [
        align(
            {"x": rows_of(part), "y": rows_of(part)},
            STEP,
            since=T0,
            until=UNTIL,
            how={"x": how, "y": also},
            by=tuple(NAMES),
        ).frame.filter(pl.col("time") <= T0 + at * SECOND)
        for part in (facts, past + future)
    ]
    assert_frame_equal(*before)


@given(facts_of, policies)
def test_exactly_the_cells_that_no_fresh_row_gave_are_marked(facts: list[Fact], how: How) -> None:
    market = [fact._replace(symbol="X", value=fact.value or 1) for fact in facts]
    result = align({"x": rows_of(market)}, STEP, since=T0, until=UNTIL, how=how)
    frame = result.frame.select("time", "x_value", "x_age", "x_fill")
    for time, value, age, fill in frame.iter_rows():
        known_at = [T0 + fact.known_at * SECOND for fact in market]
        assert (fill == "none") == (value is None)
        assert (fill == "zero") == (value == 0 and age is None)
        if fill is None:
            assert time - age in known_at
            fresh = how.fresh if isinstance(how, AsOf) else STEP
            assert fresh is None or age <= fresh
    summary = result.summary.row(0, named=True)
    fills = result.frame["x_fill"].to_list()
    assert summary["points"] == summary["observed"] + summary["filled"] + summary["missing"] == 4
    assert (summary["observed"], summary["missing"]) == (fills.count(None), fills.count("none"))
    assert summary["oldest_age"] == result.frame["x_age"].max()
