"""Cut the rows of many markets into slices that are read, and can be checked, at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from lake.jobs.quality.related import (
    find_reference_margin,
    find_reference_tables,
    has_venues,
    measure_longest_bar,
)
from lake.jobs.quality.slices import CheckInputs, widen
from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.quality.slice import Slice
from lake.store.damages import Damages, RaisedDamages

_GROUP_ROWS = 500_000

Chunk = tuple[Market, TimeRange]
"""A market, and days of it."""


def cut_groups(
    inputs: CheckInputs,
    table: str,
    selection: Selection,
    damages: Damages | None = None,
    *,
    exactly: bool = False,
) -> Iterator[list[Slice]]:
    """Cut a selection as `CheckInputs.cut_slices`, in groups of so many rows as memory allows."""
    dataset = inputs.tables[table].dataset
    damages = damages or RaisedDamages()
    group: list[Chunk] = []
    weight = 0
    for market in inputs.find_checked_markets(table, selection):
        with damages.collect(table):
            for days, rows in inputs.cut_days(dataset, market, selection, exactly=exactly):
                if group and weight + rows > _GROUP_ROWS:
                    yield _build_slices(inputs, dataset, group, damages)
                    group, weight = [], 0
                group.append((market, days))
                weight += rows
    if group:
        yield _build_slices(inputs, dataset, group, damages)


def _build_slices(
    inputs: CheckInputs, dataset: Dataset, chunks: Sequence[Chunk], damages: Damages
) -> list[Slice]:
    """Build slices; the rows of markets with the same days are read at once."""
    by_days: dict[TimeRange, list[Market]] = defaultdict(list)
    for market, days in chunks:
        by_days[days].append(market)
    for days, markets in by_days.items():
        if len(markets) > 1:
            with damages.collect(dataset.name):
                _hold(inputs, dataset, markets, days)
    slices = []
    for market, days in chunks:
        with damages.collect(dataset.name):
            slices.append(inputs.build_slice(dataset, market, days))
    inputs.reads.release()
    return slices


def _hold(inputs: CheckInputs, dataset: Dataset, markets: list[Market], days: TimeRange) -> None:
    """Read what slices of the same days need: own rows, references, other venues."""
    symbols = tuple(market.symbol for market in markets)
    is_compared = has_venues(dataset)
    own = inputs.find_markets(dataset.name, Selection((), symbols)) if is_compared else markets
    inputs.reads.hold(dataset.name, own, widen(days, dataset.margin))
    by_table: dict[str, list[Market]] = defaultdict(list)
    for market in markets:
        for name in find_reference_tables(inputs.tables, inputs.listing, dataset, market):
            by_table[name].append(market)
    # The last bars may end after the range.
    around = find_reference_margin(dataset) + measure_longest_bar(dataset)
    for name, referred in by_table.items():
        inputs.reads.hold(name, referred, widen(days, around))
