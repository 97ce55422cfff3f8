"""Which rows are one: the same rows result from any batches, and each row is one or the other."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.catalog import builtin
from lake.model.identity import Resolved, resolve, settle_times
from tests.conftest import DAY, SECOND, T0

TRADES = builtin().dataset("trades")
SCHEMA = {name: kind for name, kind in TRADES.polars_schema.items() if name != "date"}
Row = dict[str, Any]


def trade(seconds: float, trade_id: str = "7", *, price: float = 1.0, **values: Any) -> Row:
    time = T0 + timedelta(microseconds=round(seconds * 1e6))
    market = {"exchange": "binance", "symbol": "BTC/USDT"}
    return {**market, "timestamp": time, "trade_id": trade_id, "price": price, "amount": 1.0} | {
        "received_at": None,
        **values,
    }


def frame(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA)


def seconds(rows: pl.DataFrame) -> list[float]:
    return [(time - T0) / SECOND for time in rows["timestamp"]]


class OneByOne:
    """The rule in words: rows are taken one by one, and compared with all that are there."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.conflicting: list[tuple[str, str]] = []

    def take(self, row: Row) -> None:
        close = [
            (abs(row["timestamp"] - other["timestamp"]), other["timestamp"], number)
            for number, other in enumerate(self.rows)
            if all(row[name] == other[name] for name in TRADES.full_key)
            and abs(row["timestamp"] - other["timestamp"]) <= SECOND
        ]
        if not close:
            self.rows.append(dict(row))
            return
        other = self.rows[min(close)[2]]
        if row["price"] != other["price"]:
            self.conflicting.append((repr(row["timestamp"]), repr(row["price"])))
        elif other["received_at"] is None:
            other["received_at"] = row["received_at"]


def resolved(rows: pl.DataFrame, stored: pl.DataFrame) -> Resolved:
    return resolve(TRADES, rows, stored, lambda numbers, names: stored.select(names)[numbers])


def apply(stored: pl.DataFrame, outcome: Resolved) -> pl.DataFrame:
    """The table after a batch."""
    place = [*TRADES.full_key, "timestamp"]
    others = stored.join(outcome.filled, on=place, how="anti", maintain_order="left")
    return pl.concat([others, outcome.filled.select(stored.columns), outcome.new])


times = st.integers(0, 12).map(lambda n: n * 0.3)
received = st.sampled_from([None, T0 + DAY, T0 + 2 * DAY])
rows_of_few_ids = st.lists(
    st.builds(
        trade,
        times,
        st.sampled_from(["7", "8"]),
        price=st.sampled_from([1.0, 1.0, 2.0]),
        received_at=received,
        symbol=st.sampled_from(["BTC/USDT", "BTC/USDT", "ETH/USDT"]),
    ),
    min_size=1,
    max_size=14,
)


@given(rows_of_few_ids, st.lists(st.integers(0, 14), max_size=4))
@settings(max_examples=150)
def test_any_batches_give_what_rows_one_by_one_give(rows: list[Row], cuts: list[int]) -> None:
    expected = OneByOne()
    for row in rows:
        expected.take(row)

    stored, conflicting = frame(), 0
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for start, end in pairwise(bounds):
        outcome = resolved(frame(*rows[start:end]), stored)
        assert outcome.conflicting.height == outcome.opposed.height
        conflicting += outcome.conflicting.height
        stored = apply(stored, outcome)
        assert outcome.kept.join(stored, on=["symbol", "timestamp"], how="anti").is_empty()
    assert sorted(map(repr, stored.select(list(SCHEMA)).to_dicts())) == sorted(
        map(repr, frame(*expected.rows).to_dicts())
    )
    assert conflicting == len(expected.conflicting)


