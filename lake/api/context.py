"""An open lake, shared by all parts of the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from lake.errors import UnknownNameError
from lake.model.selection import Selection, as_tuple
from lake.model.time import Time, require_passed, resolve_time
from lake.query.names import Missing, find_tables, require_markets
from lake.settings import Settings
from lake.store.damages import Damages
from lake.store.root import Root
from lake.store.store import Store

if TYPE_CHECKING:
    from lake.bundles.repository import Repository
    from lake.store.ledger import Ledger

Names = str | Sequence[str]


def utc_now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Context:
    """An open lake: its root, tables, ledger, bundles and settings."""

    root: Root
    store: Store
    settings: Settings
    now: Callable[[], datetime]

    @classmethod
    def open(cls, settings: Settings, now: Callable[[], datetime]) -> Context:
        """Open the lake at the URI of the settings.

        Raises
        ------
        ConfigError
            There is no lake at the URI.
        """
        root = Root.open(settings.uri)
        return cls(root, Store(root, now), settings, now)

    @cached_property
    def ledger(self) -> Ledger:
        """What the lake records of its own work."""
        from lake.store.ledger import Ledger

        return Ledger(self.store)

    @cached_property
    def repository(self) -> Repository:
        """The bundles of the lake."""
        from lake.bundles.repository import Repository

        return Repository(self.root)

    def tables(
        self, names: Names, timeframe: Names = (), *, may_be_lost: bool = False
    ) -> tuple[str, ...]:
        """Return the names of tables for the names that users give; none for none.

        Parameters
        ----------
        may_be_lost
            Accept a table whose log is gone, too.

        Raises
        ------
        UnknownNameError, UsageError
            A table does not exist; the hint suggests similar names.
        """
        return find_tables(
            self.store, as_tuple(names), as_tuple(timeframe), may_be_lost=may_be_lost
        )

    def require_markets(
        self, tables: Sequence[str], selection: Selection, missing: Missing = "error"
    ) -> None:
        """Refuse markets that none of the tables holds; without tables, of all data tables.

        Raises
        ------
        UnknownNameError
            A market does not exist; the hint suggests similar names.
        DamagedError
            Only a damaged table may hold it.
        """
        if missing == "empty" or not (selection.exchanges or selection.symbols):
            return
        damages, readers = Damages(), []
        for name in tables or self.store.data_tables():
            with damages.collect(name):
                readers.append(self.store.snapshot(self.store.catalog.dataset(name)))
        try:
            require_markets(self.store, readers, selection, missing)
        except UnknownNameError:
            damages.raise_if_any()
            raise

    def require_known_markets(self, selection: Selection) -> None:
        """Refuse markets that neither a data table nor a reference, such as `instruments`, holds.

        A lake without such tables refuses none.

        Raises
        ------
        UnknownNameError
            A market is unknown; the hint suggests similar names.
        DamagedError
            Only a damaged table may hold it.
        """
        kinds = {name: self.store.catalog.dataset(name).kind for name in self.store.tables()}
        held = [name for name, kind in kinds.items() if kind != "record"]
        if held:
            self.require_markets(held, selection)

    def time(self, time: Time | None) -> datetime | None:
        """Return a user's time in UTC."""
        return resolve_time(time, self.now())

    def past(self, time: Time | None) -> datetime | None:
        """Return in UTC the time of a past state of tables.

        Raises
        ------
        UsageError
            It is in the future.
        """
        now = self.now()
        past = resolve_time(time, now)
        return None if past is None else require_passed(past, now)

    def select(
        self,
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
    ) -> Selection:
        """Return the selection of names and a range.

        Raises
        ------
        UsageError
            The range is empty, or a bound is not a time.
        """
        now = self.now()
        start, end = resolve_time(since, now), resolve_time(until, now)
        return Selection(as_tuple(exchange), as_tuple(symbol), start, end)
