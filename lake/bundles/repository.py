"""The bundles of a lake on disk: one folder per bundle, and names that point to them."""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from lake.bundles.contents import MANIFEST, Contents
from lake.bundles.draft import Draft
from lake.bundles.manifest import (
    DAYS_FILE,
    FILES,
    QUALITY_FILE,
    Beside,
    FilePart,
    ListPart,
    Manifest,
)
from lake.bundles.receipts import require_equal_availability
from lake.errors import DamagedError, UnknownNameError, UsageError
from lake.store import index
from lake.store.faults import translate_errors
from lake.store.root import Root, replace_file, sync_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ID = re.compile(r"[0-9a-f]{8,64}")
_WHOLE_ID = re.compile(r"[0-9a-f]{64}")


class Repository:
    """The bundles of a lake.

    A reference is a name, an id (at least its first eight digits), or `NAME@ID`.
    """

    def __init__(self, root: Root) -> None:
        self._folder = root.bundles
        self.root = root

    def store(self, draft: Draft) -> Contents:
        """Write a bundle, whole or not at all, unless its id exists already.

        Times of receipt are no part of the id: a bundle of the same rows is the same only if they
        were available at the same times.

        Raises
        ------
        UsageError
            The bundle exists with other times of receipt.
        """
        with translate_errors("bundles"), self.create_folder() as folder:
            manifest = _write_files(folder, draft)
            return self.publish(folder, manifest.id, "pin")

    def publish(self, folder: Path, bundle_id: str, task: str) -> Contents:
        """Move a finished folder to its place; an equal bundle that exists stays.

        Parameters
        ----------
        task
            What stores the bundle, for messages: `pin`, or `import` with its source.

        Raises
        ------
        UsageError
            The bundle exists with other times of receipt.
        """
        try:
            folder.rename(self._folder / bundle_id)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            new = Contents.open(folder, self.root.id, self.root.tables)
            names = [name for name, to in self.read_names().items() if to == bundle_id]
            require_equal_availability(self.open(bundle_id), ", ".join(names), new, task)
        sync_folder(self._folder)
        return self.open(bundle_id)

    @contextmanager
    def create_folder(self) -> Iterator[Path]:
        """Create a folder for an unfinished bundle; remove it at the end if it was not moved."""
        folder = self._folder / f".unfinished-{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def require_name(self, name: str) -> None:
        """Refuse a text that cannot name a bundle.

        Raises
        ------
        UsageError
            The name is malformed, or could be an id.
        """
        if _NAME.fullmatch(name) is None or _ID.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot name a bundle",
                "Use letters, digits, dot, dash and underscore, but not hex digits alone.",
            )

    def require_free(self, name: str, bundle_id: str, *, move: bool) -> None:
        """Refuse a name that points to another bundle, unless it may be moved.

        Raises
        ------
        UsageError
            The name is taken.
        """
        points_to = self._read_name(name)
        if points_to not in (None, bundle_id) and not move:
            raise UsageError(
                f"bundle {name} exists already and holds other rows",
                f"Use another name, or add --move; the old bundle is then {name}@{points_to[:12]}.",
            )

    def point(self, name: str, bundle_id: str) -> None:
        """Point a name to a bundle."""
        with translate_errors(f"bundle {name}"):
            self._build_name_path(name).parent.mkdir(exist_ok=True)
            replace_file(self._build_name_path(name), bundle_id.encode() + b"\n")
            sync_folder(self._build_name_path(name).parent)

    def remove(self, bundle_id: str) -> list[str]:
        """Remove a bundle and the names that point to it; return those names."""
        names = [name for name, points_to in self.read_names().items() if points_to == bundle_id]
        with translate_errors(f"bundle {bundle_id[:12]}"):
            for name in names:
                self._build_name_path(name).unlink(missing_ok=True)
            # Renamed first, so that an interrupted removal leaves no partial bundle.
            removed = self._folder / f".unfinished-{secrets.token_hex(8)}"
            (self._folder / bundle_id).rename(removed)
            shutil.rmtree(removed)
        return names

    def read_names(self) -> dict[str, str]:
        """Read the ids by name."""
        with translate_errors("bundles"):
            files = sorted((self._folder / "names").glob("[!.]*"))
            return {file.name: file.read_bytes().decode(errors="replace").strip() for file in files}

    def _read_name(self, name: str) -> str | None:
        """Read the id that a name points to; None if there is no such name."""
        if _NAME.fullmatch(name) is None:
            return None
        with translate_errors("bundles"), suppress(FileNotFoundError):
            return self._build_name_path(name).read_bytes().decode(errors="replace").strip()
        return None

    def list_ids(self) -> list[str]:
        """List the ids of all bundles, sorted."""
        with translate_errors("bundles"):
            names = [entry.name for entry in os.scandir(self._folder)]
        return sorted(name for name in names if _WHOLE_ID.fullmatch(name))

    def resolve(self, reference: str) -> str:
        """Return the id that a reference means.

        Raises
        ------
        UnknownNameError
            The reference means no bundle, or several.
        """
        wanted = self._read_name(reference) or reference.rpartition("@")[2]
        if _WHOLE_ID.fullmatch(wanted) and (self._folder / wanted).is_dir():
            return wanted
        is_id = _ID.fullmatch(wanted) is not None
        matches = [each for each in self.list_ids() if is_id and each.startswith(wanted)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UnknownNameError(
                f"{reference!r} matches several bundles",
                "Give more digits of one of: " + ", ".join(matches),
            )
        raise UnknownNameError(f"there is no bundle {reference!r}", self._suggest(reference))

    def _suggest(self, reference: str) -> str:
        """Suggest names of bundles, similar ones first."""
        names = self.read_names()
        close = difflib.get_close_matches(reference, names, n=3, cutoff=0.5)
        listed = ", ".join([*close, *(name for name in names if name not in close)])
        return (
            f"Bundles: {listed}." if listed else "No bundle is pinned yet; run `lake bundle pin`."
        )

    def open(self, reference: str) -> Contents:
        """Open the bundle that a reference means.

        Raises
        ------
        DamagedError
            The manifest was changed, or is in the folder of another bundle.
        """
        folder = self._folder / self.resolve(reference)
        contents = Contents.open(folder, self.root.id, self.root.tables)
        if contents.id != folder.name:
            raise DamagedError(
                f"{folder} holds the manifest of bundle {contents.id}",
                "Restore it from a backup, or import the bundle again.",
            )
        return contents

    def _build_name_path(self, name: str) -> Path:
        return self._folder / "names" / name


def _write_files(folder: Path, draft: Draft) -> Manifest:
    """Write the files of a bundle, the manifest last."""
    lists = {FILES: draft.files, DAYS_FILE: draft.days}
    sealed = {name: index.write_sealed(folder / name, frame) for name, frame in lists.items()}
    parts = {name: ListPart(**asdict(seal)) for name, seal in sealed.items()}
    quality = None
    if draft.quality is not None:
        replace_file(folder / QUALITY_FILE, draft.quality)
        digest = hashlib.sha256(draft.quality).hexdigest()
        quality = FilePart(bytes=len(draft.quality), sha256=digest)
    beside = Beside(files=parts[FILES], days=parts[DAYS_FILE], quality=quality)
    manifest = draft.manifest(beside)
    replace_file(folder / MANIFEST, manifest.to_json())
    sync_folder(folder)
    return manifest
