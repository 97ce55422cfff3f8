"""Names of tables and markets: `bars` with a timeframe or `bars_1m`, and what a wrong one lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import lake as package
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import UnknownNameError, UsageError
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.settings import Settings
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
from tests.conftest import DAY, MINUTE, ORIGIN, T0, bars, store_of, trades, write

BTC, ETH = "BTC/USDT", "ETH/USDT"
NOW = T0 + 2 * DAY
One = Callable[..., Any]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Bars of two timeframes and trades, checked and pinned."""
    made = Lake.create(Settings(uri=str(tmp_path_factory.mktemp("lake"))), now=lambda: NOW)
    store = store_of(made)
    write(store, "bars_1m", bars(60))
    write(store, "bars_1h", bars(2, step=60 * MINUTE))
    for symbol, exchange in ((BTC, "binance"), (ETH, "binance"), ("BTC/USD", "kraken")):
        write(store, "trades", trades(5, exchange=exchange, symbol=symbol))
    made.bundles.pin("b", table=["bars", "trades"], check=False)
    made.quality.check()
    return made


@pytest.fixture(scope="module")
def bundle(lake: Lake) -> Bundle:
    return lake.bundles.open("b")


MARKET: dict[str, Any] = {"exchange": "binance", "symbol": BTC}


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.collect()


def _aligned(source: Lake | Bundle, table: str, timeframe: str | None = None) -> pl.DataFrame:
    how = package.AsOf(staleness=None, columns=["close"])
    wanted = package.AlignInput(table, timeframe=timeframe)
    return source.align({"x": wanted}, "30m", since=T0, until=T0 + MINUTE * 120, how=how).frame


ONE: dict[str, Callable[[Lake, Bundle], One]] = {
    "scan": lambda lake, _: lambda *t, **k: _collected(lake.scan(*t, **k)),
    "available": lambda lake, _: lambda *t, **k: _collected(lake.available(*t, **k)),
    "latest": lambda lake, _: lambda t, **k: lake.latest(t, **k, **MARKET),
    "at": lambda lake, _: lambda t, **k: lake.at(t, **k, **MARKET, time=T0 + DAY),
    "align": lambda lake, _: lambda *t, **k: _aligned(lake, *t, **k),
    "describe": lambda lake, _: lake.describe,
    "versions": lambda lake, _: lake.versions,
    "gaps": lambda lake, _: lake.quality.gaps,
    "Bundle.scan": lambda _, bundle: lambda *t, **k: _collected(bundle.scan(*t, **k)),
    "Bundle.available": lambda _, bundle: lambda *t, **k: _collected(bundle.available(*t, **k)),
    "Bundle.latest": lambda _, bundle: lambda t, **k: bundle.latest(t, **k, **MARKET),
    "Bundle.at": lambda _, bundle: lambda t, **k: bundle.at(t, **k, **MARKET, time=T0 + DAY),
    "Bundle.align": lambda _, bundle: lambda *t, **k: _aligned(bundle, *t, **k),
}


@pytest.mark.parametrize("name", ONE)
def test_bars_with_a_timeframe_are_their_table(lake: Lake, bundle: Bundle, name: str) -> None:
    work = ONE[name](lake, bundle)
    assert_frame_equal(work("bars", timeframe="1m"), work("bars_1m"))
    with pytest.raises(UsageError, match=r"bars of which timeframe\?\n.*bars_1h, bars_1m"):
        work("bars")
    with pytest.raises(UsageError, match="'2x' is not a timeframe"):
        work("bars", timeframe="2x")
    with pytest.raises(UsageError, match="no dataset that has timeframes"):
        work("trades", timeframe="1m")


