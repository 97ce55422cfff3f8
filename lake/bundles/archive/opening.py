"""Opens exported bundles without a lake."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from lake.bundles.archive.members import list_data_files
from lake.bundles.archive.transfer import create_unfinished, rename_into_place
from lake.bundles.archive.unpack import read_export
from lake.bundles.archive.write import ARCHIVE_SUFFIX
from lake.bundles.bundle import Bundle
from lake.bundles.cache import Cache
from lake.bundles.contents import Contents
from lake.errors import DamagedError, UnknownNameError
from lake.model.progress import NoProgress, Progress
from lake.store.faults import translate_errors


def is_export_path(reference: str) -> bool:
    """Return whether a reference is the path of an exported bundle, not a bundle's name."""
    path = Path(reference).expanduser()
    is_archive = reference.endswith(ARCHIVE_SUFFIX) and path.is_file()
    return "/" in reference or is_archive or (path / "manifest.json").is_file()


def open_exported(
    path: Path,
    cache: Cache | None,
    progress: Progress | None = None,
    *,
    now: Callable[[], datetime],
) -> Bundle:
    """Open an exported bundle: a folder in place, an archive after unpacking it.

    An archive is unpacked into the cache once, and verified then. Without a cache, it is unpacked
    into a temporary folder that exists as long as the bundle and the frames read from it.

    Raises
    ------
    UnknownNameError
        The path does not exist.
    DamagedError
        The bundle is damaged, incomplete, or not an exported bundle.
    StorageError
        The archive cannot be unpacked.
    """
    path = path.expanduser().absolute()
    if not path.exists():
        raise UnknownNameError(
            f"{path} does not exist",
            "Use the path of an exported bundle: a .tar.zst file or a folder.",
        )
    if path.is_dir():
        return Bundle(Contents.open(path), cache, now=now)
    progress = progress or NoProgress()
    if cache is None:
        return Bundle(_unpack_to_temporary(path, progress), now=now)
    return Bundle(_unpack_to_cache(path, cache.folder.absolute(), progress), cache, now=now)


def _unpack_to_cache(path: Path, cache_folder: Path, progress: Progress) -> Contents:
    """Open an archive's bundle in the cache; unpack it first unless the same file was unpacked."""
    stamp = path.stat()
    facts = f"{path.resolve()}\n{stamp.st_size}\n{stamp.st_mtime_ns}"
    target = cache_folder / "unpacked" / hashlib.sha256(facts.encode()).hexdigest()[:32]
    if not _is_complete(target):
        with translate_errors(f"cache {cache_folder}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with create_unfinished(target, folder=True) as unfinished:
                if not _is_complete(target):  # no other process was faster
                    shutil.rmtree(target, ignore_errors=True)
                    with read_export(path) as exported:
                        exported.unpack(unfinished, progress)
                    rename_into_place(unfinished, target)
    return Contents.open(target)


def _is_complete(folder: Path) -> bool:
    """Return whether a folder has all data files in full size."""
    if not folder.is_dir():
        return False
    try:
        members = list(list_data_files(Contents.open(folder)))
        return all((folder / member.path).stat().st_size == member.bytes for member in members)
    except (DamagedError, FileNotFoundError):
        return False


def _unpack_to_temporary(path: Path, progress: Progress) -> Contents:
    with translate_errors(f"temporary folder {tempfile.gettempdir()}"):
        folder = Path(tempfile.mkdtemp(prefix="lake-bundle-"))
        try:
            with read_export(path) as exported:
                contents = exported.unpack(folder, progress)
        except BaseException:  # Ctrl-C too: only this function knows the folder
            shutil.rmtree(folder, ignore_errors=True)
            raise
    # Frames that are not collected yet reference the index, even without the bundle.
    weakref.finalize(contents.files, shutil.rmtree, folder, ignore_errors=True)
    return contents
