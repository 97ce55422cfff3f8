"""Translate errors of storage, Delta and Polars to the lake's own errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import PanicException, PolarsError

from lake.errors import DamagedError, LakeError, StorageError

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Polars says how to make it print more: of no use to who runs the lake.
_ADVICE = re.compile(r" *\(set POLARS_VERBOSE=1[^)]*\)")
_FULL = ("no space left", "os error 28", "quota exceeded")
_DENIED = ("permission denied", "os error 13", "read-only file system", "os error 30")


@contextmanager
def translate_errors(where: str) -> Iterator[None]:
    """Raise errors of the block as a `LakeError` that says where they happened.

    A `CommitFailedError` passes: another writer committed first, and the caller retries.
    """
    try:
        yield
    except (LakeError, CommitFailedError):
        raise
    except (OSError, DeltaError, PolarsError, PanicException) as error:  # a file cut short panics
        raise explain_os_error(error, where) from error


def explain_os_error(error: BaseException, where: str) -> LakeError:
    """Return the `LakeError` that describes an error of storage, Delta or Polars."""
    text = _COLOURS.sub("", str(error)).strip()
    low = text.lower()
    if any(word in low for word in _FULL):
        return StorageError(
            f"{where}: the disk is full",
            "Free some space and run the same command again: what was committed is kept.",
        )
    if any(word in low for word in _DENIED):
        return StorageError(
            f"{where}: not writable or not readable ({_first_line(text)})",
            "Check the owner and the permissions of the lake's folder.",
        )
    kind, _, name = where.partition(" ")
    return DamagedError(
        f"{where}: cannot be read: {_first_line(text)}",
        advise_to_verify(name) if kind == "table" else "Look at it, and restore it from a backup.",
    )


def advise_to_verify(table: str) -> str:
    """Advise what to do where a table cannot be read: which files are damaged is not known yet."""
    return (
        f"`lake verify table {table}` lists all files that are missing or damaged (for a bundle: "
        "`lake bundle verify`): restore them from a backup. If a crash left them, run the command "
        "that wrote them again, such as `lake ingest`: it undoes what was not finished."
    )


def _first_line(text: str) -> str:
    return _ADVICE.sub("", text.splitlines()[0]) if text else "no reason given"
