"""Values are shown as they are: markup, control characters, bytes and nested values."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from tests.cli.conftest import Cli

NESTED = (
    "SELECT 'a\\x00'::BLOB AS bytes, ['z'::BLOB, NULL] AS list, "
    "{'k': 'q'::BLOB, 't': [TIMESTAMPTZ '2020-01-01 00:00:00+01']} AS item, [1, 2] AS numbers "
    "UNION ALL SELECT NULL, NULL, NULL, NULL"
)


def test_bytes_and_nested_values_are_written_in_every_format(cli: Cli, filled: Path) -> None:
    at = ("sql", NESTED, "--lake", str(filled))
    first, second = cli(*at, "--json").json
    assert first == {
        "bytes": "6100",
        "list": ["7a", None],
        "item": {"k": "71", "t": ["2019-12-31T23:00:00Z"]},
        "numbers": [1, 2],
    }
    assert set(second.values()) == {None}
    lines = cli(*at, "-o", "ndjson").out.splitlines()
    assert [json.loads(line) for line in lines] == [first, second]
    rows = list(csv.DictReader(io.StringIO(cli(*at, "--csv").out)))
    nested = {name: json.loads(rows[0][name]) for name in ("list", "item", "numbers")}
    assert {"bytes": rows[0]["bytes"], **nested} == first
    assert set(rows[1].values()) == {""}
    assert "{k: 71, t: 2019-12-31T23:00:00Z}" in cli(*at).out


def test_markup_and_controls_in_cells_are_text(cli: Cli, filled: Path) -> None:
    query = "SELECT '[/foo] [bold]x[/bold] :smile: ' || chr(27) || '[2J' || chr(8238) AS \"[/b]\""
    shown = cli("sql", query, "--lake", str(filled))
    assert shown.code == 0, shown.err
    assert r"[/foo] [bold]x[/bold] :smile: \x1b[2J\u202e" in shown.out
    assert "[/b]" in shown.out
    (row,) = cli("sql", query, "--lake", str(filled), "--json").json
    assert row["[/b]"].endswith("\x1b[2J\u202e"), "data stay as they are"


def test_an_error_shows_a_name_as_text(cli: Cli, filled: Path) -> None:
    shown = cli("describe", "[/foo]\x1b[2J", "--lake", str(filled))
    assert shown.code == 2
    assert r"[/foo]\x1b[2J" in shown.err
    assert "\x1b" not in shown.err


def test_a_query_that_fails_writes_nothing(cli: Cli, filled: Path) -> None:
    shown = cli("sql", "SELECT error('no')", "--lake", str(filled), "--json")
    assert (shown.code, shown.out) == (2, "")
