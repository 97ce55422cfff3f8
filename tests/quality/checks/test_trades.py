"""Checks of trades, on trades made by hand and recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.model.catalog import builtin
from lake.model.time import from_ms
from lake.quality.checks import trade_ids, trades
from lake.quality.checks.misplaced import find_misplaced
from lake.quality.checks.times import duplicates
from tests.quality.checks.recorded_books import DATA, lines, needs_data
from tests.quality.checks.test_bars import at, put
from tests.quality.slices import collect_findings, slice_of

T0 = datetime(2024, 1, 1, 23, 50, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CHECKS = {**trade_ids.CHECKS, **trades.CHECKS}
THRESHOLDS = {c.name: c.thresholds for c in builtin().dataset("trades").checks}


def ticks(count: int = 1200) -> pl.DataFrame:
    """A trade a second, mostly at the price before, else a tick away."""
    random = np.random.default_rng(3)
    steps = random.choice([0.0, 0.0, 0.02, -0.02], count)
    return pl.DataFrame(
        {
            "timestamp": [T0 + n * SECOND for n in range(count)],
            "trade_id": [str(n + 5000) for n in range(count)],
            "price": 100 + np.cumsum(steps),
            "amount": np.ones(count),
            "side": ["buy"] * count,
        }
    )


@cache
def recorded() -> list[pl.DataFrame]:
    """Trades of 24 markets as OKX, Coinbase, Kraken Futures and Binance futures sent them.

    The number of a trade is its id, or of Kraken Futures its `seq`.
    """
    rows: dict[str, list[tuple[int, datetime, str, Any]]] = {}
    for _, frame in lines("OKX.ws.1.0.zst"):
        for t in frame.get("data", []) if frame.get("arg", {}).get("channel") == "trades" else []:
            trade = (int(t["tradeId"]), from_ms(int(t["ts"])), t["side"], t["px"])
            rows.setdefault(t["instId"], []).append(trade)
    for _, t in lines("COINBASE.ws.28.0.zst"):
        if t["type"] in ("match", "last_match"):
            time = datetime.fromisoformat(t["time"])
            rows.setdefault(t["product_id"], []).append(
                (t["trade_id"], time, t["side"], t["price"])
            )
    for _, frame in lines("KRAKEN_FUTURES.ws.1.0.zst"):
        single = [frame] if frame.get("feed") == "trade" and "seq" in frame else []
        for t in frame.get("trades", single):
            trade = (t["seq"], from_ms(t["time"]), t["side"], t["price"])
            rows.setdefault(t["product_id"], []).append(trade)
    for _, frame in lines("BINANCE_FUTURES.ws.1.0.zst"):
        if (t := frame.get("data", {})).get("e") == "aggTrade":
            side = "sell" if t["m"] else "buy"
            rows.setdefault(t["s"], []).append((t["a"], from_ms(t["T"]), side, t["p"]))
    return [
        pl.DataFrame(
            {
                "timestamp": [time for _, time, *_ in finding],
                "trade_id": [str(number) for number, *_ in finding],
                "price": [float(price) for *_, price in finding],
                "amount": 1.0,
                "side": [side for *_, side, _ in finding],
            }
        ).unique("trade_id", maintain_order=True)
        for finding in rows.values()
    ]


def run(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    return collect_findings(CHECKS[name].function(slice_of("trades", frame), **THRESHOLDS[name]))


@pytest.mark.parametrize("name", CHECKS)
def test_clean_trades_raise_no_alarm(name: str) -> None:
    assert run(name, ticks()).is_empty()
    assert run(name, ticks(1)).is_empty()


@needs_data
@pytest.mark.parametrize("name", CHECKS)
def test_recorded_trades_raise_no_alarm(name: str) -> None:
    frame = pl.read_parquet(DATA / "trades" / "binance_XRP-ETH.parquet")
    assert run(name, frame.rename({"id": "trade_id"}).drop("cost")).is_empty()


@needs_data
@pytest.mark.parametrize("name", CHECKS)
def test_recorded_trades_of_other_venues_raise_no_alarm(name: str) -> None:
    markets = recorded()
    assert len(markets) > 20
    assert sum(frame.height for frame in markets) > 1200
    for frame in markets:
        assert run(name, frame).is_empty()


@needs_data
def test_a_hole_in_few_recorded_trades_is_found() -> None:
    enough = [frame for frame in recorded() if frame.height > 58]
    assert len(enough) > 10
    for frame in enough:
        assert run("ids_skip", frame.filter(~at(30, 6)))["rows"].to_list() == [6]


def test_one_hole_in_very_few_trades_is_not_reported() -> None:
    assert run("ids_skip", ticks(55).filter(~at(20, 2)))["rows"].to_list() == [2]
    assert run("ids_skip", ticks(50).filter(~at(20, 2))).is_empty()
    twice = ticks(70).filter(~at(20, 2) & ~at(40, 2))
    assert run("ids_skip", twice).is_empty()


def test_ids_that_are_left_out_are_counted() -> None:
    findings = run("ids_skip", ticks().filter(~at(100, 7)))
    assert findings.select("start", "rows", "measured", "reason").rows() == [
        (T0 + 99 * SECOND, 7, 7.0, "ids_skip")
    ]
    assert findings["end"][0] > T0 + 107 * SECOND


def test_ids_missing_over_midnight_are_reported_for_the_later_day() -> None:
    findings = run("ids_skip", ticks().filter(~at(595, 10)))
    assert findings["start"].to_list() == [datetime(2024, 1, 2, tzinfo=UTC)]
    assert findings["rows"].to_list() == [10]


def test_ids_of_single_trades_in_aggregated_trades_are_checked_too() -> None:
    number = pl.int_range(pl.len())
    frame = ticks().with_columns(first_id=number * 3, last_id=number * 3 + 2)
    assert run("ids_skip", frame).is_empty()
    lost = put(frame, at(50), last_id=pl.col("last_id") - 1)
    assert run("ids_skip", lost)["rows"].to_list() == [1]


def test_ids_that_do_not_follow_each_other_in_general_are_no_alarm() -> None:
    number = pl.int_range(pl.len())
    loose = ticks().with_columns(trade_id=(number * 2 + number // 3).cast(pl.String))
    texts = ticks().with_columns(trade_id="x" + pl.col("trade_id"))
    for name in ("ids_skip", "id_order"):
        assert run(name, loose).is_empty()
        assert run(name, texts).is_empty()


def test_ids_that_grow_by_a_digit_skip_nothing() -> None:
    """As texts 10000 is before 9999: rows of one time are stored in that order."""
    frame = put(
        ticks().with_columns(trade_id=(pl.int_range(pl.len()) + 9000).cast(pl.String)),
        at(999, 3),
        timestamp=pl.lit(T0 + 1000 * SECOND),
    )
    for name in ("ids_skip", "id_order", "conflicting_ids"):
        assert run(name, frame).is_empty()


def test_a_later_id_at_an_earlier_time_is_found() -> None:
    early = put(ticks(), at(300), timestamp=pl.lit(T0 + 200 * SECOND))
    findings = run("id_order", early)
    assert findings.select("start", "measured").rows() == [(T0 + 200 * SECOND, -99.0)]


@pytest.mark.parametrize("hours", [1, -1])
@pytest.mark.parametrize("block", [1, 25])
def test_trades_at_a_wrong_time_are_named_and_not_those_they_jumped_over(
    hours: int, block: int
) -> None:
    hour, place = timedelta(hours=hours), 600
    moved = pl.int_range(pl.len()).is_between(place, place + block, closed="left")
    findings = run("id_order", put(ticks(), moved, timestamp=pl.col("timestamp") + hour))
    wrong = [T0 + (place + n) * SECOND + hour for n in range(block)]
    assert findings["start"].to_list() == wrong
    assert findings["measured"].sign().unique().to_list() == [float(hours)]
    assert findings["message"][0].startswith("Trade 5600 is ")


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(-50, 50)), max_size=12),
    st.integers(0, 20),
)
def test_without_the_misplaced_rows_the_others_are_in_order(
    moves: list[tuple[int, int]], tolerance: int
) -> None:
    times = np.arange(0, 4010, 10)
    for row, steps in moves:
        times[row] += 10 * steps
    rows = find_misplaced(times, tolerance)
    left = np.delete(times, rows[:, 0])
    assert (np.maximum.accumulate(left) - left <= 2 * tolerance).all()
    assert len(rows) <= len(moves)
    assert (np.abs(rows[:, 1]) > tolerance).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"timestamp": pl.col("timestamp").dt.offset_by("3s")}, "other_time"),
        ({"price": pl.col("price") + 1}, "other_values"),
        ({"amount": pl.col("amount") * 2}, "other_values"),
    ],
)
def test_an_id_that_is_there_twice_is_found(change: dict[str, pl.Expr], reason: str) -> None:
    frame = pl.concat([ticks(), ticks().filter(at(40)).with_columns(**change)])
    assert run("conflicting_ids", frame)["reason"].to_list() == [reason]
    repeated = collect_findings(duplicates(slice_of("trades", frame)))
    assert repeated.is_empty()


def test_identical_trades_are_duplicates_and_no_conflict() -> None:
    same = pl.concat([ticks(), ticks().filter(at(40) | at(41))])
    assert run("conflicting_ids", same).is_empty()
    findings = collect_findings(duplicates(slice_of("trades", same)))
    assert findings.select("start", "rows").rows() == [
        (T0 + 40 * SECOND, 1),
        (T0 + 41 * SECOND, 1),
    ]
    elsewhere = pl.concat([same, ticks().filter(at(40)).with_columns(pl.lit(7.0).alias("price"))])
    assert run("conflicting_ids", elsewhere)["reason"].to_list() == ["other_values"]
    assert collect_findings(duplicates(slice_of("trades", elsewhere)))["rows"].sum() == 2


def test_ids_that_are_no_numbers_are_duplicates_whatever_their_times() -> None:
    named = ticks().with_columns(pl.format("t{}", "trade_id").alias("trade_id"))
    later = named.filter(at(40)).with_columns(pl.col("timestamp").dt.offset_by("9s"))
    frame = pl.concat([named, later])
    assert run("conflicting_ids", frame).is_empty()
    assert collect_findings(duplicates(slice_of("trades", frame)))["rows"].to_list() == [1]


def test_aggregated_trades_with_a_trade_in_common_are_found() -> None:
    number = pl.int_range(pl.len())
    frame = ticks().with_columns(first_id=number * 3, last_id=number * 3 + 2)
    findings = run("conflicting_ids", put(frame, at(50), last_id=pl.col("last_id") + 1))
    assert findings["reason"].to_list() == ["overlap"]


@pytest.mark.parametrize("factor", [1.05, 0.95, 100.0])
def test_a_trade_at_an_absurd_price_is_suspect(factor: float) -> None:
    frame = put(ticks(), at(250), price=pl.col("price") * factor)
    findings = run("trade_spikes", frame)
    assert findings.select("start", "reason").rows() == [(T0 + 250 * SECOND, "suspect")]
    assert findings["expected"][0] == pytest.approx(100, rel=0.02)


def test_a_price_that_stays_is_no_spike_of_a_trade() -> None:
    frame = put(ticks(), pl.int_range(pl.len()) >= 250, price=pl.col("price") * 1.05)
    assert run("trade_spikes", frame).is_empty()


def test_two_changes_the_same_way_are_no_spike_of_a_trade() -> None:
    climbing = put(ticks(), pl.int_range(pl.len()) >= 250, price=pl.col("price") * 1.05)
    climbing = put(climbing, pl.int_range(pl.len()) > 250, price=pl.col("price") * 1.05)
    assert run("trade_spikes", climbing).is_empty()


def test_each_day_without_sides_is_one_finding() -> None:
    none = ticks().with_columns(side=pl.lit(None, dtype=pl.String))
    assert run("sides_unknown", none)["rows"].to_list() == [600, 600]
    assert run("sides_unknown", put(none, at(7), side=pl.lit("buy")))["rows"].to_list() == [600]
