"""Import of exported bundles into a lake, with their own data files."""

from __future__ import annotations

from pathlib import Path

from lake.bundles.archive.unpack import read_export
from lake.bundles.contents import Contents
from lake.bundles.repository import Repository
from lake.bundles.verify import verify
from lake.errors import LakeError
from lake.model.progress import Progress
from lake.store import locks
from lake.store.faults import translate_errors
from lake.store.root import Root


def import_bundle(
    root: Root, source: Path, name: str | None, *, move: bool, progress: Progress
) -> Contents:
    """Import an exported bundle into a lake, completely or not at all.

    If the lake already has the bundle, it stays and the source is only verified. If the lake's
    bundle is damaged, the import replaces it.

    Raises
    ------
    UnknownNameError
        The archive or folder does not exist.
    DamagedError
        The source is damaged, incomplete, or not an exported bundle.
    UsageError
        Another bundle has the name, or the name is invalid.
    StorageError
        The disk is full, or the lake is not writable.
    """
    repository = Repository(root)
    if name is not None:
        repository.require_name(name)
    with translate_errors(f"import of {source}"), read_export(source) as exported:
        bundle_id = exported.manifest.id
        if name is not None:
            repository.require_free(name, bundle_id, move=move)
        is_intact = _is_intact(repository, bundle_id, progress)
        with repository.create_folder() as folder:
            exported.unpack(folder, progress, keep_data=not is_intact)
            with locks.lock_for_pin(root):
                if name is not None:
                    repository.require_free(name, bundle_id, move=move)
                if is_intact is False:
                    contents = _replace(root, repository, folder, bundle_id)
                elif is_intact is None:
                    contents = repository.publish(folder, bundle_id)
                else:
                    contents = repository.open(bundle_id)
                if name is not None:
                    repository.point(name, bundle_id)
                return contents


def _is_intact(repository: Repository, bundle_id: str, progress: Progress) -> bool | None:
    """Return whether the lake's bundle with this id is intact; None if the lake has none."""
    if bundle_id not in repository.list_ids():
        return None
    try:
        return not verify(repository.open(bundle_id), deep=False, progress=progress)
    except LakeError:  # the bundle cannot be opened
        return False


def _replace(root: Root, repository: Repository, folder: Path, bundle_id: str) -> Contents:
    with repository.create_folder() as away:
        (root.bundles / bundle_id).rename(away)
        return repository.publish(folder, bundle_id)
