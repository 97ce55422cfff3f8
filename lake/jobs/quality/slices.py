"""What a lake knows of a market, as checks want to see it: slices of its rows, with witnesses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property, partial

import polars as pl

from lake.jobs.quality.file_spans import Listing, matches_market
from lake.model.dataset import Dataset
from lake.model.intervals import RangeSet, intersect, union
from lake.model.market import Market, StoredMarket, unwrap_symbol
from lake.model.selection import Selection
from lake.model.time import DAY, TimeRange
from lake.model.timeframe import Timeframe
from lake.quality.checks.completeness import find_missing_slots
from lake.quality.checks.outages import MarketBars, find_outages
from lake.quality.slice import NEAR_BARS, Reference, Slice
from lake.store.chunks import chunk_days, to_day_number, widen_to_days
from lake.store.reader import TIME_STEP, TableReader, may_hold_rows

_MONTH = Timeframe(1, "M")
_HOUR_SECONDS = 3600
_MIN_SHARE = 0.9  # share of all ids from which on trades are known to be numbered one by one
_ROW_BYTES = 64  # a stored row of bars or trades has less, a deep order book much more
_UNUSED = ("exchange", "symbol", "date", "received_at")


@dataclass(frozen=True)
class CheckInputs:
    """Tables at one moment, and what is recorded about them.

    Attributes
    ----------
    tables
        Rows by name of the table.
    coverage
        Covered intervals: `table`, `exchange`, `symbol`, `start`, `end`.
    quarantine
        Rows of `quarantine`, without what they hold.
    now
        The present.
    omits_empty_bars
        Whether an exchange is known to send no bar where there was no trade.
    """

    tables: Mapping[str, TableReader]
    coverage: pl.DataFrame
    quarantine: pl.DataFrame
    now: datetime
    omits_empty_bars: Callable[[str], bool]
    _consecutive: dict[tuple[str, Market], bool] = field(default_factory=dict)
    _outages: dict[tuple[str, str, datetime], RangeSet] = field(default_factory=dict)

    @cached_property
    def listing(self) -> Listing:
        """The data files of the tables."""
        return Listing(self.tables, self.now)

    def cut_slices(
        self, table: str, selection: Selection, *, exactly: bool = False
    ) -> Iterator[Slice]:
        """The rows of a selection by market and some days, so that memory stays bounded.

        Days are whole: bounds within a day mean all of it, unless `exactly` the selection is
        judged. A market or day of which all rows were refused is there, too.
        """
        dataset = self.tables[table].dataset
        for market in self.find_checked_markets(table, selection):
            for judged in self._chunk_days(dataset, market, selection):
                start, end = judged.start, judged.end
                if exactly:
                    start = max(filter(None, (start, selection.start)))
                    end = min(filter(None, (end, selection.end)))
                if start < end:
                    yield self._build_slice(dataset, market, TimeRange(start, end))

    def estimate_rows(self, table: str, selection: Selection) -> int:
        """About how many rows `slices` will give, for a progress bar."""
        files = self.listing.files(table)
        market = ["exchange", "symbol"]
        chosen = self.tables[table].files(selection).select(market).unique()
        return int(files.join(chosen, on=market, how="semi")["rows"].sum())

    def find_checked_markets(self, table: str, selection: Selection) -> list[Market]:
        """The markets that are judged in a selection.

        They have rows in it, or before and after it, or had all of them refused.
        """
        asked = widen_to_days(selection)
        market = ("exchange", "symbol")
        files = self.listing.files(table)
        spans = files.group_by(market).agg(pl.col("first").min(), pl.col("last").max())
        there = spans.filter(may_hold_rows(asked)).select(market)
        pairs = pl.concat([there, self._find_quarantine(table, asked).select(market)])
        return sorted(StoredMarket(*pair) for pair in pairs.unique().iter_rows())

    def find_markets(self, table: str, selection: Selection) -> list[Market]:
        """The markets of a selection that have rows."""
        files = self.tables[table].files(selection)
        pairs = files.select("exchange", "symbol").unique().sort("exchange", "symbol")
        return [StoredMarket(*pair) for pair in pairs.iter_rows()]

    def _build_slice(self, dataset: Dataset, market: Market, judged: TimeRange) -> Slice:
        near = _reference_margin(dataset)
        span, covered = (
            self.listing.span(dataset.name, market),
            self._find_coverage(dataset.name, market),
        )
        slice_ = Slice(
            dataset=dataset,
            market=market,
            range=judged,
            now=self.now,
            frame=self._read_rows(dataset, market, judged).lazy(),
            span=span,
            coverage=covered,
            rows_per_second=self._measure_row_rate(dataset, market, span, covered),
            has_consecutive_ids=span is not None
            and self._has_consecutive_ids(dataset, market, span),
            trades=self._find_trades(dataset, market, judged, near),
            finer=self._find_finer(dataset, market, judged, near),
            others=self._find_others(dataset, market, judged, _venue_margin(dataset)),
            omits_empty_bars=self.omits_empty_bars(market.exchange),
            quarantine=self._find_quarantine(
                dataset.name,
                Selection((market.exchange,), (market.symbol,), judged.start, judged.end),
            ),
        )
        return replace(slice_, outages=self._find_outages(slice_))

    def _read_rows(self, dataset: Dataset, market: Market, judged: TimeRange) -> pl.DataFrame:
        """The market's rows of a range and around it."""
        margin, read = dataset.margin, partial(self._read_range, dataset.name, market)
        wider = _widen(judged, margin)
        if dataset.timeframe is None and margin <= DAY:
            return self._read_with_neighbours(dataset.name, market, judged, wider, read)
        # Bars have a grid, and funding a schedule: what is missing shows without a neighbour.
        return read(wider)

    def _read_range(self, table: str, market: Market, wanted: TimeRange) -> pl.DataFrame:
        selection = Selection((market.exchange,), (market.symbol,), wanted.start, wanted.end)
        return self.tables[table].collect(selection)

    def _build_reference(
        self, table: str, market: Market, judged: TimeRange, margin: timedelta
    ) -> Reference:
        rows = self._read_reference(table, market, _widen(judged, margin))
        dataset = self.tables[table].dataset
        return Reference(dataset, market, rows.lazy(), self._find_coverage(table, market))

    def _read_reference(self, table: str, market: Market, wanted: TimeRange) -> pl.DataFrame:
        dataset = self.tables[table].dataset
        columns = [name for name in dataset.polars_schema if name not in _UNUSED]
        selection = Selection((market.exchange,), (market.symbol,), wanted.start, wanted.end)
        return self.tables[table].collect(selection, columns=columns)

    def _find_trades(
        self, dataset: Dataset, market: Market, judged: TimeRange, margin: timedelta
    ) -> Reference | None:
        """Trades of the range and around it, on both sides at least one if there is any.

        Ids that follow each other prove that nothing was traded between, however long that is.
        """
        if "trades" not in self._reference_tables(dataset, market):
            return None
        # The last bars may end after the range.
        asked = TimeRange(judged.start, judged.end + _longest_bar(dataset))
        read = partial(self._read_reference, "trades", market)
        rows = self._read_with_neighbours("trades", market, asked, _widen(judged, margin), read)
        trades = self.tables["trades"].dataset
        return Reference(trades, market, rows.lazy(), self._find_coverage("trades", market))

    def _read_with_neighbours(
        self,
        table: str,
        market: Market,
        asked: TimeRange,
        wider: TimeRange,
        read: Callable[[TimeRange], pl.DataFrame],
    ) -> pl.DataFrame:
        """Rows of a range and a wider one; on both sides those of one moment at least, if any.

        What is missing between two rows shows only beside both, however far apart they are.
        """
        name = self.tables[table].dataset.time_column
        time = pl.col(name)
        parts = [read(wider)]
        first, last = parts[0][name].min(), parts[0][name].max()
        files = self.listing.valid_files(table, market)
        if not isinstance(first, datetime) or first >= asked.start:
            start = files.filter(pl.col("first") < wider.start)["first"].max()
            if isinstance(start, datetime):
                before = read(TimeRange(start, wider.start))
                parts.insert(0, before.filter(time == time.max()))
        if not isinstance(last, datetime) or last < asked.end:
            end = files.filter(pl.col("last") >= wider.end)["last"].min()
            if isinstance(end, datetime):
                after = read(TimeRange(wider.end, end + TIME_STEP))
                parts.append(after.filter(time == time.min()))
        return pl.concat(parts)

    def _find_finer(
        self, dataset: Dataset, market: Market, judged: TimeRange, margin: timedelta
    ) -> tuple[Reference, ...]:
        return tuple(
            self._build_reference(table, market, judged, margin)
            for table in self._reference_tables(dataset, market)
            if table != "trades"
        )

    def _find_others(
        self, dataset: Dataset, market: Market, judged: TimeRange, margin: timedelta
    ) -> tuple[Reference, ...]:
        """The same symbol on other venues: of the same base, quote and kind."""
        if dataset.timeframe is not None:
            there = self.find_markets(dataset.name, Selection((), (market.symbol,)))
            tables = dict.fromkeys(there, dataset.name)
        elif market.is_on_chain:
            tables = self._find_finest_bars(market.symbol, unwrap_symbol(market.symbol))
        else:
            return ()
        found = (
            self._build_reference(table, other, judged, margin)
            for other, table in tables.items()
            if other.exchange != market.exchange
        )
        return tuple(found)

    def _find_finest_bars(self, *symbols: str) -> dict[Market, str]:
        """The markets of symbols that have bars, each with its table of the finest ones."""
        tables = [
            (rows.dataset.timeframe.seconds, name)
            for name, rows in self.tables.items()
            if rows.dataset.event == "bar" and rows.dataset.timeframe is not None
        ]
        coarsest_first = [name for _, name in sorted(tables, reverse=True)]
        chosen = Selection((), tuple(dict.fromkeys(symbols)))
        return {one: name for name in coarsest_first for one in self.find_markets(name, chosen)}

    def _reference_tables(self, dataset: Dataset, market: Market) -> list[str]:
        """Tables that testify of bars: the next finer bars, and trades unless bars are long.

        Of order books trades do.
        """
        has_trades = "trades" in self.tables and self.listing.span("trades", market) is not None
        if dataset.event != "bar" or dataset.timeframe is None:
            return ["trades"] if has_trades and dataset.event == "order_book" else []
        seconds = dataset.timeframe.seconds
        finer = [
            (rows.dataset.timeframe.seconds, name)
            for name, rows in self.tables.items()
            if rows.dataset.family == dataset.family
            and rows.dataset.timeframe is not None
            and rows.dataset.timeframe.seconds < seconds
            and self.listing.span(name, market) is not None
        ]
        names = [name for _, name in sorted(finer, reverse=True)[:1]]
        if has_trades and (not names or seconds <= _HOUR_SECONDS):
            names.append("trades")
        return names

    def _chunk_days(
        self, dataset: Dataset, market: Market, selection: Selection
    ) -> Iterator[TimeRange]:
        """Whole days of a selection that are read at once."""
        names = [dataset.name, *self._reference_tables(dataset, market)]
        files, *witnesses = [
            self._weigh_files(name).filter(matches_market(market)) for name in names
        ]
        if dataset.timeframe is not None:
            same = (pl.col("symbol") == market.symbol) & (pl.col("exchange") != market.exchange)
            witnesses.append(self._weigh_files(dataset.name).filter(same))
        own = Selection((market.exchange,), (market.symbol,))
        refused = {
            to_day_number(time) for time in self._find_quarantine(dataset.name, own)["timestamp"]
        }
        return chunk_days(files, witnesses, refused, selection, self.now)

    def _weigh_files(self, table: str) -> pl.DataFrame:
        """Files whose `rows` count as many as ordinary ones that need their memory."""
        weight = pl.max_horizontal("rows", pl.col("bytes") // _ROW_BYTES)
        return self.listing.files(table).with_columns(rows=weight)

    def _find_coverage(self, table: str, market: Market) -> RangeSet | None:
        """What is covered of a market's table; None where nothing of it was ever fetched."""
        rows = self.coverage.filter((pl.col("table") == table) & matches_market(market))
        pairs = rows.select("start", "end").iter_rows()
        return union(TimeRange(start, end) for start, end in pairs) if rows.height else None

    def _measure_row_rate(
        self, dataset: Dataset, market: Market, span: TimeRange | None, covered: RangeSet | None
    ) -> float | None:
        """How dense rows are, to two digits: what is made of it does not change with every row."""
        if dataset.timeframe is not None or span is None or covered is None:
            return None
        files = self.listing.valid_files(dataset.name, market)
        seconds = sum(part.duration.total_seconds() for part in intersect([span], covered))
        return float(f"{int(files['rows'].sum()) / seconds:.2g}") if seconds else None

    def _has_consecutive_ids(self, dataset: Dataset, market: Market, span: TimeRange) -> bool:
        if dataset.event != "trade":
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

    def _find_quarantine(self, table: str, selection: Selection) -> pl.DataFrame:
        """Refused rows of a selection; those without a usable time are of 1970-01-01."""
        chosen = pl.col("dataset") == table
        if selection.exchanges:
            chosen &= pl.col("exchange").is_in(list(selection.exchanges))
        if selection.symbols:
            chosen &= pl.col("symbol").is_in(list(selection.symbols))
        if selection.start is not None:
            chosen &= pl.col("timestamp") >= selection.start
        if selection.end is not None:
            chosen &= pl.col("timestamp") < selection.end
        return self.quarantine.filter(chosen)

    def _find_outages(self, rows: Slice) -> RangeSet:
        """When all markets of the venue had no bar, in the months in which this one lacks some."""
        if rows.dataset.timeframe is None:
            return ()
        missing = find_missing_slots(rows, rows.dataset.timeframe)
        months = missing.select(pl.col("start").dt.truncate("1mo")).unique().collect()["start"]
        return union(
            item
            for month in months.sort()
            for item in self._find_outages_of_month(rows.dataset, rows.market.exchange, month)
        )

    def _find_outages_of_month(self, dataset: Dataset, exchange: str, month: datetime) -> RangeSet:
        key = (dataset.name, exchange, month)
        if key not in self._outages and dataset.timeframe is not None:
            span = TimeRange(month, _MONTH.after(month))
            presences = self._read_market_bars(dataset, exchange, span)
            self._outages[key] = find_outages(presences, dataset.timeframe)
        return self._outages[key]

    def _read_market_bars(
        self, dataset: Dataset, exchange: str, month: TimeRange
    ) -> Iterator[MarketBars]:
        selection = Selection((exchange,), (), month.start, month.end)
        markets = self.find_markets(dataset.name, selection)
        for market in markets if len(markets) > 1 else ():
            span = self.listing.span(dataset.name, market)
            for part in intersect([month], [span] if span else []):
                own = replace(selection, symbols=(market.symbol,))
                frame = self.tables[dataset.name].collect(own, columns=[dataset.time_column])
                yield MarketBars(frame[dataset.time_column], part)


def _reference_margin(dataset: Dataset) -> timedelta:
    """How far around a range trades and finer bars are read: as far as its last bar reaches."""
    return max(min(dataset.margin, DAY), _longest_bar(dataset))


def _venue_margin(dataset: Dataset) -> timedelta:
    """How far around a range other venues are read."""
    return min(dataset.margin, max(DAY, NEAR_BARS * _longest_bar(dataset)))


def _longest_bar(dataset: Dataset) -> timedelta:
    """The length of the longest bar."""
    return dataset.timeframe.longest if dataset.timeframe else timedelta(0)


def _widen(span: TimeRange, margin: timedelta) -> TimeRange:
    return TimeRange(span.start - margin, span.end + margin)
