"""Real order books raise no alarm, and defects put into them are all found."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.market import Market
from lake.quality.checks.books import CHECKS
from tests.conftest import SECOND, T0
from tests.quality.checks.recorded_books import (
    Book,
    binance,
    bybit,
    coinbase,
    kraken_futures,
    needs_data,
    okx,
    samples,
    with_zeros,
)
from tests.quality.checks.test_books import DEFECTS, books_of
from tests.quality.slices import outcome


def alarms(name: str, books: list[Book]) -> list[tuple[Any, ...]]:
    """Findings of all checks; of books with the same time and number the last one counts."""
    kept = {(book["timestamp"], book["sequence"]): book for book in books}
    rows = books_of(list(kept.values()), market=Market("venue", name))
    return [
        (name, check, *line)
        for check in CHECKS
        for line in outcome(CHECKS, check, rows).select("reason", "start", "message").rows()
    ]


@needs_data
@pytest.mark.parametrize(
    ("venue", "markets", "least"),
    [
        ("binance_futures", lambda: binance("BINANCE_FUTURES"), 700),
        ("binance", binance, 170),
        ("bybit", lambda: {"XRPUSDT": bybit()}, 50),
        ("coinbase", coinbase, 9000),
        ("kraken_futures", kraken_futures, 7000),
        ("okx", okx, 290),
        ("samples", lambda: {name: [book] for name, book in samples().items()}, 11),
    ],
)
def test_real_books_raise_no_alarm(
    venue: str, markets: Callable[[], dict[str, list[Book]]], least: int
) -> None:
    books = markets()
    assert sum(map(len, books.values())) >= least, venue
    assert [line for name, some in books.items() for line in alarms(name, some)] == []


@needs_data
def test_levels_of_no_amount_in_a_real_frame_are_found() -> None:
    findings = outcome(CHECKS, "bad_levels", books_of([with_zeros()]))
    assert findings.select("reason", "measured").rows() == [("amount", 2.0)]


@cache
def longest() -> list[Book]:
    """3,890 real books whose numbers follow each other."""
    return kraken_futures()["PI_ETHUSD"]


@needs_data
@settings(max_examples=10)
@given(lost=st.sets(st.integers(1, 3888), min_size=1, max_size=40))
def test_updates_taken_out_of_real_books_are_all_found(lost: set[int]) -> None:
    left = [book for n, book in enumerate(longest()) if n not in lost]
    findings = outcome(CHECKS, "book_gaps", books_of(left))
    assert findings["rows"].sum() == len(lost)
    runs = [n for n in lost if n - 1 not in lost]
    assert findings.height == len(runs)
    after = {next(m for m in range(n, 3890) if m not in lost) for n in runs}
    named = {message.partition(" before ")[2].partition(":")[0] for message in findings["message"]}
    assert named == {str(longest()[n]["sequence"]) for n in after}


@needs_data
@pytest.mark.parametrize("defect", [n for n in DEFECTS if n not in ("backwards", "changed")])
def test_defects_put_into_real_books_are_all_found(defect: str) -> None:
    check, reason, spoil = DEFECTS[defect]
    books = [
        {name: [*value] if isinstance(value, list) else value for name, value in book.items()}
        for book in longest()[::4]
    ]
    for n, book in enumerate(books):
        book["timestamp"] = T0 + n * SECOND
    places = range(3, len(books), 10)
    for place in places:
        spoil(books[place], books[place - 1])
    findings = outcome(CHECKS, check, books_of(books))
    assert findings["start"].to_list() == [T0 + n * SECOND for n in places]
    assert set(findings["reason"]) == {reason}
