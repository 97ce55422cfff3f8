"""`lake quality`: findings on stdout, what to do on stderr, and an exit code that tells."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.quality.report.document import from_json
from lake.settings import Settings
from tests.cli.conftest import Cli
from tests.conftest import bars, trades


@pytest.fixture
def lake(cli: Cli, tmp_path: Path) -> Lake:
    """A lake with two markets, of which one lacks ten bars."""
    assert cli("init", "-q").code == 0
    lake = Lake(Settings(uri=str(tmp_path / "lake")))
    kept = ~pl.int_range(pl.len()).is_between(100, 109)
    lake.write("bars_1m", bars(1440).filter(kept))
    lake.write("bars_1m", bars(1440, symbol="ETH/USDT"))
    lake.write("trades", trades(100, symbol="ETH/USDT", price=[100.0] * 100, amount=[1 / 60] * 100))
    return lake


BTC = ("-s", "BTC/USDT")


def test_the_hint_of_a_check_names_the_lake_that_was_named(cli: Cli, lake: Lake) -> None:
    named = ("--lake", str(lake.root.path))
    hint = cli("quality", "check", "bars_1m", *BTC, *named, "--json").error["hint"]
    option = " ".join(named)
    assert f"`lake quality show ID {option}` explains one" in hint
    assert f"`lake quality repair --dry-run {option}` shows" in hint


@pytest.mark.usefixtures("lake")
def test_a_check_lists_findings_and_exits_with_3_where_they_are_bad(cli: Cli) -> None:
    done = cli("quality", "check", "bars_1m", *BTC, "--json")
    assert done.code == 3
    (gap,) = [row for row in done.json if row["check"] == "gaps"]
    assert (gap["rows"], gap["severity"], gap["reason"]) == (10, "error", "unknown")
    assert done.error["code"] == "quality"
    assert done.error["message"] == "1 finding has severity error or worse"
    assert "lake quality show ID" in done.error["hint"]
    assert "Rows checked: 1,430; score: 0.993055. Open findings: 1; new: 1; closed: 0." in done.err


@pytest.mark.usefixtures("lake")
def test_a_partial_check_names_the_findings_of_what_was_owed(cli: Cli) -> None:
    done = cli("quality", "check", "bars_1m", "-s", "ETH/USDT", "--json")
    assert (done.code, done.json) == (0, [])
    said = " ".join(done.err.split())
    assert "Also checked what was owed: " in said
    assert "in bars_1m of binance BTC/USDT on 2024-01-01" in said
    assert "`lake quality findings` lists them" in said


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_new_is_logged_but_where_a_terminal_shows_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
    done = cli("quality", "check", "bars_1m", *BTC)
    assert ("event=finding" in done.err) is not terminal
    assert "Rows checked: 1,430" in done.err


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(("least", "code"), [("info", 3), ("error", 3), ("critical", 0)])
def test_fail_on_says_what_is_bad(cli: Cli, least: str, code: int) -> None:
    assert cli("quality", "check", "bars_1m", *BTC, "--fail-on", least).code == code


@pytest.mark.usefixtures("lake")
def test_a_sound_market_exits_with_0(cli: Cli) -> None:
    done = cli("quality", "check", "bars_1m", "-s", "ETH/USDT", "-e", "binance", "--json")
    assert (done.code, [row for row in done.json if row["severity"] == "error"]) == (0, [])


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("check", "bars_2m"), "bars_2m does not exist"),
        (("check", "-e", "binanse"), "no rows of binanse"),
        (("check", "--since", "2030-01-01"), "no rows in the selection"),
        (("check", "--since", "soon"), "'soon' is not a time"),
        (("findings", "nothing"), "nothing"),
        (("show", "ffff"), "matches no finding"),
        (("gaps", "trades"), "trades holds no bars"),
        (("report", "--bundle", "none"), "none"),
        (("report", "--bundle", "none", "-e", "binance"), "covers all that it pins"),
    ],
)
def test_mistakes_exit_with_2_and_say_what_is_wrong(
    cli: Cli, arguments: tuple[str, ...], says: str
) -> None:
    failed = cli("quality", *arguments, "--json")
    assert failed.code == 2
    assert says in failed.error["message"]
    assert failed.out == ""


def test_a_mistake_in_the_settings_exits_with_2(cli: Cli, lake: Lake, tmp_path: Path) -> None:
    assert lake.quality.findings().is_empty()
    text = "[quality.checks.bars.gasp]\nseverity = 'info'\n"
    (tmp_path / "lake.toml").write_text(text, encoding="utf-8")
    failed = cli("quality", "check", "--json")
    assert failed.code == 2
    assert "quality.checks.bars.gasp" in failed.error["message"]
    assert failed.error["code"] == "config"


def test_findings_are_listed_and_shown_with_their_rows(cli: Cli, lake: Lake) -> None:
    lake.quality.check()
    listed = cli("quality", "findings", "bars_1m", *BTC, "--check", "gaps", "--json")
    assert listed.code == 0
    (gap,) = listed.json
    assert cli("quality", "findings", "--severity", "critical", "--json").json == []
    shown = cli("quality", "show", gap["finding_id"][:8], "--json")
    assert shown.code == 0
    assert shown.json["message"] == "10 bars are missing: the reason is unknown"
    assert [row["timestamp"] for row in shown.json["context"]][2:4] == [
        "2024-01-01T01:39:00Z",
        "2024-01-01T01:50:00Z",
    ]
    table = cli("quality", "show", gap["finding_id"])
    assert "Rows around it" in table.out
    assert "2024-01-01T01:50:00Z" in table.out

    lake.write("bars_1m", bars(1440))
    lake.quality.check()
    command = ("quality", "findings", "bars_1m", "--check", "gaps", "--json")
    assert cli(*command).json == []
    assert [row["status"] for row in cli(*command, "--all").json] == ["closed"]


@pytest.mark.usefixtures("lake")
def test_gaps_tell_the_reason(cli: Cli) -> None:
    found = cli("quality", "gaps", "bars_1m", "--json")
    assert found.code == 0
    assert found.json == [
        {
            "dataset": "bars_1m",
            "exchange": "binance",
            "symbol": "BTC/USDT",
            "start": "2024-01-01T01:40:00Z",
            "end": "2024-01-01T01:50:00Z",
            "slots": 10,
            "reason": "unknown",
            "proof": None,
        }
    ]
    assert cli("quality", "gaps", "bars_1m", "--until", "2024-01-01T01:45", "--json").json[0][
        "slots"
    ] == 5  # fmt: skip


def test_scores_are_listed(cli: Cli, lake: Lake) -> None:
    assert cli("quality", "scores", "--json").json == []
    lake.quality.check()
    found = cli("quality", "scores", "bars_1m", *BTC, "--json").json
    assert [row["completeness"] for row in found] == [pytest.approx(1430 / 1440)]
    assert "0.993056" in cli("quality", "scores", "bars_1m", *BTC).out


def test_the_report_as_json_parses_back_and_html_is_a_page(
    cli: Cli, lake: Lake, tmp_path: Path
) -> None:
    nothing = cli("quality", "report", "--json")
    assert (nothing.code, nothing.error["code"]) == (3, "quality")
    lake.quality.check()
    done = cli("quality", "report", "--json", "--html", str(tmp_path / "report.html"))
    assert done.code == 0
    made = from_json(done.out.encode())
    assert made.totals.missing.unknown == 10
    assert made.totals.rows == lake.quality.scores()["rows"].sum()
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    table = cli("quality", "report")
    assert "BTC/USDT" in table.out
    assert "Real losses: 10." in table.err
    failed = cli("quality", "report", "--html", str(tmp_path / "no" / "report.html"), "--json")
    assert failed.code != 0
    assert "cannot be written" in failed.error["message"]


def test_a_bundle_reports_what_was_pinned(cli: Cli, lake: Lake) -> None:
    assert cli("bundle", "pin", "part", "bars_1m", *BTC, "-q").code == 0
    lake.write("bars_1m", bars(1440))
    made = from_json(cli("quality", "report", "--bundle", "part", "--json").out.encode())
    assert made.totals.missing.unknown == 10
    assert made.bundle_id == lake.bundles.open("part").id
    assert cli("bundle", "pin", "blind", "bars_1m", "--no-check", "-q").code == 0
    failed = cli("quality", "report", "--bundle", "blind", "--json")
    assert failed.code == 3
    assert "pinned without a check" in failed.error["message"]


def test_a_bundle_says_how_good_it_is_and_where_that_is_explained(cli: Cli, lake: Lake) -> None:
    pinned = cli("bundle", "pin", "part", "bars_1m", *BTC)
    words = "Quality score 0.993055: `lake quality report --bundle part` explains it."
    assert words in pinned.err
    assert words in cli("bundle", "show", "part").err
    named = cli("bundle", "show", "part", "--lake", str(lake.root.path)).err
    assert f"`lake quality report --bundle part --lake {lake.root.path}` explains it." in named
    assert "Quality" not in cli("bundle", "pin", "blind", "bars_1m", "--no-check").err
    listed = {row["name"]: row["score"] for row in cli("bundle", "ls", "--json").json}
    assert listed == {"part": pytest.approx(1430 / 1440), "blind": None}


@pytest.mark.usefixtures("lake")
def test_the_gate_of_a_pin_exits_with_3(cli: Cli) -> None:
    gate = ("--min-quality", "0.999", "--json")
    failed = cli("bundle", "pin", "part", "bars_1m", *BTC, *gate)
    assert failed.code == 3
    assert failed.error["code"] == "quality"
    passed = cli("bundle", "pin", "part", "bars_1m", "-s", "ETH/USDT", *gate)
    assert passed.code == 0
    manifest = json.loads(cli("bundle", "show", "part", "--json").out)
    assert manifest["metadata"]["data_quality_score"] >= 0.999
    assert manifest["quality_report"] == "quality.json"
