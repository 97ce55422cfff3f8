"""What all parts of the API work on: a lake that is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lake.bundles.repository import Repository
from lake.model.selection import Selection, as_tuple
from lake.model.time import Time, resolve_time
from lake.query.names import Missing, find_tables, require_markets
from lake.settings import Settings
from lake.store.ledger import Ledger
from lake.store.root import Root
from lake.store.store import Store

Names = str | Sequence[str]


def utc_now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Context:
    """A lake that is open: where it is, its tables, its record, its bundles, its settings."""

    root: Root
    store: Store
    ledger: Ledger
    repository: Repository
    settings: Settings
    now: Callable[[], datetime]

    @classmethod
    def open(cls, settings: Settings, now: Callable[[], datetime]) -> Context:
        """Open the lake at the URI of the settings.

        Raises
        ------
        ConfigError
            There is none.
        """
        root = Root.open(settings.uri)
        store = Store(root, now)
        return cls(root, store, Ledger(store), Repository(root), settings, now)

    def tables(self, names: Names, timeframe: Names = ()) -> tuple[str, ...]:
        """The tables that users mean; none where they name none.

        Raises
        ------
        UnknownNameError, UsageError
            There is no such table: names the closest.
        """
        return find_tables(self.store, as_tuple(names), as_tuple(timeframe))

    def require_markets(
        self, tables: Sequence[str], selection: Selection, missing: Missing = "error"
    ) -> None:
        """Refuse markets that none of the tables holds; without tables, none of the data.

        Raises
        ------
        UnknownNameError
            Names the closest.
        """
        names = tables or self.store.data_tables()
        readers = [self.store.snapshot(self.store.catalog.dataset(name)) for name in names]
        require_markets(self.store, readers, selection, missing)

    def time(self, time: Time | None) -> datetime | None:
        """A time as users give it, in UTC."""
        return resolve_time(time, self.now())

    def select(
        self,
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
    ) -> Selection:
        """The rows that users mean by names and a range.

        Raises
        ------
        UsageError
            The range is empty, or a bound is no time.
        """
        now = self.now()
        start, end = resolve_time(since, now), resolve_time(until, now)
        return Selection(as_tuple(exchange), as_tuple(symbol), start, end)
