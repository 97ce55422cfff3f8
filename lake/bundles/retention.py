"""What the bundles of a lake need of its tables, for those who delete files."""

from __future__ import annotations

from lake.bundles.contents import Contents
from lake.bundles.repository import Repository
from lake.errors import DamagedError, LakeError
from lake.store.vacuum import BundleFiles


def list_bundle_files(repository: Repository) -> list[BundleFiles]:
    """One hold a bundle and table; imported bundles bring their own files and need none.

    Raises
    ------
    DamagedError
        A bundle cannot be read, so that nobody knows what it needs.
    """
    names = {bundle_id: name for name, bundle_id in repository.read_names().items()}
    found: list[BundleFiles] = []
    for bundle_id in repository.list_ids():
        try:
            contents = repository.open(bundle_id)
        except LakeError as error:
            raise DamagedError(
                f"bundle {names.get(bundle_id, bundle_id)} cannot be read, so that what it needs "
                f"is not known: {error.message}",
                "Restore it from a backup, or give it up: `lake bundle rm`.",
            ) from error
        if not contents.owns_data:
            found.extend(_list_table_files(contents, names.get(bundle_id, bundle_id[:12])))
    return found


def _list_table_files(contents: Contents, name: str) -> list[BundleFiles]:
    return [
        BundleFiles(
            bundle=contents.id,
            name=name,
            table=ref.table,
            table_id=ref.table_id,
            version=ref.version,
            paths=lambda table=ref.table: frozenset(contents.files.files(table)["path"]),  # type: ignore[misc]
        )
        for _, ref in contents.manifest.refs()
    ]
