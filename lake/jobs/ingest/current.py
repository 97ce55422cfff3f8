"""Ingest the present: order books and instruments."""

from __future__ import annotations

from collections.abc import Sequence

from lake.jobs.ingest.batch import add_market
from lake.jobs.ingest.instruments import record_instruments
from lake.jobs.ingest.report import IngestReport
from lake.jobs.job import WriteCounts, record_job
from lake.model.market import Market
from lake.sources.base import Source, require_present, require_specifications
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
        The source failed; the books that it gave before are stored.
    """
    started, counts = store.now(), WriteCounts()
    dataset = store.catalog.dataset("orderbooks")
    try:
        books = require_present(source)
        for market in markets:
            await source.market(market.symbol)
        arguments = {"markets": [str(market) for market in markets], "depth": depth}
        with record_job(Ledger(store), "ingest orderbooks", arguments, counts) as job:
            symbols = [market.symbol for market in markets]
            exchange = markets[0].exchange
            written = await record_instruments(store, source, exchange, symbols, job.id)
            if written is not None:
                counts.add("instruments", written)
            for market in markets:
                book = await books.order_book(market, depth)
                rows = add_market(book, market)
                counts.add(dataset.name, store.write(dataset, rows, Origin(job.id, source.name)))
        seconds = (store.now() - started).total_seconds()
        return IngestReport(
            job.id, "ok", tuple(counts.tables.values()), (), len(markets), source.requests, seconds
        )
    finally:
        await source.close()


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
