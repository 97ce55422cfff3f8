"""Defects of order books are found at every place, and real and clean books raise no alarm."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from heapq import nlargest, nsmallest
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.market import Market
from lake.model.time import from_ms
from lake.quality.books import CHECKS
from lake.quality.check import Slice
from lake.sandbox.synthetic import Synthetic
from tests.conftest import MINUTE, SECOND, T0, trades
from tests.quality.slices import outcome, slice_of, witness_of

DATA = Path(__file__).parents[3] / "shared" / "data" / "cex"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recorded data at {DATA}")
STRUCTURAL = ("crossed", "unsorted", "bad_levels", "one_sided", "book_sequence", "book_gaps")
COUNT = 200

Book = dict[str, Any]
Wrong = Callable[[Book, Book], None]


def book(n: int, *, at: datetime = T0, **columns: Any) -> Book:
    """A book of its own number, a second after the one before."""
    time = at + n * SECOND
    middle = 1000.0 + n % 7
    return {
        "timestamp": time,
        "sequence": 10 * n + 5,
        "bid_prices": [middle - 1, middle - 2, middle - 4],
        "bid_amounts": [1.0, 2.0, 3.0],
        "ask_prices": [middle + 1, middle + 3, middle + 4],
        "ask_amounts": [3.0, 2.0, 1.0],
        "received_at": time + timedelta(milliseconds=40),
        **columns,
    }


def books_of(books: list[Book], **more: Any) -> Slice:
    return slice_of("orderbooks", pl.DataFrame(books), **more)


@cache
def synthetic(count: int, every_ms: int, levels: int = 20) -> list[Book]:
    """Books as the sandbox exchange serves them."""
    exchange = Synthetic()
    market = exchange.markets[0]
    start_ms = int(T0.timestamp()) * 1000
    rows = []
    for time_ms in range(start_ms, start_ms + count * every_ms, every_ms):
        at = exchange.book(market, time_ms, levels)
        rows.append(row(from_ms(time_ms), at.update_id, at.bids, at.asks))
    return rows


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


def _cross(book: Book, _: Book) -> None:
    book["bid_prices"][0] = book["ask_prices"][0] + 0.5


def _lock(book: Book, _: Book) -> None:
    book["bid_prices"][0] = book["ask_prices"][0]


def _swap(book: Book, _: Book) -> None:
    book["ask_prices"][1], book["ask_prices"][2] = book["ask_prices"][2], book["ask_prices"][1]


def _double(book: Book, _: Book) -> None:
    book["bid_prices"][2] = book["bid_prices"][1]


def _empty_level(book: Book, _: Book) -> None:
    book["ask_amounts"][1] = 0.0


def _lost_level(book: Book, _: Book) -> None:
    book["bid_amounts"][2] = None


def _free(book: Book, _: Book) -> None:
    book["bid_prices"][2] = -0.5


def _no_asks(book: Book, _: Book) -> None:
    book["ask_prices"], book["ask_amounts"] = [], []


def _no_bids(book: Book, _: Book) -> None:
    book["bid_prices"], book["bid_amounts"] = [], []


def _back(book: Book, before: Book) -> None:
    book["sequence"] = before["sequence"] - 1


def _same_number(book: Book, before: Book) -> None:
    book["sequence"] = before["sequence"]


def _wide(book: Book, _: Book) -> None:
    book["ask_prices"] = [price * 1.5 for price in book["ask_prices"]]


DEFECTS: dict[str, tuple[str, str, Wrong]] = {
    "crossed": ("crossed", "crossed", _cross),
    "locked": ("crossed", "locked", _lock),
    "unsorted": ("unsorted", "unsorted", _swap),
    "twice": ("unsorted", "duplicate", _double),
    "amount": ("bad_levels", "amount", _empty_level),
    "null": ("bad_levels", "amount", _lost_level),
    "price": ("bad_levels", "price", _free),
    "no_asks": ("one_sided", "no_asks", _no_asks),
    "no_bids": ("one_sided", "no_bids", _no_bids),
    "backwards": ("book_sequence", "backwards", _back),
    "changed": ("book_sequence", "changed", _same_number),
    "wide": ("wide_spread", "beyond_limit", _wide),
}


@pytest.mark.parametrize("defect", DEFECTS)
@settings(max_examples=25)
@given(places=st.sets(st.integers(1, COUNT // 2 - 1), min_size=1, max_size=6))
def test_a_defect_is_found_wherever_it_is(defect: str, places: set[int]) -> None:
    check, reason, spoil = DEFECTS[defect]
    books = [book(n) for n in range(COUNT)]
    for place in (2 * n for n in places):
        spoil(books[place], books[place - 1])
    found = outcome(CHECKS, check, books_of(books))
    assert found["start"].to_list() == [books[2 * n]["timestamp"] for n in sorted(places)]
    assert found["reason"].unique().to_list() == [reason]
    assert found["message"].null_count() == found["measured"].null_count() == 0


@pytest.mark.parametrize("check", [*STRUCTURAL, "wide_spread", "stale_book"])
def test_clean_books_raise_no_alarm(check: str) -> None:
    assert outcome(CHECKS, check, books_of([book(n) for n in range(COUNT)])).is_empty()
    assert outcome(CHECKS, check, books_of(synthetic(500, 1000))).is_empty()
    assert outcome(CHECKS, check, books_of(synthetic(500, 60_000))).is_empty()


def test_neighbouring_books_with_a_defect_are_one_finding_a_day() -> None:
    midnight = T0 + timedelta(days=1)
    books = [book(n, at=midnight - 20 * SECOND) for n in range(40)]
    for one in books[10:30]:
        _cross(one, one)
    found = outcome(CHECKS, "crossed", books_of(books))
    assert found["rows"].to_list() == [10, 10]
    assert found["end"][0] <= midnight == found["start"][1]
    assert "above the best ask" in found["message"][0]


def test_a_crossed_and_a_locked_neighbour_are_told_apart() -> None:
    books = [book(n) for n in range(10)]
    _cross(books[4], books[3])
    _lock(books[5], books[4])
    found = outcome(CHECKS, "crossed", books_of(books))
    assert found["reason"].to_list() == ["crossed", "locked"]
    assert found["severity"].to_list() == [None, "info"]


def test_a_level_out_of_order_hides_no_crossing() -> None:
    books = [book(0, bid_prices=[999.0, 1001.5, 990.0])]
    found = outcome(CHECKS, "crossed", books_of(books))
    assert found.select("measured", "expected").row(0) == (1001.5, 1001.0)


def test_numbers_may_jump_and_be_absent() -> None:
    books = [book(n, sequence=number) for n, number in enumerate([1, 500, -1, -1, 501, 90_000])]
    assert outcome(CHECKS, "book_sequence", books_of(books)).is_empty()


def test_numbers_that_start_again_are_told_as_such() -> None:
    books = [book(n, sequence=(9000 if n < 10 else 3) + n) for n in range(20)]
    found = outcome(CHECKS, "book_sequence", books_of(books))
    assert found.select("reason", "severity").rows() == [("restarted", "info")]


def test_a_book_of_the_same_number_may_be_shown_less_deep() -> None:
    deep = book(0)
    shallow = {
        name: value[:2] if isinstance(value, list) else value for name, value in deep.items()
    }
    later = {"timestamp": T0 + SECOND, "received_at": T0 + SECOND}
    assert outcome(CHECKS, "book_sequence", books_of([deep, {**shallow, **later}])).is_empty()


@settings(max_examples=25)
@given(lost=st.sets(st.integers(1, COUNT - 2), min_size=1, max_size=5))
def test_lost_updates_are_counted_where_all_are_kept(lost: set[int]) -> None:
    books = [book(n, sequence=n) for n in range(COUNT) if n not in lost]
    found = outcome(CHECKS, "book_gaps", books_of(books))
    assert found["rows"].sum() == len(lost)
    assert set(found["reason"]) == {"unknown"}
    for start, end in found.select("start", "end").iter_rows():
        assert any(start <= T0 + n * SECOND < end for n in lost)


def test_a_gap_over_midnight_is_told_of_the_day_of_the_book_after_it() -> None:
    midnight = T0 + timedelta(days=1)
    numbers = [n for n in range(COUNT) if n not in (99, 100, 101)]
    books = [book(n, sequence=n, at=midnight - 100 * SECOND) for n in numbers]
    found = outcome(CHECKS, "book_gaps", books_of(books))
    assert found.select("start", "end", "rows").rows() == [(midnight, midnight + 2 * SECOND, 3)]


def still(minutes: int, first: int = 5) -> list[Book]:
    """Books that change every minute, but not for some minutes."""
    books = [book(n, sequence=n, timestamp=T0 + n * MINUTE) for n in range(60)]
    for n, one in enumerate(books):
        one["received_at"] = one["timestamp"]
        if first < n <= first + minutes:
            one |= {name: books[first][name] for name in one if name.startswith(("bid", "ask"))}
    return books


def test_a_book_that_stands_still_is_found_after_the_threshold_only() -> None:
    assert outcome(CHECKS, "stale_book", books_of(still(10))).is_empty()
    found = outcome(CHECKS, "stale_book", books_of(still(11)))
    assert found.select("start", "rows", "measured", "reason", "severity").rows() == [
        (T0 + 5 * MINUTE, 11, 660.0, "unchanged", "info")
    ]


def test_trades_prove_that_a_book_that_stands_still_is_frozen() -> None:
    there = witness_of("trades", trades(4, start=T0 + 7 * MINUTE))
    found = outcome(CHECKS, "stale_book", books_of(still(15), trades=there))
    assert found.select("reason", "against", "severity").rows() == [("frozen", "trades", None)]
    assert "meanwhile: 4" in found["message"][0]
    elsewhere = pl.concat([trades(4, start=T0), trades(4, first=4, start=T0 + 21 * MINUTE)])
    rows = books_of(still(15), trades=witness_of("trades", elsewhere))
    assert outcome(CHECKS, "stale_book", rows)["reason"].to_list() == ["unchanged"]


def test_a_spread_far_above_the_usual_is_told() -> None:
    books = [book(n) for n in range(COUNT)]
    books[70]["ask_prices"] = [1040.0, 1041.0, 1042.0]
    found = outcome(CHECKS, "wide_spread", books_of(books))
    assert found.select("start", "reason", "severity").rows() == [
        (T0 + 70 * SECOND, "outlier", "info")
    ]


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
        bids, asks = nlargest(depth, self.bids.items()), nsmallest(depth, self.asks.items())
        return row(time, number, bids, asks)


def binance_futures() -> dict[str, list[Book]]:
    """Real books of Binance futures: snapshots, and all changes after them."""
    books: dict[str, list[Book]] = {}
    levels: dict[str, Levels] = {}
    last: dict[str, int] = {}
    raw = (DATA / "recordings" / "BINANCE_FUTURES.http.0.0.zst").read_bytes()
    for line in zstandard.ZstdDecompressor().stream_reader(raw).read().decode().splitlines():
        if "/depth?symbol=" not in line:
            continue
        symbol = line.partition("symbol=")[2].partition("&")[0]
        answer = json.loads(line.partition(": ")[2])
        levels[symbol] = Levels(answer["bids"], answer["asks"])
        last[symbol] = answer["lastUpdateId"]
        books[symbol] = []
    for _, frame in lines("BINANCE_FUTURES.ws.1.0.zst"):
        data = frame.get("data", {})
        symbol = data.get("s")
        if data.get("e") != "depthUpdate" or data["u"] < last[symbol]:
            continue
        levels[symbol].change(data["b"], data["a"])
        books[symbol].append(levels[symbol].row(from_ms(data["T"]), data["u"]))
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


@needs_data
def test_real_books_raise_no_alarm() -> None:
    markets = {**binance_futures(), **coinbase(), "XRPUSDT": bybit()}
    assert len(markets) == 15
    assert sum(len(books) for books in markets.values()) > 10_000
    alarms = []
    for name, books in markets.items():
        # Of Coinbase several books may have one time: the last is the book of that time.
        kept = [one for one, after in pairwise(books) if one["timestamp"] != after["timestamp"]]
        rows = books_of(kept, market=Market("venue", name))
        for check in (*STRUCTURAL, "wide_spread", "stale_book"):
            found = outcome(CHECKS, check, rows)
            alarms += [(name, check, *line) for line in found.select("start", "message").rows()]
    assert alarms == []
