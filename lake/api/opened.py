"""What all parts of the API start from: a lake that is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from lake.bundles.repository import Repository
from lake.model.dataset import Dataset
from lake.settings import Settings
from lake.store.ledger import Ledger
from lake.store.root import Root
from lake.store.store import Store

Names = str | Sequence[str]


def utc_now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


class Opened:
    """A lake that is open: see `Lake`."""

    def __init__(self, settings: Settings, now: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings
        self.root = Root.open(settings.uri)
        self._store = Store(self.root, now)
        self._ledger = Ledger(self._store)
        self._repository = Repository(self.root)
        self._now = now

    def __repr__(self) -> str:
        return f"<Lake {self.root.path}>"

    def dataset(self, name: str) -> Dataset:
        """The dataset of a table: columns with types, units and meanings, key, checks."""
        return self._store.catalog.dataset(name)
