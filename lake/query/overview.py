"""Overviews of a lake as frames: tables, markets, coverage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import polars as pl

from lake.model.dataset import END, RECEIVED_AT, TIMESTAMP, Dataset
from lake.model.intervals import RangeSet
from lake.model.market import MARKET_COLUMNS
from lake.model.selection import Selection
from lake.query.open_ranges import describe_open
from lake.query.shortage import find_evident_shortages, sum_missing
from lake.query.unchecked import MarketPair, Place, find_unchecked_since
from lake.store.coverage import Coverage, Part
from lake.store.damages import Damages
from lake.store.ledger import Ledger
from lake.store.reader import FILES
from lake.store.snapshot import Snapshot
from lake.store.store import Store

_NO_ROWS: tuple[int | None, datetime | None, datetime | None] = (0, None, None)
_TABLES = pl.Schema(
    {
        "table": pl.String(),
        **dict.fromkeys(("version", "markets", "rows"), pl.Int64()),
        **dict.fromkeys(("first", "last"), TIMESTAMP),
        **dict.fromkeys(("files", "bytes"), pl.Int64()),
        "title": pl.String(),
    }
)
_STATUS = pl.Schema(
    {
        **dict.fromkeys(("table", *MARKET_COLUMNS), pl.String()),
        "rows": pl.Int64(),
        **dict.fromkeys(("first", "last", "covered_since", "covered_until"), TIMESTAMP),
        **dict.fromkeys(("holes", "rows_missing"), pl.Int64()),
        "open": pl.String(),
        "unchecked_since": TIMESTAMP,
    }
)


def describe_columns(dataset: Dataset, units: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Return the data dictionary: column, type, unit, nullable, key, digest, meaning.

    Parameters
    ----------
    units
        Units of columns that are not those of the dataset.
    """
    units = units or {}
    return pl.DataFrame(
        [
            {
                "column": column.name,
                "type": column.type,
                "unit": units.get(column.name, column.unit),
                "nullable": column.nullable,
                "key": column.name in dataset.full_key,
                "digest": column.digest,
                "meaning": column.meaning,
            }
            for column in dataset.columns
        ]
    )


def describe_availability(dataset: Dataset) -> str:
    """Describe in a sentence from when on a row is available."""
    if dataset.announcement_column is not None:
        when = f"at {dataset.announcement_column}"
    elif dataset.available_at == END:
        when = "at its end"
    else:
        when = f"at {dataset.time_column}"
    late = f", or at {RECEIVED_AT} if that is later" if dataset.records_receipt else ""
    return f"A row is available {when}{late}: column available_at of SQL views. Join on it."


def describe_partitions(dataset: Dataset) -> str:
    """Describe in a sentence how the files of a table are kept."""
    exchange, symbol, period = dataset.partitions
    shown = f" Other programs also show the column {period}." if period != "date" else ""
    return f"Its files are kept by {exchange}, {symbol} and {period}.{shown}"


def list_tables(store: Store) -> pl.DataFrame:
    """Return one row per table: table, version, markets, rows, first, last, files, bytes, title.

    Of a table that cannot be read only name and title are known; the reason is logged.
    """
    records, damages = [], Damages()
    for name in store.tables():
        dataset = store.catalog.dataset(name)
        measured: dict[str, Any] = {}
        with damages.collect(name):
            measured = _measure_table(store.snapshot(dataset))
        records.append({"table": name, **measured, "title": dataset.title})
    return pl.DataFrame(records, schema=_TABLES)


def _measure_table(snapshot: Snapshot) -> dict[str, Any]:
    files = snapshot.files()
    return {
        "version": snapshot.version,
        "markets": files.select(MARKET_COLUMNS).n_unique() if files.height else 0,
        "rows": int(files["rows"].sum()),
        "first": files["first"].min(),
        "last": files["last"].max(),
        "files": files.height,
        "bytes": int(files["bytes"].sum()),
    }


