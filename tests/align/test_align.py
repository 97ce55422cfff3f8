"""Alignment: one grid, nothing seen before it was known, and every filled cell marked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.align.align import Aligned, AlignInput, align, align_feeds
from lake.align.policies import AsOf, How, Resample
from lake.api import Lake
from lake.errors import UsageError
from lake.model.catalog import builtin
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, bars, funding, trades, write

NAMES = pl.Schema({"exchange": pl.String(), "symbol": pl.String()})
UNTIL = T0 + 12 * SECOND
STEP = 3 * SECOND
NEVER = pl.Series([None] * 3, dtype=TIME)


class Fact(NamedTuple):
    """A row: when it became known in seconds, a value, its market, how a repair made it."""

    known: int
    value: int | None
    symbol: str
    fill: str | None


def rows_of(facts: Sequence[Fact]) -> pl.DataFrame:
    values = [fact.value for fact in facts]
    schema: dict[str, pl.DataType] = {"available_at": TIME, **NAMES, "fill": pl.String()}
    schema |= dict.fromkeys(("open", "high", "low", "close", "value"), pl.Int64())
    columns: dict[str, Any] = {
        "available_at": [T0 + fact.known * SECOND for fact in facts],
        "exchange": ["a"] * len(facts),
        "symbol": [fact.symbol for fact in facts],
        "fill": [fact.fill for fact in facts],
        "value": values,
    }
    for price in ("open", "high", "low", "close"):
        columns[price] = [0 if value is None else value for value in values]
    return pl.DataFrame({name: columns[name] for name in schema}, schema=schema)


def known(*seconds: float, value: Sequence[float] = (), **columns: Any) -> pl.DataFrame:
    """Rows of one market that nothing names, with the values 1, 2, … by default."""
    values = list(value) or list(range(1, len(seconds) + 1))
    times = pl.Series(values=[T0 + second * SECOND for second in seconds], dtype=TIME)
    return pl.DataFrame({"available_at": times, "value": values, **columns})


def aligned(rows: pl.DataFrame, how: How, seconds: int = 12, every: Any = STEP) -> Aligned:
    return align({"x": rows}, every, start=T0, end=T0 + seconds * SECOND, how=how)


# What alignment means, said once more and slowly.


class Cell(NamedTuple):
    """What stands at a point: a value, how old, of how many rows, and what it was filled with."""

    value: Any
    age: timedelta | None
    rows: int
    fill: str | None


def expected(facts: Sequence[Fact], how: How, at: int) -> Cell:
    """What a source of one market says at a time, by looking at all of its rows."""
    seen = sorted((fact for fact in facts if fact.known <= at), key=lambda fact: fact.known)
    inside = [fact for fact in seen if fact.known > at - STEP // SECOND]
    newest = seen[-1] if seen else None
    age = None if newest is None else (at - newest.known) * SECOND
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
    there = [value for value in values if value is not None]
    total = sum(there) if len(there) == len(values) else None
    if aggregate == "ohlcv":
        prices = [value or 0 for value in values]
        return prices[0], max(prices), min(prices), prices[-1], total
    if aggregate == "mean":
        return sum(there) / len(there) if there else None
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
def test_a_point_says_what_a_search_through_all_rows_finds(facts: list[Fact], how: How) -> None:
    found = align({"x": rows_of(facts)}, STEP, start=T0, end=UNTIL, how=how, by=tuple(NAMES))
    wanted = {}
    for at in range(0, 12, 3):
        for symbol in sorted({fact.symbol for fact in facts if fact.known <= at}):
            market = [fact for fact in facts if fact.symbol == symbol]
            wanted[T0 + at * SECOND, symbol] = expected(market, how, at)
    rows = found.frame.to_dicts()
    assert {(row["time"], row["symbol"]): cell(row, how) for row in rows} == wanted
    assert [(row["time"], row["symbol"]) for row in rows] == list(wanted)


@given(facts_of, facts_of, policies, policies, st.integers(0, 11))
def test_what_becomes_known_after_a_time_changes_nothing_up_to_it(
    facts: list[Fact], others: list[Fact], how: How, also: How, at: int
) -> None:
    past = [fact for fact in facts if fact.known <= at]
    future = [fact for fact in others if fact.known > at]
    before = [
        align(
            {"x": rows_of(part), "y": rows_of(part)},
            STEP,
            start=T0,
            end=UNTIL,
            how={"x": how, "y": also},
            by=tuple(NAMES),
        ).frame.filter(pl.col("time") <= T0 + at * SECOND)
        for part in (facts, past + future)
    ]
    assert_frame_equal(*before)


@given(facts_of, policies)
def test_exactly_the_cells_that_no_fresh_row_gave_are_marked(facts: list[Fact], how: How) -> None:
    market = [fact._replace(symbol="X", value=fact.value or 1) for fact in facts]
    found = align({"x": rows_of(market)}, STEP, start=T0, end=UNTIL, how=how)
    frame = found.frame.select("time", "x_value", "x_age", "x_fill")
    for time, value, age, fill in frame.iter_rows():
        known_at = [T0 + fact.known * SECOND for fact in market]
        assert (fill == "none") == (value is None)
        assert (fill == "zero") == (value == 0 and age is None)
        if fill is None:
            assert time - age in known_at
            fresh = how.fresh if isinstance(how, AsOf) else STEP
            assert fresh is None or age <= fresh
    told = found.summary.row(0, named=True)
    fills = found.frame["x_fill"].to_list()
    assert told["points"] == told["observed"] + told["filled"] + told["missing"] == 4
    assert (told["observed"], told["missing"]) == (fills.count(None), fills.count("none"))
    assert told["oldest_age"] == found.frame["x_age"].max()


def test_a_quant_gets_trades_bars_and_funding_on_one_grid() -> None:
    dataset = builtin().dataset
    perp = "BTC/USDT:USDT"
    sources = {
        "spot": (dataset("bars_1m"), bars(6, open=[10.0] * 6, high=[12.0] * 6, low=[9.0] * 6)),
        "flow": (dataset("trades"), trades(3, start=T0 + MINUTE, step=MINUTE, received_at=NEVER)),
        "funding": (dataset("funding"), funding([T0 - 4 * MINUTE], perp)),
    }
    found = align(
        {name: rows.with_columns(one.availability()) for name, (one, rows) in sources.items()},
        "2m",
        start=T0 + 2 * MINUTE,
        end=T0 + 10 * MINUTE,
        how={
            "spot": Resample("ohlcv", fill="flat", limit="2m"),
            "flow": Resample("sum", fill="zero", columns=["amount"]),
            "funding": AsOf(staleness="8m", columns=["funding_rate"]),
        },
    )
    frame = found.frame
    assert frame.columns == [
        *("time", "spot_open", "spot_high", "spot_low", "spot_close", "spot_volume"),
        *("spot_age", "spot_rows", "spot_fill"),
        *("flow_amount", "flow_age", "flow_rows", "flow_fill"),
        *("funding_funding_rate", "funding_age", "funding_fill"),
    ]
    assert frame["time"].to_list() == [T0 + n * MINUTE for n in (2, 4, 6, 8)]
    assert frame["spot_volume"].to_list() == [2.0, 2.0, 2.0, 0.0]
    assert frame["spot_open"].to_list() == [10.0, 10.0, 10.0, 100.0]
    assert frame["spot_fill"].to_list() == [None, None, None, "flat"]
    assert frame["flow_amount"].to_list() == [2.0, 1.0, 0.0, 0.0]
    assert frame["flow_fill"].to_list() == [None, None, "zero", "zero"]
    assert frame["funding_funding_rate"].to_list() == [0.0001, 0.0001, None, None]
    assert found.summary.rows() == [
        ("spot", 4, 3, 1, 0, 2 * MINUTE),
        ("flow", 4, 2, 2, 0, MINUTE),
        ("funding", 4, 2, 0, 2, 8 * MINUTE),
    ]


def test_a_bar_counts_from_its_end_and_not_before() -> None:
    rows = bars(2).with_columns(builtin().dataset("bars_1m").availability())
    found = aligned(rows, Resample("ohlcv"), seconds=181, every="1m")
    assert found.frame["x_volume"].to_list() == [None, 1.0, 1.0, None]


def test_a_bar_that_was_still_open_is_left_out() -> None:
    rows = known(1, 2, closed=[True, False])
    assert aligned(rows, AsOf(staleness=None)).frame["x_value"].to_list() == [None, 1, 1, 1]


def test_a_row_that_a_repair_filled_in_is_never_taken_for_observed() -> None:
    rows = known(0, 1, 4, fill=["flat", None, None])
    fills = aligned(rows, AsOf(staleness="1s"), seconds=2, every=SECOND).frame["x_fill"]
    assert fills.to_list() == ["stored:flat", None]
    summed = aligned(known(1, 2, 4, fill=["flat", None, None]), Resample("sum"))
    assert summed.frame["x_fill"].to_list() == ["none", "stored:flat", None, "none"]
    assert summed.summary.row(0)[:5] == ("x", 4, 1, 1, 2)


def test_steps_are_open_at_their_start_and_closed_at_their_end() -> None:
    found = aligned(known(-3, -2, 0, 0.000001, 3, 6.000001), Resample("sum"))
    assert found.frame["x_value"].to_list() == [2 + 3, 4 + 5, None, 6]
    assert found.frame["x_rows"].to_list() == [2, 2, 0, 1]


def test_steps_of_months_are_those_of_the_calendar() -> None:
    days = [datetime(2023, 12, 1, tzinfo=UTC) + n * DAY for n in range(93)]
    rows = pl.DataFrame({"available_at": pl.Series(days, dtype=TIME), "n": 1})
    end = datetime(2024, 3, 2, tzinfo=UTC)
    found = align({"x": rows}, "1M", start=T0, end=end, how=Resample("sum"))
    assert found.frame["x_n"].to_list() == [31, 31, 29]
    assert found.frame["time"].dt.month().to_list() == [1, 2, 3]


def test_the_sum_of_what_is_partly_unknown_is_unknown() -> None:
    rows = pl.DataFrame({"available_at": known(1, 2, 4)["available_at"], "v": [1, None, 3]})
    found = aligned(rows, Resample("sum"))
    assert found.frame["x_v"].to_list() == [None, None, 3, None]
    assert found.frame["x_fill"].to_list() == ["none", None, None, "none"]


@pytest.mark.parametrize("dtype", [pl.Int8(), pl.Int32(), pl.UInt32(), pl.Int64(), pl.Float32()])
def test_a_sum_has_room_for_what_it_adds(dtype: pl.DataType) -> None:
    most = 127 if dtype == pl.Int8() else 2**31 - 1
    rows = known(1, 2, 2, value=[most] * 3).with_columns(pl.col("value").cast(dtype))
    assert aligned(rows, Resample("sum")).frame["x_value"][1] == pytest.approx(3 * most)


@pytest.mark.parametrize(
    "how", [AsOf(staleness=None, columns="value"), Resample("sum", columns="value")]
)
def test_one_column_may_be_named_as_it_is(how: How) -> None:
    assert aligned(known(0, other=[1]), how).frame.columns[:2] == ["time", "x_value"]


def test_markets_stand_side_by_side_from_when_they_are_known() -> None:
    facts = [Fact(0, 1, "X", None), Fact(3, 2, "Y", None), Fact(99, 3, "Z", None)]
    found = align(
        {"one": rows_of(facts[:1]), "two": rows_of(facts[1:])},
        STEP,
        start=T0,
        end=T0 + 6 * SECOND,
        how=AsOf(staleness=None, columns=["value"]),
        by="symbol",
    )
    shown = found.frame.select("time", "symbol", "one_value", "two_value").rows()
    assert shown == [
        (T0, "X", 1, None),
        (T0 + STEP, "X", 1, None),
        (T0 + STEP, "Y", None, 2),
    ]
    assert found.summary.columns[:3] == ["source", "symbol", "points"]
    assert found.summary["points"].to_list() == [2, 1, 2, 1]


def test_sources_without_rows_give_points_that_are_missing() -> None:
    found = aligned(known().cast({"value": pl.Int64}), AsOf(staleness=None))
    assert found.frame["x_fill"].to_list() == ["none"] * 4
    assert found.summary.row(0) == ("x", 4, 0, 0, 4, None)
    empty = align({"x": rows_of([])}, STEP, start=T0, end=UNTIL, how=Resample("sum"), by="symbol")
    assert empty.frame.is_empty()
    assert empty.summary.is_empty()


def test_one_source_may_be_there_twice_with_a_policy_each() -> None:
    rows = known(1, 2, 4)
    how: dict[str, How] = {"price": AsOf(staleness="9s"), "flow": Resample("sum", fill="zero")}
    found = align({"price": rows, "flow": rows.lazy()}, STEP, start=T0, end=UNTIL, how=how)
    assert found.frame["price_value"].to_list() == [None, 2, 3, 3]
    assert found.frame["flow_value"].to_list() == [0, 3, 3, 0]


def test_the_order_of_rows_known_at_different_times_does_not_matter() -> None:
    rows = known(1, 2, 4, 7)
    for how in (Resample("last"), AsOf(staleness=None)):
        assert_frame_equal(aligned(rows.reverse(), how).frame, aligned(rows, how).frame)


def test_what_an_alignment_of_tables_reads_is_enough(lake: Lake) -> None:
    write(lake, "bars_1m", bars(60))
    write(lake, "trades", trades(3600, received_at=None, price=[1.0 + n for n in range(3600)]))
    how: dict[str, How] = {
        "bar": Resample("ohlcv", fill="flat", limit="5m"),
        "price": AsOf(staleness="1s", fill="last", limit="3m", columns=["price", "timestamp"]),
        "any": AsOf(staleness=None, columns=["price"]),
    }
    asked = []

    def available(table: str, **narrowed: Any) -> pl.LazyFrame:
        asked.append(narrowed["since"])
        rows = lake.scan(table, **narrowed)
        return rows.select(lake.dataset(table).availability(), pl.all())

    start, end = T0 + 30 * MINUTE, T0 + 70 * MINUTE
    feeds: dict[str, AlignInput | str] = {
        "bar": AlignInput("bars_1m", "binance", "BTC/USDT"),
        "price": "trades",
        "any": AlignInput("trades"),
    }
    found = align_feeds(available, lake.dataset, feeds, "1m", how=how, start=start, end=end)
    assert asked == [start - 6 * MINUTE, start - DAY - 3 * MINUTE, None]
    tables = {"bar": "bars_1m", "price": "trades", "any": "trades"}
    everything = {
        name: lake.scan(table).select(lake.dataset(table).availability(), pl.all())
        for name, table in tables.items()
    }
    wanted = align(everything, "1m", how=how, start=start, end=end)
    assert_frame_equal(found.frame, wanted.frame)
    assert found.summary["filled"].to_list() == [5, 2, 0]
    assert found.summary["missing"].to_list() == [4, 7, 0]


MANY = rows_of([Fact(0, 1, "X", None), Fact(0, 1, "Y", None)])
NAIVE = known(0).with_columns(pl.col("available_at").dt.replace_time_zone(None))
NEWEST = AsOf(staleness=None)
REFUSED: dict[str, tuple[dict[str, pl.DataFrame], dict[str, Any], str]] = {
    "no source": ({}, {}, "there is no source to align"),
    "naive times": ({"x": NAIVE}, {}, "source 'x': column 'available_at' is Datetime"),
    "a naive start": ({"x": known(0)}, {"start": T0.replace(tzinfo=None)}, "range"),
    "a range reversed": ({"x": known(0)}, {"end": T0}, "range is empty or reversed"),
    "a step of nothing": ({"x": known(0)}, {"every": 0 * SECOND}, "every is 0:00:00"),
    "an unknown step": ({"x": known(0)}, {"every": "soon"}, "'soon' is not a timeframe"),
    "no availability": (
        {"x": known(0).drop("available_at")},
        {},
        "source 'x' has no column 'available_at'",
    ),
    "null availability": (
        {"x": pl.concat([known(0), known(0).with_columns(available_at=pl.lit(None, TIME))])},
        {"how": Resample("sum")},
        "source 'x': column 'available_at' is null in 1 rows",
    ),
    "an unknown column": (
        {"x": known(0)},
        {"how": AsOf(staleness=None, columns=["nope"])},
        "source 'x' has no column 'nope'",
    ),
    "no column of the markets": ({"x": known(0)}, {"by": "symbol"}, "source 'x' has no column"),
    "several markets": ({"x": MANY}, {}, "source 'x' has several markets: a X and a Y"),
    "markets that one column does not tell apart": (
        {"x": MANY},
        {"by": "exchange"},
        "source 'x' has several markets: a X and a Y",
    ),
    "no prices": (
        {"x": known(0)},
        {"how": Resample("ohlcv")},
        "source 'x' has no column 'open'",
    ),
    "prices of text": (
        {"x": known(0, open=["a"], high=[1], low=[1], close=[1])},
        {"how": Resample("ohlcv")},
        "source 'x': column 'open' is String, not numbers",
    ),
    "a step without unit": ({"x": known(0)}, {"every": 60}, "every is 60"),
    "a policy by its name": ({"x": known(0)}, {"how": "last"}, "how is 'last'"),
    "text in a sum": (
        {"x": known(0, side=["buy"])},
        {"how": Resample("sum", columns=["side"])},
        "source 'x': column 'side' is String, not numbers",
    ),
    "a zero of text": (
        {"x": known(0, side=["buy"])},
        {"how": AsOf(staleness=None, fill="zero", columns=["side"])},
        "source 'x': column 'side' is String, not numbers",
    ),
    "a column twice": (
        {"x": known(0)},
        {"how": AsOf(staleness=None, columns=["value", "value"])},
        "column 'x_value' would be there twice",
    ),
    "names that meet": (
        {"x": known(0, y_value=[1]), "x_y": known(0)},
        {},
        "column 'x_y_value' would be there twice",
    ),
    "the column that says what was filled": (
        {"x": known(0, fill=["flat"])},
        {"how": AsOf(staleness=None, columns=["fill"])},
        "column 'x_fill' would be there twice",
    ),
    "time as a market": (
        {"x": known(0, time=[1])},
        {"by": "time"},
        "column 'time' would be there twice",
    ),
    "a source without policy": ({"x": known(0)}, {"how": {}}, "how says nothing of source 'x'"),
    "a policy without source": (
        {"x": known(0)},
        {"how": {"x": NEWEST, "y": NEWEST}},
        "how names 'y', but there is no such source",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_aligned_is_refused(case: str) -> None:
    sources, choice, said = REFUSED[case]
    asked = {"every": STEP, "start": T0, "end": UNTIL, "how": NEWEST, **choice}
    with pytest.raises(UsageError) as caught:
        align(sources, asked.pop("every"), **asked)
    assert caught.value.message.startswith(said)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "choice", "said"),
    [
        (Resample, {"aggregate": "median"}, "aggregate is 'median'"),
        (Resample, {"aggregate": "sum", "fill": "last", "limit": "1h"}, "fill of sum is 'last'"),
        (Resample, {"aggregate": "ohlcv", "fill": "zero"}, "fill of ohlcv is 'zero'"),
        (Resample, {"aggregate": "ohlcv", "fill": "flat"}, "fill 'flat' needs a limit"),
        (Resample, {"aggregate": "sum", "limit": "1h"}, "fill 'none' has no use for a limit"),
        (AsOf, {"staleness": "1h", "fill": "flat"}, "fill is 'flat'"),
        (AsOf, {"staleness": "1h", "fill": "last"}, "fill 'last' needs a limit"),
        (AsOf, {"staleness": "1h", "fill": "last", "limit": "1h"}, "limit 1h is no longer than"),
        (AsOf, {"staleness": None, "fill": "last", "limit": "1h"}, "limit 1h is no longer than"),
        (AsOf, {"staleness": "1M"}, "staleness is 1M: months differ"),
        (AsOf, {"staleness": -SECOND}, "staleness is -1 day"),
        (AsOf, {"staleness": timedelta.max}, "staleness is 999999999 days"),
        (AsOf, {"staleness": 60}, "staleness is 60"),
        (AsOf, {"staleness": "a while"}, "'a while' is not a timeframe"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(
    kind: type[How], choice: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**choice)
    assert caught.value.message.startswith(said)
    assert caught.value.hint
