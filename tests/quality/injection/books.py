"""Kinds of defects of order books."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import polars as pl

from lake.quality.slice import Slice
from tests.quality.injection.count import Defect, Kind, Trial, find_all, pick_places, share_out
from tests.quality.injection.recordings import MARKETS, recorded_books, recorded_trades
from tests.quality.slices import reference_of, slice_of

Book = dict[str, Any]
Change = Callable[[Book, np.random.Generator], None]
SHARES = {"usdm": 25, "spot": 25}
OTHERS = {"spot": "usdm", "usdm": "spot"}
MOST = 5  # defects of a run
EDGE_ROWS = 20
SIDES = ("bid", "ask")


def books_slice(name: str, frame: pl.DataFrame, witness: str) -> Slice:
    """Return the slice of some books with a witness: the other market's books, or its trades."""
    more: dict[str, Any] = {}
    if witness == "venue":
        other = OTHERS[name]
        more["others"] = (reference_of("orderbooks", recorded_books(other), market=MARKETS[other]),)
    if witness == "trades":
        more["trades"] = reference_of("trades", recorded_trades(name), market=MARKETS[name])
    return slice_of("orderbooks", frame, market=MARKETS[name], **more)


@cache
def find_in_clean(name: str, witness: str) -> pl.DataFrame:
    """Findings of the books as they were recorded."""
    return find_all(books_slice(name, recorded_books(name), witness))


def move_side(book: Book, random: np.random.Generator, *, factor: float) -> None:
    """Multiply or divide the prices of one side by a factor."""
    name = f"{SIDES[int(random.integers(2))]}_prices"
    size = factor if random.random() < 0.5 else 1 / factor
    book[name] = [price * size for price in book[name]]


def multiply_level(book: Book, random: np.random.Generator) -> None:
    """Multiply the amount of one of the five best levels of a side by a thousand."""
    name = f"{SIDES[int(random.integers(2))]}_amounts"
    book[name] = [*book[name]]
    book[name][int(random.integers(5))] *= 1000


def multiply_book(book: Book, _: np.random.Generator) -> None:
    """Multiply all amounts by a thousand."""
    for side in SIDES:
        book[f"{side}_amounts"] = [amount * 1000 for amount in book[f"{side}_amounts"]]


def make_trials(
    random: np.random.Generator, count: int, witness: str, *, change: Change
) -> list[Trial]:
    """Make trials of both recordings."""
    trials = []
    for name, number in share_out(count, SHARES, dict.fromkeys(SHARES, MOST)):
        clean = recorded_books(name)
        places = pick_places(random, range(clean.height), number, edge=EDGE_ROWS)
        wrong = _change_rows(clean, places, partial(_apply, change, random))
        defects = [Defect((clean["timestamp"][place],)) for place in places]
        trials.append(
            Trial(find_in_clean(name, witness), books_slice(name, wrong, witness), defects)
        )
    return trials


def _apply(change: Change, random: np.random.Generator, book: Book) -> Book:
    change(book, random)
    return book


def _change_rows(
    clean: pl.DataFrame, places: list[int], change: Callable[[Book], Book]
) -> pl.DataFrame:
    changed = [change(clean.row(place, named=True)) for place in places]
    rows = pl.DataFrame(changed, schema=clean.schema).with_columns(_row=pl.Series(places))
    numbered = clean.with_columns(_row=pl.int_range(pl.len()))
    return numbered.update(rows, on="_row").drop("_row")


def _kind(name: str, change: Change, least: Mapping[str, int]) -> Kind:
    return Kind(name, partial(make_trials, change=change), least)


BOOK_KINDS = (
    _kind("book side off by 1 %", partial(move_side, factor=1.01),
          {"alone": 0, "venue": 48, "trades": 48}),
    _kind("book side off by x10", partial(move_side, factor=10.0),
          {"alone": 48, "venue": 48, "trades": 48}),
    # Of a small level that changes in each book, nothing tells that it was smaller.
    _kind("amount of a level x1000", multiply_level, {"alone": 45}),
    _kind("amounts of a book x1000", multiply_book, {"alone": 48}),
)  # fmt: skip
"""Kinds of defects of order books, with the least number of 50 that must be found."""
