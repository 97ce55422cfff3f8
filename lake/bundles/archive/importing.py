"""Import of exported bundles into a lake, with their own data files."""

from __future__ import annotations

from pathlib import Path

from lake.bundles.archive.unpack import read_export
from lake.bundles.contents import Contents
from lake.bundles.repository import Repository
from lake.bundles.verify import verify
from lake.errors import DamagedError, LakeError
from lake.model.progress import Progress
from lake.store import locks
from lake.store.faults import translate_errors
from lake.store.root import Root


def import_bundle(
    root: Root, source: Path, name: str | None, *, move: bool, progress: Progress
) -> Contents:
    """Import an exported bundle into a lake, completely or not at all.

    All rows of the source are verified against its id before it is published. If the lake already
    has the bundle, it stays; if files of it are damaged or missing, the import replaces it.

    Raises
    ------
    UnknownNameError
        The archive or folder does not exist.
    DamagedError
        The source is damaged, incomplete, forged, or not an exported bundle; or the lake has other
        rows under its id.
    UsageError
        Another bundle has the name, the name is invalid, or the lake has the same rows with other
        times of receipt.
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
        is_intact = _is_intact(repository, bundle_id, source, progress)
        with repository.create_folder() as folder:
            exported.unpack(folder, progress, step="checking" if is_intact else "importing")
            with locks.lock_for_pin(root):
                if name is not None:
                    repository.require_free(name, bundle_id, move=move)
                task = f"import of {source}"
                if is_intact is False:
                    contents = _replace(root, repository, folder, bundle_id, task)
                else:
                    contents = repository.publish(folder, bundle_id, task)
                if name is not None:
                    repository.point(name, bundle_id)
                return contents


def _is_intact(
    repository: Repository, bundle_id: str, source: Path, progress: Progress
) -> bool | None:
    """Return whether the lake's bundle with this id is intact; None if the lake has none.

    Raises
    ------
    DamagedError
        Its files are as they were sealed, but its rows are not those that the id stands for.
    """
    if bundle_id not in repository.list_ids():
        return None
    try:
        contents = repository.open(bundle_id)
        problems = verify(contents, deep=True, progress=progress)
    except LakeError:  # the bundle cannot be opened
        return False
    differing = [problem for problem in problems if problem.kind == "differs"]
    if differing:
        first = differing[0]
        raise DamagedError(
            f"the lake has other content under the id of {source}: {contents.folder}: "
            f"{first.place} is {first.found} instead of {first.expected}. Both were kept.",
            f"`lake bundle verify {bundle_id[:12]} --deep` lists all differences. If the one in "
            f"the lake is wrong, remove it with `lake bundle rm {bundle_id[:12]} --yes` and import "
            "again.",
        )
    return not problems


def _replace(
    root: Root, repository: Repository, folder: Path, bundle_id: str, task: str
) -> Contents:
    with repository.create_folder() as away:
        (root.bundles / bundle_id).rename(away)
        return repository.publish(folder, bundle_id, task)
