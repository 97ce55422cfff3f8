"""A venue that misbehaves: the result is the same, or what was fetched is kept."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import SourceUnavailableError
from lake.jobs.ingest.request import IngestRequest
from lake.model.market import Market
from lake.sandbox import KINDS, Fault, RandomFaults, Sandbox
from tests.jobs.conftest import NOW, MakeLake, ingest_all

UNTIL = NOW.replace(hour=0, minute=0, second=0)
SINCE = UNTIL - timedelta(days=2)
PERPETUAL = "BTC/USDT:USDT"


def _requests(lake: Lake) -> list[IngestRequest]:
    pairs = [
        ("bars_1m", "BTC/USDT"),
        ("bars_5m", "XRP/ETH"),
        ("bars_1m", PERPETUAL),
        ("trades", "BTC/USDT"),
        ("trades", "XRP/ETH"),
        ("funding", PERPETUAL),
    ]
    return [
        IngestRequest(lake.dataset(table), Market("binance", symbol), SINCE, UNTIL)
        for table, symbol in pairs
    ]


def _content(lake: Lake) -> dict[str, pl.DataFrame]:
    names = ("bars_1m", "bars_5m", "trades", "funding")
    return {**{name: lake.scan(name).collect() for name in names}, "coverage": lake.coverage()}


def _random(kinds: tuple[str, ...], seed: int) -> RandomFaults:
    return RandomFaults(0.2, kinds, seed=seed, retry_after=0.01, hang_seconds=1.5)


@pytest.fixture(scope="module")
def expected(quiet_lake: MakeLake) -> dict[str, pl.DataFrame]:
    lake = quiet_lake()
    ingest_all(lake, _requests(lake))
    return _content(lake)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_faults_at_random_in_a_fifth_of_the_answers_change_nothing(
    make_lake: MakeLake, sandbox: Sandbox, expected: dict[str, pl.DataFrame], seed: int
) -> None:
    lake = make_lake()
    sandbox.clear_log()
    sandbox.fail_at_random(_random(KINDS, seed))
    ingest_all(lake, _requests(lake))
    struck = [entry.fault for entry in sandbox.log if entry.fault]
    assert len(struck) > len(sandbox.log) / 8
    assert len(set(struck)) > len(KINDS) / 2
    for name, frame in _content(lake).items():
        assert_frame_equal(frame, expected[name])


def _ingest_half_a_day_of_trades(lake: Lake) -> pl.DataFrame:
    since = UNTIL - timedelta(hours=12)
    requests = [
        IngestRequest(lake.dataset("trades"), Market("binance", symbol), since, UNTIL)
        for symbol in ("BTC/USDT", "XRP/ETH")
    ]
    ingest_all(lake, requests)
    return lake.scan("trades").collect()


@pytest.fixture(scope="module")
def expected_trades(quiet_lake: MakeLake) -> pl.DataFrame:
    return _ingest_half_a_day_of_trades(quiet_lake())


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_in_a_fifth_of_the_answers_changes_nothing(
    make_lake: MakeLake, sandbox: Sandbox, expected_trades: pl.DataFrame, kind: str
) -> None:
    sandbox.fail_at_random(_random((kind,), seed=5))
    trades = _ingest_half_a_day_of_trades(make_lake())
    assert any(entry.fault == kind for entry in sandbox.log)
    assert_frame_equal(trades, expected_trades)


def test_a_venue_that_stays_down_leaves_what_was_fetched_kept_and_covered(
    make_lake: MakeLake, sandbox: Sandbox, expected: dict[str, pl.DataFrame]
) -> None:
    lake = make_lake()
    sandbox.fail(Fault("503", match="aggTrades", skip=30, times=10**6))
    with pytest.raises(SourceUnavailableError, match="binance"):
        ingest_all(lake, _requests(lake))
    kept = lake.scan("trades").collect()
    assert 0 < kept.height < expected["trades"].height
    covered = lake.coverage("trades")
    assert covered.height > 0
    [job] = lake.jobs().filter(pl.col("command").str.starts_with("ingest")).rows(named=True)
    assert job["status"] == "failed"
    assert job["rows"] >= kept.height

    sandbox.recover()
    ingest_all(lake, _requests(lake))
    for name, frame in _content(lake).items():
        assert_frame_equal(frame, expected[name])


def test_one_venue_down_does_not_stop_another(make_lake: MakeLake, sandbox: Sandbox) -> None:
    lake = make_lake()
    sandbox.fail(Fault("503", match="fapi.binance.com/fapi/v1/klines", times=10**6))
    requests = [
        IngestRequest(lake.dataset("bars_1m"), Market(exchange, symbol), SINCE, UNTIL)
        for exchange, symbol in (("binanceusdm", PERPETUAL), ("binance", "BTC/USDT"))
    ]
    with pytest.raises(SourceUnavailableError, match="binanceusdm"):
        ingest_all(lake, requests)
    assert lake.scan("bars_1m", exchange="binance").collect().height == 2 * 1440
