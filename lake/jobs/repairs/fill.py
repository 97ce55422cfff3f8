"""Fill in rows that no source gives: derive them from finer data, or interpolate them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

import polars as pl

from lake.jobs.repairs.plan import Group, Target
from lake.jobs.repairs.spans import Moments, read_each, read_together, tile
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.derive import (
    BARS,
    FROM_TRADES,
    INTERPOLATED,
    derive_from_bars,
    derive_from_trades,
    find_complete_slots,
    floor_times,
    list_slots,
    nests,
)
from lake.model.grid import Grid
from lake.model.interpolate import (
    FLAT,
    build_flat_bars,
    find_due_times,
    find_obstacle,
    interpolate_rows,
)
from lake.model.intervals import union
from lake.model.ohlcv import OHLCV
from lake.model.schedule import scheduled_at
from lake.model.time import DAY, MICROSECOND, TimeRange
from lake.query.grids import find_grid
from lake.query.markets import find_market_units
from lake.store.ledger import Ledger
from lake.store.store import Store

# Trades before and after a bar show whether their IDs are consecutive; neighbouring bars, whether
# the venue counts bars and trades alike.
_AROUND = timedelta(hours=1)
# Rows around a missing one show the schedule: of tables by year, or by day.
_SCHEDULE = {"year": timedelta(days=30), "month": timedelta(days=30), "day": timedelta(days=2)}
_FLAT_COLUMNS = ("timestamp", "close", "closed", "received_at")
_AGREEING = 0.5
_SAME_EVENT = timedelta(minutes=1)
_TOLERANCE = 1e-9


@dataclass
class FilledRows:
    """Rows of one method, to be stored.

    Attributes
    ----------
    source
        Their value of `fill`, which is recorded as their source, too.
    evidence
        What they rely on.
    """

    source: str
    rows: pl.DataFrame
    evidence: dict[str, Any] = field(default_factory=dict)


class Filling:
    """Builds rows for a group; writes nothing."""

    def __init__(self, store: Store, group: Group) -> None:
        self._store = store
        self._group = group

    @property
    def makes_bars(self) -> bool:
        """Whether the table has a timeframe, so that it has slots that can be missing."""
        return self._group.dataset.timeframe is not None

    def find_absent(self) -> Moments:
        """Find open times of missing rows in the group's windows; none without a timeframe.

        Bars that a stored bar off the grid overlaps are not missing.
        """
        dataset, market = self._group.dataset, self._group.market
        time, times = dataset.time_column, [pl.Series(dtype=TIMESTAMP)]
        if self.makes_bars:
            parts = tile(self._group.windows)
            for spans, rows in read_together(self._store, dataset, market, parts, [time]):
                opens = pl.concat([list_slots(span, self._grid) for span in spans])
                times.append(_drop_present(opens, rows[time], self._grid))
        return Moments(pl.concat(times))

    def derive(self, spans: Iterable[TimeRange]) -> Iterator[FilledRows]:
        """Yield missing bars from finer data: trades first, then bars, the next finer first.

        The caller has to store what it gets before it asks for more.
        """
        if self._group.dataset.event != "bar" or not self._has_grid:
            return
        absent = self.find_absent().select(spans)
        for name in ("trades", *self._find_finer_tables()):
            if absent.is_empty():
                return
            filled = self._derive_from(name, absent) if self._store.exists(name) else None
            if filled is not None:
                absent = absent.filter(~absent.is_in(filled.rows["timestamp"].implode()))
                yield filled

    def interpolate(self, quiet: Collection[Target], lost: Collection[Target]) -> FilledRows | None:
        """Interpolate by the policy of the dataset; None where it allows nothing.

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
        if not targets or dataset.repair.interpolate not in policies or find_obstacle(dataset):
            return None
        if self.makes_bars:
            return self._fill_flat(target.span for target in quiet)
        return self._fill_between(lost)

    def _fill_flat(self, spans: Iterable[TimeRange]) -> FilledRows | None:
        """Build flat bars for intervals without trades."""
        grid, dataset = self._grid, self._group.dataset
        if not self._has_grid:
            return None
        opens = Moments(self.find_absent().select(spans))
        pieces = self._cut_spans(opens)
        around = [TimeRange(grid.floor(p.start - MICROSECOND), p.end) for p in pieces]
        frames = [pl.DataFrame(schema=BARS)]
        for span, stored in self._read_rows(dataset, around, _FLAT_COLUMNS):
            # The bars of the span before this one are not stored yet.
            earlier = pl.concat([frames[-1].select(stored.columns).tail(1), stored])
            frames.append(build_flat_bars(earlier, opens.select([span]), grid))
        return _build_filled(FLAT, frames, {"policy": "flat", "proof": "no trade happened"})

    def _fill_between(self, targets: Iterable[Target]) -> FilledRows | None:
        """Build rows that are missing by the schedule, by the policy of the dataset."""
        dataset, policy = self._group.dataset, self._group.dataset.repair.interpolate
        assert policy is not None  # noqa: S101 - the callers check the policy
        frames = []
        spans = union(target.span for target in targets)
        around = [widen(span, _SCHEDULE[dataset.granularity]) for span in spans]
        for span, (_, rows) in zip(spans, self._read_rows(dataset, around), strict=True):
            times = find_due_times(rows[dataset.time_column], span)
            frames.append(interpolate_rows(dataset, rows, times, policy))
        return _build_filled(f"{INTERPOLATED}{policy}", frames, {"policy": policy})

    def _find_finer_tables(self) -> list[str]:
        """Return the names of the tables of finer bars that nest, the next finer first."""
        dataset, finer = self._group.dataset, []
        for name in self._store.tables():
            other = self._store.catalog.dataset(name)
            if other.family != dataset.family or not other.timeframe or not dataset.timeframe:
                continue
            if other.timeframe.seconds < dataset.timeframe.seconds:
                grid = find_grid(self._store, other, self._group.market)
                if grid is not None and nests(grid, self._grid):
                    finer.append((other.timeframe.seconds, name))
        return [name for _, name in sorted(finer, reverse=True)]

    def _derive_from(self, table: str, opens: pl.Series) -> FilledRows | None:
        if table == "trades":
            return self._derive_from_trades(opens)
        return self._derive_from_bars(table, opens)

    def _derive_from_trades(self, opens: pl.Series) -> FilledRows | None:
        grid, trades = self._grid, self._store.catalog.dataset("trades")
        units = find_market_units(self._store, self._group.market)
        covered = Ledger(self._store).read_covered("trades", self._group.market)
        absent = Moments(opens)
        pieces = self._cut_spans(absent)
        around = [widen(piece, _AROUND) for piece in pieces]
        stored = self._read_rows(self._group.dataset, around)
        frames, agreeing, compared = [], 0, 0
        for piece, (span, rows), (_, beside) in zip(
            pieces, self._read_rows(trades, around), stored, strict=True
        ):
            opens = list_slots(span, grid)
            opens = opens.filter(find_complete_slots(rows, opens, grid, covered))
            bars = derive_from_trades(rows, grid, units)
            bars = _select_opens(bars, opens)
            frames.append(_select_opens(bars, absent.select([piece])))
            same = _compare_with_sent(bars, beside)
            agreeing, compared = agreeing + int(same.sum()), compared + len(same)
        if agreeing < _AGREEING * compared or (units.is_unknown and not compared):
            return None  # the venue counts bars otherwise than trades: in another unit, perhaps
        facts = {
            "trades_version": self._store.version(trades),
            "bars_beside": compared,
            "of_them_equal": agreeing,
        }
        return _build_filled(FROM_TRADES, frames, facts)

    def _derive_from_bars(self, name: str, opens: pl.Series) -> FilledRows | None:
        finer, absent = self._store.catalog.dataset(name), Moments(opens)
        assert finer.timeframe is not None  # noqa: S101 - `_find_finer_tables` gives bars only
        frames = []
        for span, rows in self._read_rows(finer, self._cut_spans(absent)):
            bars = derive_from_bars(rows, Grid(finer.timeframe), self._grid)
            frames.append(_select_opens(bars, absent.select([span])))
        facts = {f"{name}_version": self._store.version(finer)}
        return _build_filled(f"derived:{name}", frames, facts)

    def _cut_spans(self, opens: Moments) -> list[TimeRange]:
        """Cut spans of whole bars that hold all open times; none is longer than a day or a bar."""
        grid = self._grid
        pieces: list[TimeRange] = []
        for time in opens.times:
            end, last = grid.after(time), pieces[-1] if pieces else None
            if last and time - last.end <= timedelta(hours=1) and end - last.start <= DAY:
                pieces[-1] = TimeRange(last.start, end)
            else:
                pieces.append(TimeRange(time, end))
        return pieces

    @property
    def _has_grid(self) -> bool:
        """Whether the stored bars have a common grid; on none, nothing can be filled in."""
        return self._learned_grid is not None

    @property
    def _grid(self) -> Grid:
        timeframe = self._group.dataset.timeframe
        assert timeframe is not None  # noqa: S101 - called for bars only
        return self._learned_grid or Grid(timeframe)

    @cached_property
    def _learned_grid(self) -> Grid | None:
        return find_grid(self._store, self._group.dataset, self._group.market)

    def _read_rows(
        self, dataset: Dataset, spans: Sequence[TimeRange], columns: Sequence[str] | None = None
    ) -> Iterator[tuple[TimeRange, pl.DataFrame]]:
        return read_each(self._store, dataset, self._group.market, spans, columns)


