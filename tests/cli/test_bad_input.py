"""Each bad input: what, where, what to do next, and the right exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lake.sandbox import Fault, Sandbox
from tests.cli.conftest import RANGE, Cli, Outcome

BARS = ("ingest", "bars", "-e", "binance", "-s", "BTC/USDT")


def _refused(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.code == code, outcome.err
    text = f"{outcome.error['message']} {outcome.error['hint']}"
    for word in words:
        assert word in text
    assert outcome.error["hint"]
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ingest bars -e binanse -s BTC/USDT --since 1d", ["binanse", "binance"]),
        ("ingest bars -e binance -s BTC/USDZ --since 1d", ["BTC/USDZ", "BTC/USDT"]),
        ("ingest bars -e binance -s BTCUSDT --since 1d", ["BTCUSDT", "BTC/USDT"]),
        ("ingest bars -t 7m -e binance -s BTC/USDT --since 1d", ["7m", "5m"]),
        ("ingest bars -t seven -e binance -s BTC/USDT --since 1d", ["seven", "1m"]),
        ("ingest funding -e binance -s BTC/USDT --since 1d", ["funding", "BTC/USDT"]),
        ("ingest barz -e binance -s BTC/USDT --since 1d", ["barz", "bars, funding"]),
        ("ingest coverage -e binance -s BTC/USDT --since 1d", ["coverage", "trades"]),
        ("ingest bars -s BTC/USDT --since 1d", ["exchange"]),
        ("ingest bars -e binance -s BTC/USDT", ["--since"]),
        ("ingest trades -t 1m -e binance -s BTC/USDT --since 1d", ["timeframe", "bars"]),
        ("ingest orderbooks -e binance", ["symbol"]),
        ("ingest orderbooks -e binance -s BTC/USDT --since 1d", ["cannot be fetched by range"]),
        ("ingest instruments -e binance --until 2h", ["cannot be fetched by range"]),
        ("ingest", ["nothing is covered"]),
        ("ingest bars -e binance -s BTC/USDT --since yesterday", ["yesterday", "7d"]),
        ("ingest bars -e binance -s BTC/USDT --since 2026-13-01", ["2026-13-01"]),
        ("ingest bars -e binance -s BTC/USDT --since 2999-01-01", ["2999", "future"]),
        ("ingest bars -e binance -s BTC/USDT --since 2d --until 2999-01-01", ["2999", "future"]),
        ("ingest bars -e binance -s BTC/USDT --since 1d --until 2d", ["reversed"]),
        ("describe barz", ["barz", "bars_1m, "]),
        ("sql SELECT", ["SELECT"]),
        ("tables --lake s3://bucket/x", ["s3"]),
        ("tables --json --csv", ["format"]),
        ("tables --config nowhere.toml", ["nowhere.toml"]),
        ("sandbox serve --recorded nowhere", ["nowhere"]),
    ],
)
def test_refused_with_exit_code_2(cli: Cli, command: str, words: list[str]) -> None:
    cli("init")
    _refused(cli(*command.split(), "--json"), 2, *words)
    assert not any(row["table"] == "bars_1m" for row in cli("tables", "--json").json)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sql|SELECT * FROM tradez", ["tradez", "trades"]),
        ("sql|SELECT error('boom')", ["boom"]),
        ("sql|SELECT 'x'::INT", ["x"]),
        ("sql|SELECT nope FROM trades", ["nope", "lake describe"]),
        ("sql|DELETE FROM trades", ["cannot write"]),
        ("sql|COPY trades TO 'x.csv'", ["COPY", "cannot write"]),
        ("sql|SELECT 1; SELECT 2", ["one query"]),
        ("sql|SELECT 1|--at|trades=99", []),
        ("sql|SELECT count(*) FROM trades|--at|trades=99", ["99", "0 to 2"]),
        ("sql|SELECT 1|--at|trades", ["TABLE=VERSION"]),
        ("sql|SELECT 1|--at|trades=1|--as-of|1h", ["--at and --as-of cannot be combined"]),
        ("sql|SELECT 1|--at|nope=1", ["there is no table 'nope'", "trades"]),
        ("describe|trades|-e|binanse|-s|BTC/USDT", ["binanse", "binance"]),
        ("describe|trades|-s|BTC/USDX", ["BTC/USDX", "BTC/USDT"]),
        ("sql|SELECT 1|--bundle|nine", ["nine", "one-day"]),
        ("sql|SELECT 1|--bundle|one-day|--at|trades=1", ["cannot be combined"]),
        ("bundle|show|nine", ["nine", "one-day"]),
        ("bundle|verify|ffffffff", ["ffffffff", "one-day"]),
        ("bundle|pin|x|funding", ["funding"]),
        ("bundle|pin|x|trades|-s|DOGE/USDT", ["DOGE/USDT"]),
        ("bundle|pin|x|trades|--since|2d|--until|3d", ["reversed"]),
        ("bundle|pin|../x|trades", ["../x"]),
        ("bundle|pin|one-day|trades", ["exists", "--move"]),
        ("audit|barz", ["barz"]),
    ],
)
def test_refused_on_a_filled_lake(cli: Cli, filled: Path, command: str, words: list[str]) -> None:
    outcome = cli(*command.split("|"), "--lake", str(filled), "--json")
    if words:
        _refused(outcome, 2, *words)
    else:
        assert outcome.code == 0


def test_malformed_command_lines_are_errors_of_usage(cli: Cli) -> None:
    for command in (["nope"], ["sql"], ["tables", "--nope"], ["ingest", "--depth", "0"]):
        outcome = cli(*command, "--json")
        assert outcome.code == 2
        assert json.loads(outcome.err.splitlines()[-1])["code"] == "usage"


def test_a_folder_that_is_no_lake(cli: Cli, tmp_path: Path) -> None:
    _refused(cli("status", "--json"), 2, "is not a lake", "lake init")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("irreplaceable")
    _refused(cli("init", str(tmp_path / "full"), "--json"), 2, "not an empty folder")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "irreplaceable"
    cli("init")
    _refused(cli("init", "--json"), 2, "is a lake already")


def test_a_lake_of_a_newer_format(cli: Cli, tmp_path: Path) -> None:
    cli("init")
    marker = tmp_path / "lake" / "lake.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "format": 99}))
    _refused(cli("tables", "--json"), 2, "format 99", "newer version")


def test_settings_that_are_none(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lake.toml").write_text("[http]\ntimeout = 3\n")
    _refused(cli("tables", "--json"), 2, "lake.toml", "http.timeout")
    (tmp_path / "lake.toml").unlink()
    monkeypatch.setenv("LAKE_URL", "x")
    _refused(cli("tables", "--json"), 2, "LAKE_URL", "LAKE_URI")


def test_a_malformed_dataset_file(cli: Cli, tmp_path: Path) -> None:
    cli("init")
    file = tmp_path / "lake" / "schemas" / "mine.toml"
    file.write_text('name = "mine"\n')
    outcome = cli("tables", "--json")
    assert outcome.code == 2
    assert str(file) in outcome.error["message"]
    assert "title" in outcome.error["message"]


def test_damaged_data_end_in_exit_code_3(cli: Cli, filled: Path, tmp_path: Path) -> None:
    lake = tmp_path / "copy"
    shutil.copytree(filled, lake)
    data = next((lake / "tables" / "trades").rglob("date=*/*.parquet"))
    data.write_bytes(data.read_bytes()[:100])
    at = ("--lake", str(lake), "--json")
    _refused(cli("sql", "SELECT sum(price) FROM trades", *at), 3, "missing or damaged")
    outcome = cli("bundle", "verify", "one-day", *at)
    _refused(outcome, 3, "differs from what was pinned: 1 damaged")
    assert [(row["kind"], row["place"]) for row in outcome.json] == [("damaged", str(data))]
    _refused(cli("sql", "SELECT * FROM trades", "--bundle", "one-day", *at), 3, data.name)
    assert cli("sql", "SELECT count(*) FROM bars_1m", *at).code == 0
    log = lake / "tables" / "bars_1m" / "_delta_log" / f"{1:020}.json"
    log.write_text("{")
    _refused(cli("sql", "SELECT count(*) FROM bars_1m", *at), 3, "bars_1m", "damaged")


def test_an_edited_manifest_is_named(cli: Cli, filled: Path, tmp_path: Path) -> None:
    lake = tmp_path / "copy"
    shutil.copytree(filled, lake)
    [path] = (lake / "bundles").glob("*/manifest.json")
    manifest = json.loads(path.read_text())
    manifest["bars"]["1m"]["rows"] += 1
    path.write_text(json.dumps(manifest))
    for verb in (("bundle", "verify", "one-day"), ("sql", "SELECT 1", "--bundle", "one-day")):
        _refused(cli(*verb, "--lake", str(lake), "--json"), 3, str(path))


def test_a_venue_that_stays_down_ends_in_exit_code_4(cli: Cli, exchange: Sandbox) -> None:
    cli("init")
    exchange.fail(Fault("503", match="klines", skip=6, times=10**6))
    try:
        outcome = cli(*BARS, "-t", "1m", "--since", "5d", "--json")
    finally:
        exchange.recover()
    assert outcome.code == 4
    assert outcome.error["code"] == "source_unavailable"
    assert "binance" in outcome.error["message"]
    [bars] = [row for row in cli("tables", "--json").json if row["table"] == "bars_1m"]
    assert bars["rows"] > 0
    assert cli(*BARS, *RANGE).code == 0


def test_nobody_at_the_url_ends_in_exit_code_4(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("init")
    monkeypatch.setenv("LAKE_EXCHANGES__BINANCE__URL", "http://127.0.0.1:9")
    outcome = cli(*BARS, *RANGE, "--json")
    _refused(outcome, 4, "binance")
