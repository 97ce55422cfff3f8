"""Files against their SHA-256: what is wrong is told, and what is right is hashed once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from lake.store import hashing
from lake.store.hashing import ExpectedFile, FileChecker, hash_file, hash_files


def written(folder: Path, sizes: list[int]) -> list[ExpectedFile]:
    files = []
    for number, size in enumerate(sizes):
        content = bytes([number % 256]) * size
        path = folder / str(number)
        path.write_bytes(content)
        files.append(ExpectedFile(str(path), size, hashlib.sha256(content).hexdigest()))
    return files


@pytest.mark.parametrize("sizes", [[], [0], [1, 2, 3], [5_000_000, 9_000_000], [1] * 300])
def test_files_that_are_right_are_right_again(tmp_path: Path, sizes: list[int]) -> None:
    files = written(tmp_path, sizes)
    checked = FileChecker()
    assert checked.find_wrong(files) == []
    assert checked.find_wrong(files) == []
    assert [hash_file(file.path) for file in files] == [file.sha256 for file in files]
    assert hash_files([Path(file.path) for file in files]) == [file.sha256 for file in files]


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_each_wrong_file_is_told(tmp_path: Path, size: int) -> None:
    files = written(tmp_path, [size] * 5)
    Path(files[0].path).write_bytes(b"x" * size)
    Path(files[1].path).write_bytes(b"short")
    Path(files[2].path).unlink()
    assert {file.path for file in FileChecker().find_wrong(files)} == {
        file.path for file in files[:3]
    }


def test_a_file_is_hashed_again_only_when_it_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(tmp_path, [10, 10])
    checked = FileChecker()
    checked.find_wrong(files)
    hashed: list[str] = []

    def counting(path: str | Path) -> str:
        hashed.append(str(path))
        return hash_file(path)

    monkeypatch.setattr(hashing, "hash_file", counting)  # counts, and hashes all the same
    checked.find_wrong(files)
    assert hashed == []
    Path(files[1].path).write_bytes(b"y" * 10)
    os.utime(files[1].path, ns=(0, Path(files[0].path).stat().st_mtime_ns))
    assert checked.find_wrong(files) == [files[1]]
    assert hashed == [files[1].path]
