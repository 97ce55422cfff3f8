"""Differences from a manifest are found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.bundles.manifest import FORMAT, ListPart, Manifest
from lake.errors import ConfigError, DamagedError, LakeError
from lake.store import index
from lake.store.hashing import hash_file
from tests.conftest import DAY, T0, NewLake, bars, trades, write

Place = tuple[str | int, ...]


@pytest.fixture
def bundle(lake: Lake) -> Bundle:
    """A lake with pinned trades and bars, and rows written after the pin."""
    write(lake, "trades", trades(5))
    write(lake, "bars_1m", bars(2000))
    bundle = lake.bundles.pin("b", table=("trades", "bars_1m"))
    write(lake, "trades", trades(9))
    return bundle


def manifest_file(lake: Lake) -> Path:
    (path,) = lake.root.bundles.glob("*/manifest.json")
    return path


def edit(lake: Lake, place: Place, change: Callable[[Any], Any]) -> None:
    """Change a value of the manifest on disk."""
    path = manifest_file(lake)
    content = json.loads(path.read_bytes())
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = change(parent[place[-1]])
    path.write_text(json.dumps(content), encoding="utf-8")


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the paths of the single values in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, dict | list) and inner:
            yield from places(inner, (*place, key))
        else:
            yield (*place, key)


def other(value: Any) -> Any:
    """Return a different value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            last = "1" if value.endswith("0") else "0"
            return value.replace("2024", "2023") if "2024-" in value else value[:-1] + last
        case list():
            return [*value, "x"]
        case dict():
            return {"x": "x"}
    return "x"


def refusal(lake: Lake) -> str | None:
    """Return the error message of opening the bundle; None if it opens."""
    try:
        (bundle_id,) = (path.name for path in lake.root.bundles.glob("[0-9a-f]*"))
        lake.bundles.open(bundle_id)
    except LakeError as error:
        return error.message
    return None


def test_an_intact_bundle_has_no_problems(lake: Lake, bundle: Bundle) -> None:
    assert bundle.verify() == []
    assert lake.bundles.open("b").verify(deep=True) == []


@pytest.mark.usefixtures("bundle")
def test_a_manifest_with_any_value_edited_is_not_opened(lake: Lake) -> None:
    original = manifest_file(lake).read_bytes()
    everywhere = list(places(json.loads(original)))
    assert len(everywhere) > 150
    unnoticed = []
    for place in everywhere:
        edit(lake, place, other)
        assert manifest_file(lake).read_bytes() != original
        if refusal(lake) is None:
            unnoticed.append(place)
        manifest_file(lake).write_bytes(original)
    assert unnoticed == []


@pytest.mark.parametrize(
    "key", ["metadata", "bars", "trades", "data_dictionary", "id", "beside", "checksum"]
)
@pytest.mark.usefixtures("bundle")
def test_a_missing_section_is_found(lake: Lake, key: str) -> None:
    path = manifest_file(lake)
    content = json.loads(path.read_bytes())
    del content[key]
    path.write_text(json.dumps(content), encoding="utf-8")
    message = refusal(lake)
    assert message is not None
    assert str(path) in message


@pytest.mark.usefixtures("bundle")
def test_a_forged_manifest_of_other_content_is_not_its_id(lake: Lake) -> None:
    edit(lake, ("trades", "digest"), other)
    path = manifest_file(lake)
    forged = Manifest.model_validate_json(path.read_bytes())
    path.write_bytes(forged.seal().to_json())
    with pytest.raises(DamagedError, match="holds the manifest of bundle"):
        lake.bundles.open("b")


@pytest.mark.usefixtures("bundle")
def test_a_manifest_of_another_lake_is_refused(lake: Lake, new_lake: NewLake) -> None:
    elsewhere = new_lake()
    folder = manifest_file(lake).parent
    shutil.copytree(folder, elsewhere.root.bundles / folder.name)
    with pytest.raises(ConfigError, match="pins tables of another lake"):
        elsewhere.bundles.open(folder.name)


@pytest.mark.parametrize("other", [FORMAT - 1, FORMAT + 1])
@pytest.mark.usefixtures("bundle")
def test_a_manifest_of_another_format_is_not_read(lake: Lake, other: int) -> None:
    edit(lake, ("format",), lambda _: other)
    said = rf"has bundle format {other}\b.*; this version reads {FORMAT}"
    with pytest.raises(ConfigError, match=said):
        lake.bundles.open("b")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"{}", b'{"format": "1"}'])
