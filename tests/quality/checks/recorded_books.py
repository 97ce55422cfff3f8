"""Order books as venues sent them: recorded snapshots and changes, which lie beside the project.

See `../shared/data/ORIGIN.md`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import nlargest, nsmallest
from typing import Any

import pytest
import zstandard

from lake.model.time import from_ms
from tests.paths import SHARED

DATA = SHARED / "cex"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recorded data at {DATA}")

Book = dict[str, Any]


def row(time: datetime, number: int, bids: Any, asks: Any) -> Book:
    """A book from levels of price and amount, best first."""
    return {
        "timestamp": time,
        "sequence": number,
        "bid_prices": [float(price) for price, _ in bids],
        "bid_amounts": [float(amount) for _, amount in bids],
        "ask_prices": [float(price) for price, _ in asks],
        "ask_amounts": [float(amount) for _, amount in asks],
        "received_at": time,
    }


def lines(name: str) -> Iterator[tuple[float, Any]]:
    """Frames and answers of a recording, as (time of reception, JSON)."""
    raw = (DATA / "recordings" / name).read_bytes()
    for line in zstandard.ZstdDecompressor().stream_reader(raw).read().decode().splitlines():
        head, _, body = line.partition(": ")
        if body.startswith("{"):
            yield float(head.rsplit(" ", 1)[-1]), json.loads(body)


class Levels:
    """Two sides of a book that changes are applied to."""

    def __init__(self, bids: Any, asks: Any) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.change(bids, asks)

    def change(self, bids: Any, asks: Any) -> None:
        for side, changes in ((self.bids, bids), (self.asks, asks)):
            for price, amount in changes:
                side[float(price)] = float(amount)
                if side[float(price)] == 0:
                    del side[float(price)]

    def row(self, time: datetime, number: int, depth: int = 50) -> Book:
        bids = [(price, self.bids[price]) for price in nlargest(depth, self.bids)]
        asks = [(price, self.asks[price]) for price in nsmallest(depth, self.asks)]
        return row(time, number, bids, asks)


def binance(prefix: str = "BINANCE") -> dict[str, list[Book]]:
    """Real books of Binance, spot or `BINANCE_FUTURES`: snapshots, and all changes after them."""
    books: dict[str, list[Book]] = {}
    levels: dict[str, Levels] = {}
    last: dict[str, int] = {}
    raw = (DATA / "recordings" / f"{prefix}.http.0.0.zst").read_bytes()
    for line in zstandard.ZstdDecompressor().stream_reader(raw).read().decode().splitlines():
        if "/depth?symbol=" not in line:
            continue
        symbol = line.partition("symbol=")[2].partition("&")[0]
        answer = json.loads(line.partition(": ")[2])
        levels[symbol] = Levels(answer["bids"], answer["asks"])
        last[symbol] = answer["lastUpdateId"]
        books[symbol] = []
    for _, frame in lines(f"{prefix}.ws.1.0.zst"):
        data = frame.get("data", {})
        symbol = data.get("s")
        if data.get("e") != "depthUpdate" or data["u"] < last[symbol]:
            continue
        levels[symbol].change(data["b"], data["a"])
        books[symbol].append(levels[symbol].row(from_ms(data.get("T", data["E"])), data["u"]))
    return books


def coinbase() -> dict[str, list[Book]]:
    """Real books of Coinbase, which has no numbers for them."""
    books: dict[str, list[Book]] = {}
    levels: dict[str, Levels] = {}
    for _, frame in lines("COINBASE.ws.28.0.zst"):
        product = frame.get("product_id")
        if frame["type"] == "snapshot":
            levels[product], books[product] = Levels(frame["bids"], frame["asks"]), []
        elif frame["type"] == "l2update":
            bids = [(price, amount) for side, price, amount in frame["changes"] if side == "buy"]
            asks = [(price, amount) for side, price, amount in frame["changes"] if side == "sell"]
            levels[product].change(bids, asks)
            time = datetime.fromisoformat(frame["time"]).astimezone(UTC)
            books[product].append(levels[product].row(time, -1))
    return books


def bybit() -> list[Book]:
    """The bulk file of Bybit: a snapshot and its changes."""
    with zipfile.ZipFile(DATA / "samples" / "bybit_xrpusdt-ob500.data.zip") as archive:
        text = archive.read(archive.namelist()[0]).decode()
    frames = [json.loads(line) for line in text.splitlines()]
    levels = Levels([], [])
    books = []
    for frame in frames:
        levels.change(frame["data"]["b"], frame["data"]["a"])
        books.append(levels.row(from_ms(frame["ts"]), frame["data"]["u"]))
    return books


def kraken_futures() -> dict[str, list[Book]]:
    """Real books of Kraken Futures, whose numbers follow each other without a break."""
    books: dict[str, list[Book]] = {}
    levels: dict[str, Levels] = {}
    for _, frame in lines("KRAKEN_FUTURES.ws.1.0.zst"):
        product, feed = frame.get("product_id"), frame.get("feed")
        if feed == "book_snapshot":
            sides = (
                [(level["price"], level["qty"]) for level in frame[n]] for n in ("bids", "asks")
            )
            levels[product], books[product] = Levels(*sides), []
        elif feed == "book" and "seq" in frame:
            change = [(frame["price"], frame["qty"])]
            levels[product].change(*((change, []) if frame["side"] == "buy" else ([], change)))
            time = from_ms(frame["timestamp"])
            books[product].append(levels[product].row(time, frame["seq"]))
    return books


def okx() -> dict[str, list[Book]]:
    """Real books of OKX as it was in 2022, without numbers."""
    books: dict[str, list[Book]] = {}
    levels: dict[str, Levels] = {}
    for _, frame in lines("OKX.ws.1.0.zst"):
        if frame.get("arg", {}).get("channel") != "books" or "action" not in frame:
            continue
        name, (data,) = frame["arg"]["instId"], frame["data"]
        bids, asks = ([level[:2] for level in data[side]] for side in ("bids", "asks"))
        if frame["action"] == "snapshot":
            levels[name], books[name] = Levels(bids, asks), []
        else:
            levels[name].change(bids, asks)
        books[name].append(levels[name].row(from_ms(int(data["ts"])), -1))
    return books


def samples() -> dict[str, Book]:
    """Single answers and frames of venues in their current formats."""
    books: dict[str, Book] = {}
    for name, path in _SAMPLES.items():
        data = json.loads((DATA / "samples" / name).read_text())
        for key in path:
            data = data[key]
        books[name] = row(from_ms(0), -1, *(_pairs(data, side) for side in ("bids", "asks")))
    return books


def with_zeros() -> Book:
    """A frame of Kraken Futures with levels of no amount."""
    path = DATA / "samples" / "kraken" / "ws_futures_book_snapshot_with_zero_qty.json"
    frame = json.loads(path.read_text())
    return row(from_ms(0), -1, *(_pairs(frame, side) for side in ("bids", "asks")))


_SAMPLES: dict[str, tuple[str | int, ...]] = {
    "binance/depth_response.json": (),
    "okx/http_get_order_book.json": ("data", 0),
    "okx/ws_books_snapshot.json": ("data", 0),
    "kraken/http_order_book.json": ("result", "XBTUSDT"),
    "kraken/ws_book_snapshot.json": ("data", 0),
    "kraken/http_futures_orderbook.json": ("orderBook",),
    "kraken/ws_futures_book_snapshot.json": (),
    "coinbase/http_product_book.json": ("pricebook",),
    "deribit/http_get_order_book.json": ("result",),
    "bybit/http_get_orderbook.json": ("result",),
    "bybit/ws_orderbook_snapshot.json": ("data",),
}


def _pairs(data: dict[str, Any], side: str) -> list[tuple[Any, Any]]:
    pairs = []
    for level in data[side if side in data else side[0]]:
        if isinstance(level, dict):
            pairs.append((level["price"], level.get("qty", level.get("size"))))
        else:
            pairs.append((level[0], level[1]))
    return pairs
