"""A bundle that is open: reads come from the pinned versions, whatever is ingested since."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from lake.errors import DamagedError, UnknownNameError
from lake.model.selection import Selection
from lake.read.bundles.manifest import Manifest, Ref
from lake.read.bundles.verify import Difference, verify
from lake.read.sql import View, query
from lake.store.snapshot import Snapshot
from lake.store.store import Store

if TYPE_CHECKING:
    import duckdb


class Bundle:
    """The rows that a manifest pins.

    Attributes
    ----------
    manifest
        What is pinned, with metadata, data dictionary and instruments.
    """

    def __init__(self, store: Store, manifest: Manifest, bundle_id: str) -> None:
        self._store = store
        self._refs = {ref.table: ref for _, ref in manifest.refs()}
        self._bundle_id = bundle_id
        self.manifest = manifest

    @property
    def id(self) -> str:
        """Digest of the content: the same rows have the same id."""
        return self._bundle_id

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables that the bundle pins."""
        return tuple(self._refs)

    def scan(
        self,
        table: str,
        *,
        exchange: str | Sequence[str] = (),
        symbol: str | Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.LazyFrame:
        """Rows of a pinned table, ordered by exchange, symbol and time.

        Parameters are those of `Lake.scan`; they narrow what was pinned.

        Raises
        ------
        UnknownNameError
            The table, market or range is not in the bundle.
        DamagedError
            The table is not the one that was pinned, or a file is missing or damaged.
        """
        ref = self._ref(table)
        asked = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        within = asked.within(ref.selection.selection)
        return self._snapshot(ref).scan(within, columns=columns)

    def sql(
        self, query_text: str, parameters: Sequence[Any] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """The result of an SQL query over the pinned tables, as a DuckDB relation."""
        return query(query_text, self.views(), parameters)

    def views(self) -> dict[str, View]:
        """By name, the pinned tables as SQL sees them."""
        return {
            table: View(lambda ref=ref: self._snapshot(ref), ref.selection.selection)  # type: ignore[misc]
            for table, ref in self._refs.items()
        }

    def verify(self) -> list[Difference]:
        """Everything that is not as the manifest says; an empty list: the bundle is whole."""
        return verify(self._store, self.manifest, self._bundle_id)

    def _ref(self, table: str) -> Ref:
        if table not in self._refs:
            raise UnknownNameError(
                f"table {table!r} is not in bundle {self.id[:12]}",
                f"It pins {', '.join(self._refs)}.",
            )
        return self._refs[table]

    def _snapshot(self, ref: Ref) -> Snapshot:
        dataset = self._store.catalog.dataset(ref.table)
        snapshot = self._store.snapshot(dataset, version=ref.version)
        if snapshot.table_id != ref.table_id:
            raise DamagedError(
                f"table {ref.table} is not the one that bundle {self.id[:12]} pinned: it was made "
                "anew",
                "Restore the old table from a backup.",
            )
        return snapshot


def as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as several."""
    return (names,) if isinstance(names, str) else tuple(names)
