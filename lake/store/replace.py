"""The second write path: replace the rows of one market in a range, in one commit.

A merge never deletes. Undoing a repair deletes the rows that it inserted, and restores the rows
that it replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import polars as pl
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError

from lake.errors import CommitConflictError, SchemaError
from lake.model.dataset import Dataset
from lake.model.digest import compute_digest
from lake.model.frames import sort_by
from lake.model.market import Market
from lake.model.partitions import MARKET_DAY
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, TimeRange
from lake.retries import retry
from lake.store import delta
from lake.store.columns import keep_stored
from lake.store.conform import REASON, conform
from lake.store.faults import translate_errors
from lake.store.local_table import LocalTable
from lake.store.snapshot import Snapshot

Change = Callable[[pl.DataFrame], pl.DataFrame]
"""Takes the present rows of a market in a range, and returns the rows to store instead."""

_ATTEMPTS = 100


@dataclass(frozen=True)
class ReplaceResult:
    """Result of a replacement.

    Attributes
    ----------
    version
        The version of the table afterwards.
    before, after
        The rows in the range; equal where nothing was committed.
    """

    version: int
    before: pl.DataFrame
    after: pl.DataFrame

    @property
    def changed(self) -> bool:
        """Whether there was a commit."""
        return not self.before.equals(self.after)


def replace_rows(
    table: LocalTable,
    dataset: Dataset,
    market: Market,
    window: TimeRange,
    change: Change,
    metadata: Mapping[str, Any],
) -> ReplaceResult:
    """Replace the rows of a market in a range by those that `change` returns; one commit, or none.

    If another writer commits to a rewritten partition between the read and the commit, both are
    repeated: no row of another writer is lost, and `change` sees exactly the rows that it replaces.

    Parameters
    ----------
    table
        A handle that nobody else uses meanwhile; afterwards at the latest version.
    change
        Called with the sorted rows, possibly several times; returns rows with the columns of the
        dataset. They are stored even if they break a rule of the dataset: a restored row is not
        checked again.
    metadata
        `userMetadata` of the commit, beside the number of rows and their digest.

    Raises
    ------
    SchemaError
        The new rows do not fit the dataset, are of another market or outside the range, or two
        have one key.
    CommitConflictError
        Other writers kept committing first: nothing was changed.
    DamagedError
        A file of these partitions is not as it was committed: nothing was changed.
    """
    where = f"table {dataset.name}"
    try:
        for attempt in retry(
            CommitFailedError, attempts=_ATTEMPTS, wait_initial=0.02, wait_max=1.0
        ):
            with attempt, translate_errors(where), table.committing():
                return _replace_once(table, dataset, market, window, change, metadata)
    except CommitFailedError as error:
        raise CommitConflictError(
            f"{where}: other writers kept committing first ({_ATTEMPTS} attempts)",
            "Run the same command again: the rows are as they were.",
        ) from error
    raise AssertionError("unreachable: the last attempt returns or raises")


def _replace_once(
    table: LocalTable,
    dataset: Dataset,
    market: Market,
    window: TimeRange,
    change: Change,
    metadata: Mapping[str, Any],
) -> ReplaceResult:
    wide = keep_stored(dataset, table)
    snapshot = Snapshot(wide, table)
    dataset = replace(dataset, granularity=wide.granularity)
    touched = snapshot.files(_select(market, _widen_to_partitions(dataset, window)))
    table.checksums.require_unchanged(touched["path"], "nothing was replaced")
    stored = snapshot.collect(_select(market, window))
    before = stored.select(list(dataset.polars_schema))
    after = _conform_rows(dataset, market, window, change(before))
    starts = _find_differing_partitions(dataset, before, after)
    if not starts:
        return ReplaceResult(table.version(), before, before)
    partitioning = dataset.partitioning
    ranges = map(partitioning.range_of, starts)
    around = [snapshot.collect(_select(market, whole)) for whole in ranges]
    outside = pl.concat(around).filter(~_is_within(dataset, window))
    inside = after.filter(partitioning.start(pl.col(dataset.time_column)).is_in(starts))
    # Whole partitions are written, so that the rows of a file stay sorted; delta-rs would put new
    # rows before those that it keeps.
    kept = pl.concat([outside, _keep_unknown(wide, inside, stored)])
    rows = sort_by(kept, (dataset.time_column, *dataset.sort))
    facts = {"rows": inside.height, "digest": compute_digest(dataset, inside)}
    own_metadata = table.stamp({**metadata, **facts})
    write_deltalake(
        table,
        rows.with_columns(partitioning.value(pl.col("date"))),
        mode="overwrite",
        predicate=_build_predicate(dataset, market, starts),
        writer_properties=delta.WRITER,
        commit_properties=delta.build_commit_properties(own_metadata),
        post_commithook_properties=delta.AFTER_COMMIT,
    )
    table.seal(own_metadata)
    return ReplaceResult(table.version(), before, after)


def _keep_unknown(wide: Dataset, rows: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Add the stored columns that the dataset file lacks: rows keep theirs, new ones have none."""
    if len(wide.columns) == rows.width:
        return rows
    places = stored.unique(wide.identity, keep="first", maintain_order=True)
    unknown = [name for name in wide.polars_schema if name not in rows.columns]
    values = places.select(*wide.identity, *unknown)
    joined = rows.join(values, on=wide.identity, how="left", maintain_order="left")
    return joined.select(list(wide.polars_schema))


