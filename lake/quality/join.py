"""Join slices of many markets into one, so that a check makes one plan for all of them.

The findings of a day depend on nothing farther away than its margin. The rows of each market are
therefore moved by whole days to a stretch of time of their own, and all stretches, one after
another, are checked as the time of one market.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import polars.selectors as cs

from lake.model.dataset import Dataset
from lake.model.intervals import RangeSet, intersect, union
from lake.model.literals import time_literal
from lake.model.market import StoredMarket
from lake.model.time import DAY, EPOCH, FIRST_TIME, MICROSECOND, TimeRange
from lake.quality.slice import Reference, Slice, Stretches

_EXCHANGE, _SYMBOL = "\ue000", "\ue001"
"""Names of the joined market: no name of a real one has these characters of private use."""
_LONGEST = 800 * 365 * DAY  # times far beyond those of rows, which `datetime` still can tell


@dataclass(frozen=True)
class Joined:
    """Slices of single markets, and the slice of all of them.

    Attributes
    ----------
    markets
        The slices as they were.
    slice
        All of them, moved.
    offsets
        How far each was moved.
    """

    markets: tuple[Slice, ...]
    slice: Slice
    offsets: tuple[timedelta, ...]

    def split(self, frame: pl.DataFrame, time: str, *more: str) -> list[pl.DataFrame]:
        """Split a result by market, with the times `time` and `more` moved back.

        Names of markets in `against` and `message` become those of the market; rows that are not in
        the checked range of their market are left out.
        """
        assert self.slice.stretches is not None  # noqa: S101 - it was joined
        number = self.slice.stretches.number(pl.col(time))
        parts = frame.with_columns(_market=number).partition_by("_market", as_dict=True)
        empty = frame.clear()
        return [
            self._move_back(parts[key,].drop("_market"), key, time, *more)
            if (key,) in parts
            else empty
            for key in range(len(self.markets))
        ]

    def _move_back(self, rows: pl.DataFrame, number: int, *times: str) -> pl.DataFrame:
        one = self.markets[number]
        texts = [name for name in ("against", "message") if name in rows.columns]
        return rows.with_columns(
            *(pl.col(name) - self.offsets[number] for name in times),
            *(
                pl.col(name)
                .str.replace_all(_EXCHANGE, one.market.exchange, literal=True)
                .str.replace_all(_SYMBOL, one.market.symbol, literal=True)
                for name in texts
            ),
        ).filter(pl.col(times[0]).is_between(one.range.start, one.range.end, closed="left"))


def group_slices(
    slices: Sequence[Slice], windows: Iterable[int] = ()
) -> Iterator[tuple[list[int], Joined | None]]:
    """Group slices that can be joined: the numbers of each group, and its slices joined.

    A slice that can be joined with no other one is alone, without `Joined`.

    Parameters
    ----------
    windows
        Numbers of slots by which checks cut time into blocks.
    """
    windows = tuple(windows)
    groups: dict[tuple[object, ...] | int, list[int]] = defaultdict(list)
    for number, key in enumerate(_describe_all(slices)):
        groups[number if key is None else key].append(number)
    for numbers in groups.values():
        joined = _join([slices[number] for number in numbers], windows)
        if joined is None:
            yield from (([number], None) for number in numbers)
        else:
            yield numbers, joined


def _describe_all(slices: Sequence[Slice]) -> list[tuple[object, ...] | None]:
    """Describe what slices must share to be joined; None for one that must stay alone."""
    lasts = pl.collect_all([one.frame.select(one.time.max()) for one in slices])
    keys: list[tuple[object, ...] | None] = []
    for one, last in zip(slices, lasts, strict=True):
        is_ahead = last.item() is not None and last.item() > one.now
        keys.append(None if is_ahead else _describe(one))
    return keys


def _describe(data: Slice) -> tuple[object, ...] | None:
    timeframe = data.dataset.timeframe
    if timeframe is None or timeframe.unit == "M" or timeframe.seconds > DAY.total_seconds():
        return None
    if data.dataset.event != "bar" or not _is_usual(data):
        return None
    return (
        *(data.dataset.name, data.grid, data.omits_empty_bars, data.known_units),
        data.coverage is None,
        data.span is None,
        data.trades and data.trades.coverage is None,
        tuple((one.dataset.name, one.grid, bool(one.coverage)) for one in data.finer),
        tuple((one.market.exchange, one.grid) for one in data.others),
    )


def _is_usual(data: Slice) -> bool:
    """Whether a slice has whole days, and nothing that names a time or another market's symbol."""
    is_whole = not any((time - EPOCH) % DAY for time in (data.range.start, data.range.end))
    is_refused = data.quarantine is not None and data.quarantine.height > 0
    has_other_names = any(one.market.symbol != data.market.symbol for one in data.others)
    is_early = data.range.start - data.dataset.margin < FIRST_TIME
    return is_whole and not (is_refused or has_other_names or is_early or data.strangers)