@given(rows_of_few_ids, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_any_order_gives_the_same_rows_where_close_times_form_no_chain(
    rows: list[Row], random: Any
) -> None:
    apart = [{**row, "timestamp": T0 + 5 * (row["timestamp"] - T0) // 1} for row in rows]
    close = [
        {**row, "timestamp": row["timestamp"] + timedelta(milliseconds=number)}
        for row in apart
        for number in range(2)
    ]
    shuffled = list(close)
    random.shuffle(shuffled)
    one, other = (resolved(frame(*some), frame()).new for some in (close, shuffled))
    places = [
        sorted(rows.select("symbol", "trade_id", pl.col("timestamp").dt.truncate("100ms")).rows())
        for rows in (one, other)
    ]
    assert places[0] == places[1]


def test_a_chain_of_close_times_depends_on_its_order_and_never_keeps_two_that_are_close() -> None:
    first, middle, last = trade(0.0), trade(0.9), trade(1.8)
    assert seconds(resolved(frame(first, middle, last), frame()).new) == [0.0, 1.8]
    assert seconds(resolved(frame(middle, first, last), frame()).new) == [0.9]


@pytest.mark.parametrize(
    ("time", "expected"),
    [(0.440296, 0.440), (1.440, 0.440), (1.440001, 1.440001), (-0.559, 0.440)],
)
def test_a_time_within_the_tolerance_is_that_of_the_stored_row(
    time: float, expected: float
) -> None:
    settled = settle_times(TRADES, frame(trade(time)), frame(trade(0.440)))
    assert seconds(settled) == [expected]


def test_the_closest_of_two_stored_times_counts_and_of_two_as_close_the_earlier() -> None:
    stored = frame(trade(0.0), trade(1.8))
    rows = frame(trade(1.0), trade(0.9, "8"), trade(0.9))
    assert seconds(settle_times(TRADES, rows[:1], stored)) == [1.8]
    assert seconds(settle_times(TRADES, rows[2:], stored)) == [0.0]


def test_a_tolerance_of_zero_tells_every_time_apart() -> None:
    exact = replace(TRADES, time_tolerance=timedelta(0))
    rows = frame(trade(0.0), trade(0.000001), trade(0.0))
    assert seconds(resolve(exact, rows, frame(), lambda _, names: frame().select(names)).new) == [
        0.0,
        0.000001,
    ]


def test_rows_whose_key_has_the_time_are_left_as_they_are() -> None:
    bars = builtin().dataset("bars_1m")
    rows = frame(trade(0.0), trade(0.5))
    assert settle_times(bars, rows, frame(trade(0.2))) is rows


def test_a_contradiction_shows_both_rows_as_they_came() -> None:
    outcome = resolved(frame(trade(0.44, price=2.0)), frame(trade(0.440295, price=1.0)))
    assert (outcome.new.height, outcome.kept.height) == (0, 0)
    assert seconds(outcome.conflicting) == [0.44]
    assert seconds(outcome.opposed) == [0.440295]
    assert (outcome.conflicting["price"].item(), outcome.opposed["price"].item()) == (2.0, 1.0)


def test_a_null_is_filled_once_by_a_row_of_equal_content() -> None:
    early, late = datetime(2024, 2, 1, tzinfo=T0.tzinfo), datetime(2024, 3, 1, tzinfo=T0.tzinfo)
    other = trade(0.0, price=2.0, received_at=early)
    outcome = resolved(frame(other, trade(0.1, received_at=late)), frame(trade(0.0)))
    assert outcome.filled.select("timestamp", "price", "received_at").rows() == [(T0, 1.0, late)]
    stored = frame(trade(0.0, received_at=early))
    again = resolved(frame(trade(0.0, received_at=late)), stored)
    assert (again.filled.height, again.conflicting.height, again.kept.height) == (0, 0, 1)


def test_a_venue_whose_ids_identify_nothing_costs_no_square_of_its_rows() -> None:
    rows = pl.concat([frame(trade(0.0))] * 20_000).with_columns(
        timestamp=T0 + pl.int_range(20_000).cast(pl.Duration("ms")) * 700
    )
    outcome = resolved(rows.cast(SCHEMA), frame())  # type: ignore[arg-type]
    assert outcome.new.height == 10_000
