"""docs/architecture.md names the files and folders that exist, and every folder."""

from __future__ import annotations

import re

from tests.paths import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LAKE = ROOT / "lake"


def test_every_path_exists() -> None:
    paths = re.findall(r"`((?:lake|schemas|scripts|tests)/[\w/.]*)`", TEXT)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_folder_is_described() -> None:
    folders = {f"lake/{path.parent.name}/" for path in LAKE.glob("*/__init__.py")}
    assert folders == set(re.findall(r"^\| `(lake/\w+/)` \|", TEXT, re.MULTILINE))


def test_a_row_reaches_its_commit_in_at_most_six_files() -> None:
    walk = TEXT.split("## The way of a row")[1].split("\n## ")[0]
    assert len(re.findall(r"^\d+\. `lake/", walk, re.MULTILINE)) <= 6


def test_the_readme_points_to_it() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/architecture.md)" in readme.split("\n## Architecture")[1]
