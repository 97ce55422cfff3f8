"""Find rows that are gone at the ends of a market: coverage counts them, and its table lacks them.

Between its first and last row, missing rows show as gaps. Before and after them only coverage says
that there was something: intervals with rows of which fewer are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from lake.jobs.quality.file_spans import Listing, matches_market
from lake.model.grid import Grid
from lake.model.intervals import RangeSet, intersect, subtract, union
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.slots import slot_at
from lake.model.time import MICROSECOND, TimeRange
from lake.query.grids import read_grid
from lake.store.reader import TableReader


@dataclass(frozen=True)
class Gone:
    """Finds what is gone; each market is looked at once.

    Attributes
    ----------
    answers
        Rows of `coverage` that count rows: `dataset`, `exchange`, `symbol`, `timestamp`, `end`,
        `rows`.
    """

    tables: Mapping[str, TableReader]
    listing: Listing
    answers: pl.DataFrame
    _found: dict[tuple[str, Market], RangeSet] = field(default_factory=dict)

    def find(self, table: str, market: Market) -> RangeSet:
        """Find the time before the first and after the last row of a market whose rows are gone.

        Of bars, as many slots as rows are gone, next to the stored ones; of other rows, all time of
        an answer outside of them. Slots without a bar between the stored ones count first: an end
        is not reported for a gap.
        """
        if (table, market) not in self._found:
            own = self.answers.filter((pl.col("dataset") == table) & matches_market(market))
            reader = self.tables[table]
            grid = None if reader.dataset.timeframe is None else read_grid(reader, market)
            is_unclear = reader.dataset.timeframe is not None and grid is None
            found = [] if is_unclear else self._find(table, market, own, grid)
            self._found[table, market] = union(found)
        return self._found[table, market]

    def _find(
        self, table: str, market: Market, answers: pl.DataFrame, grid: Grid | None
    ) -> Iterator[TimeRange]:
        span = _widen_to_slots(self.listing.span(table, market), grid)
        for start, end, rows in answers.select("timestamp", "end", "rows").iter_rows():
            answer = TimeRange(start, end)
            parts = subtract([answer], [span] if span else [])
            outside = _align(parts, grid) if grid else parts
            lacking = self._count_lacking(table, market, answer, rows) if outside else 0
            if lacking > 0 and grid is not None:
                gaps = self._count_gaps(table, market, intersect([answer], [span or answer]), grid)
                yield from _place(outside, lacking - (gaps if span else 0), span, grid)
            elif lacking > 0:
                yield from outside

    def _count_gaps(self, table: str, market: Market, parts: RangeSet, grid: Grid) -> int:
        """Count the slots of ranges without a bar that a source gave."""
        slots = _align(parts, grid)
        return sum(max(0, _count_slots(s, grid) - self._count(table, market, s)) for s in slots)

    def _count_lacking(self, table: str, market: Market, answer: TimeRange, rows: int) -> int:
        """Return how many rows of an answer are not stored; the files' statistics may tell."""
        files = self.listing.valid_files(table, market)
        inside = (pl.col("first") >= answer.start) & (pl.col("last") < answer.end)
        if int(files.filter(inside)["rows"].sum()) >= rows:
            return 0
        tolerance = self.tables[table].dataset.time_tolerance
        wider = TimeRange(answer.start - tolerance, answer.end + tolerance)
        return rows - self._count(table, market, wider)

    def _count(self, table: str, market: Market, part: TimeRange) -> int:
        """Count the rows of a market in a range that a source gave."""
        dataset = self.tables[table].dataset
        filled = ["fill"] if "fill" in dataset.polars_schema else []
        selection = Selection((market.exchange,), (market.symbol,), part.start, part.end)
        rows = self.tables[table].collect(selection, columns=[dataset.time_column, *filled])
        return (rows.filter(pl.col("fill").is_null()) if filled else rows).height


def _widen_to_slots(span: TimeRange | None, grid: Grid | None) -> TimeRange | None:
    if span is None or grid is None:
        return span
    return TimeRange(grid.floor(span.start), grid.after(grid.floor(span.end - MICROSECOND)))


def _align(parts: RangeSet, grid: Grid) -> RangeSet:
    """Return ranges as whole slots: those that open in them."""
    bounds = [(grid.ceiling(part.start), grid.ceiling(part.end)) for part in parts]
    return tuple(TimeRange(start, end) for start, end in bounds if start < end)


def _count_slots(part: TimeRange, grid: Grid) -> int:
    return slot_at(part.end, grid) - slot_at(part.start, grid)


def _place(
    outside: RangeSet, count: int, span: TimeRange | None, grid: Grid
) -> Iterator[TimeRange]:
    """Choose as many slots as are gone, next to the rows; the newest rows are lost most easily."""
    for part in reversed(outside):
        slots = _count_slots(part, grid)
        taken = min(count, slots)
        if taken <= 0:
            return
        count -= taken
        is_head = span is not None and part.end <= span.start
        if is_head:
            yield TimeRange(grid.after(part.start, slots - taken), part.end)
        else:
            yield TimeRange(part.start, grid.after(part.start, taken))
