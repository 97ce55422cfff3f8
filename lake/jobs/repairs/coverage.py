"""Take back what a repair recorded in `coverage`, so that it says what the rows say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any

import polars as pl

from lake.errors import DamagedError, UnknownNameError
from lake.log import get_logger
from lake.model.dataset import Dataset
from lake.model.intervals import intersect, subtract
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.store.ledger import Ledger
from lake.store.store import Origin, Store

_log = get_logger(__name__)
_KEY = ["dataset", "source", "timestamp"]


def take_back_coverage(
    store: Store, dataset: Dataset, market: Market, repair: Mapping[str, Any], origin: Origin
) -> None:
    """Restore the coverage of a repair's range to what it was before its job asked the source.

    What others have covered outside of the range since stays. If the coverage before the job cannot
    be read any more, the range counts as not covered, and the next ingestion asks for it.

    Parameters
    ----------
    repair
        A row of `repairs`.
    """
    coverage = store.catalog.dataset("coverage")
    if not store.exists(coverage.name):
        return
    first = _find_first_commit(store, coverage, repair["job_id"])
    if first is None:
        return  # it was answered nothing that was not recorded before
    before = _read_before(store, coverage, market, repair, first)
    span = TimeRange(repair["timestamp"], repair["end"])
    count = partial(_count_rows, store, dataset, market)
    rows = store.read(coverage, _select(market)).filter(_is_of(repair))
    if rows.is_empty():
        return
    window = TimeRange(rows["timestamp"].min(), rows["end"].max())  # type: ignore[arg-type]

    def restore(rows: pl.DataFrame) -> pl.DataFrame:
        touches = (pl.col("timestamp") <= span.end) & (pl.col("end") >= span.start)
        own = rows.filter(_is_of(repair) & touches)
        kept = rows.join(own, on=_KEY, how="anti")
        return pl.concat([kept, _restore(own, before, span, count)])

    store.replace(coverage, market, window, restore, origin)


def _restore(
    own: pl.DataFrame, before: pl.DataFrame, span: TimeRange, count: Callable[[TimeRange], int]
) -> pl.DataFrame:
    """Restore intervals to what they were, but for what was added to them outside of a range.

    Parameters
    ----------
    own, before
        Rows of `coverage` of one source now, and before.
    count
        Counts the rows of a range.
    """
    present = [TimeRange(*pair) for pair in own.select("timestamp", "end").iter_rows()]
    restored: list[dict[str, Any]] = []
    for row in before.iter_rows(named=True):
        was = TimeRange(row["timestamp"], row["end"])
        # Others may have undone a repair since: neither its time nor its rows come back.
        parts = [_cut(row, part, count) for part in intersect([was], present)]
        holds_it = (pl.col("timestamp") <= was.start) & (pl.col("end") >= was.end)
        most = own.filter(holds_it)["rows"].to_list()
        restored += [{**part, "rows": min([part["rows"], *most])} for part in parts]
    known = [TimeRange(row["timestamp"], row["end"]) for row in restored]
    for row in own.iter_rows(named=True):
        added = subtract([TimeRange(row["timestamp"], row["end"])], [span, *known])
        restored += [_cut(row, part, count) for part in added]
    return _join(pl.DataFrame(restored, schema=own.schema))


def _cut(
    row: Mapping[str, Any], part: TimeRange, count: Callable[[TimeRange], int]
) -> dict[str, Any]:
    """Return the part of an interval; with its rows counted, unless it is the whole."""
    if part == TimeRange(row["timestamp"], row["end"]):
        return dict(row)
    return {**row, "timestamp": part.start, "end": part.end, "rows": count(part)}


def _join(rows: pl.DataFrame) -> pl.DataFrame:
    """Join neighbouring intervals of one status; each is of the later job."""
    joined: list[dict[str, Any]] = []
    for row in rows.sort("timestamp").iter_rows(named=True):
        last = joined[-1] if joined else None
        if last and (last["end"], last["status"]) == (row["timestamp"], row["status"]):
            newer = max(last, row, key=itemgetter("recorded_at"))
            total = last["rows"] + row["rows"]
            joined[-1] = {**newer, "timestamp": last["timestamp"], "end": row["end"], "rows": total}
        else:
            joined.append(row)
    return pl.DataFrame(joined, schema=rows.schema)


def _is_of(repair: Mapping[str, Any]) -> pl.Expr:
    """Whether a row of `coverage` is of the table and source of a repair."""
    return pl.all_horizontal(pl.col(name) == repair[name] for name in ("dataset", "source"))


def _find_first_commit(store: Store, coverage: Dataset, job_id: str) -> int | None:
    """Find the version of the first commit of a repair's job to `coverage`; None: there is none.

    Undoings commit under jobs of their own.
    """
    ledger = Ledger(store)
    started = ledger.read_jobs().filter(pl.col("job_id") == job_id)["timestamp"].min()
    since = started if isinstance(started, datetime) else None
    commits = ledger.iterate_commits(coverage.name, since)
    return min((c["version"] for c in commits if c["job"] == job_id), default=None)


def _read_before(
    store: Store, coverage: Dataset, market: Market, repair: Mapping[str, Any], first: int
) -> pl.DataFrame:
    """Read the coverage of a repair's source before a commit; empty if it is gone."""
    if first == 0:
        return coverage.empty()
    try:
        rows = store.snapshot(coverage, version=first - 1).collect(_select(market))
    except (DamagedError, UnknownNameError) as error:
        _log.warning("coverage_before_repair_gone", repair=repair["repair_id"], reason=str(error))
        return coverage.empty()
    return rows.filter(_is_of(repair))


def _count_rows(store: Store, dataset: Dataset, market: Market, part: TimeRange) -> int:
    """Count the rows that a source gave, as coverage does."""
    filled = ["fill"] if "fill" in dataset.polars_schema else []
    selection = Selection((market.exchange,), (market.symbol,), part.start, part.end)
    rows = store.snapshot(dataset).collect(selection, columns=[dataset.time_column, *filled])
    return (rows.filter(pl.col("fill").is_null()) if filled else rows).height


def _select(market: Market) -> Selection:
    return Selection((market.exchange,), (market.symbol,))
