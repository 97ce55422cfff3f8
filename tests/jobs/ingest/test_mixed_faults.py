"""Bad answers of all kinds for a long time: what is covered is true, all else is open and reported.

Three exchanges with ten markets; one exchange is dead, one market is taken off the list.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import SourceError
from lake.jobs.ingest.report import Failure, IngestReport, Unanswered
from lake.jobs.ingest.request import IngestRequest
from lake.model.intervals import RangeSet, subtract, union
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.sandbox import KINDS, Fault, RandomFaults, Sandbox, SyntheticMarkets
from lake.sandbox import Market as ListedMarket
from lake.settings import RetrySettings
from tests.jobs.conftest import NOW, Clock, ingest_all, settings_for

ROUNDS = int(os.environ.get("TRIAL_ROUNDS", "4"))
SEED = int(os.environ.get("TRIAL_SEED", "20261130"))
SINCE = NOW.replace(second=0) - timedelta(hours=6)
STEP = timedelta(minutes=40)
DEAD, GONE = "binanceus", Market("binance", "ETH/USDT")
MARKETS = (
    *(Market("binance", symbol) for symbol in ("BTC/USDT", "XRP/ETH", "LUNA/USDT")),
    *(Market("binance", symbol) for symbol in ("BTC/USDT:USDT", "ETH/USDT:USDT")),
    *(Market("binanceusdm", symbol) for symbol in ("BTC/USDT:USDT", "ETH/USDT:USDT")),
    *(Market(DEAD, symbol) for symbol in ("BTC/USDT", "ETH/USDT")),
    GONE,
)
TABLES = ("bars_1m", "trades")


class Listing(SyntheticMarkets):
    """Synthetic markets of which one can be taken off the list."""

    is_complete = True

    @property
    def markets(self) -> list[ListedMarket]:
        every = super().markets
        if self.is_complete:
            return every
        return [m for m in every if (m.exchange, m.symbol) != (GONE.exchange, GONE.symbol)]


@pytest.fixture
def listing() -> Listing:
    return Listing(seed=7)


@pytest.fixture
def venues(listing: Listing, clock: Clock) -> Iterator[Sandbox]:
    with Sandbox(listing, now=clock, weight_limit=False) as running:
        yield running


@pytest.fixture
def truth(tmp_path: Path) -> Lake:
    """All rows that the venues have at the end, fetched without a fault."""
    end = NOW + ROUNDS * STEP
    with Sandbox(SyntheticMarkets(seed=7), now=lambda: end, weight_limit=False) as quiet:
        lake = Lake.create(settings_for(tmp_path / "truth", quiet.url), now=lambda: end)
        ingest_all(lake, _requests(lake, MARKETS))
    return lake


def _requests(lake: Lake, markets: Sequence[Market]) -> list[IngestRequest]:
    return [
        IngestRequest(lake.dataset(table), market, SINCE) for table in TABLES for market in markets
    ]


def _ingest(lake: Lake) -> IngestReport:
    """Run an ingestion; a run that could not fetch everything gives its report with the error."""
    try:
        return ingest_all(lake, _requests(lake, MARKETS))
    except SourceError as error:
        report = error.report
    assert isinstance(report, IngestReport)
    assert report.status == "failed"
    return report


def _read_covered(lake: Lake) -> dict[tuple[str, Market], RangeSet]:
    ranges: dict[tuple[str, Market], list[TimeRange]] = {}
    for table, exchange, symbol, start, end in lake.coverage().rows():
        ranges.setdefault((table, Market(exchange, symbol)), []).append(TimeRange(start, end))
    return {key: union(own) for key, own in ranges.items()}


def _require_truth(lake: Lake, truth: Lake) -> None:
    """Require that covered intervals hold exactly the rows of the truth, and nothing is outside."""
    for (table, market), ranges in _read_covered(lake).items():
        for covered in ranges:
            stored, right = (
                _read_closed(one, table, market, covered.start, covered.end)
                for one in (lake, truth)
            )
            assert_frame_equal(stored, right)


def _read_closed(
    lake: Lake, table: str, market: Market, since: datetime, until: datetime
) -> pl.DataFrame:
    if table not in lake.tables()["table"].to_list():
        return pl.DataFrame()
    rows = lake.scan(
        table,
        exchange=market.exchange,
        symbol=market.symbol,
        since=since,
        until=until,
        missing="empty",
    ).collect()
    return rows.filter("closed") if "closed" in rows.columns else rows


def _require_reported(lake: Lake, report: IngestReport, now: datetime) -> None:
    """Require that what is open of the past is told by the report, with its market."""
    covered = _read_covered(lake)
    open_parts: list[Failure | Unanswered] = [*report.failures, *report.unanswered]
    for table in TABLES:
        for market in MARKETS:
            wanted = [TimeRange(SINCE, now - timedelta(minutes=2))]
            told = union(
                part
                for item in open_parts
                if (item.table, item.market) == (table, market)
                for part in item.ranges
            )
            missing = subtract(subtract(wanted, covered.get((table, market), ())), told)
            assert not missing, (table, market, missing)


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_what_is_covered_is_true_and_all_else_is_open_and_reported(
    venues: Sandbox, listing: Listing, clock: Clock, truth: Lake, tmp_path: Path
) -> None:
    print(f"TRIAL_ROUNDS={ROUNDS} TRIAL_SEED={SEED}")
    settings = settings_for(tmp_path / "lake", venues.url, batch_rows=500)
    few = RetrySettings(attempts=2, wait_initial_seconds=0.005, wait_max_seconds=0.02)
    lake = Lake.create(settings.model_copy(update={"retry": few}), now=clock)
    ingest_all(lake, _requests(lake, [GONE]))
    failed = 0
    for number in range(ROUNDS):
        listing.is_complete = number < ROUNDS // 2
        venues.fail_at_random(
            RandomFaults(0.4, KINDS, seed=SEED + number, retry_after=0.01, hang_seconds=1.2)
        )
        venues.fail(Fault("503", match="api.binance.us", times=10**6))
        report = _ingest(lake)
        failed += len(report.failures)
        assert {item.market.exchange for item in report.failures} >= {DEAD}
        _require_truth(lake, truth)
        _require_reported(lake, report, clock())
        clock.time += STEP
    assert failed > ROUNDS * len(TABLES), "too few windows failed to show anything"

    venues.recover()
    report = _ingest(lake)
    assert {item.market for item in report.failures} <= {GONE}
    _require_truth(lake, truth)
    _require_reported(lake, report, clock())
    covered = _read_covered(lake)
    for table in TABLES:
        for market in set(MARKETS) - {GONE}:
            assert covered[table, market][0].end >= clock() - timedelta(minutes=2), market
