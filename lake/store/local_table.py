"""A Delta table in a folder, as a handle that stays open."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from deltalake import DeltaTable


class LocalTable(DeltaTable):
    """A Delta table in a folder of any name: Delta percent-encodes the paths of its files."""

    @property
    def folder(self) -> str:
        """The table's folder as on disk."""
        return unquote(urlsplit(self.table_uri).path).rstrip("/")

    def file_uris(self, *args: Any, **kwargs: Any) -> list[str]:
        """Paths of the data files as on disk; Polars reads the table by them."""
        encoded = urlsplit(self.table_uri).path.rstrip("/")
        uris = super().file_uris(*args, **kwargs)
        if encoded == self.folder:
            return uris
        return [self.folder + uri.removeprefix(encoded) for uri in uris]
