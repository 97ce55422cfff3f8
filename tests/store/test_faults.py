"""Errors of storage are told apart, by their number or by their text."""

from __future__ import annotations

import errno
import os

import pytest
from polars.exceptions import ComputeError

from lake.errors import DamagedError, StorageError
from lake.store.faults import explain_os_error

WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.EACCES: "no permission",
    errno.EROFS: "read-only",
    errno.EMFILE: "too many files are open",
    errno.EISDIR: "a folder where a file should be",
    errno.ENOTDIR: "a file where a folder should be",
    errno.EIO: "the disk could not read or write",
    errno.ENAMETOOLONG: "too long",
    errno.ELOOP: "a link leads to itself",
    errno.ENOMEM: "the memory is full",
}


@pytest.mark.parametrize("number", WORDS)
def test_a_refusal_of_the_storage_is_no_damage(number: int) -> None:
    text = os.strerror(number)
    for error in (
        OSError(number, text, "/x"),
        ComputeError(f"{text} (os error {number}): /x"),
        ComputeError(f'IO Error: Cannot open file "/x": {text}'),
    ):
        explained = explain_os_error(error, "table trades")
        assert isinstance(explained, StorageError)
        assert explained.message.startswith("table trades: ")
        assert WORDS[number] in explained.message
        assert "backup" not in explained.hint


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/x"),
        ComputeError("No such file or directory (os error 2): /x"),
        ComputeError("parquet: File out of specification"),
    ],
)
def test_anything_else_is_damage(error: Exception) -> None:
    explained = explain_os_error(error, "table trades")
    assert isinstance(explained, DamagedError)
    assert "lake verify table trades" in explained.hint
