"""`lake bundle export` and `import`, and their exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

import lake as api
from tests.cli.conftest import Cli


@pytest.fixture
def archive(cli: Cli, filled: Path, tmp_path: Path) -> Path:
    """The exported bundle of the filled lake."""
    outcome = cli("bundle", "export", "one-day", "day.tar.zst", "--lake", str(filled))
    assert outcome.code == 0, outcome.err
    return tmp_path / "day.tar.zst"


@pytest.fixture
def own_lake(cli: Cli) -> Path:
    """A lake of one's own in the current folder, with nothing in it."""
    assert cli("init").code == 0
    return Path("lake")


def bundles(cli: Cli) -> list[tuple[str | None, str]]:
    return [(row["name"], row["id"]) for row in cli("bundle", "ls", "--json").json]


@pytest.mark.usefixtures("own_lake")
def test_a_bundle_goes_from_one_lake_to_another(cli: Cli, filled: Path, archive: Path) -> None:
    there = cli("bundle", "show", "one-day", "--json", "--lake", str(filled)).json
    outcome = cli("bundle", "import", str(archive), "--name", "theirs", "--json")
    assert outcome.code == 0
    assert (outcome.json["name"], outcome.json["id"]) == ("theirs", there["id"])
    assert cli("bundle", "verify", "theirs", "--deep").code == 0
    assert cli("bundle", "show", "theirs", "--json").json == there
    assert bundles(cli) == [("theirs", there["id"])]


def test_an_export_says_where_it_is(cli: Cli, filled: Path) -> None:
    outcome = cli("bundle", "export", "one-day", "day", "--lake", str(filled))
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.endswith(" to day.\n")
    assert api.open_bundle("day").verify() == []
    said = cli("--json", "bundle", "export", "one-day", "day.tar.zst", "--lake", str(filled))
    assert said.json == {"id": api.open_bundle("day").id, "path": "day.tar.zst"}


@pytest.mark.usefixtures("own_lake")
def test_an_import_without_a_name_says_the_id(cli: Cli, archive: Path) -> None:
    outcome = cli("bundle", "import", str(archive))
    bundle_id = api.open_bundle(archive).id
    assert outcome.code == 0
    assert bundle_id in outcome.err
    assert bundles(cli) == [(None, bundle_id)]


def test_what_cannot_be_exported_or_imported_is_a_matter_of_usage(
    cli: Cli, filled: Path, archive: Path
) -> None:
    lake = ("--lake", str(filled), "--json")
    for arguments, said in (
        (("export", "one-day", str(archive)), "already exists"),
        (("export", "one-day", "day.zip"), "not supported"),
        (("export", "one-day", "nowhere/day.tar.zst"), "does not exist"),
        (("export", "nothing", "new.tar.zst"), "there is no bundle 'nothing'"),
        (("import", "nothing.tar.zst"), "nothing.tar.zst does not exist"),
        (("import", str(archive), "--name", "a/b"), "cannot name a bundle"),
    ):
        outcome = cli("bundle", *arguments, *lake)
        assert outcome.code == 2, arguments
        assert said in outcome.error["message"]
        assert outcome.error["hint"]


@pytest.mark.usefixtures("own_lake")
def test_a_name_moves_only_when_it_is_told_to(
    cli: Cli, filled: Path, archive: Path, tmp_path: Path
) -> None:
    api.open(filled).bundles.pin("part", table="bars_1m", symbol="BTC/USDT").export(
        tmp_path / "part.tar.zst"
    )
    api.open(filled).bundles.rm("part")
    assert cli("bundle", "import", str(archive), "--name", "day").code == 0
    refused = cli("bundle", "import", "part.tar.zst", "--name", "day")
    assert refused.code == 2
    assert "--move" in refused.err
    assert cli("bundle", "import", "part.tar.zst", "--name", "day", "--move").code == 0
    assert cli("bundle", "show", "day", "--json").json["id"] == api.open_bundle("part.tar.zst").id


@pytest.mark.usefixtures("own_lake")
def test_a_damaged_archive_is_a_finding(cli: Cli, archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-100])
    outcome = cli("bundle", "import", str(archive), "--json")
    assert outcome.code == 3
    assert outcome.error["code"] == "damaged"
    assert str(archive) in outcome.error["message"]
    assert bundles(cli) == []