def read_status(store: Store) -> pl.DataFrame:
    """Return one row per table and market, by the log; `lake verify table` looks at the files.

    Returns
    -------
    DataFrame
        table, exchange, symbol, rows, first, last (times of rows), covered_since, covered_until,
        holes (number of uncovered intervals between those two), rows_missing (rows that coverage
        counts and that are not there, as far as the table's log shows; a pin that requires complete
        coverage counts all rows), open (what sources refused or no longer serve, with the reason,
        and what an unfinished ingestion left uncovered), unchecked_since (the oldest change after
        the last check). Markets of which only an answer is
        recorded, or all rows were rejected, have no rows. What a table tells that cannot be read
        is null, and the reason is logged.
    """
    recorded = _Recorded.read(store)
    answered: dict[str, set[MarketPair]] = defaultdict(set)
    for table, market in (*recorded.covered, *recorded.open_texts, *recorded.rejected):
        answered[table].add(market)
    names = sorted({*store.data_tables(), *answered})
    measured = {name: _measure_markets(store, name, recorded) for name in names}
    markets = {n: {*(stored or ()), *answered[n]} for n, (stored, _) in measured.items()}
    unchecked = _find_unchecked(store, markets)
    records = []
    for name, (stored_markets, missing) in measured.items():
        for market in sorted(markets[name]):
            rows, first, last = _NO_ROWS
            if stored_markets is None:
                rows = None
            elif market in stored_markets:
                rows, first, last = stored_markets[market]
            records.append(
                {
                    "table": name,
                    "exchange": market[0],
                    "symbol": market[1],
                    "rows": rows,
                    "first": first,
                    "last": last,
                    **recorded.describe((name, market)),
                    "rows_missing": None if missing is None else missing.get(market, 0),
                    "unchecked_since": unchecked.get((name, market)),
                }
            )
    return pl.DataFrame(records, schema=_STATUS)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the records of a lake tell of its tables; of one that cannot be read nothing is known.

    Attributes
    ----------
    answers
        Rows of `coverage`; None if they cannot be read.
    covered, open_texts
        By table and market.
    rejected
        Tables and markets of which rows were rejected.
    """

    answers: pl.DataFrame | None
    covered: Mapping[Place, RangeSet]
    open_texts: Mapping[Place, str]
    rejected: Collection[Place]

    @classmethod
    def read(cls, store: Store) -> _Recorded:
        damages = Damages()
        answers: pl.DataFrame | None = None
        covered: dict[Place, RangeSet] = {}
        not_given: dict[Place, RangeSet] = {}
        open_texts: dict[Place, str] = {}
        rejected: set[Place] = set()
        with damages.collect("coverage"):
            answers = Ledger(store).read_coverage()
            coverage = Coverage.of(answers)
            covered = _list_places(coverage, coverage.covered)
            not_given = _list_places(coverage, coverage.not_given)
        with damages.collect("refusals"):
            open_texts = describe_open(store, covered, not_given)
        with damages.collect("quarantine"):
            rejected = _list_rejected(store)
        return cls(answers, covered, open_texts, rejected)

    def describe(self, place: Place) -> dict[str, Any]:
        """Return the columns of the status that the records tell."""
        ranges = self.covered.get(place, ())
        return {
            "covered_since": ranges[0].start if ranges else None,
            "covered_until": ranges[-1].end if ranges else None,
            "holes": None if self.answers is None else sum(1 for _ in pairwise(ranges)),
            "open": self.open_texts.get(place),
        }


def _measure_markets(
    store: Store, table: str, recorded: _Recorded
) -> tuple[dict[MarketPair, tuple[Any, ...]] | None, Mapping[MarketPair, int] | None]:
    """Return by market rows, first and last time, and how many rows are missing.

    The table need not exist. None: it, or what is recorded of it, cannot be read.
    """
    dataset, files = store.catalog.dataset(table), pl.DataFrame(schema=FILES)
    damages = Damages()
    with damages.collect(table):
        files = store.snapshot(dataset).files() if store.exists(table) else files
    if damages.errors:
        return None, None
    stored = files.group_by(MARKET_COLUMNS).agg(
        pl.col("rows").sum(), pl.col("first").min(), pl.col("last").max()
    )
    found = {row[:2]: row[2:] for row in stored.iter_rows()}
    if recorded.answers is None:
        return found, None
    return found, sum_missing(find_evident_shortages(dataset, recorded.answers, files))


def _find_unchecked(
    store: Store, markets: Mapping[str, Collection[MarketPair]]
) -> Mapping[Place, datetime]:
    found: dict[Place, datetime] = {}
    with Damages().collect("checks"):
        found.update(find_unchecked_since(store, markets))
    return found


def _list_rejected(store: Store) -> set[Place]:
    """List the tables and markets of which rows were rejected."""
    if not store.exists("quarantine"):
        return set()
    snapshot = store.snapshot(store.catalog.dataset("quarantine"))
    places = snapshot.collect(columns=["dataset", *MARKET_COLUMNS]).unique()
    return {(table, (exchange, symbol)) for table, exchange, symbol in places.iter_rows()}


def read_coverage(
    store: Store, tables: Sequence[str], selection: Selection, as_of: datetime | None = None
) -> pl.DataFrame:
    """Return covered intervals of some tables or of all, by any source, neighbours joined.

    Returns
    -------
    DataFrame
        table, exchange, symbol, start, end.
    """
    return read_answers(store, tables, selection, as_of)[0]


def read_answers(
    store: Store, tables: Sequence[str], selection: Selection, as_of: datetime | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return covered intervals, and those that no source gave and some source no longer serves.

    Both have the columns of `read_coverage`.
    """
    rows = Ledger(store).read_coverage(selection, as_of)
    return join_answers(rows.filter(pl.col("dataset").is_in(list(tables))) if tables else rows)


def join_answers(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Join rows of the table `coverage` to what `read_answers` returns."""
    coverage = Coverage.of(rows)
    covered, not_given = (
        _list_ranges({part: find(part) for part in coverage})
        for find in (coverage.covered, coverage.not_given)
    )
    return covered, not_given


def _list_places(coverage: Coverage, find: Callable[[Part], RangeSet]) -> dict[Place, RangeSet]:
    """List the tables and markets of which some range is found, with their ranges."""
    found = ((part, find(part)) for part in coverage)
    return {(table, (exchange, symbol)): r for (table, exchange, symbol), r in found if r}


def _list_ranges(ranges: Mapping[Part, RangeSet]) -> pl.DataFrame:
    columns = ("table", *MARKET_COLUMNS, "start", "end")
    records = [
        dict(zip(columns, (*key, item.start, item.end), strict=True))
        for key, listed in ranges.items()
        for item in listed
    ]
    frame = _to_frame(records, columns, {"start": TIMESTAMP, "end": TIMESTAMP})
    return frame.sort("table", *MARKET_COLUMNS, "start")


def _to_frame(
    records: list[dict[str, Any]], names: Iterable[str], types: dict[str, pl.DataType]
) -> pl.DataFrame:
    """Convert records to a frame that has all its columns even without records."""
    if not records:
        return pl.DataFrame(schema={name: types.get(name, pl.String()) for name in names})
    return pl.DataFrame(records, schema_overrides=types)