def _drop_present(opens: pl.Series, stored: pl.Series, grid: Grid) -> pl.Series:
    """Drop open times of bars that are stored, or that a stored bar off the grid overlaps."""
    floors = floor_times(stored, grid)
    off = floors.filter(floors != stored).unique()
    after = pl.Series([grid.after(time) for time in off], dtype=TIMESTAMP)
    return opens.filter(~opens.is_in(pl.concat([floors, after]).implode()))


def _select_opens(bars: pl.DataFrame, opens: pl.Series) -> pl.DataFrame:
    return bars.filter(pl.col("timestamp").is_in(opens.implode()))


def _compare_with_sent(bars: pl.DataFrame, stored: pl.DataFrame) -> pl.Series:
    """Say of each bar that the venue sent, too, whether it is equal."""
    sent = stored.filter(pl.col("fill").is_null(), "closed")
    both = bars.join(sent, on="timestamp", suffix="_sent")
    apart = [(pl.col(n) - pl.col(f"{n}_sent")).abs() for n in OHLCV]
    bounds = [_TOLERANCE * pl.col(f"{n}_sent").abs() for n in OHLCV]
    equal = [far <= bound for far, bound in zip(apart, bounds, strict=True)]
    return both.select(equal=pl.all_horizontal(equal))["equal"]