def _join(slices: Sequence[Slice], windows: Sequence[int]) -> Joined | None:
    """Join slices; None for a single one, or if there is not so much time."""
    if len(slices) == 1:
        return None
    dataset = slices[0].dataset
    unit, around = _measure_unit(dataset, windows), _measure_reach(dataset)
    starts = [_floor(one.range.start - around, unit) for one in slices]
    longest = max(one.range.end + around - start for one, start in zip(slices, starts, strict=True))
    length = -(-longest // unit) * unit
    if length * len(slices) > _LONGEST:
        return None
    offsets = [starts[0] + number * length - start for number, start in enumerate(starts)]
    moved = [_move(one, offset, around) for one, offset in zip(slices, offsets, strict=True)]
    stretches = Stretches(starts[0], length, tuple(moved))
    return Joined(tuple(slices), _concat(stretches), tuple(offsets))


def _measure_unit(dataset: Dataset, windows: Sequence[int]) -> timedelta:
    """Return the length by whose multiples rows are moved: days, and blocks of windows, stay."""
    assert dataset.timeframe is not None  # noqa: S101 - bars are joined
    step = dataset.timeframe.seconds
    lengths = [int(DAY.total_seconds()), step]
    lengths += [step * slots for window in windows for slots in (window, window // 2)]
    return timedelta(seconds=math.lcm(*lengths))


def _measure_reach(dataset: Dataset) -> timedelta:
    """Return the whole days around a range that hold all its rows, with a day to spare."""
    assert dataset.timeframe is not None  # noqa: S101 - bars are joined
    longest = max(dataset.margin, DAY, dataset.timeframe.longest)
    return (-(-longest // DAY) + 1) * DAY


def _floor(time: datetime, unit: timedelta) -> datetime:
    return EPOCH + (time - EPOCH) // unit * unit


def _move(data: Slice, offset: timedelta, around: timedelta) -> Slice:
    """Move all of a slice but its rows, which `_concat` moves at once."""
    stretch = TimeRange(data.range.start - around, data.range.end + around)

    def move(ranges: Iterable[TimeRange]) -> RangeSet:
        return tuple(
            TimeRange(part.start + offset, part.end + offset)
            for part in intersect(ranges, [stretch])
        )

    return replace(
        data,
        range=move([data.range])[0],
        now=data.now + offset,
        span=data.span and TimeRange(data.span.start + offset, data.span.end + offset),
        coverage=None if data.coverage is None else move(data.coverage),
        not_given=move(data.not_given),
        gone=move(data.gone),
        claimed=move(data.claimed),
        outages=move(data.outages),
        trades=data.trades and _move_reference(data.trades, offset, stretch),
        finer=tuple(_move_reference(one, offset, stretch) for one in data.finer),
        coarser=tuple(_move_reference(one, offset, stretch) for one in data.coarser),
        others=tuple(_move_reference(one, offset, stretch) for one in data.others),
        frame=_move_rows(data, offset, stretch),
    )


def _move_reference(one: Reference, offset: timedelta, stretch: TimeRange) -> Reference:
    coverage = one.coverage and tuple(
        TimeRange(part.start + offset, part.end + offset)
        for part in intersect(one.coverage, [stretch])
    )
    return replace(one, frame=_move_rows(one, offset, stretch), coverage=coverage)


def _move_rows(data: Slice | Reference, offset: timedelta, stretch: TimeRange) -> pl.LazyFrame:
    """Move rows; the next trades before and after may be any distance away: they come near."""
    time = data.dataset.time_column
    first, last = time_literal(stretch.start), time_literal(stretch.end - MICROSECOND)
    inside = data.frame.with_columns(pl.col(time).clip(first, last))
    return inside.with_columns(cs.datetime() + pl.lit(offset))


def _concat(stretches: Stretches) -> Slice:
    """Concatenate moved slices, and their references one by one."""
    moved = stretches.markets
    first, end = moved[0], stretches.start + len(moved) * stretches.length
    trades = [data.trades for data in moved if data.trades is not None]
    return replace(
        first,
        market=StoredMarket(_EXCHANGE, _SYMBOL),
        range=TimeRange(stretches.start, end),
        now=end,
        span=None,
        frame=_concat_rows(data.frame for data in moved),
        trades=_concat_references(trades) if trades else None,
        finer=_concat_each([data.finer for data in moved]),
        coarser=_concat_coarser(moved),
        others=_concat_each([data.others for data in moved]),
        quarantine=None,
        units=first.known_units,
        stretches=stretches,
        **_unite_coverage(moved),
    )


def _unite_coverage(moved: Sequence[Slice]) -> dict[str, Any]:
    """Unite the intervals of slices that say what is known of their time."""
    names = ("not_given", "gone", "claimed", "outages")
    united: dict[str, Any] = {
        name: union(item for data in moved for item in getattr(data, name)) for name in names
    }
    return {**united, "coverage": _unite(data.coverage for data in moved)}


def _concat_coarser(moved: Sequence[Slice]) -> tuple[Reference, ...]:
    """Concatenate longer bars: only slices with a missing bar have them."""
    groups: dict[tuple[object, ...], list[Reference]] = defaultdict(list)
    for one in (other for data in moved for other in data.coarser):
        groups[one.dataset.name, one.grid].append(one)
    return tuple(map(_concat_references, groups.values()))


def _concat_each(references: Sequence[tuple[Reference, ...]]) -> tuple[Reference, ...]:
    return tuple(map(_concat_references, zip(*references, strict=True)))


def _concat_references(references: Sequence[Reference]) -> Reference:
    first = references[0]
    return replace(
        first,
        market=StoredMarket(first.market.exchange, _SYMBOL),
        frame=_concat_rows(one.frame for one in references),
        coverage=_unite(one.coverage for one in references),
    )


def _concat_rows(frames: Iterable[pl.LazyFrame]) -> pl.LazyFrame:
    return pl.concat(frames).collect().lazy()


def _unite(coverage: Iterable[RangeSet | None]) -> RangeSet | None:
    """Unite the coverage of markets; None if that of any is not recorded."""
    known = list(coverage)
    if any(ranges is None for ranges in known):
        return None
    return union(item for ranges in known for item in ranges or ())
