"""Rows for what no source gives: derived from finer data of the lake, or interpolated by rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import polars as pl

from lake.jobs.repairs.plan import Group, Target
from lake.jobs.repairs.spans import Moments, read_each, read_together, tile
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.derive import (
    BARS,
    FROM_TRADES,
    INTERPOLATED,
    bars_from_bars,
    bars_from_trades,
    complete_slots,
    nests,
    slots,
)
from lake.model.interpolate import FLAT, between, due, flat, obstacle
from lake.model.intervals import union
from lake.model.ohlcv import OHLCV
from lake.model.time import DAY, MICROSECOND, TimeRange
from lake.model.timeframe import Timeframe
from lake.store.ledger import Ledger
from lake.store.store import Store

# Trades before and after a bar tell whether ids follow each other; bars beside it, whether they
# are counted as its trades are.
_AROUND = timedelta(hours=1)
# Rows around a missing one tell the schedule: of tables by year, or by day.
_SCHEDULE = {"year": timedelta(days=30), "day": timedelta(days=2)}
_AGREEING = 0.5
_SAME_EVENT = timedelta(minutes=1)
_TOLERANCE = 1e-9


@dataclass
class FilledRows:
    """Rows to be stored by one method, and what they rest on.

    Attributes
    ----------
    source
        What `fill` says of them, and is recorded as their source.
    """

    source: str
    rows: pl.DataFrame
    evidence: dict[str, Any] = field(default_factory=dict)


class Filling:
    """Makes rows for a group; writes nothing."""

    def __init__(self, store: Store, group: Group) -> None:
        self._store = store
        self._group = group

    @property
    def makes_bars(self) -> bool:
        """Whether the table has a timeframe: only then there are slots that can be missing."""
        return self._group.dataset.timeframe is not None

    def find_absent(self) -> Moments:
        """Open times in the group's windows of rows that are missing; none without a timeframe."""
        dataset, market = self._group.dataset, self._group.market
        time, times = dataset.time_column, [pl.Series(dtype=TIMESTAMP)]
        if self.makes_bars:
            parts = tile(self._group.windows)
            for spans, rows in read_together(self._store, dataset, market, parts, [time]):
                opens = pl.concat([slots(span, self._timeframe) for span in spans])
                times.append(opens.filter(~opens.is_in(rows[time].implode())))
        return Moments(pl.concat(times))

    def derive(self, spans: Iterable[TimeRange]) -> Iterator[FilledRows]:
        """Missing bars from finer data: trades first, then bars, the next finer first.

        What was given is taken to be stored before the next is asked for.
        """
        if self._group.dataset.event != "bar":
            return
        left = self.find_absent().select(spans)
        for name in ("trades", *self._find_finer_tables()):
            if left.is_empty():
                return
            if self._store.exists(name):
                made = (
                    self._derive_from_trades(left)
                    if name == "trades"
                    else self._derive_from_bars(name, left)
                )
                if made is not None:
                    left = left.filter(~left.is_in(made.rows["timestamp"].implode()))
                    yield made

    def interpolate(self, quiet: Collection[Target], lost: Collection[Target]) -> FilledRows | None:
        """What the dataset allows to fill in, where nobody has anything.

        Parameters
        ----------
        quiet
            Intervals in which no trade happened.
        lost
            Intervals in which rows are missing.
        """
        targets = quiet if self.makes_bars else lost
        policies = ("flat",) if self.makes_bars else ("linear", "last")
        dataset = self._group.dataset
        if not targets or dataset.repair.interpolate not in policies or obstacle(dataset):
            return None
        if self.makes_bars:
            return self._fill_flat(target.span for target in quiet)
        return self._fill_between(lost)

    def _fill_flat(self, spans: Iterable[TimeRange]) -> FilledRows | None:
        """Flat bars for intervals without trades."""
        timeframe, dataset = self._timeframe, self._group.dataset
        opens = Moments(self.find_absent().select(spans))
        pieces = self._cut_spans(opens)
        around = [TimeRange(timeframe.floor(p.start - MICROSECOND), p.end) for p in pieces]
        made = [pl.DataFrame(schema=BARS)]
        for span, stored in self._read_rows(dataset, around, ["timestamp", "close", "closed"]):
            # What was made for the piece before this one is not stored yet.
            known = pl.concat([made[-1].select(stored.columns).tail(1), stored])
            made.append(flat(known, opens.select([span]), timeframe))
        return _build_filled(FLAT, made, {"policy": "flat", "proof": "no trade happened"})

    def _fill_between(self, targets: Iterable[Target]) -> FilledRows | None:
        """Rows that are due by the schedule and not there, by the policy of the dataset."""
        dataset, how = self._group.dataset, self._group.dataset.repair.interpolate
        assert how is not None  # noqa: S101 - the callers look at the policy
        made = []
        spans = union(target.span for target in targets)
        around = [widen(span, _SCHEDULE[dataset.granularity]) for span in spans]
        for span, (_, rows) in zip(spans, self._read_rows(dataset, around), strict=True):
            times = due(rows[dataset.time_column], span)
            made.append(between(dataset, rows, times, how))
        return _build_filled(f"{INTERPOLATED}{how}", made, {"policy": how})

    def _find_finer_tables(self) -> list[str]:
        """Names of the tables of finer bars, the next finer first."""
        dataset = self._group.dataset
        found = []
        for name in self._store.tables():
            other = self._store.catalog.dataset(name)
            if other.family != dataset.family or not other.timeframe or not dataset.timeframe:
                continue
            if nests(other.timeframe, dataset.timeframe):
                found.append((other.timeframe.seconds, name))
        return [name for _, name in sorted(found, reverse=True)]

    def _derive_from_trades(self, opens: pl.Series) -> FilledRows | None:
        timeframe, trades = self._timeframe, self._store.catalog.dataset("trades")
        covered = Ledger(self._store).covered("trades", self._group.market)
        wanted = Moments(opens)
        pieces = self._cut_spans(wanted)
        around = [widen(piece, _AROUND) for piece in pieces]
        stored = self._read_rows(self._group.dataset, around)
        made, agreeing, compared = [], 0, 0
        for piece, (span, rows), (_, beside) in zip(
            pieces, self._read_rows(trades, around), stored, strict=True
        ):
            grid = slots(span, timeframe)
            grid = grid.filter(complete_slots(rows, grid, timeframe, covered))
            bars = bars_from_trades(rows, timeframe)
            bars = bars.filter(pl.col("timestamp").is_in(grid.implode()))
            made.append(_select_opens(bars, wanted.select([piece])))
            same = _compare_with_sent(bars, beside)
            agreeing, compared = agreeing + int(same.sum()), compared + len(same)
        if agreeing < _AGREEING * compared:
            return None  # the venue counts bars otherwise than trades: in another unit, perhaps
        facts = {
            "trades_version": self._store.version(trades),
            "bars_beside": compared,
            "of_them_equal": agreeing,
        }
        return _build_filled(FROM_TRADES, made, facts)

    def _derive_from_bars(self, name: str, opens: pl.Series) -> FilledRows | None:
        finer, wanted = self._store.catalog.dataset(name), Moments(opens)
        assert finer.timeframe is not None  # noqa: S101 - `_finer` gives bars only
        made = []
        for span, rows in self._read_rows(finer, self._cut_spans(wanted)):
            bars = bars_from_bars(rows, finer.timeframe, self._timeframe)
            made.append(_select_opens(bars, wanted.select([span])))
        facts = {f"{name}_version": self._store.version(finer)}
        return _build_filled(f"derived:{name}", made, facts)

    def _cut_spans(self, opens: Moments) -> list[TimeRange]:
        """Spans of whole bars that hold all of some open times; each a day, or a bar, at most."""
        timeframe = self._timeframe
        pieces: list[TimeRange] = []
        for time in opens.times:
            end, last = timeframe.after(time), pieces[-1] if pieces else None
            if last and time - last.end <= timedelta(hours=1) and end - last.start <= DAY:
                pieces[-1] = TimeRange(last.start, end)
            else:
                pieces.append(TimeRange(time, end))
        return pieces

    @property
    def _timeframe(self) -> Timeframe:
        timeframe = self._group.dataset.timeframe
        assert timeframe is not None  # noqa: S101 - the callers ask of bars only
        return timeframe

    def _read_rows(
        self, dataset: Dataset, spans: Sequence[TimeRange], columns: Sequence[str] | None = None
    ) -> Iterator[tuple[TimeRange, pl.DataFrame]]:
        return read_each(self._store, dataset, self._group.market, spans, columns)


