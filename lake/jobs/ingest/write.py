"""Rows of a user's own, on the same way into a table as all others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from lake.errors import UsageError
from lake.jobs.job import WriteCounts, record_job
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.exact_casts import cast_exactly
from lake.model.grid import end_of
from lake.model.market import MARKET_COLUMNS, Market
from lake.model.time import TimeRange, iso
from lake.query.grids import find_grid
from lake.store.coverage import CLAIMED, CoveredRange, part_of
from lake.store.ledger import Ledger
from lake.store.store import Origin, Store, WriteResult


def write_rows(
    store: Store,
    dataset: Dataset,
    rows: pl.DataFrame,
    source: str,
    covers: TimeRange | None = None,
) -> WriteResult:
    """Write a frame into a table as a job.

    Parameters
    ----------
    covers
        The range of which the frame has all rows, of each of its markets. Of bars, it counts up to
        the last bar that ends in it: a later one was still open when the range ended.

    Raises
    ------
    SchemaError
        The frame as a whole does not fit the dataset.
    UsageError
        The table is the lake's own record, `rows` is no frame, or the range is in the future, or
        of no market because the frame has no rows.
    """
    if not isinstance(rows, pl.DataFrame):
        raise UsageError(
            f"rows for {dataset.name} are a {type(rows).__name__}, not a Polars DataFrame",
            "Make one with pl.DataFrame(rows), or collect a LazyFrame.",
        )
    if dataset.kind == "record":
        raise UsageError(
            f"{dataset.name} is the lake's own record, and written by itself only",
            f"Nobody else writes {', '.join(store.catalog.records)}.",
        )
    if covers is not None:
        _require_coverable(store, rows, covers)
    counts = WriteCounts()
    with record_job(Ledger(store), f"write {dataset.name}", {"source": source}, counts) as job:
        fitted = _add_closed(store, dataset, cast_exactly(dataset, rows))
        written = store.write(dataset, fitted, Origin(job.id, source))
        counts.add(dataset.name, written)
        if covers is not None:
            answers = {
                part_of(dataset.name, market): [answer]
                for market, answer in _list_covered(store, dataset, fitted, written.kept, covers)
            }
            Ledger(store).record_coverage(answers, Origin(job.id, CLAIMED))
    return written


def _require_coverable(store: Store, rows: pl.DataFrame, covers: TimeRange) -> None:
    if covers.end > store.now():
        raise UsageError(
            f"the covered range ends in the future, at {iso(covers.end)}: it is {iso(store.now())}",
            "Rows may still come until then: give an end that is past.",
        )
    if rows.is_empty():
        raise UsageError(
            "the frame has no rows, so it names no market that the covered range is of",
            "Write it without covers, or together with a row of each market.",
        )


def _add_closed(store: Store, dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
    """Add `closed` to bars without it: whether they have ended."""
    time, timeframe = dataset.time_column, dataset.timeframe
    if timeframe is None or not dataset.marks_open or "closed" in rows.columns:
        return rows
    if rows.schema.get(time) != TIMESTAMP:
        return rows  # it is refused
    ended = end_of(pl.col(time), timeframe) <= store.now()
    return rows.with_columns(closed=ended.fill_null(value=True))


def _list_covered(
    store: Store, dataset: Dataset, rows: pl.DataFrame, kept: pl.DataFrame, covers: TimeRange
) -> Iterator[tuple[Market, CoveredRange]]:
    """Yield each market of a frame with its covered range, up to the first bar that is open."""
    time = pl.col(dataset.time_column)
    observed = kept
    if "fill" in rows.columns:
        place = [*MARKET_COLUMNS, dataset.time_column]
        observed = kept.join(rows.filter(pl.col("fill").is_not_null()), on=place, how="anti")
    for exchange, symbol in rows.select(MARKET_COLUMNS).unique(maintain_order=True).iter_rows():
        market = (pl.col("exchange") == exchange) & (pl.col("symbol") == symbol)
        own = rows.filter(market)
        end = _find_open_time(store, dataset, Market(exchange, symbol), covers.end)
        if "closed" in rows.columns:
            end = min([end, *own.filter(~pl.col("closed"))[dataset.time_column].drop_nulls()])
        if end <= covers.start:
            continue
        inside = time.is_between(covers.start, end, closed="left")
        status = "fetched" if own.filter(inside).height else "empty"
        count = observed.filter(market & inside).height
        range_ = TimeRange(covers.start, end)
        yield Market(exchange, symbol), CoveredRange(range_, count, status)


def _find_open_time(store: Store, dataset: Dataset, market: Market, time: datetime) -> datetime:
    """Return when the bar opens that is open at a time; of other rows, the time itself.

    Whether the frame has that bar tells nothing: whoever exports bars may drop the open one. If it
    is unclear where the market's bars open, it is the earliest possible time.
    """
    if dataset.timeframe is None:
        return time
    grid = find_grid(store, dataset, market)
    return grid.floor(time) if grid is not None else time - dataset.timeframe.longest
