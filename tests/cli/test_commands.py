"""Each command does what its help says, and prints data on stdout alone."""

from __future__ import annotations

import io
import json
from pathlib import Path

import polars as pl
import pytest

from lake.sandbox import Sandbox
from tests.cli.conftest import RANGE, SINCE, UNTIL, Cli

MINUTES_A_DAY = 1440


def test_init_makes_a_lake_and_names_it_for_the_folder(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAKE_URI")
    made = cli("init", "mine", "--json")
    assert (made.code, made.json["lake"]) == (0, str(tmp_path / "mine"))
    assert (tmp_path / "lake.toml").read_text() == 'uri = "mine"\n'
    listed = cli("tables", "--json")
    assert (listed.code, listed.json) == (0, [])


def test_init_with_another_granularity(cli: Cli) -> None:
    assert cli("init", "--granularity", "funding=month").code == 0
    refused = cli("init", "--granularity", "funding=week", "--json")
    assert (refused.code, refused.error["code"]) == (2, "usage")


def test_migrate_lists_steps_and_makes_them_when_asked(cli: Cli) -> None:
    cli("init")
    assert "Nothing to migrate." in cli("migrate").err
    cli("ingest", "funding", "-e", "binance", "-s", "BTC/USDT:USDT", *RANGE)
    listed = cli("migrate", "--granularity", "funding=month", "--json")
    step = {"table": "funding", "step": "granularity", "before": "year", "after": "month"}
    assert [{key: row[key] for key in step} for row in listed.json] == [step]
    assert "1 step to make with --apply" in listed.err
    assert "kept by exchange, symbol and year. Other" in cli("describe", "funding").err
    made = cli("migrate", "--granularity", "funding=month", "--apply")
    assert (made.code, "Made 1 step." in made.err) == (0, True)
    assert "kept by exchange, symbol and month. Other" in cli("describe", "funding").err
    assert cli("migrate", "--json").json == []
    refused = cli("migrate", "--granularity", "funding=week", "--json")
    assert (refused.code, refused.error["code"]) == (2, "usage")


def test_migrate_says_how_a_table_will_be_kept_that_is_not_stored_yet(cli: Cli) -> None:
    cli("init")
    command = ("migrate", "--granularity", "funding=month")
    assert cli(*command).err == (
        "funding is not stored yet: with --apply, it will be kept by month.\n"
    )
    assert "kept by exchange, symbol and year" in cli("describe", "funding").err
    assert cli(*command, "--apply").err == "funding is not stored yet: it will be kept by month.\n"
    assert "kept by exchange, symbol and month" in cli("describe", "funding").err


def test_ingest_tells_what_became_of_the_rows(cli: Cli) -> None:
    cli("init")
    done = cli("ingest", "bars", "-e", "binance", "-s", "BTC/USDT", *RANGE, "--json")
    assert done.code == 0
    rows = {row["table"]: row for row in done.json}
    assert rows["bars_1m"]["inserted"] == MINUTES_A_DAY
    assert "rows in" in done.err
    again = cli("ingest", "bars", "-e", "binance", "-s", "BTC/USDT", *RANGE, "--json")
    assert (again.code, again.json) == (0, [])
    assert "the whole range is covered" in again.err


def test_ingest_of_several_timeframes_and_snapshots(cli: Cli) -> None:
    cli("init")
    several = ["bars", "-t", "1h", "-t", "1d", "orderbooks", "instruments", "--depth", "5"]
    done = cli("ingest", *several, "-e", "binance", "-s", "BTC/USDT", *RANGE, "--json")
    assert done.code == 0
    counts = {row["table"]: row["rows"] for row in done.json}
    assert (counts["bars_1h"], counts["bars_1d"], counts["orderbooks"]) == (24, 1, 1)


def test_ingest_without_anything_goes_on_with_what_is_covered(cli: Cli) -> None:
    cli("init")
    cli("ingest", "funding", "-e", "binance", "-s", "BTC/USDT:USDT", *RANGE)
    done = cli("ingest", "--json")
    assert done.code == 0
    [status] = cli("status", "--json").json
    assert status["covered_since"] == f"{SINCE:%Y-%m-%d}T00:00:00Z"
    assert status["covered_until"] > f"{UNTIL:%Y-%m-%d}T00:00:00Z"


def test_tables_describe_status_and_audit(cli: Cli, filled: Path) -> None:
    at = ("--lake", str(filled), "--json")
    tables = {row["table"]: row for row in cli("tables", *at).json}
    assert tables["bars_1m"]["rows"] == 2 * MINUTES_A_DAY
    assert tables["bars_1m"]["first"] == f"{SINCE:%Y-%m-%d}T00:00:00Z"
    columns = {row["column"]: row for row in cli("describe", "bars_1m", *at).json}
    assert columns["volume"]["unit"] == "base"
    assert columns["timestamp"]["key"]
    status = cli("status", *at).json
    assert {row["symbol"] for row in status} == {"BTC/USDT", "ETH/USDT"}
    assert all(row["holes"] == 0 for row in status)
    audit = cli("audit", "bars_1m", *at).json
    assert [row["inserted"] for row in audit] == [MINUTES_A_DAY, MINUTES_A_DAY, None]
    jobs = cli("audit", "--jobs", *at).json
    assert {row["status"] for row in jobs} == {"ok"}


QUERY = "SELECT timestamp, symbol, close FROM bars_1m ORDER BY timestamp, symbol LIMIT 3"


def test_sql_in_every_format_says_the_same(cli: Cli, filled: Path, tmp_path: Path) -> None:
    at = ("sql", QUERY, "--lake", str(filled))
    rows = cli(*at, "--json").json
    assert rows[0]["timestamp"] == f"{SINCE:%Y-%m-%d}T00:00:00Z"
    assert len(rows) == 3
    lines = cli(*at, "-o", "ndjson").out.splitlines()
    assert [json.loads(line) for line in lines] == rows
    csv = pl.read_csv(io.StringIO(cli(*at, "--csv").out))
    assert csv.rows(named=True) == rows
    table = cli(*at)
    assert all(f"{row['close']:.12g}" in table.out for row in rows)
    assert "\x1b" not in table.out
    file = tmp_path / "rows.parquet"
    assert cli(*at, "--to", str(file)).code == 0
    assert pl.read_parquet(file)["close"].to_list() == [row["close"] for row in rows]


def test_sql_prints_values_of_every_kind(cli: Cli, filled: Path) -> None:
    query = (
        "SELECT 1::HUGEINT AS big, INTERVAL 1 DAY AS span, [1, 2] AS list, NULL AS nothing, "
        "DATE '2026-01-02' AS day, TIMESTAMPTZ '2026-01-02 03:04:05.5Z' AS time, {'a': 1} AS item"
    )
    for style in ("json", "ndjson", "csv", "table"):
        shown = cli("sql", query, "--lake", str(filled), "-o", style)
        assert shown.code == 0, shown.err
        assert "2026-01-02T03:04:05.5" in shown.out


def test_sql_at_a_version(cli: Cli, filled: Path) -> None:
    query = ("sql", "SELECT count(*) AS n FROM bars_1m", "--lake", str(filled), "--json")
    assert cli(*query).json == [{"n": 2 * MINUTES_A_DAY}]
    assert cli(*query, "--at", "bars_1m=1").json == [{"n": MINUTES_A_DAY}]
    assert cli(*query, "--at", "bars_1m=0").json == [{"n": 0}]
    assert cli(*query, "--bundle", "one-day").json == [{"n": 2 * MINUTES_A_DAY}]


def test_bundles_are_listed_shown_and_verified(cli: Cli, filled: Path) -> None:
    at = ("--lake", str(filled))
    [listed] = cli("bundle", "ls", *at, "--json").json
    assert (listed["name"], listed["datasets"]) == ("one-day", "bars_1m, trades")
    manifest = cli("bundle", "show", "one-day", *at, "--json").json
    assert manifest["id"] == listed["id"]
    assert set(manifest["bars"]) == {"1m"}
    shown = cli("bundle", "show", listed["id"][:10], *at)
    assert "lake.open_bundle" in shown.err
    assert cli("bundle", "verify", "one-day", *at, "--json").json == []


def test_config_shows_values_origins_and_masks_secrets(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE_EXCHANGES__BINANCE__SECRET", "hunter2")
    rule = '[[alerts.rules]]\nname = "bad"\nseverity = "error"\nchannels = ["log"]\n'
    (tmp_path / "lake.toml").write_text(f"[retry]\nattempts = 3\n{rule}")
    monkeypatch.delenv("LAKE_RETRY__ATTEMPTS")
    shown = cli("config", "--json")
    settings = {row["setting"]: row for row in shown.json}
    assert settings["retry.attempts"]["origin"] == str(tmp_path / "lake.toml")
    assert settings["http.rate_limit"] == {
        "setting": "http.rate_limit",
        "value": "False",
        "origin": "environment",
    }
    assert settings["http.max_answer_bytes"]["origin"] == "default"
    assert settings["exchanges.binance.secret"]["value"] == "**********"
    assert "hunter2" not in shown.out
    severity = settings["alerts.rules.bad.severity"]
    assert (severity["value"], severity["origin"]) == ("error", str(tmp_path / "lake.toml"))
    assert settings["alerts.rules.bad.min_findings"]["origin"] == "default"


def test_options_count_before_and_after_the_verb(cli: Cli, filled: Path) -> None:
    before = cli("--json", "--lake", str(filled), "tables")
    after = cli("tables", "--json", "--lake", str(filled))
    assert (before.code, before.json) == (after.code, after.json)


def test_quiet_says_nothing_on_stderr(cli: Cli) -> None:
    cli("init")
    done = cli("ingest", "bars", "-e", "binance", "-s", "BTC/USDT", *RANGE, "-q")
    assert (done.code, done.err) == (0, "")


def test_the_demo_shows_a_revision_that_the_pin_does_not_see(cli: Cli, tmp_path: Path) -> None:
    done = cli("demo", str(tmp_path / "demo"))
    assert done.code == 0
    [latest] = [line.split() for line in done.out.splitlines() if "latest" in line]
    [pinned] = [line.split() for line in done.out.splitlines() if "at the pin" in line]
    assert float(latest[-1]) > float(latest[-2])
    assert pinned[-1] == pinned[-2] == latest[-2]


def test_a_revision_arrives_by_refetch(cli: Cli, exchange: Sandbox) -> None:
    cli("init")
    command = ("ingest", "bars", "-e", "binance", "-s", "ETH/USDT", *RANGE)
    cli(*command)
    exchange.revise("ETH/USDT", "1m", SINCE, close="1", low="1")
    done = cli(*command, "--refetch", "--json")
    assert [(row["inserted"], row["updated"]) for row in done.json] == [(0, 1)]