def _select_opens(bars: pl.DataFrame, opens: pl.Series) -> pl.DataFrame:
    return bars.filter(pl.col("timestamp").is_in(opens.implode()))


def _compare_with_sent(bars: pl.DataFrame, stored: pl.DataFrame) -> pl.Series:
    """Of the bars that the venue sent as well: whether they say the same."""
    sent = stored.filter(pl.col("fill").is_null(), "closed")
    both = bars.join(sent, on="timestamp", suffix="_sent")
    apart = [(pl.col(n) - pl.col(f"{n}_sent")).abs() for n in OHLCV]
    bounds = [_TOLERANCE * pl.col(f"{n}_sent").abs() for n in OHLCV]
    equal = [far <= bound for far, bound in zip(apart, bounds, strict=True)]
    return both.select(equal=pl.all_horizontal(equal))["equal"]


def find_superseded(dataset: Dataset, rows: pl.DataFrame) -> pl.Series:
    """Times of rows that were filled in, and beside which the venue's own row stands now.

    Bars replace each other by their open time. Funding does not: what is filled in has the time
    of the schedule, and what the venue sends is some milliseconds off.

    Parameters
    ----------
    rows
        Of one market, in order.
    """
    time = dataset.time_column
    if dataset.timeframe is not None or "fill" not in rows.columns:
        return rows[time].clear()
    sent = rows.filter(pl.col("fill").is_null()).select(time, pl.col(time).alias("_sent"))
    filled = rows.filter(pl.col("fill").is_not_null()).select(time)
    near = filled.join_asof(sent, on=time, strategy="nearest", tolerance=_SAME_EVENT)
    return near.drop_nulls("_sent")[time]


def _build_filled(
    source: str, made: list[pl.DataFrame], evidence: dict[str, Any]
) -> FilledRows | None:
    rows = pl.concat(made) if made else pl.DataFrame()
    return None if rows.is_empty() else FilledRows(source, rows, evidence)


def widen(span: TimeRange, by: timedelta) -> TimeRange:
    """A range, so much longer at both ends."""
    return TimeRange(span.start - by, span.end + by)