@pytest.mark.parametrize("name", [name for name in ONE if name != "describe"])
def test_a_wrong_table_lists_what_there_is_the_closest_first(
    lake: Lake, bundle: Bundle, name: str
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        ONE[name](lake, bundle)("tradse")
    hint = caught.value.hint.removeprefix("Tables: ").removeprefix("It pins ")
    assert hint in ("trades, bars_1h, bars_1m.", "trades, bars_1m, bars_1h.")


SEVERAL: dict[str, Callable[[Lake, Bundle], Callable[..., Any]]] = {
    "check": lambda lake, _: lambda *t, **k: lake.quality.check(*t, **k).rows,
    "findings": lambda lake, _: lambda *t, **k: lake.quality.findings(*t, **k).rows(),
    "scores": lambda lake, _: lambda *t, **k: lake.quality.scores(*t, **k)["dataset"].to_list(),
    "repair": lambda lake, _: lambda *t, **k: lake.quality.repair(*t, **k, dry_run=True).planned,
    "audit": lambda lake, _: lambda *t, **k: lake.audit(*t, **k)["table"].to_list(),
    "coverage": lambda lake, _: lambda *t, **k: lake.coverage(*t, **k).rows(),
    "optimize": lambda lake, _: (
        lambda *t, **k: sorted(lake.maintenance.optimize(*t, **k, before=T0)["table"])
    ),
    "vacuum": lambda lake, _: (
        lambda *t, **k: lake.maintenance.vacuum(*t, **k, dry_run=True).files.rows()
    ),
    "checkpoint": lambda lake, _: (
        lambda *t, **k: sorted(lake.maintenance.checkpoint(*t, **k)["table"])
    ),
    "pin": lambda lake, _: (
        lambda t, **k: lake.bundles.pin("p", table=t, **k, check=False, move=True).id
    ),
    "diff": lambda lake, _: lambda t, **k: lake.bundles.diff("b", "b", table=t, **k).rows(),
    "Bundle.replay": lambda _, bundle: lambda *t, **k: list(bundle.replay(*t, **k)),
    "Bundle.coverage": lambda _, bundle: lambda *t, **k: bundle.coverage(*t, **k).rows(),
    "Bundle.warm": lambda _, bundle: lambda *t, **k: bundle.warm(*t, **k) >= 0,
}


@pytest.mark.parametrize("name", SEVERAL)
def test_bars_alone_are_all_their_tables(lake: Lake, bundle: Bundle, name: str) -> None:
    work = SEVERAL[name](lake, bundle)
    assert work("bars") == work(["bars_1h", "bars_1m"])
    assert work("bars", timeframe=["1m", "1h"]) == work(["bars_1m", "bars_1h"])
    assert work(["bars", "trades"], timeframe="1h") == work(["bars_1h", "trades"])
    with pytest.raises(UsageError, match="no dataset that has timeframes"):
        work(["trades"], timeframe="1m")
    with pytest.raises(UnknownNameError, match="bars_1m"):
        work("barz_1m")


def test_the_lakes_own_tables_can_be_read_but_no_error_lists_them(lake: Lake) -> None:
    assert lake.scan("jobs").collect().height
    for name in ("job", "finding", "coverages"):
        with pytest.raises(UnknownNameError) as caught:
            lake.scan(name)
        listed = caught.value.hint.removeprefix("Tables: ").rstrip(".").split(", ")
        assert sorted(listed) == ["bars_1h", "bars_1m", "trades"]


def test_any_dataset_is_described_and_a_wrong_name_lists_them(lake: Lake) -> None:
    assert "funding_rate" in lake.describe("funding")["column"].to_list()
    with pytest.raises(UnknownNameError) as caught:
        lake.describe("fundin")
    assert caught.value.hint.startswith("Tables: funding, ")
    assert "jobs" not in caught.value.hint


def test_a_write_to_a_wrong_name_lists_what_can_be_written(lake: Lake) -> None:
    with pytest.raises(UnknownNameError, match="there is no table 'nosuch'") as caught:
        lake.write("nosuch", trades())
    listed = caught.value.hint.removeprefix("Tables: ").rstrip(".").split(", ")
    assert {"bars_1m", "bars_1h", "bars_1d", "trades", "funding"} <= set(listed)
    assert all(lake.dataset(name).name == name for name in listed)


def test_ingestion_lists_what_exchanges_give(lake: Lake) -> None:
    with pytest.raises(UnknownNameError) as caught:
        lake.ingest("fundin", exchange="binance", symbol=BTC)
    assert caught.value.hint.startswith("Exchanges give funding, ")
    for absent in ("jobs", "orderbooks", "instruments"):
        assert absent not in caught.value.hint


def test_a_family_without_tables_is_an_error(new_lake: Callable[[], Lake]) -> None:
    empty = new_lake()
    for work in (empty.scan, empty.quality.check, empty.audit):
        with pytest.raises(UnknownNameError, match="there is no table of bars yet"):
            work("bars")
    with pytest.raises(UnknownNameError, match="does not exist yet"):
        empty.scan("bars", timeframe="1m")


MARKETS: dict[str, Callable[[Lake], Callable[..., Any]]] = {
    "scan": lambda lake: lambda **k: lake.scan("trades", **k).collect(),
    "available": lambda lake: lambda **k: lake.available("trades", **k).collect(),
    "latest": lambda lake: lambda **k: lake.latest("trades", **{**MARKET, **k}),
    "at": lambda lake: lambda **k: lake.at("trades", **{**MARKET, **k}, time=T0 + DAY),
    "scores": lambda lake: lambda **k: lake.quality.scores("trades", **k),
    "findings": lambda lake: lambda **k: lake.quality.findings("trades", **k),
    "findings of all": lambda lake: lake.quality.findings,
    "gaps": lambda lake: lambda **k: lake.quality.gaps("bars_1m", **k),
}


@pytest.mark.parametrize("name", MARKETS)
def test_a_market_that_no_table_holds_is_an_error_or_empty(lake: Lake, name: str) -> None:
    work = MARKETS[name](lake)
    work(exchange="binance", symbol=BTC)
    with pytest.raises(UnknownNameError, match=r"no rows of .*BTC/USDC\n.*BTC/USDT"):
        work(symbol="BTC/USDC", exchange="binance")
    with pytest.raises(UnknownNameError, match=r"no rows of exchange binanse\nExchanges: binance"):
        work(exchange="binanse", symbol=BTC)
    assert work(symbol="BTC/USDC", exchange="binance", missing="empty").is_empty()


def test_the_same_names_are_refused_by_a_bundle(bundle: Bundle) -> None:
    for work in (
        lambda **k: bundle.scan("trades", **k),
        lambda **k: bundle.available("trades", **k),
        lambda **k: bundle.latest("trades", **k),
        lambda **k: bundle.at("trades", **k, time=T0 + DAY),
    ):
        with pytest.raises(UnknownNameError, match="BTC/USDC"):
            work(exchange="binance", symbol="BTC/USDC")


def test_every_exchange_and_symbol_that_is_named_must_be_held(lake: Lake) -> None:
    assert lake.scan("trades", symbol=[BTC, "BTC/USD"]).collect().height == 10
    with pytest.raises(UnknownNameError, match="no rows of BTC/EUR"):
        lake.scan("trades", symbol=[BTC, "BTC/EUR"])
    with pytest.raises(UnknownNameError, match="no rows of kraken BTC/USDT"):
        lake.scan("trades", exchange="kraken", symbol=BTC)


def test_a_market_of_which_nothing_happened_is_not_missing(lake: Lake) -> None:
    day = CoveredRange(TimeRange(T0, T0 + DAY), 0)
    Ledger(store_of(lake)).record_coverage({part_of("trades", Market("okx", "A/B")): [day]}, ORIGIN)
    assert lake.scan("trades", exchange="okx", symbol="A/B").collect().is_empty()
    assert lake.latest("trades", exchange="okx", symbol="A/B").is_empty()
    assert lake.scan("trades", symbol=BTC, since=T0 + DAY).collect().is_empty()


def test_a_misspelt_market_is_not_repaired_in_silence(lake: Lake) -> None:
    with pytest.raises(UnknownNameError, match=r"no rows of BTC/USTD\n.*BTC/USDT"):
        lake.quality.repair(symbol="BTC/USTD", dry_run=True)
