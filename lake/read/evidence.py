"""What a lake knows of a market, as checks want to see it: slices of its rows, with witnesses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import polars as pl

from lake.model.dataset import Dataset
from lake.model.intervals import RangeSet, intersect, union
from lake.model.market import Market, StoredMarket
from lake.model.selection import Selection
from lake.model.time import EPOCH, MICROSECOND, TimeRange
from lake.model.timeframe import Timeframe
from lake.quality.check import NEAR_BARS, Slice, Witness, margin_of
from lake.quality.completeness import missing_slots
from lake.quality.outages import Presence, outages
from lake.read.days import AHEAD, DAY, day_of, is_sound, pieces, whole_days
from lake.store.rows import TIME_STEP, Rows, touching

_MONTH = Timeframe(1, "M")
_HOUR_SECONDS = 3600
_LISTED = ("exchange", "symbol", "rows", "first", "last")
_UNUSED = ("exchange", "symbol", "date", "received_at")


@dataclass(frozen=True)
class Evidence:
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

    tables: Mapping[str, Rows]
    coverage: pl.DataFrame
    quarantine: pl.DataFrame
    now: datetime
    omits_empty_bars: Callable[[str], bool]
    _outages: dict[tuple[str, str, datetime], RangeSet] = field(default_factory=dict)
    _files: dict[str, pl.DataFrame] = field(default_factory=dict)

    def slices(self, table: str, selection: Selection, *, exactly: bool = False) -> Iterator[Slice]:
        """The rows of a selection by market and some days, so that memory stays bounded.

        Days are whole: bounds within a day mean all of it, unless `exactly` the selection is
        judged. A market or day of which all rows were refused is there, too.
        """
        dataset = self.tables[table].dataset
        for market in self.checked(table, selection):
            for judged in self._pieces(dataset, market, selection):
                start, end = judged.start, judged.end
                if exactly:
                    start = max(filter(None, (start, selection.start)))
                    end = min(filter(None, (end, selection.end)))
                if start < end:
                    yield self._slice(dataset, market, TimeRange(start, end))

    def rows(self, table: str, selection: Selection) -> int:
        """About how many rows `slices` will give, for a progress bar."""
        files = self._listed(table)
        market = ["exchange", "symbol"]
        chosen = self.tables[table].files(selection).select(market).unique()
        return int(files.join(chosen, on=market, how="semi")["rows"].sum())

    def checked(self, table: str, selection: Selection) -> list[Market]:
        """The markets that are judged in a selection.

        They have rows in it, or before and after it, or had all of them refused.
        """
        asked = whole_days(selection)
        market = ("exchange", "symbol")
        spans = (
            self._listed(table).group_by(market).agg(pl.col("first").min(), pl.col("last").max())
        )
        there = spans.filter(touching(asked)).select(market)
        pairs = pl.concat([there, self._refused(table, asked).select(market)])
        return sorted(StoredMarket(*pair) for pair in pairs.unique().iter_rows())

    def markets(self, table: str, selection: Selection) -> list[Market]:
        """The markets of a selection that have rows."""
        files = self.tables[table].files(selection)
        pairs = files.select("exchange", "symbol").unique().sort("exchange", "symbol")
        return [StoredMarket(*pair) for pair in pairs.iter_rows()]

    def span(self, table: str, market: Market) -> TimeRange | None:
        """From a market's first to its last row; rows of impossible times do not count."""
        files = self._listed(table).filter(_of(market) & is_sound(self.now))
        first, last = files["first"].min(), files["last"].max()
        if not isinstance(first, datetime) or not isinstance(last, datetime):
            return None
        return TimeRange(first, last + TIME_STEP)

    def _slice(self, dataset: Dataset, market: Market, judged: TimeRange) -> Slice:
        margin, near = margin_of(dataset), _near(dataset)
        rows = self._read(dataset.name, market, judged, margin)
        span, covered = self.span(dataset.name, market), self._covered(dataset.name, market)
        slice_ = Slice(
            dataset=dataset,
            market=market,
            range=judged,
            now=self.now,
            rows=rows.lazy(),
            span=span,
            covered=covered,
            rows_a_second=self._rows_a_second(dataset, market, span, covered),
            trades=self._trades(dataset, market, judged, near),
            finer=self._finer(dataset, market, judged, near),
            others=self._others(dataset, market, judged, _beside(dataset)),
            omits_empty_bars=self.omits_empty_bars(market.exchange),
            refused=self._refused(
                dataset.name,
                Selection((market.exchange,), (market.symbol,), judged.start, judged.end),
            ),
        )
        return replace(slice_, outages=self._silences(slice_))

    def _read(
        self, table: str, market: Market, judged: TimeRange, margin: timedelta
    ) -> pl.DataFrame:
        selection = Selection(
            (market.exchange,), (market.symbol,), judged.start - margin, judged.end + margin
        )
        return self.tables[table].collect(selection)

    def _witness(self, table: str, market: Market, judged: TimeRange, margin: timedelta) -> Witness:
        wider = TimeRange(judged.start - margin, judged.end + margin)
        rows = self._testimony(table, market, wider)
        dataset = self.tables[table].dataset
        return Witness(dataset, market, rows.lazy(), self._covered(table, market))

    def _testimony(self, table: str, market: Market, wanted: TimeRange) -> pl.DataFrame:
        dataset = self.tables[table].dataset
        columns = [name for name in dataset.polars_schema if name not in _UNUSED]
        selection = Selection((market.exchange,), (market.symbol,), wanted.start, wanted.end)
        return self.tables[table].collect(selection, columns=columns)

    def _trades(
        self, dataset: Dataset, market: Market, judged: TimeRange, margin: timedelta
    ) -> Witness | None:
        """Trades of the range and around it, on both sides at least one if there is any.

        Ids that follow each other prove that nothing was traded between, however long that is.
        """
        if "trades" not in self._witnesses(dataset, market):
            return None
        near = self._witness("trades", market, judged, margin)
        times = near.rows.select(pl.col("timestamp")).collect().to_series()
        first, last = times.min(), times.max()
        parts = [near.rows]
        if not isinstance(first, datetime) or first >= judged.start:
            parts.insert(0, self._neighbour(market, before=judged.start - margin).lazy())
        # The last bars may end after the range.
        if not isinstance(last, datetime) or last < judged.end + _longest(dataset):
            parts.append(self._neighbour(market, after=judged.end + margin).lazy())
        return replace(near, rows=pl.concat(parts))

    def _neighbour(
        self, market: Market, before: datetime | None = None, after: datetime | None = None
    ) -> pl.DataFrame:
        """The last trades before a time, or the first ones from a time on."""
        files = self._listed("trades").filter(_of(market) & is_sound(self.now))
        if before is not None:
            files = files.filter(pl.col("first") < before).sort("first").tail(1)
        else:
            files = files.filter(pl.col("last") >= after).sort("last").head(1)
        if files.is_empty():
            return self._testimony("trades", market, TimeRange(EPOCH, EPOCH + TIME_STEP)).clear()
        first, last = files.select("first", pl.col("last") + TIME_STEP).row(0)
        wanted = TimeRange(first, before) if before is not None else TimeRange(after or first, last)
        rows, time = self._testimony("trades", market, wanted), pl.col("timestamp")
        return rows.filter(time == (time.max() if before is not None else time.min()))

    def _finer(
        self, dataset: Dataset, market: Market, judged: TimeRange, margin: timedelta
    ) -> tuple[Witness, ...]:
        return tuple(
            self._witness(table, market, judged, margin)
            for table in self._witnesses(dataset, market)
            if table != "trades"
        )

    def _others(
        self, dataset: Dataset, market: Market, judged: TimeRange, margin: timedelta
    ) -> tuple[Witness, ...]:
        """The same symbol on other venues: of the same base, quote and kind."""
        if dataset.timeframe is None:
            return ()
        there = self.markets(dataset.name, Selection((), (market.symbol,)))
        found = (
            self._witness(dataset.name, other, judged, margin) for other in there if other != market
        )
        return tuple(found)

    def _witnesses(self, dataset: Dataset, market: Market) -> list[str]:
        """Tables that testify of bars: the next finer bars, and trades unless bars are long."""
        if dataset.timeframe is None:
            return []
        seconds = dataset.timeframe.seconds
        finer = [
            (rows.dataset.timeframe.seconds, name)
            for name, rows in self.tables.items()
            if rows.dataset.family == dataset.family
            and rows.dataset.timeframe is not None
            and rows.dataset.timeframe.seconds < seconds
            and self.span(name, market) is not None
        ]
        names = [name for _, name in sorted(finer, reverse=True)[:1]]
        has_trades = "trades" in self.tables and self.span("trades", market) is not None
        if has_trades and (not names or seconds <= _HOUR_SECONDS):
            names.append("trades")
        return names

    def _pieces(
        self, dataset: Dataset, market: Market, selection: Selection
    ) -> Iterator[TimeRange]:
        """Whole days of a selection that are read at once."""
        names = [dataset.name, *self._witnesses(dataset, market)]
        files, *witnesses = [self._listed(name).filter(_of(market)) for name in names]
        if dataset.timeframe is not None:
            same = (pl.col("symbol") == market.symbol) & (pl.col("exchange") != market.exchange)
            witnesses.append(self._listed(dataset.name).filter(same))
        own = Selection((market.exchange,), (market.symbol,))
        refused = {day_of(time) for time in self._refused(dataset.name, own)["timestamp"]}
        return pieces(files, witnesses, refused, selection, self.now)

    def _covered(self, table: str, market: Market) -> RangeSet | None:
        """What is covered of a market's table; None where nothing of it was ever fetched."""
        rows = self.coverage.filter((pl.col("table") == table) & _of(market))
        pairs = rows.select("start", "end").iter_rows()
        return union(TimeRange(start, end) for start, end in pairs) if rows.height else None

    def _rows_a_second(
        self, dataset: Dataset, market: Market, span: TimeRange | None, covered: RangeSet | None
    ) -> float | None:
        """How dense rows are, to two digits: what is made of it does not change with every row."""
        if dataset.timeframe is not None or span is None or covered is None:
            return None
        files = self._listed(dataset.name).filter(_of(market) & is_sound(self.now))
        seconds = sum(part.duration.total_seconds() for part in intersect([span], covered))
        return float(f"{int(files['rows'].sum()) / seconds:.2g}") if seconds else None

    def _refused(self, table: str, selection: Selection) -> pl.DataFrame:
        """Refused rows of a selection; those without a usable time are of no day."""
        chosen = (pl.col("dataset") == table) & (pl.col("timestamp") != EPOCH)
        if selection.exchanges:
            chosen &= pl.col("exchange").is_in(list(selection.exchanges))
        if selection.symbols:
            chosen &= pl.col("symbol").is_in(list(selection.symbols))
        if selection.start is not None:
            chosen &= pl.col("timestamp") >= selection.start
        if selection.end is not None:
            chosen &= pl.col("timestamp") < selection.end
        return self.quarantine.filter(chosen)

    def _silences(self, rows: Slice) -> RangeSet:
        """When all markets of the venue had no bar, in the months in which this one lacks some."""
        if rows.dataset.timeframe is None:
            return ()
        missing = missing_slots(rows, rows.dataset.timeframe)
        months = missing.select(pl.col("start").dt.truncate("1mo")).unique().collect()["start"]
        return union(
            item
            for month in months.sort()
            for item in self._silences_of(rows.dataset, rows.market.exchange, month)
        )

    def _silences_of(self, dataset: Dataset, exchange: str, month: datetime) -> RangeSet:
        key = (dataset.name, exchange, month)
        if key not in self._outages and dataset.timeframe is not None:
            span = TimeRange(month, _MONTH.after(month))
            presences = self._presences(dataset, exchange, span)
            self._outages[key] = outages(presences, dataset.timeframe)
        return self._outages[key]

    def _presences(self, dataset: Dataset, exchange: str, month: TimeRange) -> Iterator[Presence]:
        selection = Selection((exchange,), (), month.start, month.end)
        markets = self.markets(dataset.name, selection)
        for market in markets if len(markets) > 1 else ():
            span = self.span(dataset.name, market)
            for part in intersect([month], [span] if span else []):
                own = replace(selection, symbols=(market.symbol,))
                frame = self.tables[dataset.name].collect(own, columns=[dataset.time_column])
                yield Presence(frame[dataset.time_column], part)

    def _listed(self, table: str) -> pl.DataFrame:
        """The data files of a table, each with its times.

        Of a market with rows of impossible times, or with files that another engine wrote without
        statistics, its days instead: possible and impossible times apart.
        """
        if table not in self._files:
            files = self.tables[table].files().select(_LISTED)
            is_odd = ~is_sound(self.now).fill_null(value=False)
            odd = files.filter(is_odd).select("exchange", "symbol").unique()
            if odd.height:
                days = [_days(self.tables[table], pair, self.now) for pair in odd.iter_rows()]
                files = pl.concat([files.join(odd, on=odd.columns, how="anti"), *days])
            self._files[table] = files
        return self._files[table]


