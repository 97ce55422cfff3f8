"""What an ingestion is asked for: markets by name, or all that is covered, narrowed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lake.api import Lake
from lake.errors import UnknownNameError, UsageError
from lake.jobs.ingest.ingest import describe_job
from lake.jobs.ingest.request import IngestChoice, IngestRequest, choose_requests
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
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
        ledger.record_coverage({part_of(table, Market(exchange, symbol)): [day]}, ORIGIN)
    return lake


def test_without_names_it_goes_on_with_everything_that_is_covered(covered: Lake) -> None:
    assert chosen(covered) == COVERED


def test_what_was_only_refused_is_asked_again_too(covered: Lake) -> None:
    refusal = NewRefusal("trades", Market("okx", "A/B"), T0, None, "forbidden", "no")
    Refusals(store_of(covered)).record([refusal], ORIGIN)
    assert chosen(covered) == [*COVERED, ("trades", "okx", "A/B")]
    assert chosen(covered, "bars_1m") == COVERED[:2]


def test_a_market_that_a_killed_run_left_uncovered_goes_on_from_its_beginning(
    covered: Lake,
) -> None:
    store, markets = store_of(covered), (Market("binance", s) for s in ("BTC/USDT", "ETH/USDT"))
    killed = [IngestRequest(covered.dataset("bars_1m"), market, T0) for market in markets]
    job = Ledger(store).start_job(*describe_job(killed))
    requests = choose_requests(store, IngestChoice())
    [eth] = [r for r in requests if r.market.symbol == "ETH/USDT"]
    assert (eth.dataset.name, eth.market.exchange, eth.since) == ("bars_1m", "binance", T0)
    assert len(requests) == len(COVERED) + 1
    [shown] = covered.status().filter(symbol="ETH/USDT")["open"]
    assert shown == f"not fetched from 2024-01-01T00:00:00Z: job {job.id} is running"
    assert job.hold is not None
    job.hold.release()  # as the kernel does where its process is killed
    [shown] = covered.status().filter(symbol="ETH/USDT")["open"]
    assert shown.endswith(f"job {job.id} is interrupted, `lake ingest` continues it")

    Ledger(store).finish_job(job, "ok", {})
    assert chosen(covered) == COVERED
    assert covered.status().filter(symbol="ETH/USDT").is_empty()


def test_a_covered_market_that_a_killed_run_was_to_fetch_from_earlier_on_goes_on_from_there(
    covered: Lake,
) -> None:
    store, market = store_of(covered), Market("binance", "BTC/USDT")
    earlier = T0 - 3 * DAY
    killed = IngestRequest(covered.dataset("bars_1m"), market, earlier)
    job = Ledger(store).start_job(*describe_job([killed]))
    assert job.hold is not None
    job.hold.release()  # as the kernel does where its process is killed
    [request] = choose_requests(store, IngestChoice(("bars_1m",), exchanges=("binance",)))
    assert request.since == earlier
    shown = covered.status().filter(table="bars_1m", exchange="binance")["open"].item()
    assert shown.startswith("not fetched from 2023-12-29T00:00:00Z")
    half_a_bar_later = TimeRange(earlier + timedelta(seconds=30), T0)
    answers = {part_of("bars_1m", market): [CoveredRange(half_a_bar_later, 1)]}
    Ledger(store).record_coverage(answers, ORIGIN)
    [request] = choose_requests(store, IngestChoice(("bars_1m",), exchanges=("binance",)))
    assert request.since is None


def test_a_killed_run_of_unequal_tables_tells_of_no_market_for_sure(covered: Lake) -> None:
    killed = [
        IngestRequest(covered.dataset(table), Market("binance", symbol), T0)
        for table, symbol in (("bars_1m", "ETH/USDT"), ("trades", "SOL/USDT"))
    ]
    Ledger(store_of(covered)).start_job(*describe_job(killed))
    assert chosen(covered) == COVERED


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
