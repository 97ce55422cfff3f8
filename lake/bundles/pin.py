"""Pinning: capture table versions, measure the selection and draft the bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from lake.bundles.draft import Assessment, Draft
from lake.bundles.gates import require_complete, require_rows
from lake.bundles.hashes import hash_committed_files, require_equal_hashes
from lake.bundles.known import KnownIndex
from lake.bundles.left_out import (
    find_open_bars,
    find_open_ranges,
    summarize_open_bars,
)
from lake.bundles.manifest import (
    QUALITY_FILE,
    CoveragePart,
    DatasetPart,
    DateRange,
    Metadata,
    Ref,
    SelectionPart,
    place_refs,
)
from lake.bundles.measure import measure_parts
from lake.bundles.reuse import find_measured
from lake.errors import CommitConflictError, UnknownNameError, UsageError
from lake.model.dataset import Dataset
from lake.model.digest import combine_digests
from lake.model.grid import Grid
from lake.model.intervals import subtract
from lake.model.market import MARKET_COLUMNS, Market
from lake.model.progress import Progress
from lake.model.selection import Selection
from lake.model.time import TimeRange, iso, require_passed
from lake.query.grids import read_grid
from lake.query.overview import join_answers
from lake.query.shortage import Shortage, find_shortages
from lake.store.index import FileIndex
from lake.store.ledger import Ledger
from lake.store.snapshot import Snapshot
from lake.store.store import Store
from lake.version import VERSION

_CAPTURE_ATTEMPTS = 100


@dataclass(frozen=True)
class PinRequest:
    """What to pin.

    Attributes
    ----------
    name
        The name of the bundle.
    tables, selection
        The tables, and the rows of each.
    as_of
        The time in the past to pin; None for the present.
    require_complete
        Refuse a selection that is not covered completely.
    min_quality
        Refuse a lower quality score, and a selection without a score.
    check
        Run the checks over the pinned rows, and store score and report.
    note
        A text for the manifest.
    move
        Move the name to the new bundle if it exists already.
    """

    name: str
    tables: Sequence[str]
    selection: Selection
    as_of: datetime | None = None
    require_complete: bool = False
    min_quality: float | None = None
    check: bool = True
    note: str = ""
    move: bool = False


@dataclass(frozen=True)
class MeasuredTable:
    """The selection of a table at a version.

    Its ref, its days (`DAYS`), its files and `sha256`, and the open bars that are left out.
    """

    snapshot: Snapshot
    ref: Ref
    days: pl.DataFrame
    files: pl.DataFrame
    open_bars: pl.DataFrame


@dataclass(frozen=True)
class Measurement:
    """The measured tables of a pin request.

    Attributes
    ----------
    now
        The time of the capture.
    tables
        The tables, at versions that were current at one moment.
    coverage
        The covered intervals of the pinned tables and ranges.
    """

    request: PinRequest
    now: datetime
    tables: tuple[MeasuredTable, ...]
    coverage: tuple[CoveragePart, ...]


def measure(
    store: Store, known: KnownIndex, request: PinRequest, progress: Progress
) -> Measurement:
    """Capture the tables at versions that were current at one moment, and measure the selection.

    Market-days whose files have the hashes that an earlier bundle lists are not read again.

    Raises
    ------
    UnknownNameError
        A table does not exist, or has no row of a named market in the range.
    QualityError
        An interval is not covered, and the request requires complete coverage.
    CommitConflictError
        Writers committed too often to capture versions of one moment.
    DamagedError
        A data file is not as it was committed, or as an earlier bundle lists it.
    """
    now = store.now()
    datasets = _require_valid(store, request, now)
    # Read before the versions: coverage is written after its rows, so it never claims too much.
    markets = Selection(request.selection.exchanges, request.selection.symbols)
    answers = Ledger(store).read_coverage(markets, request.as_of)
    covered, not_given = join_answers(answers)
    tables = tuple(
        _measure_table(snapshot, known, request.selection, progress)
        for snapshot in capture_versions(store, datasets, request.as_of)
    )
    parts = _list_coverage_parts(covered, tables)
    if request.require_complete:
        days, lost = [table.days for table in tables], _list_coverage_parts(not_given, tables)
        snapshots = {table.ref.table: table.snapshot for table in tables}

        def find(table: str, market: Market) -> Grid | None:
            return read_grid(snapshots[table], market)

        still_open = _list_open_parts(tables)
        require_complete(days, request.selection, parts, lost, find, still_open)
        require_rows(list(_find_shortages(tables, answers)))
    return Measurement(request, now, tables, parts)


def build_draft(
    store: Store,
    measurement: Measurement,
    assessment: Assessment | None,
) -> Draft:
    """Build the draft of a bundle from a measurement.

    Parameters
    ----------
    assessment
        The quality of the pinned rows; None if no check was run.
    """
    tables, request = measurement.tables, measurement.request
    listed = [table.files.with_columns(table=pl.lit(table.ref.table)) for table in tables]
    return Draft(
        fields={
            "version": measurement.now,
            "metadata": _build_metadata(store, request, tables, assessment),
            "quality_report": QUALITY_FILE if assessment else None,
            "data_dictionary": {
                table.ref.table: DatasetPart.from_dataset(
                    table.snapshot.dataset, table.snapshot.list_lacking()
                )
                for table in tables
            },
            "instruments": _read_instruments(store, tables, request.as_of, measurement.now),
            "coverage": measurement.coverage,
            **place_refs((table.snapshot.dataset, table.ref) for table in tables),
        },
        files=FileIndex.sort_rows(pl.concat(listed)),
        days=pl.concat([table.days for table in tables]).sort("table", *MARKET_COLUMNS, "date"),
        quality=assessment.report if assessment else None,
    )


def _require_valid(store: Store, request: PinRequest, now: datetime) -> list[Dataset]:
    """Return the datasets of a request, after checking that the request is valid."""
    if not request.tables:
        raise UsageError("a bundle needs a dataset", "Name at least one, such as bars_1m.")
    if request.as_of is not None:
        require_passed(request.as_of, now)
    return [store.catalog.dataset(name) for name in dict.fromkeys(request.tables)]


def capture_versions(
    store: Store, datasets: Sequence[Dataset], as_of: datetime | None
) -> list[Snapshot]:
    """Return tables at versions that were current at one moment: now, or a time in the past.

    Tables have no common transaction, so the versions are read until two readings agree.
    """
    if as_of is not None:
        return [store.snapshot(dataset, as_of=as_of) for dataset in datasets]
    for _ in range(_CAPTURE_ATTEMPTS):
        versions = [store.version(dataset) for dataset in datasets]
        if versions == [store.version(dataset) for dataset in datasets]:
            pairs = zip(datasets, versions, strict=True)
            return [store.snapshot(dataset, version=version) for dataset, version in pairs]
    raise CommitConflictError(
        f"writers kept committing while the versions of {len(datasets)} tables were read",
        "Run the same command again, or pin a time in the past with --as-of.",
    )


def _measure_table(
    snapshot: Snapshot, known: KnownIndex, selection: Selection, progress: Progress
) -> MeasuredTable:
    dataset = snapshot.dataset
    files = hash_committed_files(snapshot, snapshot.files(selection), progress)
    listed = known.read(dataset.name)
    require_equal_hashes(Path(snapshot.uri), files, listed.find_hashes(snapshot.table_id, files))
    measured = find_measured(dataset, files, selection, listed.days)
    open_bars = find_open_bars(snapshot, selection, measured.unsure)
    pinned = replace(snapshot, closed_only=not open_bars.is_empty())
    read_days = measure_parts(pinned, files, measured.parts, progress)
    days = pl.concat([measured.days, read_days]).sort(*MARKET_COLUMNS, "date")
    _require_markets(dataset, selection, days, open_bars)
    rows, first, last = days.select(
        pl.col("rows").sum(), pl.col("first").min(), pl.col("last").max()
    ).row(0)
    ref = Ref(
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
        files=files.height,
        bytes=int(files["bytes"].sum()),
        first=first,
        last=last,
        schema_fingerprint=dataset.fingerprint,
        digest=combine_digests(days),
        left_out=summarize_open_bars(open_bars),
    )
    return MeasuredTable(snapshot, ref, days, files, open_bars)


def _find_shortages(tables: Sequence[MeasuredTable], answers: pl.DataFrame) -> Iterator[Shortage]:
    """Find rows of the pinned ranges that coverage counts and that the tables do not hold."""
    for table in tables:
        pinned = table.ref.selection
        overlaps = [pl.lit(value=True)]
        if pinned.start is not None:
            overlaps.append(pl.col("end") > pinned.start)
        if pinned.end is not None:
            overlaps.append(pl.col("timestamp") < pinned.end)
        yield from find_shortages(table.snapshot, answers.filter(overlaps))


def _build_metadata(
    store: Store,
    request: PinRequest,
    measured: Sequence[MeasuredTable],
    assessment: Assessment | None,
) -> Metadata:
    markets = pl.concat([table.days.select(MARKET_COLUMNS) for table in measured])
    return Metadata(
        symbols=tuple(markets["symbol"].unique().sort()),
        exchanges=tuple(markets["exchange"].unique().sort()),
        datasets=tuple(table.ref.table for table in measured),
        date_range=DateRange(
            start=min(table.ref.first for table in measured),
            end=max(table.ref.last for table in measured),
        ),
        data_quality_score=assessment.score if assessment else None,
        note=request.note,
        as_of=request.as_of,
        lake_id=store.root.id,
        created_by=f"lake {VERSION}",
    )


def _require_markets(
    dataset: Dataset, selection: Selection, days: pl.DataFrame, open_bars: pl.DataFrame
) -> None:
    pinned_names = {*days["exchange"].unique(), *days["symbol"].unique()}
    missing = [
        name for name in (*selection.exchanges, *selection.symbols) if name not in pinned_names
    ]
    if not missing and not days.is_empty():
        return
    markets = " of " + ", ".join(missing) if missing else ""
    open_names = {*open_bars["exchange"].unique(), *open_bars["symbol"].unique()}
    if open_names.issuperset(missing) and open_bars.height:
        raise UnknownNameError(
            f"{dataset.name} has no closed bar{markets} in the selection, so there is nothing to "
            "pin",
            "Open bars are not final; ingest again after they have closed, then pin.",
        )
    raise UnknownNameError(
        f"{dataset.name} has no rows{markets} in the selection, so there is nothing to pin",
        "`lake status` lists the stored markets; ingest the rows first, or select other ones.",
    )


def _list_coverage_parts(
    covered: pl.DataFrame, measured: Sequence[MeasuredTable]
) -> tuple[CoveragePart, ...]:
    """List the covered intervals of the pinned tables and ranges, without those of open bars."""
    open_ranges = {table.ref.table: find_open_ranges(table.open_bars) for table in measured}
    parts = []
    for table, exchange, symbol, start, end in covered.iter_rows():
        for ref in (item.ref for item in measured if item.ref.table == table):
            pinned = ref.selection
            low = max(filter(None, (start, pinned.start)))
            high = min(filter(None, (end, pinned.end)))
            kept = [TimeRange(low, high)] if low < high else []
            for item in subtract(kept, open_ranges[table].get((exchange, symbol), ())):
                part = CoveragePart(
                    table=table,
                    exchange=exchange,
                    symbol=symbol,
                    start=item.start,
                    end=item.end,
                )
                parts.append(part)
    return tuple(parts)


def _list_open_parts(measured: Sequence[MeasuredTable]) -> list[CoveragePart]:
    """List the intervals of open bars, which are not pinned."""
    return [
        CoveragePart(
            table=table.ref.table,
            exchange=exchange,
            symbol=symbol,
            start=item.start,
            end=item.end,
        )
        for table in measured
        for (exchange, symbol), ranges in find_open_ranges(table.open_bars).items()
        for item in ranges
    ]


def _read_instruments(
    store: Store, measured: Sequence[MeasuredTable], as_of: datetime | None, now: datetime
) -> tuple[dict[str, Any], ...]:
    """Read the specification of each market that was valid then, if it has one."""
    dataset = store.catalog.dataset("instruments")
    rows = store.read(dataset, as_of=as_of)
    markets = pl.concat([table.days.select(MARKET_COLUMNS) for table in measured]).unique()
    current = (
        rows.filter(pl.col("valid_from") <= (as_of or now))
        .join(markets, on=MARKET_COLUMNS)
        .sort("valid_from")
        .group_by(MARKET_COLUMNS, maintain_order=True)
        .last()
        .sort(MARKET_COLUMNS)
        .drop("date")
    )
    return tuple(
        {name: iso(value) if isinstance(value, datetime) else value for name, value in row.items()}
        for row in current.iter_rows(named=True)
    )
