"""Bundles: their rows never change, their id is a digest, and names point to ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import UnknownNameError, UsageError
from tests.conftest import DAY, MINUTE, NAIVE, T0, TIME, bars, funding, trades, write

TABLES = ("trades", "bars_1m", "funding")


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """A lake with trades, bars and funding of two symbols."""
    for symbol in ("BTC/USDT", "ETH/USDT"):
        write(lake, "trades", trades(6, step=DAY / 2, symbol=symbol))
        write(lake, "bars_1m", bars(5, symbol=symbol))
        write(lake, "funding", funding([T0, T0 + 40 * DAY], symbol))
    return lake


def test_a_bundle_reads_the_same_after_later_writes(filled: Lake) -> None:
    bundle = filled.bundles.pin("b", table=TABLES)
    before = {table: bundle.scan(table).collect() for table in TABLES}
    write(filled, "trades", trades(20, step=DAY / 2))
    write(filled, "trades", trades(3, exchange="kraken"))
    write(filled, "bars_1m", bars(9, close=[99.0] * 9, low=[98.0] * 9))
    write(filled, "funding", funding([T0 + DAY]))
    for table, frame in before.items():
        assert_frame_equal(filled.bundles.open("b").scan(table).collect(), frame)
        order = filled.dataset(table).sort
        sql = bundle.sql("SELECT * EXCLUDE available_at FROM query_table(?)", [table]).pl()
        assert_frame_equal(sql.sort("exchange", "symbol", *order), frame)
    assert bundle.verify() == []
    assert filled.scan("bars_1m").collect().height == 14


def test_the_same_rows_have_the_same_id(filled: Lake) -> None:
    first = filled.bundles.pin("first", table=TABLES)
    write(filled, "trades", trades(6, step=DAY / 2))
    assert filled.bundles.pin("second", table=TABLES).id == first.id
    assert filled.bundles.ls()["name"].to_list() == ["first, second"]


def test_rows_written_in_another_order_have_the_same_id(filled: Lake, new_lake: Any) -> None:
    other = new_lake()
    frame = pl.concat([trades(6, step=DAY / 2, symbol=s) for s in ("ETH/USDT", "BTC/USDT")])
    for number in reversed(range(frame.height)):
        write(other, "trades", frame[number])
    assert other.bundles.pin("b", table="trades").id == filled.bundles.pin("b", table="trades").id


def pinned_again(change: Callable[[Lake], Any], lake: Lake) -> bool:
    """Return whether a pin has the same id after a change."""
    before = lake.bundles.pin("before", table="bars_1m").id
    change(lake)
    return lake.bundles.pin("after", table="bars_1m").id == before


@pytest.mark.parametrize(
    "frame",
    [
        bars(1, volume=[1.5]),
        bars(1, start=T0 + DAY),
        bars(1, symbol="ADA/USDT"),
        bars(1, quote_volume=[5.0]),
    ],
    ids=["a value", "a row", "a market", "a null"],
)
def test_other_rows_have_another_id(filled: Lake, frame: pl.DataFrame) -> None:
    assert not pinned_again(lambda lake: write(lake, "bars_1m", frame), filled)


def test_another_selection_has_another_id(filled: Lake) -> None:
    pins = [
        filled.bundles.pin("all", table="trades"),
        filled.bundles.pin("one", table="trades", symbol="BTC/USDT"),
        filled.bundles.pin("since", table="trades", since=T0 + DAY),
        filled.bundles.pin("until", table="trades", until=T0 + DAY),
        filled.bundles.pin("other", table="bars_1m"),
    ]
    assert len({bundle.id for bundle in pins}) == len(pins)


def test_a_bundle_holds_its_selection_only(filled: Lake) -> None:
    bundle = filled.bundles.pin(
        "b", table="trades", symbol="BTC/USDT", since=T0 + DAY, until=T0 + 2 * DAY
    )
    rows = bundle.scan("trades").collect()
    assert rows["timestamp"].to_list() == [T0 + DAY, T0 + 1.5 * DAY]
    assert rows["symbol"].unique().to_list() == ["BTC/USDT"]
    assert bundle.sql("SELECT count(*) FROM trades").fetchall() == [(2,)]
    ref = bundle.manifest.trades
    assert ref is not None
    assert (ref.rows, ref.first, ref.last) == (2, T0 + DAY, T0 + 1.5 * DAY)


def test_reads_of_a_bundle_narrow_what_was_pinned(filled: Lake) -> None:
    bundle = filled.bundles.pin("b", table=TABLES, until=T0 + 2 * DAY)
    read = bundle.scan("trades", symbol="ETH/USDT", since=T0 + DAY, until=T0 + 9 * DAY)
    assert read.collect().height == 2
    assert bundle.scan("trades", columns=["price"]).collect().columns == ["price"]


def test_reads_outside_a_bundle_are_errors(filled: Lake) -> None:
    bundle = filled.bundles.pin("b", table="trades", symbol="BTC/USDT", since=T0, until=T0 + DAY)
    outside: list[Callable[[], Any]] = [
        lambda: bundle.scan("bars_1m"),
        lambda: bundle.scan("trades", symbol="ETH/USDT"),
        lambda: bundle.scan("trades", since=T0 + DAY),
        lambda: bundle.scan("trades", columns=["colour"]),
        lambda: bundle.sql("SELECT * FROM bars_1m"),
    ]
    for read in outside:
        with pytest.raises(UnknownNameError):
            read()
    with pytest.raises(UsageError, match="has no time zone"):
        bundle.scan("trades", since=NAIVE)


def test_open_bars_are_not_pinned(filled: Lake) -> None:
    last = T0 + 5 * MINUTE
    write(filled, "bars_1m", bars(1, start=last, closed=[False]))
    bundle = filled.bundles.pin("b", table="bars_1m")
    assert bundle.scan("bars_1m").collect()["timestamp"].max() == last - MINUTE
    write(filled, "bars_1m", bars(1, start=last))
    assert bundle.scan("bars_1m").collect().height == 10
    assert filled.bundles.pin("c", table="bars_1m").scan("bars_1m").collect().height == 11


def test_only_open_bars_are_nothing_to_pin(filled: Lake) -> None:
    last = T0 + 5 * MINUTE
    write(filled, "bars_1m", bars(1, start=last, closed=[False]))
    for since in (last, last - MINUTE / 2):
        with pytest.raises(UnknownNameError, match="nothing to pin"):
            filled.bundles.pin("b", table="bars_1m", since=since)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "orderbooks"}, "table orderbooks does not exist yet"),
        ({"table": "nope"}, "there is no table 'nope'"),
        ({"table": "trades", "symbol": ("BTC/USDT", "XRP/USDT")}, "no rows of XRP/USDT"),
        ({"table": "trades", "exchange": ("binance", "okx")}, "no rows of okx"),
        ({"table": "trades", "since": T0 + 99 * DAY}, "trades has no rows in the selection"),
        ({"table": ("trades", "bars_1m"), "since": T0 + DAY}, "bars_1m has no rows"),
    ],
)
def test_a_selection_without_rows_cannot_be_pinned(
    filled: Lake, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnknownNameError, match=message):
        filled.bundles.pin("b", **arguments)
    assert filled.bundles.ls().is_empty()


def test_no_dataset_is_refused(filled: Lake) -> None:
    with pytest.raises(UsageError, match="a bundle needs a dataset"):
        filled.bundles.pin("b", table=())


def test_the_manifest_describes_the_rows(filled: Lake) -> None:
    manifest = filled.bundles.pin("b", table=TABLES, note="for the record").manifest
    assert manifest.metadata.symbols == ("BTC/USDT", "ETH/USDT")
    assert manifest.metadata.exchanges == ("binance",)
    assert manifest.metadata.datasets == TABLES
    assert manifest.metadata.note == "for the record"
    assert manifest.metadata.lake_id == filled.root.id
    assert manifest.metadata.date_range.start == T0
    assert manifest.metadata.date_range.end == T0 + 40 * DAY
    assert [place for place, _ in manifest.refs()] == ["bars.1m", "trades", "funding"]


def test_the_manifest_names_only_markets_with_rows_in_the_range(filled: Lake) -> None:
    write(filled, "funding", funding([T0 - DAY, T0 + 99 * DAY], "ADA/USDT:USDT"))
    bundle = filled.bundles.pin("b", table="funding", since=T0, until=T0 + DAY)
    assert bundle.manifest.metadata.symbols == ("BTC/USDT", "ETH/USDT")


def test_the_manifest_carries_the_data_dictionary(filled: Lake) -> None:
    dictionary = filled.bundles.pin("b", table=TABLES).manifest.data_dictionary
    assert set(dictionary) == set(TABLES)
    for table, part in dictionary.items():
        assert list(part.columns) == list(filled.dataset(table).polars_schema)
        pinned = part.dataset(table)
        stored = replace(filled.dataset(table), rules=(), checks=(), keep_when=None)
        stored = replace(stored, repair=pinned.repair, margin=pinned.margin)
        stored = replace(stored, time_tolerance=pinned.time_tolerance)
        # What only writes need is not pinned.
        stored = replace(
            stored, columns=tuple(replace(c, keep_value=False) for c in stored.columns)
        )
        assert pinned == replace(stored, source_kind="file", section="other", fetch=None)
        assert pinned.fingerprint == filled.dataset(table).fingerprint
    assert dictionary["funding"].columns["funding_rate"].unit == "fraction per interval"


def instrument(valid_from: datetime, tick: float, symbol: str = "BTC/USDT") -> pl.DataFrame:
    row = trades(1, symbol=symbol).select("exchange", "symbol")
    return row.with_columns(
        valid_from=pl.lit(valid_from).cast(TIME),
        venue_symbol=pl.lit("X"),
        type=pl.lit("spot"),
        base=pl.lit("BTC"),
        quote=pl.lit("USDT"),
        tick_size=pl.lit(tick),
    )


def test_the_manifest_carries_the_instruments_that_hold_now(filled: Lake) -> None:
    later = datetime(2199, 1, 1, tzinfo=UTC)
    for row in (instrument(T0, 0.1), instrument(T0 + DAY, 0.01), instrument(later, 9.0)):
        write(filled, "instruments", row)
    write(filled, "instruments", instrument(T0, 1.0, "XRP/USDT"))
    specifications = filled.bundles.pin("b", table="trades").manifest.instruments
    assert [(one["symbol"], one["tick_size"]) for one in specifications] == [("BTC/USDT", 0.01)]
    assert specifications[0]["valid_from"] == "2024-01-02T00:00:00Z"


def test_the_access_examples_work(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_URI", str(filled.root.path))
    bundle = filled.bundles.pin("b", table="trades")
    scope: dict[str, Any] = {}
    exec(bundle.manifest.access["python"], scope)  # noqa: S102 - the example is what is tested
    assert_frame_equal(scope["frame"], bundle.scan("trades").collect())


def test_a_name_keeps_its_rows_unless_it_is_moved(filled: Lake) -> None:
    old = filled.bundles.pin("b", table="trades")
    write(filled, "trades", trades(1, first=50))
    with pytest.raises(UsageError, match="b exists already and holds other rows") as caught:
        filled.bundles.pin("b", table="trades")
    assert f"b@{old.id[:12]}" in caught.value.hint
    assert filled.bundles.open("b").id == old.id
    new = filled.bundles.pin("b", table="trades", move=True)
    assert filled.bundles.open("b").id == new.id != old.id
    assert filled.bundles.open(f"b@{old.id[:12]}").scan("trades").collect().height == 12


def test_a_name_can_be_pinned_again_with_the_same_rows(filled: Lake) -> None:
    first = filled.bundles.pin("b", table="trades", note="first")
    again = filled.bundles.pin("b", table="trades", note="second")
    assert again.id == first.id
    assert again.manifest == first.manifest


@pytest.mark.parametrize(
    "of", [lambda _: "b", lambda b: b.id, lambda b: b.id[:8], lambda b: f"b@{b.id[:8]}"]
)
def test_a_bundle_is_found_by_name_and_by_id(filled: Lake, of: Callable[[Bundle], str]) -> None:
    bundle = filled.bundles.pin("b", table="trades")
    assert filled.bundles.open(of(bundle)).manifest == bundle.manifest


@pytest.mark.parametrize("reference", ["c", "", "00000000", "b@00000000", "b@", "../names/b"])
def test_an_unknown_bundle_is_an_error_that_lists_bundles(filled: Lake, reference: str) -> None:
    filled.bundles.pin("b", table="trades")
    with pytest.raises(UnknownNameError, match="there is no bundle") as caught:
        filled.bundles.open(reference)
    assert caught.value.hint == "Bundles: b."


def test_too_few_digits_of_an_id_are_no_bundle(filled: Lake) -> None:
    bundle = filled.bundles.pin("b", table="trades")
    with pytest.raises(UnknownNameError):
        filled.bundles.open(bundle.id[:7])


@pytest.mark.parametrize(
    "name", ["", "a b", "../up", "a/b", ".hidden", "deadbeef", "a@b", "x" * 101]
)
def test_a_name_that_could_be_mistaken_is_refused(filled: Lake, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a bundle"):
        filled.bundles.pin(name, table="trades")
    assert filled.bundles.ls().is_empty()


def test_rows_come_as_arrow_and_as_pandas_where_it_is_installed(filled: Lake) -> None:
    bundle = filled.bundles.pin("b", table="trades")
    expected = bundle.scan("trades", symbol="ETH/USDT", columns=["price"]).collect()
    table = bundle.arrow("trades", symbol="ETH/USDT", columns=["price"])
    assert_frame_equal(pl.DataFrame(table), expected)
    try:
        import pandas as pd
    except ModuleNotFoundError:
        with pytest.raises(UsageError, match="pandas is not installed"):
            bundle.to_pandas("trades")
    else:
        frame = bundle.to_pandas("trades", symbol="ETH/USDT", columns=["price"])
        assert isinstance(frame, pd.DataFrame)
        assert list(frame["price"]) == expected["price"].to_list()


def test_the_instruments_of_a_bundle_are_a_frame(filled: Lake) -> None:
    nothing = filled.bundles.pin("none", table="trades", until=T0 + MINUTE).instruments()
    assert nothing.is_empty()
    write(filled, "instruments", instrument(T0, 0.1))
    frame = filled.bundles.pin("b", table="trades").instruments()
    assert frame.schema == nothing.schema
    [row] = frame.rows(named=True)
    assert (row["symbol"], row["tick_size"], row["valid_from"]) == ("BTC/USDT", 0.1, T0)
