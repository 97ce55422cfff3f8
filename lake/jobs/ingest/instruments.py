"""Record specifications of markets: one row per change."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from lake.errors import SourceError
from lake.jobs.ingest.batch import add_market
from lake.jobs.ingest.report import Unrecorded
from lake.log import get_logger
from lake.model.dataset import TIMESTAMP
from lake.model.market import MARKET_COLUMNS, Market
from lake.model.selection import Selection
from lake.sources.base import Source, SpecificationSource
from lake.store.bounds import clear_times
from lake.store.store import Origin, Store, WriteResult

_log = get_logger(__name__)


async def record_instruments(
    store: Store, source: Source, exchange: str, symbols: Iterable[str] | None, job_id: str
) -> WriteResult | None:
    """Store the specifications that differ from the stored ones.

    Parameters
    ----------
    symbols
        Symbols of the exchange; None for all.

    Returns
    -------
    WriteResult or None
        None where nothing differs, or the source has no specifications of these markets.
    """
    if not isinstance(source, SpecificationSource):
        return None
    listed = await source.instruments(None if symbols is None else list(symbols))
    frames = [add_market(row, Market(exchange, symbol)) for symbol, row in listed.items()]
    if not frames:
        return None
    rows = pl.concat(frames, how="diagonal")
    changed = _find_changed(store, exchange, rows)
    if changed.is_empty():
        return None
    valid_from = pl.lit(store.now(), dtype=TIMESTAMP).alias("valid_from")
    dataset = store.catalog.dataset("instruments")
    return store.write(dataset, changed.with_columns(valid_from), Origin(job_id, source.name))


async def try_to_record_instruments(
    store: Store, source: Source, exchange: str, symbols: Iterable[str], job_id: str
) -> tuple[WriteResult | None, tuple[Unrecorded, ...]]:
    """Record specifications beside other rows: if that fails, these are fetched anyway."""
    try:
        return await record_instruments(store, source, exchange, symbols, job_id), ()
    except SourceError as error:
        _log.warning("instruments_not_recorded", exchange=exchange, reason=error.message)
        return None, (Unrecorded(exchange, error.message),)


def _find_changed(store: Store, exchange: str, rows: pl.DataFrame) -> pl.DataFrame:
    if not store.exists("instruments"):
        return rows
    dataset = store.catalog.dataset("instruments")
    stored = store.snapshot(dataset).collect(Selection((exchange,)))
    current = stored.group_by(MARKET_COLUMNS, maintain_order=True).last()
    as_stored, _ = clear_times(dataset, rows)
    changed = as_stored.join(current, on=rows.columns, how="anti", nulls_equal=True)
    return rows.join(changed, on=MARKET_COLUMNS, how="semi", maintain_order="left")
