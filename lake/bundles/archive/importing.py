"""Import: an exported bundle becomes one of the lake, with data files of its own."""

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
    """Put an exported bundle into a lake, whole or not at all.

    Where the lake has the bundle already, that one stays, and the source is only checked; one
    that is damaged is replaced.

    Raises
    ------
    UnknownNameError
        There is no such archive or folder.
    DamagedError
        It is not whole, or no exported bundle.
    UsageError
        The name is taken by another bundle, or cannot be one.
    StorageError
        The disk is full, or the lake cannot be written.
    """
    repository = Repository(root)
    if name is not None:
        repository.require_name(name)
    with translate_errors(f"import of {source}"), read_export(source) as exported:
        bundle_id = exported.manifest.id
        if name is not None:
            repository.require_free(name, bundle_id, move=move)
        is_intact = _is_intact(repository, bundle_id, progress)
        with repository.new_folder() as folder:
            exported.unpack(folder, progress, keep_data=not is_intact)
            with locks.shared(root):
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
    """Whether the lake's own bundle of the id is as it was pinned; None: it has none."""
    if bundle_id not in repository.ids():
        return None
    try:
        return not verify(repository.open(bundle_id), deep=False, progress=progress)
    except LakeError:  # it cannot even be opened
        return False


def _replace(root: Root, repository: Repository, folder: Path, bundle_id: str) -> Contents:
    with repository.new_folder() as away:
        (root.bundles / bundle_id).rename(away)
        return repository.publish(folder, bundle_id)
