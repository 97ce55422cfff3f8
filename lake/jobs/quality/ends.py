"""Find what is missing before the first and after the last row of markets, by coverage.

Whether a market was there then only coverage tells: rows that were stored and are gone, and bars of
a user's own, whose covered time has no others. What a venue answered tells nothing by itself: a
market may not have been listed yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from lake.jobs.quality.file_spans import Listing, matches_market
from lake.jobs.quality.gone import Gone
from lake.model.intervals import RangeSet, subtract, union
from lake.model.market import MARKET_COLUMNS, Market, StoredMarket
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.store.coverage import CLAIMED
from lake.store.damages import UNREADABLE
from lake.store.reader import TableReader, may_hold_rows


@dataclass(frozen=True)
class Ends:
    """Finds what is missing at the ends of markets; each market is looked at once.

    Attributes
    ----------
    answers
        Rows of `coverage` that cover their time.
    """

    tables: Mapping[str, TableReader]
    listing: Listing
    answers: pl.DataFrame
    _claimed: dict[tuple[str, Market], RangeSet] = field(default_factory=dict)

    @cached_property
    def _gone(self) -> Gone:
        return Gone(self.tables, self.listing, self.answers.filter(pl.col("rows") > 0))

    @cached_property
    def _claims(self) -> pl.DataFrame:
        return self.answers.filter(pl.col("source") == CLAIMED)

    def find_gone(self, table: str, market: Market) -> RangeSet:
        """Find the time outside of a market's rows whose rows are gone: see `Gone.find`."""
        return self._gone.find(table, market)

    def find_claimed(self, table: str, market: Market) -> RangeSet:
        """Find the time outside of a market's bars of which a user has written all bars."""
        if self.tables[table].dataset.timeframe is None:
            return ()
        if (table, market) not in self._claimed:
            own = self._claims.filter((pl.col("dataset") == table) & matches_market(market))
            pairs = own.select("timestamp", "end").iter_rows()
            span = self.listing.span(table, market) if own.height else None
            claimed = subtract(union(TimeRange(*pair) for pair in pairs), [span] if span else [])
            self._claimed[table, market] = union(claimed)
        return self._claimed[table, market]

    def find_all(self, table: str, market: Market) -> RangeSet:
        """Find all time outside of a market's rows in which something may be missing."""
        return union([*self.find_gone(table, market), *self.find_claimed(table, market)])

    def list_markets(self, table: str, selection: Selection) -> pl.DataFrame:
        """List the markets of which something is missing at an end that a selection has."""
        rows = self.answers.filter(pl.col("dataset") == table)
        spans = rows.with_columns(first="timestamp", last=pl.col("end").dt.offset_by("-1us"))
        pairs = spans.filter(may_hold_rows(selection)).select(MARKET_COLUMNS).unique()
        start, end = selection.start, selection.end
        kept = [
            pair
            for pair in pairs.iter_rows()
            for item in self._find_or_suspect(table, StoredMarket(*pair), spans)
            if (end is None or item.start < end) and (start is None or item.end > start)
        ]
        return pl.DataFrame(kept, schema=pairs.schema, orient="row")

    def _find_or_suspect(self, table: str, market: Market, answers: pl.DataFrame) -> RangeSet:
        """Find what is missing of a market; all that was answered, if its rows cannot be read.

        Whoever needs these rows gets the error, and other markets go on.
        """
        try:
            return self.find_all(table, market)
        except UNREADABLE:
            own = answers.filter(matches_market(market), pl.col("rows") > 0)
            return union(TimeRange(*row) for row in own.select("timestamp", "end").iter_rows())
