"""Refuses an exported bundle that does not fit, before it is unpacked."""

from __future__ import annotations

import shutil
from pathlib import Path

from lake.errors import DamagedError, StorageError

# Parquet is compressed already: archives of bundles are hardly smaller than their files, unless
# these are many and tiny.
_MOST_EXPANSION = 200
_ALWAYS_BYTES = 1 << 26


def require_room(source: Path, size: int, folder: Path) -> None:
    """Require that files of `size` bytes in total fit into a folder, and are plausible.

    Raises
    ------
    DamagedError
        They are far larger than the archive can hold: it is made to fill a disk.
    StorageError
        The disk has less space.
    """
    packed = source.stat().st_size
    if source.is_file() and size > _ALWAYS_BYTES + _MOST_EXPANSION * packed:
        raise DamagedError(
            f"{source} of {format_size(packed)} would unpack to {format_size(size)}",
            "No bundle is compressed so far. If you trust its origin, get it as a folder: "
            "`lake bundle export BUNDLE FOLDER`.",
        )
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StorageError(
            f"{source} unpacks to {format_size(size)}, and the disk of {folder} has "
            f"{format_size(free)} left",
            "Free some space; nothing was unpacked.",
        )


def format_size(size: int) -> str:
    """Format a number of bytes for people: `12.3 MB`."""
    if size < 1000:
        return f"{size} bytes"
    number, prefix = next(
        (size / 1000**power, prefix)
        for power, prefix in ((1, "k"), (2, "M"), (3, "G"), (4, "T"))
        if size < 1000 ** (power + 1) or power == 4
    )
    return f"{number:,.1f} {prefix}B"
