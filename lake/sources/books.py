"""Order books: the depth to request from a venue, and a book as one row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.time import from_ms

# Depths that venues accept, from their documentation; other venues accept any number.
_BINANCE = (5, 10, 20, 50, 100, 500, 1000)
ALLOWED_DEPTHS: Mapping[str, tuple[int, ...]] = {
    "binance": (*_BINANCE, 5000),
    "binanceus": (*_BINANCE, 5000),
    "binanceusdm": _BINANCE,
    "binancecoinm": _BINANCE,
    "bitfinex": (1, 25, 100),
    "bitget": (1, 5, 15, 50, 100, 150),
    "huobi": (5, 10, 20, 150),
    "htx": (5, 10, 20, 150),
    "kucoin": (20, 100),
    "kucoinfutures": (20, 100),
}

_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "timestamp": TIMESTAMP,
    "sequence": pl.Int64,
    "bid_prices": pl.List(pl.Float64),
    "bid_amounts": pl.List(pl.Float64),
    "ask_prices": pl.List(pl.Float64),
    "ask_amounts": pl.List(pl.Float64),
    "received_at": TIMESTAMP,
}


def choose_depth(exchange_id: str, depth: int | None) -> int | None:
    """Return the smallest depth of a venue that has `depth` levels, or its largest depth.

    Parameters
    ----------
    exchange_id
        The id of the venue in ccxt.
    depth
        Levels per side; None for the venue's default.
    """
    allowed = ALLOWED_DEPTHS.get(exchange_id)
    if depth is None or allowed is None:
        return depth
    return next((limit for limit in allowed if limit >= depth), allowed[-1])


def build_book_row(
    book: Mapping[str, Any], depth: int | None, received_at: datetime
) -> pl.DataFrame:
    """Convert an order book of ccxt to one row of `orderbooks`.

    Parameters
    ----------
    book
        The result of `fetch_order_book`: levels of price and amount, best first.
    depth
        Levels to keep; None for all.
    received_at
        The time of receipt; also the time of the book if the venue does not send one.

    Raises
    ------
    ValueError
        A level has no price or no amount, or the time of the book is beyond all times.
    """
    milliseconds = book.get("timestamp")
    bid_prices, bid_amounts = _split_side(book["bids"], depth)
    ask_prices, ask_amounts = _split_side(book["asks"], depth)
    row = {
        "timestamp": received_at if milliseconds is None else _to_time(milliseconds),
        "sequence": _to_sequence(book.get("nonce")),
        "bid_prices": bid_prices,
        "bid_amounts": bid_amounts,
        "ask_prices": ask_prices,
        "ask_amounts": ask_amounts,
        "received_at": received_at,
    }
    return pl.DataFrame([row], schema=_SCHEMA)


def _to_time(milliseconds: int) -> datetime:
    try:
        return from_ms(milliseconds)
    except OverflowError as error:
        raise ValueError(f"a book of the time {milliseconds}") from error


def _to_sequence(nonce: Any) -> int:
    """Return the update number; -1 without one, also where it is no number."""
    try:
        number = int(nonce)
    except (TypeError, ValueError, OverflowError):
        return -1
    return number if -(2**63) <= number < 2**63 else -1


def _split_side(levels: Any, depth: int | None) -> tuple[list[float], list[float]]:
    pairs = [level[:2] for level in levels[:depth]]
    if any(value is None for level in pairs for value in level):
        raise ValueError("a level without price or amount")
    return [float(price) for price, _ in pairs], [float(amount) for _, amount in pairs]
