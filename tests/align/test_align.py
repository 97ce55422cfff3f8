"""Alignment: one grid, no value before it was known, and every filled cell marked."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.align.align import AlignInput, align, align_tables
from lake.align.policies import AsOf, How, Resample
from lake.api import Lake
from lake.model.catalog import builtin
from lake.model.selection import Selection
from lake.query.known import scan_known
from tests.align.rows import STEP, UNTIL, Fact, align_rows, rows_known_at, rows_of
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, bars, funding, store_of, trades, write

NEVER = pl.lit(None, TIME).alias("received_at")


def test_a_quant_gets_trades_bars_and_funding_on_one_grid() -> None:
    dataset = builtin().dataset
    perp = "BTC/USDT:USDT"
    sources = {
        "spot": (
            dataset("bars_1m"),
            bars(6, open=[10.0] * 6, high=[12.0] * 6, low=[9.0] * 6, volume=[1.0] * 6),
        ),
        "flow": (dataset("trades"), trades(3, start=T0 + MINUTE, step=MINUTE)),
        "funding": (dataset("funding"), funding([T0 - 4 * MINUTE], perp)),
    }
    result = align(
        {
            name: rows.with_columns(NEVER).with_columns(one.availability())
            for name, (one, rows) in sources.items()
        },
        "2m",
        since=T0 + 2 * MINUTE,
        until=T0 + 10 * MINUTE,
        how={
            "spot": Resample("ohlcv", fill="flat", limit="2m"),
            "flow": Resample("sum", fill="zero", columns=["amount"]),
            "funding": AsOf(staleness="8m", columns=["funding_rate"]),
        },
    )
    frame = result.frame
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
    assert result.summary.rows() == [
        ("spot", 4, 3, 1, 0, 2 * MINUTE),
        ("flow", 4, 2, 2, 0, MINUTE),
        ("funding", 4, 2, 0, 2, 8 * MINUTE),
    ]


def test_a_bar_counts_from_its_end_and_not_before() -> None:
    rows = bars(2).with_columns(NEVER).with_columns(builtin().dataset("bars_1m").availability())
    result = align_rows(rows, Resample("ohlcv"), seconds=181, every="1m")
    assert result.frame["x_volume"].to_list() == [None, 1.0, 2.0, None]


def test_a_bar_that_was_still_open_is_left_out() -> None:
    rows = rows_known_at(1, 2, closed=[True, False])
    assert align_rows(rows, AsOf(staleness=None)).frame["x_value"].to_list() == [None, 1, 1, 1]


def test_a_row_filled_by_a_repair_never_counts_as_observed() -> None:
    rows = rows_known_at(0, 1, 4, fill=["flat", None, None])
    fills = align_rows(rows, AsOf(staleness="1s"), seconds=2, every=SECOND).frame["x_fill"]
    assert fills.to_list() == ["stored:flat", None]
    summed = align_rows(rows_known_at(1, 2, 4, fill=["flat", None, None]), Resample("sum"))
    assert summed.frame["x_fill"].to_list() == ["none", "stored:flat", None, "none"]
    assert summed.summary.row(0)[:5] == ("x", 4, 1, 1, 2)


def test_steps_are_open_at_their_start_and_closed_at_their_end() -> None:
    result = align_rows(rows_known_at(-3, -2, 0, 0.000001, 3, 6.000001), Resample("sum"))
    assert result.frame["x_value"].to_list() == [2 + 3, 4 + 5, None, 6]
    assert result.frame["x_rows"].to_list() == [2, 2, 0, 1]


def test_steps_of_months_are_those_of_the_calendar() -> None:
    days = [datetime(2023, 12, 1, tzinfo=UTC) + n * DAY for n in range(93)]
    rows = pl.DataFrame({"available_at": pl.Series(days, dtype=TIME), "n": 1})
    end = datetime(2024, 3, 2, tzinfo=UTC)
    result = align({"x": rows}, "1M", since=T0, until=end, how=Resample("sum"))
    assert result.frame["x_n"].to_list() == [31, 31, 29]
    assert result.frame["time"].dt.month().to_list() == [1, 2, 3]


def test_a_sum_with_a_null_is_null() -> None:
    rows = pl.DataFrame({"available_at": rows_known_at(1, 2, 4)["available_at"], "v": [1, None, 3]})
    result = align_rows(rows, Resample("sum"))
    assert result.frame["x_v"].to_list() == [None, None, 3, None]
    assert result.frame["x_fill"].to_list() == ["none", None, None, "none"]


@pytest.mark.parametrize("dtype", [pl.Int8(), pl.Int32(), pl.UInt32(), pl.Int64(), pl.Float32()])
def test_a_sum_does_not_overflow(dtype: pl.DataType) -> None:
    most = 127 if dtype == pl.Int8() else 2**31 - 1
    rows = rows_known_at(1, 2, 2, value=[most] * 3).with_columns(pl.col("value").cast(dtype))
    assert align_rows(rows, Resample("sum")).frame["x_value"][1] == pytest.approx(3 * most)


@pytest.mark.parametrize(
    "how", [AsOf(staleness=None, columns="value"), Resample("sum", columns="value")]
)
def test_one_column_may_be_named_as_it_is(how: How) -> None:
    assert align_rows(rows_known_at(0, other=[1]), how).frame.columns[:2] == ["time", "x_value"]


def test_markets_appear_when_they_are_known() -> None:
    facts = [Fact(0, 1, "X", None), Fact(3, 2, "Y", None), Fact(99, 3, "Z", None)]
    result = align(
        {"one": rows_of(facts[:1]), "two": rows_of(facts[1:])},
        STEP,
        since=T0,
        until=T0 + 6 * SECOND,
        how=AsOf(staleness=None, columns=["value"]),
        by="symbol",
    )
    values = result.frame.select("time", "symbol", "one_value", "two_value").rows()
    assert values == [
        (T0, "X", 1, None),
        (T0 + STEP, "X", 1, None),
        (T0 + STEP, "Y", None, 2),
    ]
    assert result.summary.columns[:3] == ["source", "symbol", "points"]
    assert result.summary["points"].to_list() == [2, 1, 2, 1]


def test_sources_without_rows_give_points_that_are_missing() -> None:
    result = align_rows(rows_known_at().cast({"value": pl.Int64}), AsOf(staleness=None))
    assert result.frame["x_fill"].to_list() == ["none"] * 4
    assert result.summary.row(0) == ("x", 4, 0, 0, 4, None)
    empty = align({"x": rows_of([])}, STEP, since=T0, until=UNTIL, how=Resample("sum"), by="symbol")
    assert empty.frame.is_empty()
    assert empty.summary.is_empty()


def test_one_source_can_have_two_policies() -> None:
    rows = rows_known_at(1, 2, 4)
    how: dict[str, How] = {"price": AsOf(staleness="9s"), "flow": Resample("sum", fill="zero")}
    result = align({"price": rows, "flow": rows.lazy()}, STEP, since=T0, until=UNTIL, how=how)
    assert result.frame["price_value"].to_list() == [None, 2, 3, 3]
    assert result.frame["flow_value"].to_list() == [0, 3, 3, 0]


def test_the_order_of_rows_known_at_different_times_does_not_matter() -> None:
    rows = rows_known_at(1, 2, 4, 7)
    for how in (Resample("last"), AsOf(staleness=None)):
        assert_frame_equal(align_rows(rows.reverse(), how).frame, align_rows(rows, how).frame)


def test_an_alignment_of_tables_reads_all_it_needs(lake: Lake) -> None:
    write(lake, "bars_1m", bars(60))
    write(lake, "trades", trades(3600, received_at=None, price=[1.0 + n for n in range(3600)]))
    how: dict[str, How] = {
        "bar": Resample("ohlcv", fill="flat", limit="5m"),
        "price": AsOf(staleness="1s", fill="last", limit="3m", columns=["price", "timestamp"]),
        "any": AsOf(staleness=None, columns=["price"]),
    }
    asked = []

    def scan(
        rows: AlignInput, since: datetime | None, until: datetime, *, witnesses: bool
    ) -> pl.LazyFrame:
        assert not witnesses
        asked.append(since)
        store = store_of(lake)
        return scan_known(store.snapshot(lake.dataset(rows.table)), Selection(), since, until)

    start, end = T0 + 30 * MINUTE, T0 + 70 * MINUTE
    feeds: dict[str, AlignInput | str] = {
        "bar": AlignInput("bars_1m", exchange="binance", symbol="BTC/USDT"),
        "price": "trades",
        "any": AlignInput("trades"),
    }
    result = align_tables(scan, feeds, "1m", how=how, since=start, until=end)
    assert asked == [start - 5 * MINUTE, start - 3 * MINUTE, None]
    tables = {"bar": "bars_1m", "price": "trades", "any": "trades"}
    everything = {
        name: lake.scan(table).select(lake.dataset(table).availability(), pl.all())
        for name, table in tables.items()
    }
    expected = align(everything, "1m", how=how, since=start, until=end)
    assert_frame_equal(result.frame, expected.frame)
    assert result.summary["filled"].to_list() == [5, 2, 0]
    assert result.summary["missing"].to_list() == [4, 7, 0]
