"""ccxt's unified structures as frames, and what an answer tells about the past and the present."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

import polars as pl

from lake.model.ohlcv import OHLCV
from lake.model.time import MILLISECOND
from lake.model.timeframe import Timeframe
from lake.sources.frames import (
    add_closed,
    derive_ids,
    find_complete_until,
    sorted_by,
    to_floats,
    to_timestamps,
)

# Where a venue shows no more than this of its latest rows, how large its pages are is not known.
MIN_PAGE_ROWS = 10

Source = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class RangeQuery:
    """How one dataset is asked for by time through a unified method.

    Attributes
    ----------
    family
        The dataset.
    method, arguments
        ccxt's method, and its arguments before `since`.
    read
        An answer as a frame, sorted by time.
    key
        The column that tells rows apart.
    limit
        Most rows of an answer, None where ccxt does not know.
    lookback
        How much before a window to ask: a row from before it proves that its beginning is whole.
    hop
        How far to go on where a venue gives nothing although it has newer rows.
    settle
        How long the venue may take to show what has happened.
    timeframe
        Of bars.
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

    @property
    def source(self) -> Source:
        """What is asked, whatever for."""
        return (self.method, *self.arguments)

    def add_closed(self, rows: pl.DataFrame, reached: datetime) -> pl.DataFrame:
        """Rows with what depends on the time that the venue had reached."""
        return add_closed(rows, self.timeframe, reached) if self.timeframe else rows

    def complete_until(self, rows: pl.DataFrame, reached: datetime) -> datetime:
        """The time up to which an answer can tell all, given the time that the venue reached."""
        return find_complete_until(rows, self.timeframe, reached) if self.timeframe else reached

    def complete_from(self, first: datetime) -> datetime:
        """Where knowledge begins if an answer's first row is all there is of the past.

        Bars stand alone; of trades in one millisecond an answer may have begun in the middle.
        """
        return first if self.family != "trades" else first + MILLISECOND

    def complete_to(self, last: datetime) -> datetime:
        """Where knowledge ends if an answer's last row is all there is so far; likewise."""
        return last if self.family == "trades" else last + MILLISECOND


def parse_bars(answer: Any) -> pl.DataFrame:
    """Bars of `fetch_ohlcv`: rows of Unix milliseconds, open, high, low, close, volume.

    What is no number becomes null.
    """
    columns = list(zip(*(row[:6] for row in answer), strict=True)) or [()] * 6
    frame = pl.DataFrame(
        [to_timestamps(columns[0])]
        + [to_floats(values).alias(n) for n, values in zip(OHLCV, columns[1:], strict=True)]
    )
    return sorted_by(frame, "timestamp")


def has_shorter_bars(bars: pl.DataFrame, timeframe: Timeframe) -> bool:
    """Whether most bars follow the one before sooner than they should.

    Not all must keep the distance: some venues begin long bars anew with each month or year.
    """
    sooner = bars["timestamp"].diff().drop_nulls() < timedelta(seconds=timeframe.seconds)
    return 2 * int(sooner.sum()) > sooner.len()


def parse_trades(answer: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Trades of `fetch_trades`; where one has no id it is derived.

    Ids are text, exactly as ccxt gives them.
    """
    timestamp = to_timestamps([row.get("timestamp") for row in answer])
    price, amount = (to_floats([row.get(name) for row in answer]) for name in ("price", "amount"))
    side = [row["side"] if row.get("side") in ("buy", "sell") else None for row in answer]
    ids = [row.get("id") for row in answer]
    if not all(ids):
        facts = (timestamp.dt.epoch("us").to_list(), side, price.to_list(), amount.to_list())
        ids = [own or made for own, made in zip(ids, derive_ids(*facts), strict=True)]
    ids = [None if name is None else str(name) for name in ids]
    frame = pl.DataFrame(
        {
            "timestamp": timestamp,
            "trade_id": pl.Series(ids, dtype=pl.String),
            "price": price,
            "amount": amount,
            "side": pl.Series(side, dtype=pl.String),
        }
    )
    return frame.sort("timestamp", maintain_order=True)


def parse_funding(answer: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rates of `fetch_funding_rate_history`."""
    frame = pl.DataFrame(
        {
            "timestamp": to_timestamps([row.get("timestamp") for row in answer]),
            "funding_rate": to_floats([row.get("fundingRate") for row in answer]),
        }
    )
    return sorted_by(frame, "timestamp")


def find_ambiguous_ids(trades: pl.DataFrame) -> list[str]:
    """Ids that stand for different trades in one answer: they cannot tell trades apart."""
    kinds = trades.drop_nulls("trade_id").unique()
    return kinds.filter(kinds["trade_id"].is_duplicated())["trade_id"].unique().sort().to_list()


def first_time(rows: pl.DataFrame) -> datetime:
    """The earliest time of a non-empty answer that is readable, so that one row has a time."""
    return cast("datetime", rows["timestamp"].min())


def last_time(rows: pl.DataFrame) -> datetime:
    """The latest time of such an answer."""
    return cast("datetime", rows["timestamp"].max())


class Anomaly(StrEnum):
    """What an answer may lack that should go on from what is known."""

    NOTHING_NEW = "nothing new"
    BEGINS_LATER = "it begins later"


@dataclass(frozen=True, slots=True)
class WindowPosition:
    """How far the pages of a window have come.

    Attributes
    ----------
    at
        All before it is dealt with.
    since
        What the venue is asked for next: not later than `at`, so that answers overlap.
    overlap
        Rows of the last answer at `since`, which the next one should hold again, and those
        without a time.
    """

    at: datetime
    since: datetime
    overlap: pl.DataFrame

    def find_anomaly(self, query: RangeQuery, answer: pl.DataFrame) -> Anomaly | None:
        """What is odd about an answer: it does not go on, or not from what is known."""
        if answer.is_empty():
            return Anomaly.NOTHING_NEW
        last = last_time(answer)
        if last < self.since or (last == self.since and self.overlap.height):
            return Anomaly.NOTHING_NEW
        return None if self._connects(answer, query) else Anomaly.BEGINS_LATER

    def _connects(self, answer: pl.DataFrame, query: RangeQuery) -> bool:
        """Whether an answer reaches back to what is known, so that nothing is left out before."""
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
        """The cursor after an answer whose last row is at `last`."""
        time = pl.col("timestamp")
        overlap = answer.filter(time.is_null() | (time == last))
        return WindowPosition(max(self.at, complete_to), last, overlap)


def is_stuck(answer: pl.DataFrame, since: datetime, page: int) -> bool:
    """Whether a full page holds nothing but one moment, which asking by time cannot pass."""
    at_since = answer.filter(pl.col("timestamp") == since).height
    return page <= at_since == answer.height


def filter_new_rows(rows: pl.DataFrame, overlap: pl.DataFrame, key: str) -> pl.DataFrame:
    """Rows of an answer that were not in the answer before, and each only once.

    Rows without a key stay: they are refused later, where it is seen and recorded.
    """
    fresh = pl.col(key).is_null() | (
        pl.col(key).is_first_distinct() & ~pl.col(key).is_in(overlap[key].to_list())
    )
    return rows.filter(fresh)


def within(rows: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    """The rows of a range, and those without a time."""
    time = pl.col("timestamp")
    return rows.filter(time.is_null() | ((time >= start) & (time < end)))
