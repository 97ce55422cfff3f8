"""Find outages of venues by the bars of all their markets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import polars as pl

from lake.jobs.quality.file_spans import Listing
from lake.model.dataset import Dataset
from lake.model.intervals import RangeSet, intersect, union
from lake.model.market import StoredMarket
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from lake.quality.checks.outages import MarketBars, find_outages
from lake.quality.slice import Slice
from lake.store.reader import TableReader

_MONTH = Timeframe(1, "M")


@dataclass(frozen=True)
class Outages:
    """Outages of venues, by table, exchange and month; each is read once."""

    tables: Mapping[str, TableReader]
    listing: Listing
    _known: dict[tuple[str, str, datetime], RangeSet] = field(default_factory=dict)

    def find(self, data: Slice, missing: pl.Series) -> RangeSet:
        """Find outages of the venue, in the months in which the bars of some times are missing."""
        if data.grid is None:
            return ()
        months = missing.dt.truncate("1mo").unique()
        return union(item for month in months.sort() for item in self._find_of_month(data, month))

    def _find_of_month(self, data: Slice, month: datetime) -> RangeSet:
        dataset, exchange = data.dataset, data.market.exchange
        key = (dataset.name, exchange, month)
        if key not in self._known and data.grid is not None:
            span = TimeRange(month, _MONTH.after(month))
            markets = self._read_market_bars(dataset, exchange, span)
            self._known[key] = find_outages(markets, data.grid)
        return self._known[key]

    def _read_market_bars(
        self, dataset: Dataset, exchange: str, month: TimeRange
    ) -> Iterator[MarketBars]:
        selection = Selection((exchange,), (), month.start, month.end)
        reader = self.tables[dataset.name]
        pairs = reader.files(selection).select("exchange", "symbol").unique()
        markets = [StoredMarket(*pair) for pair in pairs.sort("exchange", "symbol").iter_rows()]
        for market in markets if len(markets) > 1 else ():
            span = self.listing.span(dataset.name, market)
            for part in intersect([month], [span] if span else []):
                own = replace(selection, symbols=(market.symbol,))
                frame = reader.collect(own, columns=[dataset.time_column])
                yield MarketBars(frame[dataset.time_column], part)
