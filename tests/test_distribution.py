"""The distribution: its name on the package index, its version, and the hints that name it."""

from __future__ import annotations

import re

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from lake.version import VERSION
from tests.paths import ROOT

PROJECT = ProjectMetadata(str(ROOT), PluginManager())
HINT = re.compile(r"pip install '([^'\[]+)\[([^'\]]+)\]'")


def hints(pattern: str) -> list[tuple[str, str]]:
    """The distribution and the extra of each hint in some files."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(ROOT.glob(pattern)))
    return [hint for text in texts for hint in HINT.findall(text)]


def test_the_distribution_is_not_called_as_another_project() -> None:
    """`lake` on the package index is not ours: the hint would install it."""
    assert PROJECT.core.name == "marketlake"
    assert PROJECT.core.scripts == {"lake": "lake.cli.app:main"}


def test_the_distribution_has_the_version_that_the_command_shows() -> None:
    assert PROJECT.version == VERSION


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("lake/**/*.py", {"marketlake"}), ("README.md", {"marketlake", "."})],
)
def test_every_hint_names_the_distribution_and_one_of_its_extras(
    pattern: str, names: set[str]
) -> None:
    assert {name for name, _ in hints(pattern)} == names
    extras = {extra for _, extra in hints(pattern)}
    assert extras
    assert extras <= {*PROJECT.core.optional_dependencies, "{extra}"}
