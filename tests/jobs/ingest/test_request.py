"""What an ingestion is asked for: markets by name, or all that is covered, narrowed."""

from __future__ import annotations

import pytest

from lake.api import Lake
from lake.errors import UnknownNameError, UsageError
from lake.jobs.ingest.request import IngestChoice, choose_requests
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.ledger import CoveredRange, Ledger
from lake.store.refusals import NewRefusal, Refusals
from tests.conftest import DAY, ORIGIN, T0, store_of

COVERED = [
    ("bars_1m", "binance", "BTC/USDT"),
    ("bars_1m", "kraken", "BTC/USD"),
    ("trades", "binance", "BTC/USDT"),
]


def chosen(
    lake: Lake, *tables: str, exchanges: tuple[str, ...] = (), symbols: tuple[str, ...] = ()
) -> list[tuple[str, str, str]]:
    requests = choose_requests(
        store_of(lake), IngestChoice(tables, exchanges=exchanges, symbols=symbols)
    )
    return [(r.dataset.name, r.market.exchange, r.market.symbol) for r in requests]


@pytest.fixture
def covered(lake: Lake) -> Lake:
    """A lake in which three markets are covered for a day."""
    ledger = Ledger(store_of(lake))
    for table, exchange, symbol in COVERED:
        day = CoveredRange(TimeRange(T0, T0 + DAY), 1)
        ledger.record_coverage(table, Market(exchange, symbol), [day], ORIGIN)
    return lake


def test_without_names_it_goes_on_with_everything_that_is_covered(covered: Lake) -> None:
    assert chosen(covered) == COVERED


def test_what_was_only_refused_is_asked_again_too(covered: Lake) -> None:
    refusal = NewRefusal("trades", Market("okx", "A/B"), T0, None, "forbidden", "no")
    Refusals(store_of(covered)).record([refusal], ORIGIN)
    assert chosen(covered) == [*COVERED, ("trades", "okx", "A/B")]
    assert chosen(covered, "bars_1m") == COVERED[:2]


def test_a_table_or_an_exchange_narrows_what_is_covered(covered: Lake) -> None:
    assert chosen(covered, "bars_1m") == COVERED[:2]
    assert chosen(covered, exchanges=("binance",)) == [COVERED[0], COVERED[2]]
    assert chosen(covered, "bars_1m", "trades", exchanges=("kraken",)) == [COVERED[1]]


def test_symbols_are_asked_for_whether_covered_or_not(covered: Lake) -> None:
    exchanges, symbols = ("okx", "kraken"), ("A/B", "C/D")
    assert chosen(covered, "trades", "funding", exchanges=exchanges, symbols=symbols) == [
        (table, exchange, symbol)
        for table in ("trades", "funding")
        for exchange in exchanges
        for symbol in symbols
    ]


def test_range_and_refetch_hold_for_all(covered: Lake) -> None:
    choice = IngestChoice(since=T0, until=T0 + DAY, refetch=True)
    for request in choose_requests(store_of(covered), choice):
        assert (request.since, request.until, request.refetch) == (T0, T0 + DAY, True)


def test_what_cannot_be_meant_is_an_error(lake: Lake) -> None:
    with pytest.raises(UsageError, match="nothing is covered yet"):
        lake.ingest()
    with pytest.raises(UsageError, match="no dataset or no exchange"):
        lake.ingest("trades", symbol="BTC/USDT")
    with pytest.raises(UsageError, match="no dataset or no exchange"):
        lake.ingest(exchange="binance", symbol="BTC/USDT")
    with pytest.raises(UsageError, match="orderbooks cannot be fetched by range"):
        lake.ingest("orderbooks", exchange="binance", symbol="BTC/USDT")
    with pytest.raises(UnknownNameError, match="tradse"):
        lake.ingest("tradse", exchange="binance", symbol="BTC/USDT")
