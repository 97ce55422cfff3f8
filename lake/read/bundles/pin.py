"""Pinning: capture table versions, measure the selection, write the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from lake.errors import UnknownNameError, UsageError
from lake.model.dataset import Dataset
from lake.model.digest import combined, market_day_lines
from lake.model.selection import Selection
from lake.model.time import iso
from lake.read.bundles.manifest import (
    ColumnPart,
    DateRange,
    Manifest,
    Metadata,
    Ref,
    SelectionPart,
)
from lake.store.snapshot import TIME_STEP, Snapshot
from lake.store.store import Store
from lake.version import VERSION

_SECTIONS = ("trades", "orderbooks", "funding")


def pin(store: Store, tables: Sequence[str], selection: Selection, note: str) -> Manifest:
    """The manifest of a selection of tables as they are now.

    Raises
    ------
    UnknownNameError
        A table does not exist, or holds no row of one of the markets in the range.
    """
    if not tables:
        raise UsageError("a bundle needs a dataset", "Name at least one: --dataset bars_1m.")
    datasets = [store.catalog.dataset(name) for name in dict.fromkeys(tables)]
    snapshots = [store.snapshot(dataset) for dataset in datasets]
    refs = [measured(snapshot, _closed(snapshot, selection)) for snapshot in snapshots]
    markets = _markets(zip(snapshots, refs, strict=True))
    manifest = Manifest(
        id="",
        version=store.now(),
        metadata=Metadata(
            symbols=tuple(markets["symbol"].unique().sort()),
            exchanges=tuple(markets["exchange"].unique().sort()),
            datasets=tuple(dataset.name for dataset in datasets),
            date_range=DateRange(
                start=min(ref.first for ref in refs), end=max(ref.last for ref in refs)
            ),
            note=note,
            lake_id=store.root.id,
            created_by=f"lake {VERSION}",
        ),
        data_dictionary={dataset.name: _dictionary(dataset) for dataset in datasets},
        instruments=_instruments(store, markets, store.now()),
        **_placed(datasets, refs),
    )
    sealed = manifest.sealed()
    return sealed.model_copy(update={"access": access(sealed)}).sealed()


def measured(snapshot: Snapshot, selection: Selection) -> Ref:
    """The ref of a selection of a table: counted and digested."""
    dataset = snapshot.dataset
    files = snapshot.files(selection)
    lines: list[str] = []
    rows = 0
    times: list[datetime] = []
    seen: set[tuple[str, str]] = set()
    for part in _parts(_spans(snapshot, files, selection), selection):
        frame = snapshot.collect(part)
        if frame.is_empty():
            continue
        rows += frame.height
        times += frame.select(
            first=pl.col(dataset.time_column).min(), last=pl.col(dataset.time_column).max()
        ).row(0)
        seen.add((part.exchanges[0], part.symbols[0]))
        lines.extend(market_day_lines(dataset, frame))
    _require_markets(dataset, selection, seen)
    return Ref(
        table=dataset.name,
        table_id=snapshot.table_id,
        uri=f"tables/{dataset.name}",
        version=snapshot.version,
        selection=SelectionPart(
            exchanges=selection.exchanges,
            symbols=selection.symbols,
            start=selection.start,
            end=selection.end,
        ),
        rows=rows,
        bytes=int(files["bytes"].sum()),
        first=min(times),
        last=max(times),
        schema_fingerprint=dataset.fingerprint,
        digest=combined(lines),
    )


def access(manifest: Manifest) -> dict[str, str]:
    """Ready-to-paste examples of reading the bundle."""
    short = manifest.id[:12]
    table = next(ref.table for _, ref in manifest.refs())
    return {
        "python": f'import lake\n\nbundle = lake.open_bundle("{short}")\n'
        f'frame = bundle.scan("{table}").collect()',
        "sql": f'lake sql --bundle {short} "SELECT count(*) FROM {table}"',  # noqa: S608 - shown, not run
    }


def _markets(pinned: Iterable[tuple[Snapshot, Ref]]) -> pl.DataFrame:
    """Exchange and symbol of all rows."""
    columns = ("exchange", "symbol")
    found = [
        snapshot.scan(ref.selection.selection, columns=columns, ordered=False).unique().collect()
        for snapshot, ref in pinned
    ]
    return pl.concat(found).unique().sort(columns)


def _closed(snapshot: Snapshot, selection: Selection) -> Selection:
    """The selection, cut before the first bar that was still open: it is not final yet."""
    if "closed" not in snapshot.dataset.polars_schema:
        return selection
    time = snapshot.dataset.time_column
    is_open = snapshot.scan(selection, ordered=False).filter(~pl.col("closed"))
    first_open: datetime | None = is_open.select(pl.col(time).min()).collect().item()
    if first_open is None:
        return selection
    if selection.start is not None and first_open <= selection.start:
        raise UnknownNameError(
            f"{snapshot.dataset.name} has no closed bar in the selection, so there is nothing to "
            "pin",
            "Bars that are still open are not final; ingest again after they have closed.",
        )
    return Selection(selection.exchanges, selection.symbols, selection.start, first_open)


def _spans(snapshot: Snapshot, files: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """By market, the first and the last time: from the log, or else from the rows themselves."""
    first, last = pl.col("first").min(), pl.col("last").max()
    if files["first"].null_count() or files["last"].null_count():
        time = pl.col(snapshot.dataset.time_column)
        rows = snapshot.scan(selection, ordered=False)
        found = rows.group_by("exchange", "symbol").agg(first=time.min(), last=time.max())
        return found.sort("exchange", "symbol").collect()
    return files.group_by("exchange", "symbol", maintain_order=True).agg(first, last)


def _parts(spans: pl.DataFrame, selection: Selection) -> Iterable[Selection]:
    """The selection in pieces of one market and month: whole days, bounded memory."""
    for exchange, symbol, first, last in spans.iter_rows():
        start = max(filter(None, (selection.start, first)))
        stop = min(filter(None, (selection.end, last + TIME_STEP)))
        while start < stop:
            end = min(_next_month(start), stop)
            yield Selection((exchange,), (symbol,), start, end)
            start = end


def _require_markets(dataset: Dataset, selection: Selection, seen: set[tuple[str, str]]) -> None:
    there = {name for market in seen for name in market}
    missing = [name for name in (*selection.exchanges, *selection.symbols) if name not in there]
    if missing or not seen:
        what = " of " + ", ".join(missing) if missing else ""
        raise UnknownNameError(
            f"{dataset.name} has no rows{what} in the selection, so there is nothing to pin",
            "`lake status` shows what is there; ingest it first, or leave it out.",
        )


def _placed(datasets: Sequence[Dataset], refs: Sequence[Ref]) -> dict[str, Any]:
    """Refs at the keys of the manifest that users look for."""
    placed: dict[str, Any] = {"bars": {}, "other": {}}
    for dataset, ref in zip(datasets, refs, strict=True):
        if dataset.family == "bars":
            placed["bars"][str(dataset.timeframe)] = ref
        elif dataset.family in _SECTIONS:
            placed[dataset.family] = ref
        else:
            placed["other"][dataset.name] = ref
    return placed


def _dictionary(dataset: Dataset) -> dict[str, ColumnPart]:
    return {
        column.name: ColumnPart(
            type=column.type, unit=column.unit, nullable=column.nullable, meaning=column.meaning
        )
        for column in dataset.columns
    }


def _instruments(store: Store, markets: pl.DataFrame, now: datetime) -> tuple[dict[str, Any], ...]:
    """The specification of each market that holds now, where one is known."""
    if not store.exists("instruments"):
        return ()
    rows = store.snapshot(store.catalog.dataset("instruments")).collect()
    current = (
        rows.filter(pl.col("valid_from") <= now)
        .join(markets, on=["exchange", "symbol"])
        .sort("valid_from")
        .group_by("exchange", "symbol", maintain_order=True)
        .last()
        .sort("exchange", "symbol")
        .drop("date")
    )
    return tuple(
        {name: iso(value) if isinstance(value, datetime) else value for name, value in row.items()}
        for row in current.iter_rows(named=True)
    )


def _next_month(time: datetime) -> datetime:
    year, month = divmod(time.year * 12 + time.month, 12)
    return datetime(year, month + 1, 1, tzinfo=time.tzinfo)
