"""Parses Binance's answers into frames by column, and validates pages.

Formats: https://github.com/binance/binance-spot-api-docs/blob/master/rest-api.md and
https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from lake.model.time import MILLISECOND, TimeRange, iso
from lake.model.timeframe import Timeframe
from lake.sources.faults import Fault
from lake.sources.frames import add_closed, sorted_by, to_timestamps

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
_OPEN_TIME, _CLOSE_TIME, _COUNT, _KLINE_LENGTH = 0, 6, 8, 12


def parse_klines(answer: Any) -> pl.DataFrame:
    """Parse the bars of a `klines` answer, sorted, with `close_time`, the last millisecond of each.

    Numbers are decimals in strings, parsed to the nearest double; other texts become null.

    Raises
    ------
    Fault
        The answer has an unexpected structure.
    """
    _require_list(answer)
    try:
        columns = list(zip(*answer, strict=True)) or [()] * _KLINE_LENGTH
        # one series at a time: a Polars query costs more than the whole work on a page
        frame = pl.DataFrame(
            [
                to_timestamps(columns[_OPEN_TIME]),
                *(
                    pl.Series(name, columns[at], dtype=pl.String).cast(pl.Float64, strict=False)
                    for name, at in _KLINE_FLOATS.items()
                ),
                pl.Series("trade_count", columns[_COUNT], dtype=pl.Int64),
                to_timestamps(columns[_CLOSE_TIME]).alias("close_time"),
            ]
        )
    except (IndexError, TypeError, ValueError, PolarsError) as error:
        raise Fault(f"rows that are not klines: {error}") from error
    return sorted_by(frame, "timestamp")


def validate_klines(
    bars: pl.DataFrame, timeframe: Timeframe, window: TimeRange, reached: datetime
) -> pl.DataFrame:
    """Validate that bars answer the request, and return them. Removes `close_time` from `bars`.

    Raises
    ------
    Fault
        A bar is outside the window, off the grid, duplicated, or of another timeframe: the answer
        belongs to another request.
    """
    close_times = bars.drop_in_place("close_time")
    if bars.height:
        _require_within(bars, window)
        if not _is_on_grid(bars["timestamp"], timeframe):
            raise Fault(f"bars off the grid of {timeframe}, or duplicated")
        # Binance has shortened single bars at outages; in a page of another timeframe all bars
        # differ
        if 2 * _count_full_length(timeframe, bars["timestamp"], close_times) < bars.height:
            raise Fault(f"bars of another timeframe than {timeframe}")
    return add_closed(bars, timeframe, reached)


def _is_on_grid(opens: pl.Series, timeframe: Timeframe) -> bool:
    """Return whether sorted bars open on the grid of a timeframe, without duplicates."""
    if timeframe.unit == "M":
        return opens.n_unique() == len(opens) and all(timeframe.floor(t) == t for t in opens)
    steps = np.diff(opens.cast(pl.Int64).to_numpy())
    length = timeframe.seconds * 1_000_000
    return timeframe.floor(opens[0]) == opens[0] and bool(
        ((steps > 0) & (steps % length == 0)).all()
    )


def _count_full_length(timeframe: Timeframe, opens: pl.Series, closes: pl.Series) -> int:
    """Count the bars with the full length of the timeframe."""
    if timeframe.unit == "M":
        pairs = zip(opens, closes, strict=True)
        return sum(timeframe.after(first) == last + MILLISECOND for first, last in pairs)
    lengths = closes.cast(pl.Int64).to_numpy() - opens.cast(pl.Int64).to_numpy()
    return int((lengths == timeframe.seconds * 1_000_000 - 1000).sum())


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
                "first_id": pl.Series(columns["f"], dtype=pl.Int64),
                "last_id": pl.Series(columns["l"], dtype=pl.Int64),
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
        A trade is outside the window, before the id, duplicated, or has no id or time.
    """
    if trades.height:
        if trades["id"].null_count() or trades["timestamp"].null_count():
            raise Fault("a trade without an id or a time")
        _require_once(trades, "id")
        if window is not None:
            _require_within(trades, window)
        if from_id is not None and trades["id"][0] < from_id:
            raise Fault(f"trade {trades['id'][0]} is before {from_id}, the first id of the request")
    return trades


def find_trade_gaps(trades: pl.DataFrame, from_id: int | None) -> str | None:
    """Describe the anomaly of a page: missing ids, or times that run backward; else None."""
    if trades.is_empty():
        return None
    ids = trades["id"]
    expected = ids[0] if from_id is None else from_id
    missing = ids[-1] - expected + 1 - trades.height
    if missing:
        return f"{missing} ids from {expected} to {ids[-1]} are missing"
    return None if trades["timestamp"].is_sorted() else "times that run backward"


def parse_funding(answer: Any) -> pl.DataFrame:
    """Parse the rates of a `fundingRate` answer, sorted; empty mark prices of old rows become null.

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
                "funding_rate": pl.Series(columns["fundingRate"], dtype=pl.String),
                "mark_price": pl.Series([row.get("markPrice") for row in answer], dtype=pl.String),
            }
        )
    except (TypeError, ValueError, PolarsError) as error:
        raise Fault(f"rows that are not funding rates: {error}") from error
    numbers = pl.col("funding_rate", "mark_price").cast(pl.Float64, strict=False)
    return sorted_by(frame.with_columns(numbers), "timestamp")


def validate_funding(rates: pl.DataFrame, window: TimeRange) -> pl.DataFrame:
    """Validate that rates are within a window, without duplicate times, and return them.

    Raises
    ------
    Fault
        A rate is outside the window, or two have the same time.
    """
    if rates.height:
        _require_within(rates, window)
        _require_once(rates, "timestamp")
    return rates


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
    if column.null_count() or not isinstance(first, datetime) or not isinstance(last, datetime):
        raise Fault("a row without a time")
    if first < window.start or last >= window.end:
        raise Fault(f"rows from {iso(first)} to {iso(last)} instead of {window}")


def _require_once(frame: pl.DataFrame, column: str) -> None:
    if frame[column].n_unique() != frame.height:
        raise Fault(f"rows of one page with the same {column}")
