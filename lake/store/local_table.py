"""A Delta table in a folder, as a handle that stays open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from lake.errors import CommitConflictError
from lake.store.checksums import Checksums
from lake.store.clock import CommitClock
from lake.store.faults import translate_errors
from lake.store.live_files import LiveFiles
from lake.store.locks import lock_file
from lake.store.log import PROBED, has_entry
from lake.store.seal import seal_commits
from lake.store.soundness import EntryId, explain_damage, identify_entry, require_sound

_LONGEST_WAIT = timedelta(minutes=10)
# Short, so that a process that commits without a break leaves room for others.
_POLL_SECONDS = 0.001


class LocalTable(DeltaTable):
    """A Delta table in a folder of any name: Delta percent-encodes the paths of its files.

    It refuses a damaged log, and seals what its owner commits; see `lake.store.seal`.

    Attributes
    ----------
    clock
        Stamps its commits; None: the handle is for reading only.
    """

    clock: CommitClock | None = None
    _live: LiveFiles | None = None
    _sound = -1
    _entry: EntryId | None = None
    _sealed: int | None = None

    @property
    def folder(self) -> str:
        """The table's folder as on disk."""
        return unquote(urlsplit(self.table_uri).path).rstrip("/")

    @cached_property
    def checksums(self) -> Checksums:
        """The recorded hashes of the table's files."""
        return Checksums(Path(self.folder))

    def version(self) -> int:
        """The version that the handle is at; `follow` does not load it."""
        loaded = super().version()
        return loaded if self._live is None else max(loaded, self._live.version)

    def list_live(self) -> pl.DataFrame:
        """List the data files at its version, as `LiveFiles.frame`."""
        version = self.version()
        live = self._live and self._live.follow(Path(self.folder), version)
        self._live = live or LiveFiles.load(self, version)
        return self._live.frame

    def follow(self) -> None:
        """Follow later commits by their own entries in the log, and refuse damaged ones.

        What they do is loaded only if it is more than adding and removing files: `load` does that
        where delta-rs itself reads or writes the table.
        """
        self._reopen_if_replaced()
        folder, version = Path(self.folder), self.version()
        newest = version
        while has_entry(folder, newest + 1):
            newest += 1
        live = self._live and self._live.follow(folder, newest)
        is_gap = any(has_entry(folder, newest + ahead) for ahead in range(2, 2 + PROBED))
        if is_gap or (live is None and newest > version):
            self.update_incremental()
        elif live is not None:
            self._live = live
            self.require_sound()

    def load(self) -> None:
        """Load what `follow` only followed.

        Raises
        ------
        CommitFailedError
            Another program has just committed: the handle is at a later version.
        """
        version = self.version()
        if super().version() < version:
            self.update_incremental()
        if self.version() != version:
            raise CommitFailedError(f"version {version} is not the latest any more")

    def file_uris(self, *args: Any, **kwargs: Any) -> list[str]:
        """Paths of the data files as on disk; Polars reads the table by them."""
        self.load()
        encoded = urlsplit(self.table_uri).path.rstrip("/")
        uris = super().file_uris(*args, **kwargs)
        if encoded == self.folder:
            return uris
        return [self.folder + uri.removeprefix(encoded) for uri in uris]

    def require_sound(self) -> None:
        """Refuse a log in which a commit since the last call is damaged.

        Raises
        ------
        DamagedError
            A commit is empty, or the last one was changed.
        """
        version = self.version()
        if version != self._sound:
            require_sound(Path(self.folder), version, self._sound)
            self._mark_sound(version)

    def update_incremental(self) -> None:
        """Load later commits, and refuse damaged ones."""
        try:
            super().update_incremental()
        except DeltaError as error:
            raise explain_damage(Path(self.folder)) or error from error
        self.require_sound()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the table from before a commit until it is sealed: nobody undoes it meanwhile.

        Several writers hold it at once; see `lake.store.heal`.
        """
        with lock_file(Path(self.folder), shared=True, folder=True):
            yield

    @contextmanager
    def committing(self, *, loads: bool = True) -> Iterator[None]:
        """Load later commits, and let no other process of the lake commit in the block.

        Writers that wait repeat less work than those that find at the end that another was faster.

        Parameters
        ----------
        loads
            False: later commits are only followed, see `follow`.

        Raises
        ------
        CommitConflictError
            Another process kept the lock for ten minutes.
        """
        folder = Path(self.folder)
        with lock_file(
            folder / "_delta_log", folder=True, timeout=_LONGEST_WAIT, poll_seconds=_POLL_SECONDS
        ) as lock:
            if not lock.is_held:
                raise CommitConflictError(
                    f"table {folder.name}: another process has been committing to it for "
                    f"{_LONGEST_WAIT}",
                    "Look whether that process hangs, then run the same command again.",
                )
            if loads:
                self._reopen_if_replaced()
                self.update_incremental()
            else:
                self.follow()
            yield

    def stamp(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Add the time of the next commit to its `userMetadata`; see `CommitClock.stamp`."""
        assert self.clock is not None, "the handle was opened for reading"  # noqa: S101
        return self.clock.stamp(metadata, Path(self.folder), self.version())

    def seal(self, metadata: Mapping[str, Any] | None) -> None:
        """Sync and record the commit just made, by its `userMetadata`; None: nothing was committed.

        Raises
        ------
        LakeError
            The disk failed: nothing may rely on the commit. The next call tries again.
        """
        folder = Path(self.folder)
        sealed, self._sealed = self._sealed, None
        with translate_errors(f"table {folder.name}"):
            seal_commits(folder, sealed, self.version(), metadata)
        self._sealed = self.version()
        self._mark_sound(self._sealed)

    def _mark_sound(self, version: int) -> None:
        self._sound, self._entry = version, identify_entry(Path(self.folder), version)

    def _reopen_if_replaced(self) -> None:
        """Open the table anew if its folder was replaced, by a backup for example.

        Its commits would otherwise be taken for later ones of the table that was there.
        """
        folder = Path(self.folder)
        if self._sound < 0 or identify_entry(folder, self._sound) == self._entry:
            return
        DeltaTable.__init__(self, folder)
        self.__dict__.pop("checksums", None)
        self._live, self._sealed, self._sound = None, None, -1
        self.require_sound()
