"""Open bars: they may still change, so that a pin leaves them out, lists them and reports them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import polars as pl

from lake.bundles.manifest import LeftOutPart, Ref
from lake.log import get_logger
from lake.model.dataset import TIMESTAMP
from lake.model.intervals import RangeSet, union
from lake.model.market import MARKET_COLUMNS
from lake.model.selection import Selection
from lake.model.time import TimeRange, iso
from lake.store.faults import translate_errors
from lake.store.snapshot import Snapshot

_log = get_logger(__name__)
OPEN_BARS = pl.Schema(
    {"exchange": pl.String(), "symbol": pl.String(), "start": TIMESTAMP, "end": TIMESTAMP}
)
LEFT_OUT = pl.Schema(
    {
        **dict.fromkeys(("table", *MARKET_COLUMNS), pl.String()),
        "rows": pl.Int64(),
        **dict.fromkeys(("first", "last"), TIMESTAMP),
    }
)


def find_open_bars(snapshot: Snapshot, selection: Selection, files: pl.DataFrame) -> pl.DataFrame:
    """Find the open bars of a selection (`OPEN_BARS`), in order of market and time.

    Parameters
    ----------
    files
        The files of the selection that may hold some.
    """
    dataset = snapshot.dataset
    if not dataset.marks_open:
        return pl.DataFrame(schema=OPEN_BARS)
    time = pl.col(dataset.time_column)
    found = (
        snapshot.scan_files(files, selection)
        .filter(~pl.col("closed"))
        .select(
            *MARKET_COLUMNS,
            start=time,
            end=pl.max_horizontal(dataset.happened_at(), time.dt.offset_by("1us")),
        )
    )
    with translate_errors(f"table {dataset.name}"):
        return found.collect().sort(*MARKET_COLUMNS, "start")


def summarize_open_bars(bars: pl.DataFrame) -> tuple[LeftOutPart, ...]:
    """Return number, first and last open time of the open bars of each market."""
    sums = bars.group_by(MARKET_COLUMNS, maintain_order=True).agg(
        rows=pl.len(), first=pl.col("start").min(), last=pl.col("start").max()
    )
    return tuple(LeftOutPart(**row) for row in sums.iter_rows(named=True))


def find_open_ranges(bars: pl.DataFrame) -> dict[tuple[str, str], RangeSet]:
    """Return by market the time that open bars cover."""
    touches = (pl.col("start") <= pl.col("end").shift(1)).fill_null(value=False)
    ranges: dict[tuple[str, str], RangeSet] = {}
    for (exchange, symbol), own in bars.group_by(MARKET_COLUMNS, maintain_order=True):
        runs = own.group_by((~touches).cum_sum().alias("run"), maintain_order=True).agg(
            pl.col("start").first(), pl.col("end").max()
        )
        pairs = runs.select("start", "end").iter_rows()
        ranges[str(exchange), str(symbol)] = union(TimeRange(*pair) for pair in pairs)
    return ranges


def list_left_out(refs: Iterable[Ref]) -> pl.DataFrame:
    """List the open bars that are not pinned, by table and market: `LEFT_OUT`."""
    rows = [{"table": ref.table, **part.model_dump()} for ref in refs for part in ref.left_out]
    return pl.DataFrame(rows, schema=LEFT_OUT)


def describe_left_out(refs: Iterable[Ref]) -> list[str]:
    """Describe the open bars that are not pinned, one sentence per table and market."""
    return [
        f"Left out of {table}: {exchange} {symbol}, {rows:,} open "
        + (f"bar at {iso(first)}." if rows == 1 else f"bars from {iso(first)} to {iso(last)}.")
        for table, exchange, symbol, rows, first, last in list_left_out(refs).iter_rows()
    ]


def log_left_out(ref: Ref, bars: pl.DataFrame, now: datetime) -> None:
    """Log which open bars are not pinned: a warning for bars whose end has passed."""
    ended = set(bars.filter(pl.col("end") <= now).select(MARKET_COLUMNS).iter_rows())
    for part in ref.left_out:
        log = _log.warning if (part.exchange, part.symbol) in ended else _log.info
        log("open bars left out", table=ref.table, **part.model_dump(mode="json"))
