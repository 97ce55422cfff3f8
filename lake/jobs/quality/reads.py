"""Read the rows of many markets at once, and give them market by market."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import polars as pl

from lake.model.market import MARKET_COLUMNS, Market
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.store.damages import UNREADABLE
from lake.store.reader import TableReader


@dataclass(frozen=True)
class _Held:
    """Rows of markets of one table, in a range."""

    range: TimeRange
    rows: Mapping[tuple[object, ...], pl.DataFrame]
    empty: pl.DataFrame
    markets: frozenset[Market]


@dataclass(frozen=True)
class Reads:
    """Reads rows of one market and range; those that are held are not read again."""

    tables: Mapping[str, TableReader]
    _held: dict[str, list[_Held]] = field(default_factory=lambda: defaultdict(list))

    def hold(self, table: str, markets: Iterable[Market], range_: TimeRange) -> None:
        """Read the rows of markets in a range at once, to give them to later reads.

        Nothing is held of a table that cannot be read: whoever needs a row of it gets the error.
        """
        by_exchange: dict[str, list[Market]] = defaultdict(list)
        for market in markets:
            by_exchange[market.exchange].append(market)
        for exchange, own in by_exchange.items():
            selection = Selection(
                (exchange,), tuple(market.symbol for market in own), range_.start, range_.end
            )
            with suppress(*UNREADABLE):
                rows = self.tables[table].collect(selection)
                parts = rows.partition_by(MARKET_COLUMNS, as_dict=True, maintain_order=True)
                self._held[table].append(_Held(range_, parts, rows.clear(), frozenset(own)))

    def release(self) -> None:
        """Hold nothing any more."""
        self._held.clear()

    def read(
        self, table: str, market: Market, range_: TimeRange, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Read the rows of a market in a range, in the order of the dataset."""
        for held in self._held.get(table, ()):
            is_within = held.range.start <= range_.start and range_.end <= held.range.end
            if is_within and market in held.markets:
                rows = held.rows.get((market.exchange, market.symbol), held.empty)
                time = rows[self.tables[table].dataset.time_column]
                first = time.search_sorted(range_.start, side="left")
                after = time.search_sorted(range_.end, side="left")
                part = rows.slice(first, after - first)
                return part if columns is None else part.select(columns)
        own = Selection((market.exchange,), (market.symbol,), range_.start, range_.end)
        return self.tables[table].collect(own, columns=columns)
