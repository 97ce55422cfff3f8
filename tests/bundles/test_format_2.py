"""A lake and a bundle of format 2, as their version wrote them, are read for ever."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lake import open_bundle
from lake.api import Lake
from tests.bundles.format_2 import BUNDLE, FACTS, FOLDER, HOURS, LAKE, describe, open_lake
from tests.conftest import DAY, funding, write

MOST_BYTES = 300_000


@pytest.fixture
def kept(tmp_path: Path) -> Lake:
    with tarfile.open(FOLDER / LAKE) as archive:
        archive.extractall(tmp_path, filter="data")
    return open_lake(tmp_path / "lake")


@pytest.fixture
def facts() -> dict[str, Any]:
    return json.loads((FOLDER / FACTS).read_text())  # type: ignore[no-any-return]


def test_the_fixtures_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MOST_BYTES


@pytest.mark.parametrize("name", ["first", "fixture"])
def test_its_bundles_are_verified_read_and_replayed(
    kept: Lake, facts: dict[str, Any], name: str
) -> None:
    bundle = kept.bundles.open(name)
    assert bundle.verify(deep=True) == []
    assert describe(bundle) == facts[name]
    for table, expected in facts[name]["tables"].items():
        assert bundle.sql(f"SELECT count(*) FROM {table}").fetchall() == [(expected["rows"],)]  # noqa: S608


def test_its_export_is_verified_read_and_replayed(facts: dict[str, Any]) -> None:
    bundle = open_bundle(FOLDER / BUNDLE, cache=False)
    assert bundle.verify(deep=True) == []
    assert describe(bundle) == facts["fixture"]


def test_it_is_imported_into_another_lake(lake: Lake, facts: dict[str, Any]) -> None:
    imported = lake.bundles.import_(FOLDER / BUNDLE)
    assert imported.verify(deep=True) == []
    assert describe(imported) == facts["fixture"]


def test_the_lake_is_read_and_sound(kept: Lake) -> None:
    assert kept.maintenance.verify().problems.is_empty()
    funding_rows = kept.scan("funding").collect()
    assert (funding_rows["date"] == funding_rows["timestamp"].dt.date()).all()
    rates = kept.scan("rates").collect()["extra"].to_list()
    assert (rates[:6], rates[6:]) == ([None] * 6, [0.5] * 3)
    assert kept.status().height > 0
    bundle = kept.bundles.open("first")
    assert bundle.scan("funding").collect().height == len(HOURS) - 1


def test_the_lake_goes_on(kept: Lake, facts: dict[str, Any]) -> None:
    kept.maintenance.migrate(apply=True)
    assert write(kept, "funding", funding([HOURS[-1] + DAY])).inserted == 1
    changed = funding([HOURS[5]]).with_columns(funding_rate=pl.lit(0.25))
    assert write(kept, "funding", changed).updated == 1
    kept.maintenance.optimize()
    kept.maintenance.vacuum(keep="1h")
    later = kept.bundles.pin("later", table="funding", check=False)
    assert later.manifest.refs()
    assert kept.bundles.diff("fixture", "later", table="funding").height == 2
    for name in ("first", "fixture"):
        assert describe(kept.bundles.open(name)) == facts[name]