@pytest.mark.usefixtures("bundle")
def test_an_invalid_manifest_is_named(lake: Lake, content: bytes) -> None:
    path = manifest_file(lake)
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=str(path)):
        lake.bundles.open("b")
    assert str(path) in lake.bundles.ls()["problem"].item()


@pytest.mark.usefixtures("bundle")
def test_a_missing_manifest_is_named(lake: Lake) -> None:
    path = manifest_file(lake)
    path.unlink()
    with pytest.raises(DamagedError, match=f"{path} cannot be read"):
        lake.bundles.open("b")


def test_a_damaged_name_is_no_bundle(lake: Lake, bundle: Bundle) -> None:
    (lake.root.bundles / "names" / "b").write_bytes(b"\xff\xfe")
    assert lake.bundles.open(bundle.id).verify() == []
    with pytest.raises(LakeError, match="there is no bundle 'b'"):
        lake.bundles.open("b")


@pytest.mark.parametrize("name", ["files.parquet", "days.parquet"])
@pytest.mark.parametrize("change", ["flip", "cut", "empty", "delete"])
@pytest.mark.usefixtures("bundle")
def test_a_damaged_list_is_named(lake: Lake, name: str, change: str) -> None:
    path = manifest_file(lake).with_name(name)
    damage(path, change)
    (problem,) = lake.bundles.open("b").verify()
    assert problem.place == str(path)
    assert problem.kind == ("missing" if change == "delete" else "damaged")
    if name == "files.parquet":
        with pytest.raises(DamagedError, match=name):
            lake.bundles.open("b", cache=False).scan("bars_1m").collect()


def test_a_table_that_was_created_again_is_not_the_pinned_one(lake: Lake, bundle: Bundle) -> None:
    shutil.rmtree(lake.root.tables / "trades")
    write(lake, "trades", trades(5))
    problems = bundle.verify(deep=True)
    assert [problem.kind for problem in problems] == ["missing", "foreign"]
    assert problems[1].place == "trades.table_id"
    fresh = lake.bundles.open("b", cache=False)
    for read in (fresh.scan("trades").collect, lambda: fresh.sql("SELECT * FROM trades")):
        with pytest.raises(DamagedError, match="missing or differ from the pinned files"):
            read()
    assert lake.bundles.open("b").scan("bars_1m").collect().height == 2000


def pinned_files(lake: Lake, bundle: Bundle, table: str) -> list[Path]:
    return [lake.root.tables / table / path for path in bundle.contents.files.files(table)["path"]]


