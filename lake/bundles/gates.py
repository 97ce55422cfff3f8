"""Requirements on a pin: complete coverage, and a minimum quality score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import polars as pl

from lake.bundles.manifest import CoveragePart
from lake.errors import QualityError
from lake.model.grid import Grid
from lake.model.intervals import RangeSet, intersect, subtract, union
from lake.model.market import Market, StoredMarket
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, TimeRange
from lake.query.shortage import Shortage

FindGrid = Callable[[str, Market], Grid | None]
"""Returns where the bars of a table and market open; None if the rows are not bars."""

_MAX_SHOWN = 5
_LOST, _OPEN = " (the source no longer serves it)", " (its bar is still open)"


class _Hole(NamedTuple):
    table: str
    exchange: str
    symbol: str
    range: TimeRange
    why: str = ""

    def __str__(self) -> str:
        return f"{self.table} of {self.exchange} {self.symbol}: {self.range}{self.why}"


def require_complete(
    days: Sequence[pl.DataFrame],
    selection: Selection,
    covered: Sequence[CoveragePart],
    not_given: Sequence[CoveragePart] = (),
    grid: FindGrid = lambda *_: None,
    open_bars: Sequence[CoveragePart] = (),
) -> None:
    """Refuse a selection whose coverage has holes.

    An open bound of the selection means the first or the last time of the market's rows and
    answered intervals.

    Parameters
    ----------
    not_given
        Intervals that were requested, and that the source no longer serves.
    grid
        Returns where bars of a table and market open: no bar is missing before the first one.
    open_bars
        Time of open bars, which are not pinned: a hole, except at the end of a market if the
        selection has no end.

    Raises
    ------
    QualityError
        An interval is not covered; the message names it.
    """
    reasons = {_LOST: not_given, _OPEN: open_bars}
    found = (_find_holes(frame, selection, covered, reasons, grid) for frame in days)
    holes = [*chain.from_iterable(found), *_find_open_markets(days, selection, open_bars)]
    if holes:
        examples = "; ".join(str(hole) for hole in holes[:_MAX_SHOWN])
        more = f"; and {len(holes) - _MAX_SHOWN} more" if len(holes) > _MAX_SHOWN else ""
        raise QualityError(
            f"the selection is not complete: not covered are {examples}{more}",
            "Ingest the missing ranges, or pin without --require-complete. What a source no longer "
            "serves must come from another one.",
        )


def require_rows(shortages: Sequence[Shortage]) -> None:
    """Refuse tables that hold fewer rows than coverage counts.

    Raises
    ------
    QualityError
        There is a shortage; the message names it.
    """
    if shortages:
        examples = "; ".join(str(shortage) for shortage in shortages[:_MAX_SHOWN])
        more = f"; and {len(shortages) - _MAX_SHOWN} more" if len(shortages) > _MAX_SHOWN else ""
        raise QualityError(
            f"the selection is not complete: rows that were stored are missing: {examples}{more}",
            "Ingest these ranges again with --refetch, or pin without --require-complete.",
        )


def require_score(min_score: float, score: float | None) -> None:
    """Refuse a score that is too low or unknown.

    Raises
    ------
    QualityError
        The score is below the minimum, or the selection was not checked.
    """
    if score is None:
        raise QualityError(
            f"a quality score of {min_score} is required, but the selection was not checked",
            "Pin without --no-check.",
        )
    if score < min_score:
        raise QualityError(
            f"the quality score of this selection is {score:.4f}, but {min_score} is required",
            "Repair the data, or lower the required score.",
        )


def _find_holes(
    days: pl.DataFrame,
    selection: Selection,
    covered: Sequence[CoveragePart],
    reasons: Mapping[str, Sequence[CoveragePart]],
    grid: FindGrid,
) -> Iterator[_Hole]:
    """Find the holes of the markets of a table; `reasons`: intervals with a known reason."""
    spans = days.group_by("table", "exchange", "symbol", maintain_order=True).agg(
        pl.col("first").min(), pl.col("last").max()
    )
    for table, exchange, symbol, first, last in spans.iter_rows():
        market = (table, exchange, symbol)
        ranges = {why: _find_ranges(parts, market) for why, parts in reasons.items()}
        covered_ranges = _find_ranges(covered, market)
        answered = (*covered_ranges, *ranges[_LOST])
        stored = (*answered, *ranges[_OPEN])
        start = selection.start or min([first, *(item.start for item in stored)])
        end = selection.end or max([last + MICROSECOND, *(item.end for item in answered)])
        bars = grid(table, StoredMarket(exchange, symbol))
        if bars is not None:
            start = min(bars.ceiling(start), end)
        missing = subtract([TimeRange(start, end)] if start < end else [], covered_ranges)
        explained = _explain(missing, ranges)
        yield from (_Hole(*market, item, why) for item, why in explained)


def _find_open_markets(
    days: Sequence[pl.DataFrame], selection: Selection, open_bars: Sequence[CoveragePart]
) -> Iterator[_Hole]:
    """Find markets of which all bars are open, if the end of the selection requires rows."""
    if selection.end is None:
        return
    frames = (frame.select("table", "exchange", "symbol").iter_rows() for frame in days)
    pinned = set(chain.from_iterable(frames))
    for part in open_bars:
        market = (part.table, part.exchange, part.symbol)
        if market not in pinned:
            yield _Hole(*market, TimeRange(part.start, part.end), _OPEN)


def _explain(missing: RangeSet, ranges: Mapping[str, RangeSet]) -> list[tuple[TimeRange, str]]:
    """Split missing ranges by reason; an empty text where none is known."""
    parts = [(item, "") for item in subtract(missing, chain.from_iterable(ranges.values()))]
    for why, known in ranges.items():
        parts += [(item, why) for item in intersect(missing, known)]
    return sorted(parts)


def _find_ranges(parts: Sequence[CoveragePart], market: tuple[str, str, str]) -> RangeSet:
    """Return the ranges of a table and market, joined."""
    return union(
        TimeRange(part.start, part.end)
        for part in parts
        if (part.table, part.exchange, part.symbol) == market
    )
