"""Read the inputs of checks: slices of the rows of each market, with their references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property, partial

import polars as pl

from lake.jobs.quality.ends import Ends
from lake.jobs.quality.file_spans import (
    Listing,
    matches_market,
    measure_row_rate,
    weigh_holes,
    weigh_range,
)
from lake.jobs.quality.outages import Outages
from lake.jobs.quality.reads import Reads
from lake.jobs.quality.rejected import select_rejected
from lake.jobs.quality.related import (
    find_finest_bars,
    find_longer_tables,
    find_reference_margin,
    find_reference_tables,
    find_venue_margin,
    has_venues,
    measure_longest_bar,
)
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.grid import Grid
from lake.model.intervals import RangeSet, union
from lake.model.market import Market, StoredMarket, unwrap_symbol
from lake.model.selection import Selection
from lake.model.time import DAY, MICROSECOND, TimeRange
from lake.quality.checks.missing_slots import find_missing_slots
from lake.quality.checks.other_assets import split_assets
from lake.quality.slice import Reference, Slice
from lake.query.grids import read_grid
from lake.query.markets import Instruments, units_of
from lake.store.chunks import chunk_days, to_day_number, widen_to_days
from lake.store.damages import Damages, RaisedDamages
from lake.store.reader import TIME_STEP, TableReader, may_hold_rows

_MIN_SHARE = 0.9  # share of stored ids from which trades count as numbered consecutively
_ROW_BYTES = 64  # a stored row of bars or trades is smaller, a deep order book much larger
_UNUSED = ("exchange", "symbol", "date", "received_at")


@dataclass(frozen=True)
class CheckInputs:
    """Tables at one moment, with their coverage and quarantine.

    Attributes
    ----------
    tables
        Readers by name of the table.
    coverage
        Covered intervals: `table`, `exchange`, `symbol`, `start`, `end`.
    quarantine
        Rows of `quarantine`, without the rejected rows themselves.
    now
        The present.
    omits_empty_bars
        Whether an exchange sends no bar for an interval without a trade.
    not_given
        Intervals that a source no longer serves; columns as `coverage`.
    answers
        Rows of the table `coverage` that cover their time.
    instruments
        Specifications of markets.
    funding_limits
        Returns the largest absolute funding rate of a contract; None if it is unknown.
    """

    tables: Mapping[str, TableReader]
    coverage: pl.DataFrame
    quarantine: pl.DataFrame
    now: datetime
    omits_empty_bars: Callable[[str], bool]
    not_given: pl.DataFrame | None = None
    answers: pl.DataFrame | None = None
    instruments: Instruments = field(default_factory=dict)
    funding_limits: Callable[[Market], float | None] = lambda _: None
    _grids: dict[tuple[str, Market], Grid | None] = field(default_factory=dict)
    _consecutive: dict[tuple[str, Market], bool] = field(default_factory=dict)

    @cached_property
    def reads(self) -> Reads:
        """Rows, some of which were read already."""
        return Reads(self.tables)

    @cached_property
    def _outages(self) -> Outages:
        return Outages(self.tables, self.listing)

    @cached_property
    def _ends(self) -> Ends | None:
        return None if self.answers is None else Ends(self.tables, self.listing, self.answers)

    @cached_property
    def listing(self) -> Listing:
        """The data files of the tables."""
        return Listing(self.tables, self.now)

    def cut_slices(
        self,
        table: str,
        selection: Selection,
        damages: Damages | None = None,
        *,
        exactly: bool = False,
    ) -> Iterator[Slice]:
        """Cut a selection into slices of one market and some days, so that memory stays bounded.

        Slices have whole days, also if a bound is within a day, unless `exactly` is true. Markets
        and days whose rows were all rejected, or that a source no longer serves, are included.
        What cannot be read is left out, and `damages` gets it; without them it is raised.
        """
        dataset, damages = self.tables[table].dataset, damages or RaisedDamages()
        for market in self.find_checked_markets(table, selection):
            with damages.collect(table):
                for days, _ in self.cut_days(dataset, market, selection, exactly=exactly):
                    with damages.collect(table):
                        yield self.build_slice(dataset, market, days)

    def estimate_rows(self, table: str, selection: Selection) -> int:
        """Estimate the number of rows of `cut_slices`, for a progress bar."""
        files = self.listing.files(table)
        market = ["exchange", "symbol"]
        selected = self.tables[table].files(selection).select(market).unique()
        return int(files.join(selected, on=market, how="semi")["rows"].sum())

    def find_checked_markets(self, table: str, selection: Selection) -> list[Market]:
        """Find the markets to check: with rows around the selection, or whose rows are missing."""
        days = widen_to_days(selection)
        market = ("exchange", "symbol")
        files = self.listing.files(table)
        spans = files.group_by(market).agg(pl.col("first").min(), pl.col("last").max())
        stored = spans.filter(may_hold_rows(days)).select(market)
        others = (select_rejected(self.quarantine, table, days), self._find_not_given(table, days))
        ends = [self._ends.list_markets(table, days)] if self._ends else []
        pairs = pl.concat([stored, *ends, *(rows.select(market) for rows in others)])
        return sorted(StoredMarket(*pair) for pair in pairs.unique().iter_rows())

    def find_markets(self, table: str, selection: Selection) -> list[Market]:
        """Find the markets of a selection that have rows."""
        files = self.tables[table].files(selection)
        pairs = files.select("exchange", "symbol").unique().sort("exchange", "symbol")
        return [StoredMarket(*pair) for pair in pairs.iter_rows()]

    def build_slice(self, dataset: Dataset, market: Market, range_: TimeRange) -> Slice:
        """Build the slice of a market in a range."""
        table, margin = dataset.name, find_reference_margin(dataset)
        own = _select(market, range_)
        span, coverage = self.listing.span(table, market), self._find_coverage(table, market)
        slice_ = Slice(
            dataset=dataset,
            market=market,
            range=range_,
            now=self.now,
            frame=self._read_rows(dataset, market, range_).lazy(),
            span=span,
            coverage=coverage,
            not_given=_to_ranges(self._find_not_given(table, own)),
            gone=self._ends.find_gone(table, market) if self._ends else (),
            claimed=self._ends.find_claimed(table, market) if self._ends else (),
            rows_per_second=measure_row_rate(self.listing, dataset, market, coverage),
            has_consecutive_ids=self._has_consecutive_ids(dataset, market, span),
            trades=self._find_trades(dataset, market, range_, margin),
            finer=self._find_finer(dataset, market, range_, margin),
            bars=self._find_bars(dataset, market, range_),
            others=self._find_others(dataset, market, range_, find_venue_margin(dataset)),
            omits_empty_bars=self.omits_empty_bars(market.exchange),
            quarantine=select_rejected(self.quarantine, table, own),
            bar_grid=self._find_grid(table, market),
            units=units_of(market, self.instruments),
            funding_limit=self.funding_limits(market),
        )
        same, strangers = split_assets(slice_)
        slice_ = replace(slice_, others=same, strangers=strangers)
        missing = self._find_missing(slice_)
        if missing.is_empty():
            return slice_
        coarser = self._find_coarser(dataset, market, range_)
        return replace(slice_, outages=self._outages.find(slice_, missing), coarser=coarser)

    def _find_missing(self, data: Slice) -> pl.Series:
        """Find the open times of missing bars."""
        if data.grid is None:
            return pl.Series(dtype=TIMESTAMP)
        return find_missing_slots(data, data.grid).select("start").collect()["start"]

    def _read_rows(self, dataset: Dataset, market: Market, range_: TimeRange) -> pl.DataFrame:
        """Read the market's rows of a range and its margin."""
        margin, read = dataset.margin, partial(self.reads.read, dataset.name, market)
        wider = widen(range_, margin)
        if dataset.timeframe is None and margin <= DAY:
            return self._read_with_neighbours(dataset.name, market, range_, wider, read)
        # Bars have a grid, and funding a schedule: missing rows show without a neighbour.
        return read(wider)

    def _build_reference(
        self, table: str, market: Market, range_: TimeRange, margin: timedelta
    ) -> Reference:
        rows = self._read_reference(table, market, widen(range_, margin))
        dataset = self.tables[table].dataset
        coverage, grid = self._find_coverage(table, market), self._find_grid(table, market)
        return Reference(dataset, market, rows.lazy(), coverage, grid)

    def _find_grid(self, table: str, market: Market) -> Grid | None:
        """Find where the bars of a market open; None if that is unclear, or there are no bars."""
        key, reader = (table, market), self.tables[table]
        if key not in self._grids and reader.dataset.timeframe is not None:
            self._grids[key] = read_grid(reader, market)
        return self._grids.get(key)

    def _read_reference(self, table: str, market: Market, range_: TimeRange) -> pl.DataFrame:
        dataset = self.tables[table].dataset
        columns = [name for name in dataset.polars_schema if name not in _UNUSED]
        return self.reads.read(table, market, range_, columns)

    def _find_trades(
        self, dataset: Dataset, market: Market, range_: TimeRange, margin: timedelta
    ) -> Reference | None:
        """Read the trades of a range and its margin, with the next trades on both sides.

        Consecutive ids prove that nothing was traded between them, for any length of time.
        """
        if "trades" not in find_reference_tables(self.tables, self.listing, dataset, market):
            return None
        # The last bars may end after the range.
        needed = TimeRange(range_.start, range_.end + measure_longest_bar(dataset))
        read = partial(self._read_reference, "trades", market)
        rows = self._read_with_neighbours("trades", market, needed, widen(range_, margin), read)
        trades = self.tables["trades"].dataset
        return Reference(trades, market, rows.lazy(), self._find_coverage("trades", market))

    def _read_with_neighbours(
        self,
        table: str,
        market: Market,
        needed: TimeRange,
        wider: TimeRange,
        read: Callable[[TimeRange], pl.DataFrame],
    ) -> pl.DataFrame:
        """Read the rows of `wider`, and if a side of `needed` has none, the next ones on that side.

        A gap between two rows can only be seen with both of them, at any distance.
        """
        name = self.tables[table].dataset.time_column
        time = pl.col(name)
        parts = [read(wider)]
        first, last = parts[0][name].min(), parts[0][name].max()
        files = self.listing.valid_files(table, market)
        if not isinstance(first, datetime) or first >= needed.start:
            start = files.filter(pl.col("first") < wider.start)["first"].max()
            if isinstance(start, datetime):
                before = read(TimeRange(start, wider.start))
                parts.insert(0, before.filter(time == time.max()))
        if not isinstance(last, datetime) or last < needed.end:
            end = files.filter(pl.col("last") >= wider.end)["last"].min()
            if isinstance(end, datetime):
                after = read(TimeRange(wider.end, end + TIME_STEP))
                parts.append(after.filter(time == time.min()))
        return pl.concat(parts)

    def _find_finer(
        self, dataset: Dataset, market: Market, range_: TimeRange, margin: timedelta
    ) -> tuple[Reference, ...]:
        return tuple(
            self._build_reference(table, market, range_, margin)
            for table in find_reference_tables(self.tables, self.listing, dataset, market)
            if table != "trades"
        )

    def _find_bars(self, dataset: Dataset, market: Market, range_: TimeRange) -> Reference | None:
        name = find_finest_bars(self.tables, self.listing, dataset, market)
        return self._build_reference(name, market, range_, timedelta(hours=1)) if name else None

    def _find_coarser(
        self, dataset: Dataset, market: Market, range_: TimeRange
    ) -> tuple[Reference, ...]:
        """Read the bars of longer timeframes that lie within the rows of a day and its margin."""
        longest = DAY + 2 * dataset.margin
        names = find_longer_tables(self.tables, self.listing, dataset, market, longest)
        return tuple(self._build_reference(name, market, range_, dataset.margin) for name in names)

    def _find_others(
        self, dataset: Dataset, market: Market, range_: TimeRange, margin: timedelta
    ) -> tuple[Reference, ...]:
        """Read the same symbol on other venues, of the same base, quote and kind."""
        if has_venues(dataset):
            markets = self.find_markets(dataset.name, Selection((), (market.symbol,)))
            tables = dict.fromkeys(markets, dataset.name)
        elif market.is_on_chain:
            tables = self._find_finest_bars(market.symbol, unwrap_symbol(market.symbol))
        else:
            return ()
        return tuple(
            self._build_reference(table, other, range_, margin)
            for other, table in tables.items()
            if other.exchange != market.exchange
        )

    def _find_finest_bars(self, *symbols: str) -> dict[Market, str]:
        """Find the markets of symbols that have bars, each with its table of the finest bars."""
        tables = [
            (reader.dataset.timeframe.seconds, name)
            for name, reader in self.tables.items()
            if reader.dataset.event == "bar" and reader.dataset.timeframe is not None
        ]
        coarsest_first = [name for _, name in sorted(tables, reverse=True)]
        selection = Selection((), tuple(dict.fromkeys(symbols)))
        return {
            market: name for name in coarsest_first for market in self.find_markets(name, selection)
        }

    def cut_days(
        self, dataset: Dataset, market: Market, selection: Selection, *, exactly: bool = False
    ) -> Iterator[tuple[TimeRange, int]]:
        """Cut the days of a selection into chunks of whole days, with the number of their rows."""
        files = self._weigh_files(dataset.name).filter(matches_market(market))
        references = [
            self._weigh_files(name).filter(matches_market(market))
            for name in find_reference_tables(self.tables, self.listing, dataset, market)
        ]
        if has_venues(dataset):
            same = (pl.col("symbol") == market.symbol) & (pl.col("exchange") != market.exchange)
            references.append(self._weigh_files(dataset.name).filter(same))
        own = Selection((market.exchange,), (market.symbol,))
        more_days = set(
            map(to_day_number, select_rejected(self.quarantine, dataset.name, own)["timestamp"])
        )
        ends = self._ends.find_all(dataset.name, market) if self._ends else ()
        for item in (*_to_ranges(self._find_not_given(dataset.name, own)), *ends):
            first, last = to_day_number(item.start), to_day_number(item.end - MICROSECOND)
            more_days.update(range(first, last + 1))
            references.append(weigh_range(dataset, item))
        references.append(weigh_holes(dataset, self.listing.valid_files(dataset.name, market)))
        for days, rows in chunk_days(files, references, more_days, selection, self.now):
            bounds = (selection.start, selection.end) if exactly else (None, None)
            start = max(filter(None, (days.start, bounds[0])))
            end = min(filter(None, (days.end, bounds[1])))
            if start < end:
                yield TimeRange(start, end), rows

    def _weigh_files(self, table: str) -> pl.DataFrame:
        """Return files whose `rows` are weighted by size, because large rows need more memory."""
        weight = pl.max_horizontal("rows", pl.col("bytes") // _ROW_BYTES)
        return self.listing.files(table).with_columns(rows=weight)

    def _find_coverage(self, table: str, market: Market) -> RangeSet | None:
        """Find the coverage of a market in a table; None if it was never fetched."""
        rows = self.coverage.filter((pl.col("table") == table) & matches_market(market))
        return _to_ranges(rows) if rows.height else None

    def _find_not_given(self, table: str, selection: Selection) -> pl.DataFrame:
        """Find the intervals within a selection that a source no longer serves."""
        if self.not_given is None:
            return self.coverage.clear()
        rows = self.not_given.filter(pl.col("table") == table)
        spans = rows.with_columns(first="start", last=pl.col("end").dt.offset_by("-1us"))
        return spans.filter(may_hold_rows(selection)).select(rows.columns)

    def _has_consecutive_ids(
        self, dataset: Dataset, market: Market, span: TimeRange | None
    ) -> bool:
        if dataset.event != "trade" or span is None:
            return False
        key = (dataset.name, market)
        if key not in self._consecutive:
            ends = (
                TimeRange(span.start, span.start + TIME_STEP),
                TimeRange(span.end - TIME_STEP, span.end),
            )
            ids = pl.concat(
                self._read_reference(dataset.name, market, end)["trade_id"] for end in ends
            )
            numbers = ids.cast(pl.Int64, strict=False)
            rows = int(self.listing.valid_files(dataset.name, market)["rows"].sum())
            all_ids = pl.col("trade_id").max() - pl.col("trade_id").min() + 1
            share = numbers.to_frame().select(rows / all_ids).item()
            self._consecutive[key] = share is not None and share >= _MIN_SHARE
        return self._consecutive[key]


def _select(market: Market, range_: TimeRange) -> Selection:
    return Selection((market.exchange,), (market.symbol,), range_.start, range_.end)


def widen(range_: TimeRange, margin: timedelta) -> TimeRange:
    """Widen a range by a margin on both sides."""
    return TimeRange(range_.start - margin, range_.end + margin)


def _to_ranges(rows: pl.DataFrame) -> RangeSet:
    return union(TimeRange(*row) for row in rows.select("start", "end").iter_rows())
