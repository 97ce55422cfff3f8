"""One refusal, or one dead exchange, stops nothing else; what failed is told and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from lake.api import Lake
from lake.errors import (
    SourceError,
    SourceRefusedError,
    SourceUnavailableError,
    UnknownNameError,
)
from lake.jobs.ingest.ingest import Ingestion
from lake.jobs.ingest.report import Failure, IngestReport, Unanswered
from lake.jobs.ingest.request import IngestRequest
from lake.model.market import Market
from lake.model.progress import NoProgress
from lake.model.time import TimeRange
from lake.sources.base import FetchRequest, Page
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
from lake.store.store import Origin, Store
from tests.conftest import DAY, MINUTE
from tests.jobs.conftest import NOW, Clock
from tests.jobs.ingest.own_source import Ranges, bars_of

MIDNIGHT = NOW.replace(hour=0, minute=0, second=0)
GIVEN = TimeRange(MIDNIGHT - DAY, MIDNIGHT)
COINS = ("AAA/USDT", "BBB/USDT", "CCC/USDT")


class Venue(Ranges):
    """A venue that serves bars since a time, refuses some markets, or is down."""

    def __init__(
        self,
        *symbols: str,
        exchange: str = "one",
        refused: Sequence[str] = (),
        oldest: datetime | None = None,
        not_given: TimeRange | None = None,
        error: SourceError | None = None,
    ) -> None:
        super().__init__(*symbols)
        self.exchange = exchange
        self._refused, self._oldest, self._not_given = refused, oldest, not_given
        self._error = error

    @property
    def name(self) -> str:
        return f"ccxt:{self.exchange}"

    async def market(self, symbol: str) -> Market:
        if self._error is not None:
            self.requests += 1
            raise self._error
        if symbol not in self._symbols:
            raise UnknownNameError(f"{self.exchange} has no market {symbol}", "Did you mean AAA?")
        return Market(self.exchange, symbol)

    async def fetch(
        self, requests: Sequence[FetchRequest], window: TimeRange
    ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
        self.requests += 1
        for request in requests:
            symbol = request.market.symbol
            self.fetched.append(((symbol,), window))
            if symbol in self._refused:
                raise SourceRefusedError(f"{symbol}: no", reason="forbidden")
            if self._oldest is not None and window.start < self._oldest:
                raise SourceRefusedError("too long ago", reason="too_long_ago")
            lost = self._not_given
            if lost is not None and window.end <= lost.end:
                yield request, Page(bars_of(symbol, window).clear(), None, not_given=window)
            else:
                yield request, Page(bars_of(symbol, window), window)


def ingest(
    lake: Lake,
    *venues: Venue,
    symbols: Sequence[str] = COINS,
    since: datetime | None = GIVEN.start,
    until: datetime | None = GIVEN.end,
    clock: Clock | None = None,
    refetch: bool = False,
) -> IngestReport:
    """Ingest minute bars of symbols from venues, as one job."""
    requests = [
        IngestRequest(lake.dataset("bars_1m"), Market(v.exchange, symbol), since, until, refetch)
        for v in venues
        for symbol in symbols
    ]
    store = Store(lake.root, clock or Clock(NOW))
    by_name = {venue.exchange: venue for venue in venues}
    ingestion = Ingestion(store, lake.settings, by_name.__getitem__, NoProgress())
    return asyncio.run(ingestion.run(requests))


def fail(lake: Lake, *venues: Venue, **options: object) -> tuple[SourceError, IngestReport]:
    """Ingest where something fails, and return the error and its report."""
    with pytest.raises(SourceError) as raised:
        ingest(lake, *venues, **options)  # type: ignore[arg-type]
    assert isinstance(raised.value.report, IngestReport)
    return raised.value, raised.value.report


def bars(lake: Lake) -> dict[tuple[str, str], int]:
    counts = lake.sql("SELECT exchange, symbol, count(*) FROM bars_1m GROUP BY ALL").fetchall()
    return {row[:2]: row[2] for row in counts}


def test_a_market_that_is_gone_is_told_and_all_others_come_forward(lake: Lake) -> None:
    clock = Clock(NOW)
    ingest(lake, Venue(*COINS), Venue(*COINS, exchange="two"))
    clock.time += DAY
    one, two = Venue("AAA/USDT", "CCC/USDT"), Venue(*COINS, exchange="two")
    error, report = fail(lake, one, two, since=None, until=None, clock=clock)
    [failure] = report.failures
    assert (failure.market, failure.reason) == (Market("one", "BBB/USDT"), "not_listed")
    assert failure.again_at is None
    assert "is covered until 2026-03-10T00:00:00Z" in error.message
    assert "no longer listed" in error.message
    assert "Did you mean" not in error.hint
    assert report.status == "failed"
    gone = bars(lake).pop(("one", "BBB/USDT"))
    assert gone == 1440
    assert set(bars(lake).values()) == {1440, 1440 + 1440 + 12 * 60 + 1}
    assert lake.jobs()["status"].to_list() == ["ok", "failed"]
    assert one.closed
    assert two.closed


def test_a_known_refusal_is_asked_again_after_an_hour_then_a_day_then_every_week(
    lake: Lake,
) -> None:
    clock, hour = Clock(NOW), timedelta(hours=1)
    ingest(lake, Venue(*COINS))
    asked = []
    for hours in (0, 0.5, 1, 2, 24, 25, 30, 192, 193, 300, 361):
        clock.time = NOW + hours * hour
        venue = Venue("AAA/USDT", "CCC/USDT")
        try:
            report = ingest(lake, venue, since=None, until=None, clock=clock)
        except SourceError:
            asked.append(hours)
        else:
            [known] = report.failures
            assert (known.reason, known.market.symbol) == ("not_listed", "BBB/USDT")
            assert known.again_at is not None
            assert known.again_at > clock.time
            assert report.status == "ok"
    assert asked == [0, 1, 25, 193, 361]


def test_a_run_of_which_all_is_refused_before_does_nothing_and_tells(lake: Lake) -> None:
    refusing = Venue("AAA/USDT", refused=["AAA/USDT"])
    fail(lake, refusing, symbols=["AAA/USDT"])
    before = lake.jobs().height
    report = ingest(lake, Venue("AAA/USDT"), symbols=["AAA/USDT"])
    assert report.job_id is None
    assert [item.reason for item in report.failures] == ["forbidden"]
    assert lake.jobs().height == before


def test_what_was_refused_from_the_first_is_asked_again_when_due_or_refetched(lake: Lake) -> None:
    only: dict[str, Any] = {"symbols": ["AAA/USDT"]}
    fail(lake, Venue("AAA/USDT", refused=["AAA/USDT"]), **only)
    clock = Clock(NOW + timedelta(minutes=50))
    plain = {**only, "since": None, "until": None, "clock": clock}
    assert [item.reason for item in ingest(lake, Venue(), **plain).failures] == ["forbidden"]
    clock.time = NOW + DAY + timedelta(hours=1)
    _, report = fail(lake, Venue(), **plain)  # not listed any more
    assert [item.reason for item in report.failures] == ["not_listed"]
    assert ingest(lake, Venue("AAA/USDT"), **plain, refetch=True).rows == 2 * 1440 + 13 * 60 + 1
    clock.time += timedelta(hours=1)
    report = ingest(lake, Venue("AAA/USDT"), **plain)
    assert (report.rows, report.failures) == (60, ())


def test_a_market_that_is_gone_names_the_end_of_its_own_table(lake: Lake) -> None:
    ingest(lake, Venue("AAA/USDT"), symbols=["AAA/USDT"])
    later = TimeRange(GIVEN.start, NOW)
    store = Store(lake.root, Clock(NOW))
    origin = Origin("job", "ccxt:one")
    answers = {part_of("trades", Market("one", "AAA/USDT")): [CoveredRange(later, 1)]}
    Ledger(store).record_coverage(answers, origin)
    error, _ = fail(lake, Venue(), symbols=["AAA/USDT"], since=None, until=None)
    assert "bars_1m of one AAA/USDT is covered until 2026-03-10T00:00:00Z" in error.message


def test_refetch_asks_again_for_what_was_refused(lake: Lake) -> None:
    fail(lake, Venue("AAA/USDT", refused=["AAA/USDT"]), symbols=["AAA/USDT"])
    report = ingest(lake, Venue("AAA/USDT"), symbols=["AAA/USDT"], refetch=True)
    assert report.rows == 1440
    assert report.failures == ()
    assert ingest(lake, Venue("AAA/USDT"), symbols=["AAA/USDT"]).failures == ()


def test_a_market_that_was_never_covered_is_refused_before_anything_is_fetched(
    lake: Lake,
) -> None:
    venue = Venue("AAA/USDT", "CCC/USDT")
    with pytest.raises(UnknownNameError, match="BBB/USDT") as refused:
        ingest(lake, venue)
    assert refused.value.hint == "Did you mean AAA?"
    assert venue.fetched == []
    assert lake.jobs().is_empty()


def test_a_market_that_is_refused_in_a_fetch_stops_no_other(lake: Lake) -> None:
    _, report = fail(lake, Venue(*COINS, refused=["BBB/USDT"]))
    assert report.failures == (
        Failure("bars_1m", Market("one", "BBB/USDT"), (GIVEN,), "forbidden", "BBB/USDT: no", None),
    )
    assert bars(lake) == {("one", "AAA/USDT"): 1440, ("one", "CCC/USDT"): 1440}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceUnavailableError("down"), "unavailable"),
        (SourceRefusedError("not from here", reason="forbidden"), "forbidden"),
    ],
)
def test_an_exchange_that_is_down_stops_no_other(
    lake: Lake, error: SourceError, reason: str
) -> None:
    down, up = Venue(*COINS, error=error), Venue(*COINS, exchange="two")
    raised, report = fail(lake, down, up)
    assert type(raised) is type(error) or reason == "forbidden"
    assert {(f.market.exchange, f.reason) for f in report.failures} == {("one", reason)}
    assert {f.market.symbol for f in report.failures} == set(COINS)
    assert bars(lake) == {("two", symbol): 1440 for symbol in COINS}
    assert down.requests == 3


def test_what_is_too_long_ago_stays_open_and_the_rest_is_fetched(lake: Lake) -> None:
    since, oldest = MIDNIGHT - 60 * DAY, MIDNIGHT - 3 * DAY + 77 * MINUTE
    venue = Venue("AAA/USDT", oldest=oldest)
    _, report = fail(lake, venue, symbols=["AAA/USDT"], since=since)
    [failure] = report.failures
    [refused] = failure.ranges
    assert failure.reason == "too_long_ago"
    assert refused.start == since
    assert timedelta(0) <= refused.end - oldest <= timedelta(minutes=30)
    [(_, _, _, start, end)] = lake.coverage("bars_1m").rows()
    assert (start, end) == (refused.end, MIDNIGHT)
    assert bars(lake)["one", "AAA/USDT"] == (MIDNIGHT - refused.end) // MINUTE
    assert venue.requests < 40

    # It goes on from there, and does not ask for what was refused.
    again = Venue("AAA/USDT", oldest=oldest)
    clock = Clock(NOW + timedelta(minutes=50))
    report = ingest(lake, again, symbols=["AAA/USDT"], since=None, until=None, clock=clock)
    assert [(item.reason, item.ranges) for item in report.failures] == [
        ("too_long_ago", (refused,))
    ]
    assert all(window.start >= MIDNIGHT for _, window in again.fetched)


def test_what_is_no_longer_given_is_told_not_covered_and_not_asked_again(lake: Lake) -> None:
    lost = TimeRange(GIVEN.start - DAY, GIVEN.start)
    venue = Venue("AAA/USDT", not_given=lost)
    options = {"symbols": ["AAA/USDT"], "since": lost.start}
    report = ingest(lake, venue, **options)  # type: ignore[arg-type]
    assert report.status == "ok"
    assert report.unanswered == (
        Unanswered("bars_1m", Market("one", "AAA/USDT"), (lost,), "not_given"),
    )
    assert lake.coverage("bars_1m").select("start", "end").rows() == [(GIVEN.start, GIVEN.end)]
    again = Venue("AAA/USDT")
    assert ingest(lake, again, **options).job_id is None  # type: ignore[arg-type]
    assert again.fetched == []


def test_another_source_fills_what_one_no_longer_gives(lake: Lake) -> None:
    class Other(Venue):
        @property
        def name(self) -> str:
            return "files:one"

    lost = TimeRange(GIVEN.start - DAY, GIVEN.start)
    options = {"symbols": ["AAA/USDT"], "since": lost.start}
    ingest(lake, Venue("AAA/USDT", not_given=lost), **options)  # type: ignore[arg-type]
    report = ingest(lake, Other("AAA/USDT"), **options)  # type: ignore[arg-type]
    assert report.rows == 1440
    assert lake.coverage("bars_1m").select("start", "end").rows() == [(lost.start, GIVEN.end)]


def test_an_exchange_that_no_source_serves_any_more_stops_no_other(lake: Lake) -> None:
    clock = Clock(NOW)
    ingest(lake, Venue("AAA/USDT"), symbols=["AAA/USDT"])
    ingest(lake, Venue("AAA/USDT", exchange="two"), symbols=["AAA/USDT"])
    requests = [
        IngestRequest(lake.dataset("bars_1m"), Market(exchange, "AAA/USDT"))
        for exchange in ("one", "two")
    ]

    def connect(exchange: str) -> Venue:
        if exchange == "one":
            raise UnknownNameError("unknown exchange 'one'")
        return Venue("AAA/USDT", exchange=exchange)

    def run() -> IngestReport:
        store = Store(lake.root, clock)
        return asyncio.run(Ingestion(store, lake.settings, connect, NoProgress()).run(requests))

    with pytest.raises(SourceRefusedError, match="unknown exchange 'one'"):
        run()
    clock.time += timedelta(minutes=59)
    report = run()  # it is known, and not asked again yet
    assert [(item.market.exchange, item.reason) for item in report.failures] == [("one", "refused")]
    assert bars(lake)["two", "AAA/USDT"] == 1440 + 13 * 60
    with pytest.raises(UnknownNameError):
        ingest(lake, Venue("AAA/USDT", exchange="three"), symbols=["ZZZ/USDT"], clock=clock)
