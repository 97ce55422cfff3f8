"""Overviews of a lake as frames: tables, markets, coverage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import polars as pl

from lake.model.dataset import END, RECEIVED_AT, TIMESTAMP, Dataset
from lake.model.intervals import RangeSet, subtract, union
from lake.model.market import MARKET_COLUMNS
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.query.open_ranges import describe_open, find_unchecked_since
from lake.query.shortage import find_evident_shortages, sum_missing
from lake.store.ledger import Ledger, is_covered
from lake.store.reader import EVERYTHING, FILES
from lake.store.store import Store


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


def list_tables(store: Store) -> pl.DataFrame:
    """Return one row per table: table, version, markets, rows, first, last, files, bytes, title."""
    records = []
    for name in store.tables():
        dataset = store.catalog.dataset(name)
        snapshot = store.snapshot(dataset)
        files = snapshot.files()
        records.append(
            {
                "table": name,
                "version": snapshot.version,
                "markets": files.select(MARKET_COLUMNS).n_unique() if files.height else 0,
                "rows": int(files["rows"].sum()),
                "first": files["first"].min(),
                "last": files["last"].max(),
                "files": files.height,
                "bytes": int(files["bytes"].sum()),
                "title": dataset.title,
            }
        )
    schema = ("table", "version", "markets", "rows", "first", "last", "files", "bytes", "title")
    return _to_frame(records, schema, {"first": TIMESTAMP, "last": TIMESTAMP})


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
        recorded, or all rows were rejected, have no rows.
    """
    answers = Ledger(store).read_coverage(EVERYTHING)
    covered, not_given = (_group_coverage(frame) for frame in join_answers(answers))
    open_texts = describe_open(store, covered, not_given)
    unchecked = find_unchecked_since(store)
    answered: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for table, market in (*covered, *open_texts, *_list_rejected(store)):
        answered[table].add(market)
    records = []
    for name in sorted({*store.data_tables(), *answered}):
        stored_markets, missing = _measure_markets(store, name, answers)
        for market in sorted({*stored_markets, *answered[name]}):
            rows, first, last = stored_markets.get(market, (0, None, None))
            ranges = covered.get((name, market), ())
            records.append(
                {
                    "table": name,
                    "exchange": market[0],
                    "symbol": market[1],
                    "rows": rows,
                    "first": first,
                    "last": last,
                    "covered_since": ranges[0].start if ranges else None,
                    "covered_until": ranges[-1].end if ranges else None,
                    "holes": sum(1 for _ in pairwise(ranges)),
                    "rows_missing": missing.get(market, 0),
                    "open": open_texts.get((name, market)),
                    "unchecked_since": unchecked.get((name, market)),
                }
            )
    times = ("first", "last", "covered_since", "covered_until")
    counts, states = ("holes", "rows_missing"), ("open", "unchecked_since")
    schema = ("table", *MARKET_COLUMNS, "rows", *times, *counts, *states)
    types = dict.fromkeys((*times, "unchecked_since"), TIMESTAMP)
    return _to_frame(records, schema, {**types, "open": pl.String()})


def _measure_markets(
    store: Store, table: str, answers: pl.DataFrame
) -> tuple[dict[tuple[str, str], tuple[Any, ...]], Mapping[tuple[str, str], int]]:
    """Return by market rows, first and last time, and how many rows are missing.

    The table need not exist.
    """
    dataset, exists = store.catalog.dataset(table), store.exists(table)
    files = store.snapshot(dataset).files() if exists else pl.DataFrame(schema=FILES)
    stored = files.group_by(MARKET_COLUMNS).agg(
        pl.col("rows").sum(), pl.col("first").min(), pl.col("last").max()
    )
    missing = sum_missing(find_evident_shortages(dataset, answers, files))
    return {row[:2]: row[2:] for row in stored.iter_rows()}, missing


def _list_rejected(store: Store) -> set[tuple[str, tuple[str, str]]]:
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
    covered = _group_ranges(rows.filter(is_covered()))
    not_given = {
        key: subtract(ranges, covered.get(key, ()))
        for key, ranges in _group_ranges(rows.filter(~is_covered())).items()
    }
    return _list_ranges(covered), _list_ranges(not_given)


def _group_ranges(rows: pl.DataFrame) -> dict[tuple[str, str, str], RangeSet]:
    """Group rows of `coverage` by table and market, intervals joined."""
    return {
        (str(table), str(exchange), str(symbol)): union(
            TimeRange(*row) for row in group.select("timestamp", "end").iter_rows()
        )
        for (table, exchange, symbol), group in rows.group_by("dataset", *MARKET_COLUMNS)
    }


def _list_ranges(ranges: Mapping[tuple[str, str, str], RangeSet]) -> pl.DataFrame:
    columns = ("table", *MARKET_COLUMNS, "start", "end")
    records = [
        dict(zip(columns, (*key, item.start, item.end), strict=True))
        for key, listed in ranges.items()
        for item in listed
    ]
    frame = _to_frame(records, columns, {"start": TIMESTAMP, "end": TIMESTAMP})
    return frame.sort("table", *MARKET_COLUMNS, "start")


def _group_coverage(rows: pl.DataFrame) -> dict[tuple[str, tuple[str, str]], RangeSet]:
    ranges_by_market: dict[tuple[str, tuple[str, str]], list[TimeRange]] = {}
    for table, exchange, symbol, start, end in rows.iter_rows():
        ranges_by_market.setdefault((table, (exchange, symbol)), []).append(TimeRange(start, end))
    return {key: union(ranges) for key, ranges in ranges_by_market.items()}


def _to_frame(
    records: list[dict[str, Any]], names: Iterable[str], types: dict[str, pl.DataType]
) -> pl.DataFrame:
    """Convert records to a frame that has all its columns even without records."""
    if not records:
        return pl.DataFrame(schema={name: types.get(name, pl.String()) for name in names})
    return pl.DataFrame(records, schema_overrides=types)
