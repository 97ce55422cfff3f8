"""Parses ccxt's unified structures into frames, and finds the range that an answer covers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

import polars as pl

from lake.model.grid import find_end
from lake.model.ohlcv import OHLCV
from lake.model.time import MILLISECOND, TimeRange
from lake.model.timeframe import Timeframe
from lake.sources.frames import (
    add_closed,
    derive_ids,
    find_complete_until,
    range_or_none,
    sorted_by,
    to_floats,
    to_timestamps,
)

Source = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class RangeQuery:
    """How to request one dataset by time through a unified method.

    Attributes
    ----------
    family
        The family of the dataset.
    method, arguments
        The method of ccxt, and its arguments before `since`.
    read
        Parses an answer into a frame sorted by time.
    key
        The column that identifies rows.
    limit
        Maximum rows of an answer; None if ccxt does not know it.
    lookback
        How much earlier than a window to start: an earlier row proves that the start is complete.
    hop
        How far to advance if a venue returns no rows although it has newer ones.
    settle
        How long the venue may take to publish rows.
    timeframe
        The timeframe of bars.
    row_time
        The shortest time between two rows; None where there is none.
    span
        The longest range after `since` to ask for; None for that of the venue.
    """

    family: str
    method: str
    arguments: tuple[Any, ...]
    read: Callable[[Any], pl.DataFrame]
    key: str
    limit: int | None
    lookback: timedelta
    hop: timedelta
    settle: timedelta
    timeframe: Timeframe | None = None
    row_time: timedelta | None = None
    span: timedelta | None = None

    @property
    def source(self) -> Source:
        """Identifies the method and market, independent of the range."""
        return (self.method, *self.arguments)

    @property
    def step(self) -> timedelta:
        """The finest difference of `since` that matters: a bar, or a minute."""
        if self.timeframe is None:
            return timedelta(minutes=1)
        return max(timedelta(minutes=1), timedelta(seconds=self.timeframe.seconds))

    def align(self, window: TimeRange) -> TimeRange | None:
        """Return the part of a window from its first bar on; other windows unchanged."""
        start = window.start if self.timeframe is None else self.timeframe.ceiling(window.start)
        return range_or_none(start, window.end)

    def narrow(self, since: datetime, answer: pl.DataFrame) -> RangeQuery | None:
        """Return the query of a smaller range, for the rows that an answer lacks at its start.

        Bars are asked for by number, other rows until a time. None if there is no smaller range.
        """
        missing = first_time(answer) - since
        if missing <= MILLISECOND:
            return None
        if self.timeframe is None:
            half = (last_time(answer) - since) / 2
            span = max(MILLISECOND, min(missing + MILLISECOND, half))
            is_smaller = self.span is None or span < self.span
            return replace(self, span=span, hop=min(self.hop, span)) if is_smaller else None
        step = timedelta(seconds=self.timeframe.seconds)
        count = count_times(answer)
        is_smaller = self.limit is None or count < self.limit
        rows = count if is_smaller else (self.limit or 0) // 2
        return replace(self, limit=rows, hop=step * max(1, rows - 1)) if rows else None

    def add_closed(self, rows: pl.DataFrame, reached: datetime) -> pl.DataFrame:
        """Add `closed` to bars, given the time of the venue; return other rows unchanged."""
        return add_closed(rows, self.timeframe, reached) if self.timeframe else rows

    def complete_until(self, rows: pl.DataFrame, reached: datetime) -> datetime:
        """Return the time up to which an answer is complete, given the time of the venue."""
        return find_complete_until(rows, self.timeframe, reached) if self.timeframe else reached

    def complete_from(self, first: datetime) -> datetime:
        """Return where coverage starts if an answer has no row before its first.

        Bars have distinct times; trades of one millisecond may be cut by the start of an answer.
        """
        return first if self.family != "trades" else first + MILLISECOND

    def complete_to(self, last: datetime) -> datetime:
        """Return where coverage ends if no row follows the last one; see `complete_from`."""
        return last if self.family == "trades" else last + MILLISECOND

    def end_of_last(self, position: WindowPosition) -> datetime:
        """Return until when the last row before a position lasts: a bar to its end."""
        if self.timeframe is None or position.overlap["timestamp"].drop_nulls().is_empty():
            return position.at
        return max(position.at, find_end(last_time(position.overlap), self.timeframe))


def parse_bars(answer: Any) -> pl.DataFrame:
    """Parse bars of `fetch_ohlcv`: rows of Unix milliseconds, open, high, low, close, volume.

    Values that are not numbers become null.
    """
    columns = list(zip(*(row[:6] for row in answer), strict=True)) or [()] * 6
    frame = pl.DataFrame(
        [to_timestamps(columns[0])]
        + [to_floats(values).alias(n) for n, values in zip(OHLCV, columns[1:], strict=True)]
    )
    return sorted_by(frame, "timestamp")


def has_shorter_bars(bars: pl.DataFrame, timeframe: Timeframe) -> bool:
    """Return whether most bars follow the previous one sooner than the timeframe allows.

    Single bars may be shorter: some venues restart long bars with each month or year, and the grid
    may begin anew after an outage.
    """
    steps = bars["timestamp"].unique().sort().diff().drop_nulls()
    sooner = int((steps < timedelta(seconds=timeframe.seconds)).sum())
    return sooner > 1 and 2 * sooner > steps.len()


def parse_trades(answer: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Parse trades of `fetch_trades`; derive missing ids.

    Ids are text, exactly as ccxt returns them.
    """
    timestamp = to_timestamps([row.get("timestamp") for row in answer])
    price, amount = (to_floats([row.get(name) for row in answer]) for name in ("price", "amount"))
    side = [row["side"] if row.get("side") in ("buy", "sell") else None for row in answer]
    columns = (timestamp.dt.epoch("us").to_list(), side, price.to_list(), amount.to_list())
    frame = pl.DataFrame(
        {
            "timestamp": timestamp,
            "trade_id": pl.Series(_fill_ids(answer, columns), dtype=pl.String),
            "price": price,
            "amount": amount,
            "side": pl.Series(side, dtype=pl.String),
        }
    )
    return frame.sort("timestamp", maintain_order=True)