def _conform_rows(
    dataset: Dataset, market: Market, window: TimeRange, rows: pl.DataFrame
) -> pl.DataFrame:
    where = f"rows of {market} to be put into {dataset.name}"
    # Stored rows of one key may be closer than the tolerance: they are from before the rule.
    structure = replace(dataset, rules=(), time_tolerance=timedelta(0), schedule=None)
    conformed = conform(structure, rows)
    if conformed.rejected.height:
        raise SchemaError(f"{where}: {conformed.rejected[REASON][0]}")
    if conformed.rows.height != rows.height:
        raise SchemaError(f"{where}: two rows have the same key")
    ours = (pl.col("exchange") == market.exchange) & (pl.col("symbol") == market.symbol)
    if not conformed.rows.select((ours & _is_within(dataset, window)).all()).item():
        raise SchemaError(f"{where}: a row is of another market, or outside {window}")
    return conformed.rows.sort(*dataset.sort)


def _find_differing_partitions(
    dataset: Dataset, before: pl.DataFrame, after: pl.DataFrame
) -> list[date]:
    """Find the partitions in which the rows differ: the first day of each."""
    if before.equals(after):
        return []
    content = [name for name in before.columns if name not in MARKET_DAY]
    # Rows are counted, because another engine may have stored a row twice.
    signed = [rows.with_columns(_sign=sign) for rows, sign in ((before, 1), (after, -1))]
    counted = pl.concat(signed).group_by(content).agg(pl.col("_sign").sum())
    differing = counted.filter(pl.col("_sign") != 0)
    start = dataset.partitioning.start(pl.col(dataset.time_column))
    return differing.select(start.unique().sort())["date"].to_list()


def _widen_to_partitions(dataset: Dataset, window: TimeRange) -> TimeRange:
    """Return the range of all partitions that a range touches."""
    partitioning = dataset.partitioning
    first, last = (
        partitioning.range_of(partitioning.start_of(moment))
        for moment in (window.start, window.end - MICROSECOND)
    )
    return TimeRange(first.start, last.end)


def _select(market: Market, window: TimeRange) -> Selection:
    return Selection((market.exchange,), (market.symbol,), window.start, window.end)


def _is_within(dataset: Dataset, window: TimeRange) -> pl.Expr:
    return pl.col(dataset.time_column).is_between(window.start, window.end, closed="left")


def _build_predicate(dataset: Dataset, market: Market, starts: Sequence[date]) -> str:
    partitioning = dataset.partitioning
    exchange, symbol = map(delta.format_literal, (market.exchange, market.symbol))
    listed = ", ".join(map(delta.format_literal, map(partitioning.value_of, starts)))
    return f"exchange = {exchange} AND symbol = {symbol} AND {partitioning.column} IN ({listed})"
