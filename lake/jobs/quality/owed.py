"""Checks that are owed: which days of which tables they concern, and when they are settled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from lake.jobs.quality.between import Place, join_to_checked
from lake.jobs.touched import Touched, join_close
from lake.model.intervals import subtract
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.query.unchecked import Unchecked, find_unchecked
from lake.store.chunks import widen_to_days
from lake.store.damages import Damages
from lake.store.marks import Marks
from lake.store.store import Store

TableSelection = tuple[str, Selection]
"""The name of a table, and a selection of its rows."""


def select_touched(store: Store, touched: Iterable[Touched | Unchecked]) -> list[TableSelection]:
    """Select days to check, also of bars that depend on them, and holes that they left.

    Markets of an exchange with the same days are one selection: they are checked at once.
    """
    tables = store.data_tables()
    bars = _list_bars(store, tables)
    own: dict[Place, list[TimeRange]] = defaultdict(list)
    grouped: dict[Place, list[TimeRange]] = defaultdict(list)
    for item in touched:
        for name in {item.table, *bars} & set(tables):
            place = name, item.market.exchange, item.market.symbol
            (own if name == item.table else grouped)[place].append(item.range)
    for place, widened in join_to_checked(store, own).items():
        grouped[place] += widened
    symbols: dict[tuple[str, str, Selection], list[str]] = defaultdict(list)
    for (table, exchange, symbol), ranges in sorted(grouped.items()):
        for span in join_close(ranges):
            days = widen_to_days(Selection(start=span.start, end=span.end))
            symbols[table, exchange, days].append(symbol)
    return [
        (table, replace(days, exchanges=(exchange,), symbols=tuple(listed)))
        for (table, exchange, days), listed in symbols.items()
    ]


def record_marks(
    store: Store,
    versions: Mapping[str, int],
    wanted: Sequence[TableSelection],
    job_id: str,
    checked_jobs: Collection[str] = (),
) -> None:
    """Record up to which versions tables are checked, as far as a check leaves nothing.

    Parameters
    ----------
    versions
        Versions of the tables that the check has read, or older ones.
    wanted
        What it has checked.
    checked_jobs
        Jobs whose changes are all within that.
    """
    checked = _Checked(wanted)
    bars = _list_bars(store, store.data_tables())
    damages = Damages()
    left = {
        item.origin
        for item in find_unchecked(store, versions, checked_jobs, damages)
        for name in {item.table, *bars}
        if not checked.includes(name, item.market, item.range)
    }
    left |= damages.errors.keys()
    marks = {name: version for name, version in versions.items() if name not in left}
    Marks(store).record(marks, job_id)


def _list_bars(store: Store, tables: Iterable[str]) -> list[str]:
    return [name for name in tables if store.catalog.dataset(name).event == "bar"]


class _Checked:
    """Selections that were checked, found by table and market."""

    def __init__(self, wanted: Iterable[TableSelection]) -> None:
        self._by_market: dict[tuple[str, str, str], list[Selection]] = defaultdict(list)
        self._others: dict[str, list[Selection]] = defaultdict(list)
        for table, selection in wanted:
            if len(selection.exchanges) == len(selection.symbols) == 1:
                market = (table, selection.exchanges[0], selection.symbols[0])
                self._by_market[market].append(selection)
            else:
                self._others[table].append(selection)

    def includes(self, table: str, market: Market, item: TimeRange) -> bool:
        """Whether all days of a range were checked."""
        days = widen_to_days(Selection(start=item.start, end=item.end))
        if days.start is None or days.end is None:
            return False
        whole = TimeRange(days.start, days.end)
        return not subtract([whole], self._find_ranges(table, market, whole))

    def _find_ranges(self, table: str, market: Market, whole: TimeRange) -> Iterator[TimeRange]:
        own = self._by_market.get((table, market.exchange, market.symbol), ())
        for selection in (*own, *self._others.get(table, ())):
            is_own = not selection.exchanges or market.exchange in selection.exchanges
            is_own &= not selection.symbols or market.symbol in selection.symbols
            days = widen_to_days(selection)
            start, end = days.start or whole.start, days.end or whole.end
            if is_own and start < end:
                yield TimeRange(start, end)
