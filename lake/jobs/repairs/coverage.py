"""Take back what a repair recorded in `coverage`, so that it says what the rows say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import polars as pl

from lake.errors import DamagedError, UnknownNameError
from lake.log import get_logger
from lake.model.dataset import Dataset
from lake.model.intervals import subtract
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.store.ledger import Ledger
from lake.store.store import Origin, Store

_log = get_logger(__name__)
_INTERVAL = ["dataset", "source", "timestamp", "end"]


def take_back_coverage(
    store: Store, dataset: Dataset, market: Market, repair: Mapping[str, Any], origin: Origin
) -> None:
    """Restore the coverage of a repair's range to what it was before its job asked the source.

    An interval that the job recorded keeps its parts outside the range. One that it recorded anew
    is as it was; if that cannot be read any more, its time counts as not covered, and the next
    ingestion asks for it.

    Parameters
    ----------
    repair
        A row of `repairs`.
    """
    coverage = store.catalog.dataset("coverage")
    rows = store.read(coverage, _select(market))
    own = rows.filter(_is_recorded_by(repair))
    if own.is_empty():
        return
    before = _read_before(store, coverage, market, repair)
    window = TimeRange(own["timestamp"].min(), own["end"].max())  # type: ignore[arg-type]
    count = partial(_count_rows, store, dataset, market)

    def restore(rows: pl.DataFrame) -> pl.DataFrame:
        own = rows.filter(_is_recorded_by(repair))
        was = before.join(own, on=_INTERVAL, how="semi").select(rows.columns)
        new = own.join(was, on=_INTERVAL, how="anti")
        span = TimeRange(repair["timestamp"], repair["end"])
        outside = [
            {**row, "timestamp": part.start, "end": part.end, "rows": count(part)}
            for row in new.iter_rows(named=True)
            for part in subtract([TimeRange(row["timestamp"], row["end"])], [span])
        ]
        kept = rows.join(own, on=_INTERVAL, how="anti")
        parts = pl.DataFrame(outside, schema=rows.schema).join(kept, on=_INTERVAL, how="anti")
        return pl.concat([kept, was, parts])

    store.replace(coverage, market, window, restore, origin)


def _is_recorded_by(repair: Mapping[str, Any]) -> pl.Expr:
    """Whether a row of `coverage` is what the job and source of a repair recorded in its range."""
    same = [pl.col(name) == repair[name] for name in ("dataset", "source", "job_id")]
    overlaps = (pl.col("timestamp") < repair["end"]) & (pl.col("end") > repair["timestamp"])
    return pl.all_horizontal(*same, overlaps)


def _read_before(
    store: Store, coverage: Dataset, market: Market, repair: Mapping[str, Any]
) -> pl.DataFrame:
    """Read the coverage of a market before the first commit of a repair's job; empty if it is gone.

    Undoings commit under jobs of their own.
    """
    ledger, job_id = Ledger(store), repair["job_id"]
    started = ledger.read_jobs().filter(pl.col("job_id") == job_id)["timestamp"].min()
    since = started if isinstance(started, datetime) else None
    commits = ledger.iterate_commits(coverage.name, since)
    version = min((c["version"] for c in commits if c["job"] == job_id), default=0)
    if version == 0:
        return coverage.empty()
    try:
        return store.snapshot(coverage, version=version - 1).collect(_select(market))
    except (DamagedError, UnknownNameError) as error:
        _log.warning("coverage_before_repair_gone", repair=repair["repair_id"], reason=str(error))
        return coverage.empty()


def _count_rows(store: Store, dataset: Dataset, market: Market, part: TimeRange) -> int:
    """Count the rows that a source gave, as coverage does."""
    filled = ["fill"] if "fill" in dataset.polars_schema else []
    selection = Selection((market.exchange,), (market.symbol,), part.start, part.end)
    rows = store.snapshot(dataset).collect(selection, columns=[dataset.time_column, *filled])
    return (rows.filter(pl.col("fill").is_null()) if filled else rows).height


def _select(market: Market) -> Selection:
    return Selection((market.exchange,), (market.symbol,))