def _fill_ids(
    answer: Sequence[Mapping[str, Any]], columns: tuple[list[Any], ...]
) -> list[str | None]:
    """Return the ids of trades as text; derive missing ones from time, side, price and amount."""
    ids = [row.get("id") for row in answer]
    if not all(ids):
        ids = [own or derived for own, derived in zip(ids, derive_ids(*columns), strict=True)]
    return [None if name is None else str(name) for name in ids]


def parse_funding(answer: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Parse the rates of `fetch_funding_rate_history`."""
    frame = pl.DataFrame(
        {
            "timestamp": to_timestamps([row.get("timestamp") for row in answer]),
            "funding_rate": to_floats([row.get("fundingRate") for row in answer]),
        }
    )
    return sorted_by(frame, "timestamp")


def first_time(rows: pl.DataFrame) -> datetime:
    """Return the earliest time of a readable, non-empty answer, in which a row has a time."""
    return cast("datetime", rows["timestamp"].min())


def count_times(rows: pl.DataFrame) -> int:
    """Count the bars of an answer: some venues send two of one time, and pages hold times."""
    return rows["timestamp"].n_unique()


def last_time(rows: pl.DataFrame) -> datetime:
    """Return the latest time of a readable, non-empty answer."""
    return cast("datetime", rows["timestamp"].max())


class Anomaly(StrEnum):
    """What an answer lacks that should continue from the covered range."""

    NOTHING_NEW = "nothing new"
    STARTS_LATER = "starts later"


@dataclass(frozen=True, slots=True)
class WindowPosition:
    """The position in a window between two pages.

    Attributes
    ----------
    at
        Everything before this time is done.
    since
        The `since` of the next request: not later than `at`, so that answers overlap.
    overlap
        Rows of the last answer at `since`, which the next answer should repeat, and rows without
        a time.
    """

    at: datetime
    since: datetime
    overlap: pl.DataFrame

    def find_anomaly(self, query: RangeQuery, answer: pl.DataFrame) -> Anomaly | None:
        """Return the anomaly of an answer: no new rows, or a start after the covered range."""
        if answer.is_empty():
            return Anomaly.NOTHING_NEW
        last = last_time(answer)
        if last < self.since or (last == self.since and self.overlap.height):
            return Anomaly.NOTHING_NEW
        return None if self._connects(answer, query) else Anomaly.STARTS_LATER

    def _connects(self, answer: pl.DataFrame, query: RangeQuery) -> bool:
        """Return whether an answer reaches back to the covered range, without a gap."""
        time, key = pl.col("timestamp"), pl.col(query.key)
        if self.overlap.height:
            reaches = (time < self.since) | key.is_in(self.overlap[query.key].to_list())
        elif query.family == "trades":
            reaches = time < self.at
        else:
            reaches = time <= self.at
        return bool(answer.select(reaches.any()).item())

    def advance(
        self, complete_to: datetime, answer: pl.DataFrame, last: datetime
    ) -> WindowPosition:
        """Return the position after an answer whose last row is at `last`."""
        time = pl.col("timestamp")
        overlap = answer.filter(time.is_null() | (time == last))
        return WindowPosition(max(self.at, complete_to), last, overlap)


def is_stuck(answer: pl.DataFrame, since: datetime, page: int) -> bool:
    """Return whether a full page has one time only, which requests by time cannot pass."""
    at_since = answer.filter(pl.col("timestamp") == since).height
    return page <= at_since == answer.height


def filter_new_rows(rows: pl.DataFrame, overlap: pl.DataFrame, key: str) -> pl.DataFrame:
    """Return the rows of an answer that the last answer did not have, without duplicates.

    Rows that differ under one key stay, also beside a repeated one: where they are stored, this is
    reported and recorded. So do rows without a key.
    """
    row = pl.struct(pl.all())
    # Of bars of one time the last one counts, of trades their order.
    is_distinct = row.is_last_distinct() if key == "timestamp" else row.is_first_distinct()
    fresh = rows.filter(pl.col(key).is_null() | is_distinct)
    if overlap.is_empty():
        return fresh
    repeated = overlap.drop_nulls(key)
    if key == "timestamp":
        others = _drop_rows(fresh, repeated).drop_nulls(key)
        repeated = repeated.join(others, on=key, how="anti")
    return _drop_rows(fresh, repeated)


def _drop_rows(rows: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Drop the rows that others equal."""
    return rows.join(others, on=rows.columns, how="anti", nulls_equal=True, maintain_order="left")


def filter_range(rows: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    """Return the rows within a range, and rows without a time."""
    time = pl.col("timestamp")
    return rows.filter(time.is_null() | ((time >= start) & (time < end)))