def find_superseded(dataset: Dataset, rows: pl.DataFrame) -> pl.Series:
    """Find the times of rows that another row of the same event supersedes.

    Bars replace each other by their open time. Other rows that are filled in have the time of the
    schedule, and the venue's own may be some milliseconds off. Earlier versions stored several rows
    of one scheduled event: the latest that the venue sent stays.

    Parameters
    ----------
    rows
        Rows of one market, in order of time, with the time column and `fill`.
    """
    time = dataset.time_column
    if dataset.timeframe is not None or "fill" not in rows.columns:
        return rows[time].clear()
    if dataset.schedule is not None:
        events = rows.with_columns(scheduled_at(dataset).alias("_event"))
        best = events.sort(pl.col("fill").is_null(), time).unique("_event", keep="last")
        return rows.join(best, on=time, how="anti")[time]
    sent = rows.filter(pl.col("fill").is_null()).select(time, pl.col(time).alias("_sent"))
    filled = rows.filter(pl.col("fill").is_not_null()).select(time)
    near = filled.join_asof(sent, on=time, strategy="nearest", tolerance=_SAME_EVENT)
    return near.drop_nulls("_sent")[time]


def _build_filled(
    source: str, frames: list[pl.DataFrame], evidence: dict[str, Any]
) -> FilledRows | None:
    rows = pl.concat(frames) if frames else pl.DataFrame()
    return None if rows.is_empty() else FilledRows(source, rows, evidence)


def widen(span: TimeRange, by: timedelta) -> TimeRange:
    """Return a range that begins earlier and ends later."""
    return TimeRange(span.start - by, span.end + by)
