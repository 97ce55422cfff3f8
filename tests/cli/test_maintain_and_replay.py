"""`lake maintain`, `replay`, `bundle verify|warm|rm` and the demands of `bundle pin`, as typed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lake.api import Lake
from lake.settings import Settings
from tests.cli.conftest import Cli, Outcome
from tests.conftest import MINUTE, T0, bars, trades, write


@pytest.fixture
def pinned(cli: Cli) -> Cli:
    """Bars in four files, and trades; pinned as `b`, and compacted since."""
    cli("init")
    lake = Lake(Settings(uri=os.environ["LAKE_URI"]))
    for number in range(4):
        write(lake, "bars_1m", bars(3, start=T0 + number * 3 * MINUTE))
    write(lake, "trades", trades(5))
    assert cli("bundle", "pin", "b", "bars_1m", "trades").code == 0
    return cli


def refused(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.code == code
    for word in words:
        assert word in outcome.err


def test_compaction_and_vacuum_say_what_they_did(pinned: Cli) -> None:
    [done] = [row for row in pinned("maintain", "optimize", "--json").json if row["dates"]]
    assert (done["table"], done["files_before"], done["files_after"]) == ("bars_1m", 4, 1)
    again = pinned("maintain", "optimize", "bars_1m")
    assert again.code == 0
    assert "Compacted 0 dates: 0 files became 0." in again.err
    dry = pinned("maintain", "vacuum", "--dry-run", "--json")
    assert (dry.code, dry.json) == (0, [])
    assert "0 files would be deleted" in dry.err
    assert pinned("maintain", "checkpoint", "--json").json[0]["table"] == "bars_1m"
    assert pinned("maintain", "gc", "--dry-run").code == 0
    commands = [row["command"] for row in pinned("sql", "SELECT * FROM jobs", "--json").json]
    assert commands.count("maintain optimize") == 2


def test_the_hint_of_a_vacuum_names_the_lake_that_was_named(pinned: Cli) -> None:
    uri = os.environ["LAKE_URI"]
    words = f"`lake maintain vacuum --lake {uri} --yes` deletes them"
    assert words in pinned("maintain", "vacuum", "--lake", uri, "--json").error["hint"]
    assert "`lake maintain gc --yes`" in pinned("maintain", "gc", "--json").error["hint"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("vacuum",), ("--dry-run", "--yes")),
        (("vacuum", "--yes", "--dry-run"), ("--dry-run", "--yes")),
        (("gc",), ("--dry-run", "--yes")),
        (("vacuum", "--yes", "--keep", "0h"), ("one hour or more",)),
        (("vacuum", "--yes", "--keep", "soon"), ("'soon' is not a duration",)),
        (("vacuum", "--yes", "nothing"), ("there is no table 'nothing'",)),
        (("vacuum", "--yes", "funding"), ("funding does not exist yet",)),
        (("optimize", "--before", "2999-01-01"), ("is in the future",)),
        (("optimize", "--before", "whenever"), ("is not a time",)),
    ],
)
def test_maintenance_that_cannot_be_is_refused(
    pinned: Cli, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(pinned("maintain", *arguments), 2, *words)


def test_a_bundle_is_removed_only_when_it_is_said(pinned: Cli) -> None:
    refused(pinned("bundle", "rm", "b"), 2, "--yes", "--dry-run")
    refused(pinned("bundle", "rm", "c", "--yes"), 2, "there is no bundle 'c'")
    assert "Would remove bundle" in pinned("bundle", "rm", "b", "--dry-run").err
    assert pinned("bundle", "verify", "b", "--deep").code == 0
    assert "(b)" in pinned("bundle", "rm", "b", "--yes").err
    assert pinned("bundle", "ls", "--json").json == []


def test_a_bundle_that_cannot_be_read_can_be_given_up(pinned: Cli) -> None:
    [manifest] = Path(os.environ["LAKE_URI"], "bundles").glob("*/manifest.json")
    manifest.unlink()
    refused(pinned("maintain", "vacuum", "--dry-run"), 3, "bundle b cannot be read")
    assert pinned("bundle", "rm", "b", "--yes").code == 0
    assert pinned("maintain", "vacuum", "--dry-run").code == 0


def test_warming_tells_its_size(pinned: Cli) -> None:
    assert "Cached already" not in pinned("bundle", "warm", "b", "trades").err
    assert pinned("bundle", "warm", "b").code == 0
    assert pinned("bundle", "warm", "b").err.startswith("Cached already")
    refused(pinned("bundle", "warm", "b", "funding"), 2, "not in bundle")


def test_a_replay_is_in_order_of_what_was_known(pinned: Cli) -> None:
    rows = pinned("replay", "b", "--json").json
    assert [row["position"] for row in rows] == list(range(17))
    assert [row["available_at"] for row in rows] == sorted(row["available_at"] for row in rows)
    assert [row["table"] for row in rows[:6]] == ["trades"] * 5 + ["bars_1m"]
    assert json.loads(rows[5]["values"])["volume"] == 1.0
    by_time = pinned("replay", "b", "--by", "timestamp", "--limit", "2", "--json").json
    assert [row["table"] for row in by_time] == ["bars_1m", "trades"]
    narrowed = ("bars_1m", "--since", "2024-01-01T00:05Z", "--until", "2024-01-01T00:07Z")
    assert len(pinned("replay", "b", *narrowed, "--no-cache", "--json").json) == 2
    assert pinned("replay", "b", "--since", "2030-01-01", "--json").json == []
    assert "position" in pinned("replay", "b", "--limit", "1").out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("c",), "there is no bundle"),
        (("b", "funding"), "not in bundle"),
        (("b", "--by", "close"), "by"),
        (("b", "--limit", "0"), "limit"),
        (("b", "--since", "2024-01-02", "--until", "2024-01-01"), "range is empty or reversed"),
    ],
)
def test_a_replay_that_cannot_be_is_refused(
    pinned: Cli, arguments: tuple[str, ...], word: str
) -> None:
    refused(pinned("replay", *arguments), 2, word)


def test_a_pin_that_falls_short_ends_in_exit_code_3(pinned: Cli) -> None:
    pin = ("bundle", "pin", "c", "trades")
    refused(pinned(*pin, "--require-complete"), 3, "trades of binance BTC/USDT: [2024-01-01")
    refused(pinned(*pin, "--min-quality", "0.9", "--no-check"), 3, "was not checked")
    refused(pinned(*pin, "--min-quality", "9"), 2, "min-quality")
    refused(pinned(*pin, "--as-of", "2020-01-01"), 2, "did not exist at 2020-01-01")
    refused(pinned(*pin, "--as-of", "2999-01-01"), 2, "is in the future")
    assert pinned(*pin, "--as-of", "now").code == 0


def test_verify_table_exits_with_3_at_a_flipped_bit(pinned: Cli) -> None:
    whole = pinned("verify", "table", "bars_1m")
    assert whole.code == 0
    assert "4 files are as they were committed" in whole.err
    assert pinned("verify", "table", "--json").json == []
    file = next(Path(os.environ["LAKE_URI"], "tables", "bars_1m").rglob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)
    found = pinned("verify", "table", "bars_1m", "trades", "--json")
    refused(found, 3, "1 file of bars_1m differs from what was committed")
    [row] = found.json
    assert (row["table"], row["kind"]) == ("bars_1m", "damaged")
    assert str(file).endswith(row["path"])
    refused(pinned("verify", "table", "bars_1m"), 3, "differs from what was committed")
    commit = max((file.parents[3] / "_delta_log").glob("*.json"))
    commit.rename(commit.with_suffix(".away"))
    version = int(commit.stem)
    refused(
        pinned("verify", "table", "bars_1m"),
        3,
        f"bars_1m: version {version} was committed and is not in the log",
    )
    refused(pinned("verify", "table", "nothing"), 2, "there is no table 'nothing'")
