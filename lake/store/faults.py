"""Translate errors of storage, Delta and Polars to the lake's own errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import PanicException, PolarsError

from lake.errors import DamagedError, LakeError, StorageError

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Polars says how to make it print more: of no use to who runs the lake.
_ADVICE = re.compile(r" *\(set POLARS_VERBOSE=1[^)]*\)")
_NUMBER = re.compile(r"\b(?:os error|errno) (\d+)\b", re.IGNORECASE)


class _Reason(NamedTuple):
    what: str
    advice: str


_FULL = _Reason(
    "the disk is full",
    "Free some space and run the same command again: what was committed is kept.",
)
_NO_PERMISSION = _Reason(
    "not writable or not readable: no permission",
    "Check the owner and the permissions of the lake's folder.",
)
_LOOP = _Reason("a link leads to itself", "Remove the link, or let it lead to the real place.")
_OPEN_FILES = _Reason(
    "too many files are open",
    "Raise the limit (`ulimit -n 4096`), or read fewer markets at once.",
)
# What is not here, such as a file that is missing, is damage of what was stored.
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: _Reason(
        "not writable: the file system is read-only", "Mount it so that it can be written."
    ),
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.EISDIR: _Reason(
        "there is a folder where a file should be", "Look what it is, and move it away."
    ),
    errno.ENOTDIR: _Reason(
        "there is a file where a folder should be", "Look what it is, and move it away."
    ),
    errno.EEXIST: _Reason(
        "something else is in its place, such as a file where a folder should be",
        "Look what it is, and move it away.",
    ),
    errno.EIO: _Reason(
        "the disk could not read or write",
        "It may be failing: look at the log of the system, and copy what is readable.",
    ),
    errno.ENAMETOOLONG: _Reason(
        "a name is too long for the file system", "Put the lake in a folder with a shorter path."
    ),
    errno.ELOOP: _LOOP,
    errno.EFBIG: _Reason("a file is too large for the file system", "Use another file system."),
    errno.ENOMEM: _Reason("the memory is full", "Read fewer markets, or a shorter range, at once."),
    errno.ESTALE: _Reason(
        "the network file system has lost a file", "Mount it again, and run the same command."
    ),
    errno.EBUSY: _Reason("a file is in use", "Find out by what, and run the same command again."),
    errno.ETIMEDOUT: _Reason("the storage did not answer", "Run the same command again later."),
}
_TEXTS = {os.strerror(number).lower(): number for number in _REASONS} | {
    "no space left": errno.ENOSPC,
    "quota exceeded": errno.EDQUOT,
}


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


@contextmanager
def name_refused(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise a `StorageError` if the storage refuses a file; errors of other reasons pass."""
    try:
        yield
    except OSError as error:
        if find_reason(error) is None:
            raise
        raise explain_os_error(error, f"file {os.fspath(path)}") from error


def explain_os_error(error: BaseException, where: str) -> LakeError:
    """Return the `LakeError` that describes an error of storage, Delta or Polars."""
    text = get_first_line(error)
    reason = find_reason(error)
    if reason is not None:
        detail = "" if reason is _FULL else f" ({text})"
        return StorageError(f"{where}: {reason.what}{detail}", reason.advice)
    kind, _, name = where.partition(" ")
    return DamagedError(
        f"{where}: cannot be read: {text}",
        advise_to_verify(name) if kind == "table" else "Look at it, and restore it from a backup.",
    )


def find_reason(error: BaseException) -> _Reason | None:
    """Find why the storage refused, by an error or its text; None: it is no such error."""
    number = error.errno if isinstance(error, OSError) else None
    text = str(error).lower()
    if number is None:
        named = _NUMBER.search(text)
        number = int(named[1]) if named else None
    if number is None:
        number = next((n for words, n in _TEXTS.items() if words in text), None)
    return None if number is None else _REASONS.get(number)


def advise_to_verify(table: str) -> str:
    """Advise what to do where a table cannot be read: which files are damaged is not known yet."""
    return (
        f"`lake verify table {table}` lists all files that are missing or damaged (for a bundle: "
        "`lake bundle verify`): restore them from a backup. If a crash left them, run the command "
        "that wrote them again, such as `lake ingest`: it undoes what was not finished."
    )


def get_first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without colours and advice for programmers."""
    text = _COLOURS.sub("", str(error)).strip()
    return _ADVICE.sub("", text.splitlines()[0]) if text else "no reason given"