def _near(dataset: Dataset) -> timedelta:
    """How far around a range trades and finer bars are read: as far as its last bar reaches."""
    return max(min(margin_of(dataset), DAY), _longest(dataset))


def _beside(dataset: Dataset) -> timedelta:
    """How far around a range other venues are read."""
    return min(margin_of(dataset), max(DAY, NEAR_BARS * _longest(dataset)))


def _longest(dataset: Dataset) -> timedelta:
    """The length of the longest bar."""
    timeframe = dataset.timeframe
    if timeframe is None:
        return timedelta(0)
    is_months = timeframe.unit == "M"
    return (
        timedelta(days=31 * timeframe.count) if is_months else timedelta(seconds=timeframe.seconds)
    )


def _of(market: Market) -> pl.Expr:
    return (pl.col("exchange") == market.exchange) & (pl.col("symbol") == market.symbol)


def _days(rows: Rows, market: tuple[str, str], now: datetime) -> pl.DataFrame:
    time, selection = pl.col(rows.dataset.time_column), Selection(market[:1], market[1:])
    step = TIME_STEP // MICROSECOND
    return (
        rows.scan(selection, columns=[rows.dataset.time_column])
        .group_by(time.dt.date().alias("_day"), (time <= now + AHEAD).alias("_sound"))
        .agg(
            exchange=pl.lit(market[0]),
            symbol=pl.lit(market[1]),
            rows=pl.len().cast(pl.Int64),
            first=time.min().dt.truncate(f"{step}us"),
            last=time.max().dt.truncate(f"{step}us"),
        )
        .select(_LISTED)
        .collect()
    )
