"""The files of a lake's tables that its bundles need, so that nothing deletes them."""

from __future__ import annotations

from lake.bundles.contents import Contents
from lake.bundles.repository import Repository
from lake.errors import DamagedError, LakeError
from lake.store.vacuum import BundleFiles


def list_bundle_files(repository: Repository) -> list[BundleFiles]:
    """List the needed files, by bundle and table; imported bundles have their own files.

    Raises
    ------
    DamagedError
        A bundle cannot be read, so the files that it needs are not known.
    """
    names = {bundle_id: name for name, bundle_id in repository.read_names().items()}
    needed: list[BundleFiles] = []
    for bundle_id in repository.list_ids():
        try:
            contents = repository.open(bundle_id)
        except LakeError as error:
            raise DamagedError(
                f"bundle {names.get(bundle_id, bundle_id)} cannot be read, so the files that it "
                f"needs are not known: {error.message}",
                "Restore it from a backup, or remove it with `lake bundle rm`.",
            ) from error
        if not contents.owns_data:
            needed.extend(_list_table_files(contents, names.get(bundle_id, bundle_id[:12])))
    return needed


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
