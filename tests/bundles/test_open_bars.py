"""Open bars are left out of a pin by market and row; what was left out is said."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake import open_bundle
from lake.api import Lake
from lake.cli.app import run
from lake.errors import QualityError, UnknownNameError
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
from tests.conftest import MINUTE, ORIGIN, T0, NewLake, bars, store_of, write

BTC, DEAD = Market("binance", "BTC/USDT"), Market("binance", "DEAD/USDT")


def put(lake: Lake, market: Market, closed: list[bool], start: datetime = T0) -> None:
    frame = bars(len(closed), symbol=market.symbol, start=start, closed=closed)
    write(lake, "bars_1m", frame)


def cover(lake: Lake, market: Market, minutes: float) -> None:
    settled = [CoveredRange(TimeRange(T0, T0 + minutes * MINUTE), 1)]
    Ledger(store_of(lake)).record_coverage({part_of("bars_1m", market): settled}, ORIGIN)


def minutes_of(frame: pl.DataFrame, market: Market) -> list[float]:
    times = frame.filter(pl.col("symbol") == market.symbol)["timestamp"]
    return [(time - T0) / MINUTE for time in times]


@pytest.fixture
def two_markets(lake: Lake) -> Lake:
    """BTC with ten closed bars, and a market that was left in its third bar."""
    put(lake, BTC, [True] * 10)
    put(lake, DEAD, [True, True, False])
    return lake


def test_an_open_bar_of_one_market_leaves_others_alone(two_markets: Lake) -> None:
    for until in (None, T0 + 10 * MINUTE):
        bundle = two_markets.bundles.pin("b", table="bars_1m", until=until, move=True)
        rows = bundle.scan("bars_1m").collect()
        assert minutes_of(rows, BTC) == list(range(10))
        assert minutes_of(rows, DEAD) == [0, 1]
        assert bundle.sql("SELECT count(*) FROM bars_1m WHERE NOT closed").fetchall() == [(0,)]
        assert sum(1 for _ in bundle.replay()) == 12
        assert bundle.verify(deep=True) == []
        assert bundle.left_out().rows() == [
            ("bars_1m", "binance", "DEAD/USDT", 1, T0 + 2 * MINUTE, T0 + 2 * MINUTE)
        ]


def test_an_export_leaves_out_the_same_bars(two_markets: Lake, tmp_path: Path) -> None:
    bundle = two_markets.bundles.pin("b", table="bars_1m")
    exported = open_bundle(bundle.export(tmp_path / "b.tar.zst"))
    assert exported.scan("bars_1m").collect().equals(bundle.scan("bars_1m").collect())
    assert exported.left_out().equals(bundle.left_out())
    assert exported.verify(deep=True) == []


def test_cached_rows_are_without_open_bars(two_markets: Lake) -> None:
    bundle = two_markets.bundles.pin("b", table="bars_1m")
    expected = bundle.scan("bars_1m").collect()
    assert bundle.warm() >= 0
    assert two_markets.bundles.open("b").scan("bars_1m").collect().equals(expected)


def test_open_bars_between_closed_ones_are_left_out_too(lake: Lake) -> None:
    put(lake, BTC, [True, False, False, True, True, False])
    bundle = lake.bundles.pin("b", table="bars_1m")
    assert minutes_of(bundle.scan("bars_1m").collect(), BTC) == [0, 3, 4]
    assert bundle.left_out().select("rows", "first", "last").rows() == [
        (3, T0 + MINUTE, T0 + 5 * MINUTE)
    ]


def test_what_is_pinned_decides_the_id(lake: Lake, new_lake: NewLake) -> None:
    put(lake, BTC, [True, True, False])
    other = new_lake()
    put(other, BTC, [True, True])
    assert lake.bundles.pin("b", table="bars_1m").id == other.bundles.pin("b", table="bars_1m").id


def test_a_manifest_without_open_bars_has_no_new_key(lake: Lake) -> None:
    put(lake, BTC, [True, True])
    [(_, ref)] = lake.bundles.pin("b", table="bars_1m").manifest.refs()
    assert "left_out" not in ref.model_dump(mode="json")


def test_coverage_does_not_claim_open_bars(two_markets: Lake) -> None:
    cover(two_markets, DEAD, 2.5)
    coverage = two_markets.bundles.pin("b", table="bars_1m").coverage()
    assert coverage.select("symbol", "start", "end").rows() == [("DEAD/USDT", T0, T0 + 2 * MINUTE)]


def test_complete_means_what_is_pinned(two_markets: Lake) -> None:
    cover(two_markets, BTC, 10)
    cover(two_markets, DEAD, 2.5)
    bundle = two_markets.bundles.pin("b", table="bars_1m", require_complete=True)
    assert minutes_of(bundle.scan("bars_1m").collect(), BTC) == list(range(10))
    with pytest.raises(QualityError) as caught:
        two_markets.bundles.pin("c", table="bars_1m", until=T0 + 3 * MINUTE, require_complete=True)
    assert "bars_1m of binance DEAD/USDT" in caught.value.message
    assert "(its bar is still open)" in caught.value.message


@pytest.mark.parametrize("covered", [4.0, 6.0])
def test_an_open_bar_before_closed_ones_is_a_hole(lake: Lake, covered: float) -> None:
    put(lake, BTC, [True, False, True, True])
    cover(lake, BTC, covered)
    with pytest.raises(QualityError, match="its bar is still open"):
        lake.bundles.pin("b", table="bars_1m", require_complete=True)


def test_an_open_bar_before_all_closed_ones_is_a_hole_too(lake: Lake) -> None:
    put(lake, BTC, [False, True, True])
    cover(lake, BTC, 3)
    with pytest.raises(QualityError, match="its bar is still open"):
        lake.bundles.pin("b", table="bars_1m", require_complete=True)


def test_a_market_with_open_bars_only_is_not_complete_until_a_time(lake: Lake) -> None:
    put(lake, BTC, [True] * 3)
    cover(lake, BTC, 3)
    put(lake, DEAD, [False])
    lake.bundles.pin("a", table="bars_1m", require_complete=True)
    with pytest.raises(QualityError, match=r"DEAD/USDT.*its bar is still open"):
        lake.bundles.pin("b", table="bars_1m", until=T0 + 3 * MINUTE, require_complete=True)


def test_a_market_with_open_bars_only_is_left_out_and_refused_by_name(two_markets: Lake) -> None:
    new = Market("binance", "NEW/USDT")
    put(two_markets, new, [False])
    bundle = two_markets.bundles.pin("b", table="bars_1m")
    assert bundle.manifest.metadata.symbols == ("BTC/USDT", "DEAD/USDT")
    assert bundle.left_out()["symbol"].to_list() == ["DEAD/USDT", "NEW/USDT"]
    assert bundle.scan("bars_1m", symbol="NEW/USDT").collect().is_empty()
    assert bundle.verify(deep=True) == []
    with pytest.raises(UnknownNameError, match="no closed bar of NEW/USDT"):
        two_markets.bundles.pin("c", table="bars_1m", symbol=["BTC/USDT", "NEW/USDT"])


def test_days_of_open_bars_count_for_no_market(lake: Lake) -> None:
    put(lake, BTC, [True] * 3)
    put(lake, BTC, [False] * 3, T0 + timedelta(days=1))
    bundle = lake.bundles.pin("b", table="bars_1m")
    [(_, ref)] = bundle.manifest.refs()
    assert (ref.rows, ref.last) == (3, T0 + 2 * MINUTE)
    assert bundle.verify(deep=True) == []


@settings(max_examples=5, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=3))
def test_all_closed_bars_are_pinned_and_no_open_one(
    new_lake: NewLake, markets: list[list[bool]]
) -> None:
    lake = new_lake()
    for number, closed in enumerate(markets):
        put(lake, Market("binance", f"M{number}/USDT"), closed)
    if not any(map(any, markets)):
        with pytest.raises(UnknownNameError, match="no closed bar"):
            lake.bundles.pin("b", table="bars_1m", check=False)
        return
    bundle = lake.bundles.pin("b", table="bars_1m", check=False)
    stored = lake.scan("bars_1m").filter("closed").collect()
    assert bundle.scan("bars_1m").collect().equals(stored)
    assert sum(bundle.left_out()["rows"]) == sum(c.count(False) for c in markets)


def test_the_command_says_what_was_left_out(
    two_markets: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(two_markets.root.path)
    assert run(["--lake", uri, "bundle", "pin", "b", "bars_1m", "--no-check"]) == 0
    said = "Left out of bars_1m: binance DEAD/USDT, 1 open bar at 2024-01-01T00:02"
    assert said in capsys.readouterr().err
    assert run(["--lake", uri, "--json", "bundle", "show", "b"]) == 0
    [ref] = json.loads(capsys.readouterr().out)["bars"].values()
    assert ref["left_out"][0]["symbol"] == "DEAD/USDT"
