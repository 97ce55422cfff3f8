"""Defects of order books are found at every place, and real and clean books raise no alarm."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.catalog import builtin
from lake.model.time import from_ms
from lake.quality.checks.books import CHECKS
from lake.quality.checks.registry import BUILTIN
from lake.quality.slice import Slice
from lake.sandbox.synthetic import SyntheticMarkets
from tests.conftest import DAY, MINUTE, SECOND, T0, trades
from tests.quality.checks.recorded_books import Book, row
from tests.quality.slices import outcome, reference_of, slice_of

STRUCTURAL = ("crossed", "unsorted", "bad_levels", "one_sided", "book_sequence", "book_gaps")
COUNT = 200

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
    exchange = SyntheticMarkets()
    market = exchange.markets[0]
    start_ms = int(T0.timestamp()) * 1000
    rows = []
    for time_ms in range(start_ms, start_ms + count * every_ms, every_ms):
        at = exchange.book(market, time_ms, levels)
        rows.append(row(from_ms(time_ms), at.update_id, at.bids, at.asks))
    return rows


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
    findings = outcome(CHECKS, check, books_of(books))
    assert findings["start"].to_list() == [books[2 * n]["timestamp"] for n in sorted(places)]
    assert findings["reason"].unique().to_list() == [reason]
    assert findings["message"].null_count() == findings["measured"].null_count() == 0


@pytest.mark.parametrize("check", [*STRUCTURAL, "wide_spread", "stale_book"])
def test_clean_books_raise_no_alarm(check: str) -> None:
    assert outcome(CHECKS, check, books_of([book(n) for n in range(COUNT)])).is_empty()
    assert outcome(CHECKS, check, books_of(synthetic(500, 1000))).is_empty()
    assert outcome(CHECKS, check, books_of(synthetic(500, 60_000))).is_empty()


def test_neighbouring_books_with_a_defect_are_one_finding_a_day() -> None:
    midnight = T0 + timedelta(days=1)
    books = [book(n, at=midnight - 20 * SECOND) for n in range(40)]
    for snapshot in books[10:30]:
        _cross(snapshot, snapshot)
    findings = outcome(CHECKS, "crossed", books_of(books))
    assert findings["rows"].to_list() == [10, 10]
    assert findings["end"][0] <= midnight == findings["start"][1]
    assert "above the best ask" in findings["message"][0]


def test_a_crossed_and_a_locked_neighbour_are_two_findings() -> None:
    books = [book(n) for n in range(10)]
    _cross(books[4], books[3])
    _lock(books[5], books[4])
    findings = outcome(CHECKS, "crossed", books_of(books))
    assert findings["reason"].to_list() == ["crossed", "locked"]
    assert findings["severity"].to_list() == [None, "info"]


def test_a_level_out_of_order_hides_no_crossing() -> None:
    books = [book(0, bid_prices=[999.0, 1001.5, 990.0])]
    findings = outcome(CHECKS, "crossed", books_of(books))
    assert findings.select("measured", "expected").row(0) == (1001.5, 1001.0)


def test_numbers_may_jump_and_be_absent() -> None:
    books = [book(n, sequence=number) for n, number in enumerate([1, 500, -1, -1, 501, 90_000])]
    assert outcome(CHECKS, "book_sequence", books_of(books)).is_empty()


def test_numbers_that_start_again_have_a_reason_of_their_own() -> None:
    books = [book(n, sequence=(9000 if n < 10 else 3) + n) for n in range(20)]
    findings = outcome(CHECKS, "book_sequence", books_of(books))
    assert findings.select("reason", "severity").rows() == [("restarted", "info")]


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
    findings = outcome(CHECKS, "book_gaps", books_of(books))
    assert findings["rows"].sum() == len(lost)
    assert set(findings["reason"]) == {"unknown"}
    for start, end in findings.select("start", "end").iter_rows():
        assert any(start <= T0 + n * SECOND < end for n in lost)


def test_a_gap_over_midnight_is_reported_for_the_day_of_the_book_after_it() -> None:
    midnight = T0 + timedelta(days=1)
    numbers = [n for n in range(COUNT) if n not in (99, 100, 101)]
    books = [book(n, sequence=n, at=midnight - 100 * SECOND) for n in numbers]
    findings = outcome(CHECKS, "book_gaps", books_of(books))
    assert findings.select("start", "end", "rows").rows() == [(midnight, midnight + 2 * SECOND, 3)]


def still(minutes: int, first: int = 5) -> list[Book]:
    """Books that change every minute, but not for some minutes."""
    books = [book(n, sequence=n, timestamp=T0 + n * MINUTE) for n in range(60)]
    for n, snapshot in enumerate(books):
        snapshot["received_at"] = snapshot["timestamp"]
        if first < n <= first + minutes:
            names = [name for name in snapshot if name.startswith(("bid", "ask"))]
            snapshot |= {name: books[first][name] for name in names}
    return books


def test_a_book_that_stands_still_is_found_after_the_threshold_only() -> None:
    assert outcome(CHECKS, "stale_book", books_of(still(10))).is_empty()
    findings = outcome(CHECKS, "stale_book", books_of(still(11)))
    assert findings.select("start", "rows", "measured", "reason", "severity").rows() == [
        (T0 + 5 * MINUTE, 11, 660.0, "unchanged", "info")
    ]


def test_trades_prove_that_a_book_that_stands_still_is_frozen() -> None:
    reference = reference_of("trades", trades(4, start=T0 + 7 * MINUTE))
    findings = outcome(CHECKS, "stale_book", books_of(still(15), trades=reference))
    assert findings.select("reason", "against", "severity").rows() == [("frozen", "trades", None)]
    assert "the market had 4 trades" in findings["message"][0]
    elsewhere = pl.concat([trades(4, start=T0), trades(4, first=4, start=T0 + 21 * MINUTE)])
    rows = books_of(still(15), trades=reference_of("trades", elsewhere))
    assert outcome(CHECKS, "stale_book", rows)["reason"].to_list() == ["unchanged"]


def test_a_spread_far_above_the_usual_is_reported() -> None:
    books = [book(n) for n in range(COUNT)]
    books[70]["ask_prices"] = [1040.0, 1041.0, 1042.0]
    findings = outcome(CHECKS, "wide_spread", books_of(books))
    assert findings.select("start", "reason", "severity").rows() == [
        (T0 + 70 * SECOND, "outlier", "info")
    ]


price = st.sampled_from([-1.0, 0.0, 99.0, 100.0, 101.0, 102.0, 103.0, None, math.nan, math.inf])
side = st.lists(st.tuples(price, price), max_size=4)


def count_wrong(prices: list[Any], sign: int) -> tuple[int, int]:
    """Count the prices of a side that are worse than the previous price, and that equal it."""
    steps = [
        sign * (after - before)
        for before, after in pairwise(prices)
        if before is not None and after is not None
    ]
    return sum(step < 0 for step in steps), sum(step == 0 for step in steps)


def oracle(book: Book) -> set[tuple[str, str]]:
    """The defects of a book, in plain Python."""
    wrong: set[tuple[str, str]] = set()
    bids, asks = book["bid_prices"], book["ask_prices"]
    for name, sides in (("bid", bids), ("ask", asks)):
        if not sides:
            wrong.add(("one_sided", f"no_{name}s"))
    best = [[p for p in prices if p is not None and not math.isnan(p)] for prices in (bids, asks)]
    if all(best):
        bid, ask = max(best[0]), min(best[1])
        wrong |= {("crossed", "crossed")} if bid > ask else set()
        wrong |= {("crossed", "locked")} if bid == ask else set()
    counts = [count_wrong(bids, -1), count_wrong(asks, 1)]
    wrong |= {("unsorted", "unsorted")} if any(worse for worse, _ in counts) else set()
    wrong |= {("unsorted", "duplicate")} if any(equal for _, equal in counts) else set()
    for reason, lists in (
        ("price", (bids, asks)),
        ("amount", (book["bid_amounts"], book["ask_amounts"])),
    ):
        values = [value for values in lists for value in values]
        if any(v is None or not (v > 0 and math.isfinite(v)) for v in values):
            wrong.add(("bad_levels", reason))
    return wrong


@settings(max_examples=60)
@given(sides=st.lists(st.tuples(side, side), min_size=1, max_size=25))
def test_each_book_is_checked_as_plain_python_does(sides: list[tuple[Any, Any]]) -> None:
    # Every second book is clean, so that each finding is of one book.
    books = [book(n) for n in range(2 * len(sides))]
    for n, (bids, asks) in enumerate(sides):
        books[2 * n] |= {
            "bid_prices": [p for p, _ in bids],
            "bid_amounts": [a for _, a in bids],
            "ask_prices": [p for p, _ in asks],
            "ask_amounts": [a for _, a in asks],
        }
    schema = {name: pl.List(pl.Float64) for name in books[0] if name.startswith(("bid", "ask"))}
    rows = slice_of("orderbooks", pl.DataFrame(books, schema_overrides=schema))
    reported = {
        (start, check, reason)
        for check in ("crossed", "unsorted", "bad_levels", "one_sided")
        for start, reason in outcome(CHECKS, check, rows).select("start", "reason").rows()
    }
    assert reported == {(b["timestamp"], *wrong) for b in books for wrong in oracle(b)}


@pytest.mark.parametrize("check", CHECKS)
def test_no_books_and_books_of_nothing_stop_no_check(check: str) -> None:
    empty = pl.DataFrame(
        schema=slice_of("orderbooks", pl.DataFrame([book(0)])).frame.collect_schema()
    )
    assert outcome(CHECKS, check, slice_of("orderbooks", empty, start=T0, end=T0 + DAY)).is_empty()
    assert outcome(CHECKS, check, books_of([book(0)])).is_empty()
    nothing = {name: None for name in book(0) if name.startswith(("bid", "ask"))}
    findings = outcome(CHECKS, check, books_of([book(0), book(1) | nothing, book(2)]))
    assert findings["reason"].to_list() == (["no_asks", "no_bids"] if check == "one_sided" else [])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_price_that_is_no_number_makes_no_spread(value: float) -> None:
    books = [book(n) for n in range(COUNT)]
    books[70]["ask_prices"] = [value, value, value]
    books[90]["ask_prices"] = [1040.0, 1041.0, 1042.0]
    findings = outcome(CHECKS, "wide_spread", books_of(books))
    assert findings["start"].to_list() == [T0 + 90 * SECOND]
    assert not findings["measured"].is_nan().any()


def test_one_book_may_have_several_defects() -> None:
    books = [book(n) for n in range(9)]
    books[4] |= {"bid_prices": [999.0, 999.0, 1000.0], "ask_prices": [1005.0, -1.0, 1006.0]}
    books[4]["ask_amounts"] = [0.0, 1.0, 1.0]
    for check, reasons in [
        ("unsorted", {"unsorted", "duplicate"}),
        ("bad_levels", {"price", "amount"}),
    ]:
        assert set(outcome(CHECKS, check, books_of(books))["reason"]) == reasons


def test_a_spread_of_few_ticks_is_no_outlier_where_one_is_usual() -> None:
    books = [
        book(n, bid_prices=[30_000.0, 29_990.0], ask_prices=[30_000.1, 30_020.0])
        | {"bid_amounts": [1.0, 1.0], "ask_amounts": [1.0, 1.0]}
        for n in range(COUNT)
    ]
    books[70]["ask_prices"] = [30_005.0, 30_020.0]
    assert outcome(CHECKS, "wide_spread", books_of(books)).is_empty()


def test_levels_without_an_amount_break_a_rule() -> None:
    books = [book(n) for n in range(9)]
    books[4]["bid_amounts"] = [1.0, 1.0]
    findings = outcome(BUILTIN, "broken_rules", books_of(books))
    assert findings.select("start", "reason").rows() == [(T0 + 4 * SECOND, "levels_paired")]


@pytest.mark.parametrize("table", ["trades", "orderbooks", "funding"])
def test_stored_rows_are_held_against_the_rules_of_their_table(table: str) -> None:
    declared = {check.name: check.severity for check in builtin().dataset(table).checks}
    assert declared["broken_rules"] == "critical"
