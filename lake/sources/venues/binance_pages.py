"""Parses Binance's answers into frames by column, and validates pages.

Formats: https://github.com/binance/binance-spot-api-docs/blob/master/rest-api.md and
https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PolarsError

from lake.model.time import MILLISECOND, TimeRange, iso
from lake.model.timeframe import Timeframe
from lake.model.words import count
from lake.sources.faults import Fault
from lake.sources.frames import add_closed, sorted_by, to_integers, to_timestamps

# Where a page of trades is farther from the one before, it is confirmed by time.
_CONTINUES_WITHIN, _USUAL_PAUSES = timedelta(minutes=1), 20
_CONTINUES_WITHIN_RATIO = 1.05
_LONGEST_CONTINUOUS = timedelta(hours=1)

Ints = npt.NDArray[np.int64]

# positions in a kline; the twelfth is unused
_KLINE_FLOATS = {
    "open": 1,
    "high": 2,
    "low": 3,
    "close": 4,
    "volume": 5,
    "quote_volume": 7,
    "taker_buy_volume": 9,
    "taker_buy_quote_volume": 10,
}
_OPTIONAL = ("quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
_OPEN_TIME, _CLOSE_TIME, _COUNT, _KLINE_LENGTH = 0, 6, 8, 12


def parse_klines(answer: Any) -> pl.DataFrame:
    """Parse the bars of a `klines` answer, sorted, with `close_time`, the last millisecond of each.

    Numbers are decimals in strings, parsed to the nearest double; other texts become null, as do
    NaN and infinities in columns that may be null.

    Raises
    ------
    Fault
        The answer has an unexpected structure.
    """
    _require_list(answer)
    try:
        columns = list(zip(*answer, strict=True)) or [()] * _KLINE_LENGTH
        # no Polars query, and one cast of all numbers: each costs more than the work on a page
        numbers = _to_floats([columns[at] for at in _KLINE_FLOATS.values()])
        frame = pl.DataFrame(
            [
                to_timestamps(columns[_OPEN_TIME]),
                *(column.alias(name) for column, name in zip(numbers, _KLINE_FLOATS, strict=True)),
                to_integers(columns[_COUNT]).alias("trade_count"),
                to_timestamps(columns[_CLOSE_TIME]).alias("close_time"),
            ]
        )
        if not all(np.isfinite(frame[name].to_numpy()).all() for name in _OPTIONAL):
            is_finite = [_clear_unless(name, pl.col(name).is_finite()) for name in _OPTIONAL]
            frame = frame.with_columns(is_finite)
    except (IndexError, TypeError, ValueError, PolarsError) as error:
        raise Fault(f"rows that are not klines: {error}") from error
    return sorted_by(frame, "timestamp")


def _to_floats(columns: Sequence[Sequence[str]]) -> list[pl.Series]:
    """Convert columns of texts, all of one length, to doubles; other texts become null."""
    texts = pl.Series(list(chain.from_iterable(columns)), dtype=pl.String)
    numbers, height = texts.cast(pl.Float64, strict=False), len(columns[0])
    return [numbers.slice(n * height, height) for n in range(len(columns))]


def validate_klines(
    bars: pl.DataFrame, timeframe: Timeframe, window: TimeRange, reached: datetime
) -> tuple[pl.DataFrame, str | None]:
    """Validate that bars answer the request; return them and what is odd about them, or None.

    Binance cut bars short at outages, and after two of them its bars began off the grid for hours.
    Such bars are odd, but may be its data. Removes `close_time` from `bars`.

    Raises
    ------
    Fault
        A bar is outside the window, or most are of another timeframe: the answer belongs to
        another request.
    """
    close_times = bars.drop_in_place("close_time")
    anomaly = None
    if bars.height:
        _require_within(bars, window)
        lengths = _compare_lengths(timeframe, bars["timestamp"], close_times)
        sooner = _count_sooner(bars["timestamp"], timeframe)
        is_finer = 2 * int((lengths < 0).sum()) > bars.height and 2 * sooner >= bars.height - 1
        if 2 * int((lengths > 0).sum()) > bars.height or (is_finer and sooner):
            raise Fault(f"bars of another timeframe than {timeframe}")
        anomaly = _describe_oddities(bars["timestamp"], timeframe, int((lengths != 0).sum()))
    return add_closed(bars, timeframe, reached), anomaly


def _describe_oddities(opens: pl.Series, timeframe: Timeframe, odd_lengths: int) -> str | None:
    """Describe bars off the grid, repeated bars and bars of another length; None without any."""
    off_grid = 0
    if not _is_on_grid(opens, timeframe):
        off_grid = sum(timeframe.floor(time) != time for time in opens)
    counts = {
        f"off the grid of {timeframe}": off_grid,
        "repeated": opens.len() - opens.n_unique(),
        f"not {timeframe} long": odd_lengths,
    }
    oddities = [f"{count(number, 'bar')} {oddity}" for oddity, number in counts.items() if number]
    return f"{', '.join(oddities)} from {iso(opens[0])} to {iso(opens[-1])}" if oddities else None


def _is_on_grid(opens: pl.Series, timeframe: Timeframe) -> bool:
    """Return whether sorted bars open on the grid of a timeframe, without duplicates."""
    if timeframe.unit == "M":
        return opens.n_unique() == len(opens) and all(timeframe.floor(t) == t for t in opens)
    steps = np.diff(opens.cast(pl.Int64).to_numpy())
    length = timeframe.seconds * 1_000_000
    return timeframe.floor(opens[0]) == opens[0] and bool(
        ((steps > 0) & (steps % length == 0)).all()
    )


def _count_sooner(opens: pl.Series, timeframe: Timeframe) -> int:
    """Count the sorted bars that follow the one before sooner than the timeframe allows."""
    if timeframe.unit == "M":
        return sum(after < timeframe.after(first) for first, after in pairwise(opens))
    steps = np.diff(opens.cast(pl.Int64).to_numpy())
    return int((steps < timeframe.seconds * 1_000_000).sum())


def _compare_lengths(timeframe: Timeframe, opens: pl.Series, closes: pl.Series) -> Ints:
    """Compare lengths with the timeframe: negative for a shorter bar, positive for a longer one."""
    if timeframe.unit == "M":
        pairs = zip(opens, closes, strict=True)
        return np.array([_compare_month(timeframe, *pair) for pair in pairs], dtype=np.int64)
    lengths = closes.cast(pl.Int64).to_numpy() - opens.cast(pl.Int64).to_numpy()
    return np.asarray(lengths - (timeframe.seconds * 1_000_000 - 1000), dtype=np.int64)


def _compare_month(timeframe: Timeframe, first: datetime, last: datetime) -> int:
    end = last + MILLISECOND
    if timeframe.floor(first) == first:
        return (end > timeframe.after(first)) - (end < timeframe.after(first))
    length = end - first
    return (length > timeframe.longest) - (length < timedelta(seconds=timeframe.seconds))


def find_price_jump(before: pl.DataFrame, bars: pl.DataFrame, timeframe: Timeframe) -> str | None:
    """Describe how a page of bars does not continue the prices of the page before it; or None.

    A page of another market has bars of the same times, but seldom of the same prices. Bars longer
    than an hour jump by themselves.
    """
    if before.is_empty() or bars.is_empty() or timeframe.longest > _LONGEST_CONTINUOUS:
        return None
    last, first = before["close"][-1], bars["open"][0]
    if not last or not first or max(last / first, first / last) <= _CONTINUES_WITHIN_RATIO:
        return None
    return f"a jump from {last} to {first}"


def parse_agg_trades(answer: Any) -> pl.DataFrame:
    """Parse the trades of an `aggTrades` answer, sorted by id, with the id also as integer `id`.

    Raises
    ------
    Fault
        The answer has an unexpected structure.
    """
    columns = _to_columns(answer, ("a", "T", "p", "q", "f", "l", "m"))
    try:
        frame = pl.DataFrame(
            {
                "timestamp": to_timestamps(columns["T"]),
                "id": pl.Series(columns["a"], dtype=pl.Int64),
                "price": pl.Series(columns["p"], dtype=pl.String).cast(pl.Float64, strict=False),
                "amount": pl.Series(columns["q"], dtype=pl.String).cast(pl.Float64, strict=False),
                "buyer_is_maker": pl.Series(columns["m"], dtype=pl.Boolean),
                "first_id": to_integers(columns["f"]),
                "last_id": to_integers(columns["l"]),
            }
        )
    except (TypeError, ValueError, PolarsError) as error:
        raise Fault(f"rows that are not aggregated trades: {error}") from error
    side = pl.when("buyer_is_maker").then(pl.lit("sell")).otherwise(pl.lit("buy"))
    return sorted_by(frame, "id").select(
        "timestamp",
        pl.col("id").cast(pl.String).alias("trade_id"),
        "price",
        "amount",
        pl.when(pl.col("buyer_is_maker").is_not_null()).then(side).alias("side"),
        "first_id",
        "last_id",
        "id",
    )


def validate_trades(
    trades: pl.DataFrame, window: TimeRange | None = None, from_id: int | None = None
) -> pl.DataFrame:
    """Validate that trades are within a window, or start at an id, and return them.

    Raises
    ------
    Fault
        A trade is outside the window, or before the id.
    """
    if trades.height:
        if window is not None:
            _require_within(trades, window)
        if from_id is not None and trades["id"][0] < from_id:
            raise Fault(f"trade {trades['id'][0]} is before {from_id}, the first id of the request")
    return trades


def find_trade_anomaly(trades: pl.DataFrame, from_id: int | None) -> str | None:
    """Describe the anomaly of a page: missing or repeated ids, times that run backward; or None."""
    if trades.is_empty():
        return None
    ids = trades["id"]
    expected, distinct = (ids[0] if from_id is None else from_id), ids.n_unique()
    missing = ids[-1] - expected + 1 - distinct
    if missing:
        return f"{missing} ids from {expected} to {ids[-1]} are missing"
    if distinct < trades.height:
        return f"{trades.height - distinct} ids from {expected} to {ids[-1]} are repeated"
    return None if trades["timestamp"].is_sorted() else "times that run backward"


@dataclass(frozen=True, slots=True)
class Trade:
    """What identifies one trade of a market."""

    id: int
    time: datetime
    price: float | None
    amount: float | None

    @classmethod
    def at(cls, trades: pl.DataFrame, place: int) -> Trade:
        """Return the trade at a place of a page."""
        row = trades.row(place, named=True)
        return cls(row["id"], row["timestamp"], row["price"], row["amount"])


def find_jump(before: pl.DataFrame, trades: pl.DataFrame) -> str | None:
    """Describe how a page by id does not continue the page before it in time or price; or None.

    A page of another market continues the ids by chance, but neither times nor prices.
    """
    if trades.is_empty():
        return "no trades"
    last, first = Trade.at(before, -1), Trade.at(trades, 0)
    usual = (before["timestamp"][-1] - before["timestamp"][0]) / before.height
    pause = first.time - last.time
    if pause < timedelta(0) or pause > _CONTINUES_WITHIN + _USUAL_PAUSES * usual:
        return f"a jump from {iso(last.time)} to {iso(first.time)}"
    if not last.price or not first.price:
        return None
    ratio = first.price / last.price
    if max(ratio, 1 / ratio) > _CONTINUES_WITHIN_RATIO:
        return f"a jump from {last.price} to {first.price}"
    return None


def parse_funding(answer: Any) -> pl.DataFrame:
    """Parse the rates of a `fundingRate` answer, sorted.

    Mark prices that are no prices become null, such as the empty ones of old rows.

    Raises
    ------
    Fault
        The answer has an unexpected structure.
    """
    columns = _to_columns(answer, ("fundingTime", "fundingRate"))
    try:
        frame = pl.DataFrame(
            {
                "timestamp": to_timestamps(columns["fundingTime"]),
                "symbol": pl.Series([row.get("symbol") for row in answer], dtype=pl.String),
                "funding_rate": pl.Series(columns["fundingRate"], dtype=pl.String),
                "mark_price": pl.Series([row.get("markPrice") for row in answer], dtype=pl.String),
            }
        )
    except (TypeError, ValueError, PolarsError) as error:
        raise Fault(f"rows that are not funding rates: {error}") from error
    numbers = pl.col("funding_rate", "mark_price").cast(pl.Float64, strict=False)
    is_price = pl.col("mark_price").is_between(0, float("inf"), closed="none")
    rates = frame.with_columns(numbers).with_columns(_clear_unless("mark_price", is_price))
    return sorted_by(rates, "timestamp")


def validate_funding(rates: pl.DataFrame, window: TimeRange, symbol: str) -> pl.DataFrame:
    """Validate that rates are of a market, in a window; return them without `symbol`.

    Raises
    ------
    Fault
        A rate is outside the window, or of another market.
    """
    others = rates.filter(pl.col("symbol") != symbol)["symbol"]
    if others.len():
        raise Fault(f"funding rates of {others[0]} instead of {symbol}")
    if rates.height:
        _require_within(rates, window)
    return rates.drop("symbol")


def _clear_unless(name: str, condition: pl.Expr) -> pl.Expr:
    return pl.when(condition).then(pl.col(name)).alias(name)


def _require_list(answer: Any) -> None:
    if not isinstance(answer, list):
        raise Fault(f"expected a list of rows, got {type(answer).__name__}")


def _to_columns(answer: Any, keys: Sequence[str]) -> dict[str, list[Any]]:
    _require_list(answer)
    try:
        return {key: [row[key] for row in answer] for key in keys}
    except (KeyError, TypeError) as error:
        raise Fault(f"rows without {error}") from error


def _require_within(frame: pl.DataFrame, window: TimeRange) -> None:
    column = frame["timestamp"]
    first, last = column.min(), column.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        raise Fault("rows without a time")
    if first < window.start or last >= window.end:
        raise Fault(f"rows from {iso(first)} to {iso(last)} instead of {window}")
