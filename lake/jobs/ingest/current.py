"""Ingest the present: order books and instruments."""

from __future__ import annotations

from collections.abc import Sequence

from lake.errors import SourceError
from lake.jobs.ingest.batch import add_market, find_spans
from lake.jobs.ingest.instruments import record_instruments, try_to_record_instruments
from lake.jobs.ingest.report import Failure, IngestReport
from lake.jobs.ingest.results import build_error, classify
from lake.jobs.job import WriteCounts, record_job
from lake.jobs.touched import TouchedRanges
from lake.model.market import Market
from lake.sources.base import PresentSource, Source, require_present, require_specifications
from lake.store.ledger import Ledger
from lake.store.store import Origin, Store


async def ingest_order_books(
    store: Store, source: Source, markets: Sequence[Market], depth: int | None
) -> IngestReport:
    """Store one snapshot of the order book of each market.

    Parameters
    ----------
    depth
        Levels of each side; None: as many as the venue gives.

    Raises
    ------
    UnknownNameError
        The source does not list a market, or serves no order books.
    SourceError
        The source did not give some book; all others are stored, and the error has the report.
    """
    started, counts = store.now(), WriteCounts()
    try:
        books = require_present(source)
        for market in markets:
            await source.market(market.symbol)
        arguments = {"markets": [str(market) for market in markets], "depth": depth}
        with record_job(Ledger(store), "ingest orderbooks", arguments, counts) as job:
            symbols = [market.symbol for market in markets]
            exchange = markets[0].exchange
            written, unrecorded = await try_to_record_instruments(
                store, source, exchange, symbols, job.id
            )
            if written is not None:
                counts.add("instruments", written)
            taken = _BookTaker(store, books, Origin(job.id, source.name), counts)
            for market in markets:
                await taken.take(market, depth)
            report = IngestReport(
                job.id,
                "failed" if taken.errors else "ok",
                tuple(counts.tables.values()),
                (),
                len(markets) - len(taken.errors),
                source.requests,
                (store.now() - started).total_seconds(),
                touched=taken.touched.list(),
                failures=taken.failures,
                unrecorded=unrecorded,
            )
            if taken.errors:
                raise build_error(report, taken.errors.values())
        return report
    finally:
        await source.close()


class _BookTaker:
    """Takes order books, one by one; one that the source does not give stops no other."""

    def __init__(
        self, store: Store, books: PresentSource, origin: Origin, counts: WriteCounts
    ) -> None:
        self.touched = TouchedRanges()
        self.errors: dict[Market, SourceError] = {}
        self._store, self._books, self._origin, self._counts = store, books, origin, counts
        self._dataset = store.catalog.dataset("orderbooks")

    async def take(self, market: Market, depth: int | None) -> None:
        """Fetch and store the book of a market."""
        try:
            book = await self._books.order_book(market, depth)
        except SourceError as error:
            self.errors[market] = error
            return
        name = self._dataset.name
        self.touched.add(name, market, find_spans(book[self._dataset.time_column]))
        written = self._store.write(self._dataset, add_market(book, market), self._origin)
        self._counts.add(name, written)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The markets whose book could not be fetched."""
        return tuple(
            Failure(self._dataset.name, market, (), classify(error), error.message)
            for market, error in self.errors.items()
        )


async def ingest_instruments(
    store: Store, source: Source, exchange: str, symbols: Sequence[str] | None
) -> IngestReport:
    """Store the specifications that changed, of some symbols or of the whole exchange.

    Raises
    ------
    UnknownNameError
        The source does not list a symbol, or serves no specifications.
    SourceError
        The source failed; nothing was stored.
    """
    started, counts = store.now(), WriteCounts()
    try:
        require_specifications(source)
        for symbol in symbols or ():
            await source.market(symbol)
        arguments = {"exchange": exchange, "symbols": symbols}
        with record_job(Ledger(store), "ingest instruments", arguments, counts) as job:
            written = await record_instruments(store, source, exchange, symbols, job.id)
            if written is not None:
                counts.add("instruments", written)
        seconds = (store.now() - started).total_seconds()
        return IngestReport(
            job.id, "ok", tuple(counts.tables.values()), (), 1, source.requests, seconds
        )
    finally:
        await source.close()