def damage(path: Path, change: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    match change:
        case "flip":
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
        case "cut":
            path.write_bytes(content[:middle])
        case "empty":
            path.write_bytes(b"")
        case "delete":
            path.unlink()


@pytest.mark.parametrize("change", ["flip", "cut", "empty", "delete"])
def test_a_damaged_data_file_is_named_and_never_read(
    lake: Lake, bundle: Bundle, change: str
) -> None:
    path, other_path = pinned_files(lake, bundle, "bars_1m")
    damage(path, change)
    for deep in (False, True):
        (problem,) = lake.bundles.open("b").verify(deep=deep)
        kind = "missing" if change == "delete" else "damaged"
        assert (problem.kind, problem.place) == (kind, str(path))
    fresh = lake.bundles.open("b", cache=False)
    for read in (fresh.scan("bars_1m").collect, lambda: fresh.sql("SELECT * FROM bars_1m")):
        with pytest.raises(DamagedError, match=path.name) as caught:
            read()
        assert other_path.name not in str(caught.value)
    assert fresh.scan("bars_1m", since=T0 + DAY).collect().height == 2000 - 1440


def test_any_flipped_byte_of_a_data_file_is_noticed(lake: Lake, bundle: Bundle) -> None:
    path = pinned_files(lake, bundle, "trades")[0]
    original = path.read_bytes()
    for position in range(0, len(original), 37):
        path.write_bytes(
            original[:position] + bytes([original[position] ^ 16]) + original[position + 1 :]
        )
        with pytest.raises(DamagedError, match=path.name):
            lake.bundles.open("b", cache=False).scan("trades").collect()


def test_two_files_that_were_swapped_are_both_named(lake: Lake, bundle: Bundle) -> None:
    one, two = pinned_files(lake, bundle, "bars_1m")
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    problems = {problem.place: problem for problem in lake.bundles.open("b").verify()}
    assert set(problems) == {str(one), str(two)}
    assert problems[str(one)].kind == "foreign"
    assert problems[str(one)].found.endswith(two.name)
    with pytest.raises(DamagedError):
        lake.bundles.open("b", cache=False).scan("bars_1m").collect()


def test_a_file_that_is_damaged_while_the_bundle_is_open_is_noticed(
    lake: Lake, bundle: Bundle
) -> None:
    opened = lake.bundles.open("b", cache=False)
    assert opened.scan("bars_1m").collect().height == 2000
    damage(pinned_files(lake, bundle, "bars_1m")[0], "flip")
    with pytest.raises(DamagedError):
        opened.scan("bars_1m").collect()


def test_other_rows_under_the_right_hash_are_found_by_reading_deep(
    lake: Lake, bundle: Bundle
) -> None:
    """Rewriting the bundle's lists is not enough: the digests of rows differ, too."""
    folder = manifest_file(lake).parent
    path = pinned_files(lake, bundle, "bars_1m")[1]
    frame = pl.read_parquet(path, hive_partitioning=False)
    frame.with_columns(pl.col("volume") + 1).write_parquet(path)
    listed = bundle.contents.files.read_all()
    is_it = pl.col("path") == str(path.relative_to(lake.root.tables / "bars_1m"))
    forged = listed.with_columns(
        sha256=pl.when(is_it).then(pl.lit(hash_file(path))).otherwise("sha256"),
        bytes=pl.when(is_it).then(pl.lit(path.stat().st_size)).otherwise("bytes"),
    )
    (folder / "files.parquet").unlink()
    sealed = index.write_sealed(folder / "files.parquet", forged)
    beside = bundle.manifest.beside.model_copy(update={"files": ListPart(**asdict(sealed))})
    size = sum(forged.filter(table="bars_1m")["bytes"])
    ref = bundle.manifest.bars["1m"].model_copy(update={"bytes": size})
    edited = {"beside": beside, "bars": {"1m": ref}}
    manifest = bundle.manifest.model_copy(update=edited).seal()
    (folder / "manifest.json").write_bytes(manifest.to_json())
    reopened = lake.bundles.open("b")
    assert reopened.verify() == []
    (problem,) = reopened.verify(deep=True)
    assert (problem.kind, problem.place) == ("differs", "bars.1m: binance BTC/USDT 2024-01-02")


def test_a_version_that_has_other_files_is_found(lake: Lake, bundle: Bundle) -> None:
    log = lake.root.tables / "trades" / "_delta_log"
    shutil.rmtree(lake.root.tables / "trades" / "_checksums")  # they would show that it was changed
    for number in (3, 2):
        (log / f"{number:020}.json").unlink(missing_ok=True)
    commit = log / f"{1:020}.json"
    lines = [line for line in commit.read_text().splitlines() if not line.startswith('{"add"')]
    commit.write_text("\n".join(lines))
    (problem,) = lake.bundles.open("b").verify()
    assert (problem.kind, problem.found) == ("differs", "in the index only")
    assert problem.place == str(pinned_files(lake, bundle, "trades")[0])
    assert bundle.scan("trades").collect().height == 5, "the log is not needed to read"


@pytest.mark.usefixtures("bundle")
def test_the_log_may_be_gone_and_rows_are_read_all_the_same(lake: Lake) -> None:
    shutil.rmtree(lake.root.tables / "trades" / "_delta_log")
    (problem,) = lake.bundles.open("b").verify()
    assert (problem.kind, problem.place) == ("damaged", "trades.version")
    assert lake.bundles.open("b", cache=False).scan("trades").collect().height == 5


@pytest.mark.usefixtures("bundle")
def test_a_manifest_nested_too_deep_is_damaged(lake: Lake) -> None:
    manifest_file(lake).write_text("[" * 100_000)
    with pytest.raises(DamagedError, match="is not a manifest"):
        lake.bundles.open("b")
