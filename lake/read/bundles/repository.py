"""Where bundles are: a folder a manifest, and names that point to them."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from lake.errors import UnknownNameError, UsageError
from lake.read.bundles.manifest import Manifest, parse
from lake.store.faults import translated
from lake.store.root import Root, put_new, replace

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ID = re.compile(r"[0-9a-f]{8,64}")


class Repository:
    """The bundles of a lake.

    A reference is a name, an id (at least its first eight digits), or `NAME@ID`.
    """

    def __init__(self, root: Root) -> None:
        self._folder = root.bundles

    def save(self, name: str, manifest: Manifest, *, move: bool = False) -> Manifest:
        """Write a manifest, unless one of this id is there already, and point a name to it.

        Raises
        ------
        UsageError
            The name is malformed, or points to another bundle and `move` is not given.
        """
        if _NAME.fullmatch(name) is None or _ID.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot name a bundle",
                "Use letters, digits, dot, dash and underscore, and not just hex digits.",
            )
        points_to = self.names().get(name)
        if points_to not in (None, manifest.id) and not move:
            raise UsageError(
                f"bundle {name} exists already, and holds other rows",
                f"Choose another name, or add --move; then {name}@{points_to[:12]} is the old one.",
            )
        with translated(f"bundle {name}"):
            path = self._manifest_path(manifest.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                put_new(path, manifest.to_json())
            except FileExistsError:
                manifest = self.load(manifest.id)
            self._name_path(name).parent.mkdir(exist_ok=True)
            replace(self._name_path(name), manifest.id.encode() + b"\n")
        return manifest

    def names(self) -> dict[str, str]:
        """Ids by name."""
        with translated("bundles"):
            files = sorted((self._folder / "names").glob("[!.]*"))
            return {file.name: file.read_bytes().decode(errors="replace").strip() for file in files}

    def ids(self) -> list[str]:
        """Ids of all bundles."""
        return sorted(path.parent.name for path in self._folder.glob("*/manifest.json"))

    def resolve(self, reference: str) -> str:
        """The id that a reference means.

        Raises
        ------
        UnknownNameError
            It means none, or several.
        """
        names = self.names()
        wanted = names.get(reference) or reference.rpartition("@")[2]
        found = [one for one in self.ids() if _ID.fullmatch(wanted) and one.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownNameError(
                f"{reference!r} means several bundles", "Give more digits: " + ", ".join(found)
            )
        known = list(names)
        close = difflib.get_close_matches(reference, known, n=3, cutoff=0.5)
        listed = ", ".join([*close, *(name for name in known if name not in close)])
        raise UnknownNameError(
            f"there is no bundle {reference!r}",
            f"Bundles: {listed}." if listed else "None is pinned yet: `lake bundle pin --help`.",
        )

    def load(self, reference: str) -> Manifest:
        """The manifest that a reference means, as it is on disk."""
        path = self._manifest_path(self.resolve(reference))
        with translated(f"bundle {reference}"):
            return parse(path.read_bytes(), str(path))

    def _manifest_path(self, bundle_id: str) -> Path:
        return self._folder / bundle_id / "manifest.json"

    def _name_path(self, name: str) -> Path:
        return self._folder / "names" / name
