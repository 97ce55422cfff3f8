"""A selection in pieces of whole days of one market, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl

from lake.model.selection import Selection
from lake.model.time import DAY
from lake.store.reader import TIME_STEP, TableReader


def pieces(
    rows: TableReader, files: pl.DataFrame, selection: Selection, piece_rows: int = 500_000
) -> Iterator[Selection]:
    """Selections of one market and about `piece_rows` rows; each row is in exactly one of them.

    Parameters
    ----------
    files
        The data files of the selection, as `rows.files` gives them.
    """
    if files["first"].null_count() or files["last"].null_count():
        files = _timed(rows, files, selection)
    for (exchange, symbol), group in files.group_by("exchange", "symbol", maintain_order=True):
        start, end = _bounds(group, selection)
        for cut in [*_cuts(group, start, end, piece_rows), end]:
            yield Selection((exchange,), (symbol,), start, cut)
            start = cut


def _bounds(files: pl.DataFrame, selection: Selection) -> tuple[datetime, datetime]:
    first: datetime = files["first"].min()  # type: ignore[assignment]
    last: datetime = files["last"].max()  # type: ignore[assignment]
    start = max(filter(None, (selection.start, first)))
    return start, min(filter(None, (selection.end, last + TIME_STEP)))


def _cuts(
    files: pl.DataFrame, start: datetime, end: datetime, piece_rows: int
) -> Iterator[datetime]:
    """Midnights at which enough rows have gathered; a file's rows are spread over its days."""
    held, cut = 0, start
    for first, last, count in files.select("first", "last", "rows").iter_rows():
        days = max(1, (last - first) // DAY + 1)
        for number in range(days):
            midnight = _midnight(first + number * DAY)
            if held >= piece_rows and cut < midnight < end:
                yield midnight
                held, cut = 0, midnight
            held += count // days


def _midnight(time: datetime) -> datetime:
    return datetime(time.year, time.month, time.day, tzinfo=UTC)


def _timed(rows: TableReader, files: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Files with the times of their market's rows: for files without statistics."""
    time = pl.col(rows.dataset.time_column)
    found = (
        rows.scan(selection)
        .group_by("exchange", "symbol")
        .agg(time.min(), time.max().alias("last"))
    )
    spans = found.rename({rows.dataset.time_column: "first"}).collect()
    named = files.drop("first", "last").with_columns(pl.col("rows").fill_null(0))
    return named.join(spans, on=["exchange", "symbol"], maintain_order="left")
