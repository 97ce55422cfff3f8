"""What is not as a manifest says is found, and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lake.api import Lake
from lake.errors import ConfigError, DamagedError, LakeError
from lake.read.bundles.bundle import Bundle
from tests.conftest import bars, trades, write

Place = tuple[str | int, ...]


@pytest.fixture
def bundle(lake: Lake) -> Bundle:
    """Trades and bars, pinned; and more written since."""
    write(lake, "trades", trades(5))
    write(lake, "bars_1m", bars(5))
    bundle = lake.pin("b", ("trades", "bars_1m"))
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
    """Where the single values are in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, dict | list) and inner:
            yield from places(inner, (*place, key))
        else:
            yield (*place, key)


def other(value: Any) -> Any:
    """A value of the same type that is another one."""
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


def found(lake: Lake) -> list[str]:
    """The places that verification names; of a manifest that cannot be read, the error."""
    try:
        (bundle_id,) = (path.name for path in lake.root.bundles.glob("[0-9a-f]*"))
        return [difference.place for difference in lake.bundle(bundle_id).verify()]
    except LakeError as error:
        return [error.message]


def test_a_whole_bundle_has_no_differences(lake: Lake, bundle: Bundle) -> None:
    assert bundle.verify() == []
    assert lake.bundle("b").verify() == []


@pytest.mark.usefixtures("bundle")
def test_an_edit_of_any_value_is_found(lake: Lake) -> None:
    original = manifest_file(lake).read_bytes()
    document = json.loads(original)
    unnoticed = []
    everywhere = [place for place in places(document) if place[0] != "data_dictionary"]
    assert len(everywhere) > 40
    for place in [*everywhere, ("data_dictionary", "trades", "price", "unit")]:
        edit(lake, place, other)
        assert manifest_file(lake).read_bytes() != original
        if not found(lake):
            unnoticed.append(place)
        manifest_file(lake).write_bytes(original)
    assert unnoticed == []


@pytest.mark.parametrize("key", ["metadata", "bars", "trades", "data_dictionary", "id"])
@pytest.mark.usefixtures("bundle")
def test_a_missing_section_is_found(lake: Lake, key: str) -> None:
    path = manifest_file(lake)
    content = json.loads(path.read_bytes())
    del content[key]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert found(lake) != []


@pytest.mark.parametrize(
    ("place", "named"),
    [
        (("trades", "rows"), "trades.rows"),
        (("trades", "digest"), "trades.digest"),
        (("trades", "bytes"), "trades.bytes"),
        (("trades", "uri"), "trades.uri"),
        (("trades", "first"), "trades.first"),
        (("trades", "table_id"), "trades.table_id"),
        (("trades", "schema_fingerprint"), "trades.schema_fingerprint"),
        (("trades", "version"), "trades.digest"),
        (("trades", "table"), "trades"),
        (("bars", "1m", "rows"), "bars.1m.rows"),
        (("id",), "id"),
        (("checksum",), "checksum"),
        (("metadata", "note"), "checksum"),
        (("metadata", "lake_id"), "metadata.lake_id"),
        (("data_dictionary", "trades", "price", "unit"), "checksum"),
    ],
)
@pytest.mark.usefixtures("bundle")
def test_an_edited_value_is_named(lake: Lake, place: Place, named: str) -> None:
    edit(lake, place, other)
    assert named in found(lake)


@pytest.mark.usefixtures("bundle")
def test_a_manifest_of_a_newer_format_is_not_read(lake: Lake) -> None:
    edit(lake, ("format",), lambda _: 2)
    with pytest.raises(ConfigError, match="has bundle format 2; this version reads up to 1"):
        lake.bundle("b")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"{}", b'{"format": "1"}'])
@pytest.mark.usefixtures("bundle")
def test_what_is_no_manifest_is_named(lake: Lake, content: bytes) -> None:
    path = manifest_file(lake)
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=str(path)):
        lake.bundle("b")


def test_a_damaged_name_is_no_bundle(lake: Lake, bundle: Bundle) -> None:
    (lake.root.bundles / "names" / "b").write_bytes(b"\xff\xfe")
    assert lake.bundle(bundle.id).verify() == []
    with pytest.raises(LakeError, match="there is no bundle 'b'"):
        lake.bundle("b")


def test_a_table_made_anew_is_not_the_one_that_was_pinned(lake: Lake, bundle: Bundle) -> None:
    shutil.rmtree(lake.root.tables / "trades")
    write(lake, "trades", trades(5))
    assert found(lake) == ["trades.table_id"]
    with pytest.raises(DamagedError, match=r"trades is not the one that bundle .* pinned"):
        bundle.scan("trades")
    with pytest.raises(DamagedError):
        bundle.sql("SELECT * FROM trades")
    assert bundle.scan("bars_1m").collect().height == 5


def data_files(lake: Lake, table: str) -> list[Path]:
    return sorted((lake.root.tables / table).rglob("*.parquet"))


def pinned_file(lake: Lake) -> Path:
    return data_files(lake, "bars_1m")[0]


@pytest.mark.parametrize("length", [0, 10, 500])
def test_a_data_file_cut_short_is_found(lake: Lake, bundle: Bundle, length: int) -> None:
    path = pinned_file(lake)
    path.write_bytes(path.read_bytes()[:length])
    (difference,) = bundle.verify()
    assert (difference.place, difference.expected) == ("bars.1m", "readable")
    assert difference.found.startswith("table bars_1m: cannot be read: ")


def test_a_missing_data_file_is_found(lake: Lake, bundle: Bundle) -> None:
    pinned_file(lake).unlink()
    (difference,) = bundle.verify()
    assert difference.place == "bars.1m"


def test_other_rows_in_a_data_file_are_found(lake: Lake) -> None:
    write(lake, "bars_1m", bars(1, volume=[1.5]))
    write(lake, "bars_2m", bars(1, volume=[2.5]))
    bundle = lake.pin("b", "bars_1m")
    pinned, other = data_files(lake, "bars_1m")[0], data_files(lake, "bars_2m")[0]
    assert pinned.stat().st_size == other.stat().st_size
    pinned.write_bytes(other.read_bytes())
    assert [difference.place for difference in bundle.verify()] == ["bars.1m.digest"]


def test_a_missing_table_is_found(lake: Lake, bundle: Bundle) -> None:
    shutil.rmtree(lake.root.tables / "trades")
    (difference,) = bundle.verify()
    assert (difference.place, difference.found) == ("trades", "table trades does not exist yet")
