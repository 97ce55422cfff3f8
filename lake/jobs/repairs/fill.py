"""Rows for what no source gives: derived from finer data of the lake, or interpolated by rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import polars as pl

from lake.jobs.repairs.plan import Group, Target
from lake.jobs.repairs.records import rows_at, selection_of
from lake.model.dataset import Dataset
from lake.model.derive import (
    FROM_TRADES,
    bars_from_bars,
    bars_from_trades,
    complete_slots,
    nests,
    slots,
)
from lake.model.interpolate import between, due, flat
from lake.model.intervals import union
from lake.model.time import TimeRange
from lake.store.ledger import Ledger
from lake.store.store import Store

# Trades before and after a bar tell whether ids follow each other; bars beside it, whether they
# are counted as its trades are.
_AROUND = timedelta(hours=1)
# Rows around a missing one tell the schedule.
_SCHEDULE = timedelta(days=30)
_AGREEING = 0.5
_SAME_EVENT = timedelta(minutes=1)
_TOLERANCE = 1e-9


@dataclass
class Filled:
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
        self._known: tuple[int, pl.Series] | None = None

    @property
    def makes_bars(self) -> bool:
        """Whether it is bars that the group is about: only they have slots that can be missing."""
        return self._group.dataset.timeframe is not None

    def missing(self, spans: Iterable[TimeRange]) -> pl.Series:
        """Open times in the group's spans of bars that are not there."""
        absent = self._absent()
        found = [
            absent.filter(absent.is_between(span.start, span.end, closed="left"))
            for span in union(spans)
        ]
        return pl.concat(found) if found else absent.clear()

    def _absent(self) -> pl.Series:
        """Of all windows; read once a version of the table, as each finding is looked at."""
        dataset = self._group.dataset
        assert dataset.timeframe is not None  # noqa: S101 - the callers ask of bars only
        version = self._store.version(dataset)
        if self._known is None or self._known[0] != version:
            found, snapshot = [], self._store.snapshot(dataset)
            for window in self._group.windows:
                selection = selection_of(self._group.market, window)
                there = snapshot.collect(selection, columns=["timestamp"])["timestamp"]
                opens = slots(window, dataset.timeframe)
                found.append(opens.filter(~opens.is_in(there.implode())))
            self._known = version, pl.concat(found)
        return self._known[1]

    def derived(self, spans: Iterable[TimeRange]) -> Iterator[Filled]:
        """Missing bars from finer data: trades first, then bars, the next finer first.

        What was given is taken to be stored before the next is asked for.
        """
        left = self.missing(spans)
        for name in ("trades", *self._finer()):
            if left.is_empty():
                return
            if self._store.exists(name):
                made = self._from_trades(left) if name == "trades" else self._from_bars(name, left)
                if made is not None:
                    left = left.filter(~left.is_in(made.rows["timestamp"].implode()))
                    yield made

    def flat(self, spans: Iterable[TimeRange]) -> Filled | None:
        """Flat bars for intervals without trades."""
        timeframe = self._group.dataset.timeframe
        assert timeframe is not None  # noqa: S101 - the callers ask of bars only
        made = []
        left = self.missing(spans)
        for window, opens in self._windows(left):
            before = timeframe.floor(window.start - timedelta(microseconds=1))
            stored = self._rows(self._group.dataset, TimeRange(before, window.end))
            made.append(flat(stored, opens, timeframe))
        return _filled("interpolated:flat", made, {"policy": "flat", "proof": "no trade happened"})

    def between(self, targets: Iterable[Target]) -> Filled | None:
        """Rows that are due by the schedule and not there, by the policy of the dataset."""
        dataset, how = self._group.dataset, self._group.dataset.interpolate
        assert how is not None  # noqa: S101 - the callers look at the policy
        made = []
        for span in union(target.span for target in targets):
            around = TimeRange(span.start - _SCHEDULE, span.end + _SCHEDULE)
            rows = self._rows(dataset, around)
            times = due(rows[dataset.time_column], span)
            made.append(between(dataset, rows, times, how))
        return _filled(f"interpolated:{how}", made, {"policy": how})

    def _finer(self) -> list[str]:
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

    def _from_trades(self, opens: pl.Series) -> Filled | None:
        timeframe = self._group.dataset.timeframe
        assert timeframe is not None  # noqa: S101 - the callers ask of bars only
        trades = self._store.catalog.dataset("trades")
        covered = Ledger(self._store).covered("trades", self._group.market)
        made, agreeing, compared = [], 0, 0
        for window, wanted in self._windows(opens):
            around = _stretched(window, _AROUND)
            rows = self._rows(trades, around)
            grid = slots(around, timeframe)
            grid = grid.filter(complete_slots(rows, grid, timeframe, covered))
            bars = bars_from_trades(rows, timeframe)
            bars = bars.filter(pl.col("timestamp").is_in(grid.implode()))
            made.append(bars.filter(pl.col("timestamp").is_in(wanted.implode())))
            same = self._same_as_stored(bars, around)
            agreeing, compared = agreeing + int(same.sum()), compared + len(same)
        if agreeing < _AGREEING * compared:
            return None  # the venue counts bars otherwise than trades: in another unit, perhaps
        facts = {
            "trades_version": self._store.version(trades),
            "bars_beside": compared,
            "of_them_equal": agreeing,
        }
        return _filled(FROM_TRADES, made, facts)

    def _same_as_stored(self, bars: pl.DataFrame, around: TimeRange) -> pl.Series:
        """Of the bars that the venue sent as well: whether they say the same."""
        stored = self._rows(self._group.dataset, around)
        sent = stored.filter(pl.col("fill").is_null(), "closed")
        both = bars.join(sent, on="timestamp", suffix="_sent")
        names = ("open", "high", "low", "close", "volume")
        apart = [(pl.col(n) - pl.col(f"{n}_sent")).abs() for n in names]
        bounds = [_TOLERANCE * pl.col(f"{n}_sent").abs() for n in names]
        equal = [far <= bound for far, bound in zip(apart, bounds, strict=True)]
        return both.select(equal=pl.all_horizontal(equal))["equal"]

    def _from_bars(self, name: str, opens: pl.Series) -> Filled | None:
        finer, coarser = self._store.catalog.dataset(name), self._group.dataset.timeframe
        assert finer.timeframe is not None  # noqa: S101 - `_finer` gives bars only
        assert coarser is not None  # noqa: S101 - the callers ask of bars only
        made = []
        for window, wanted in self._windows(opens):
            bars = bars_from_bars(self._rows(finer, window), finer.timeframe, coarser)
            made.append(bars.filter(pl.col("timestamp").is_in(wanted.implode())))
        facts = {f"{name}_version": self._store.version(finer)}
        return _filled(f"derived:{name}", made, facts)

    def _windows(self, opens: pl.Series) -> Iterator[tuple[TimeRange, pl.Series]]:
        """The windows of the group that have some of the open times, cut to these."""
        timeframe = self._group.dataset.timeframe
        assert timeframe is not None  # noqa: S101 - the callers ask of bars only
        for window in self._group.windows:
            inside = opens.filter(opens.is_between(window.start, window.end, closed="left"))
            if len(inside):
                yield TimeRange(inside[0], timeframe.after(inside[-1])), inside

    def _rows(self, dataset: Dataset, span: TimeRange) -> pl.DataFrame:
        return rows_at(self._store, dataset, self._group.market, span)


def superseded(dataset: Dataset, rows: pl.DataFrame) -> pl.Series:
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


def _filled(source: str, made: list[pl.DataFrame], evidence: dict[str, Any]) -> Filled | None:
    rows = pl.concat(made) if made else pl.DataFrame()
    return None if rows.is_empty() else Filled(source, rows, evidence)


def _stretched(span: TimeRange, by: timedelta) -> TimeRange:
    return TimeRange(span.start - by, span.end + by)
