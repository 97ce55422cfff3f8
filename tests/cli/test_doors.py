"""The doors of the installed command: what it does not read, run, send or believe."""

from __future__ import annotations

import shlex
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.settings import Settings
from tests.bundles.archive.conftest import compress
from tests.cli.lake_process import run_lake
from tests.conftest import bars, trades, write

ODD = "A[/foo][bold]B\x1b[2J\u202eC"
SHOWN = r"A[/foo][bold]B\x1b[2J\u202eC"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake of two markets, one of an odd name, and a bundle `one`."""
    folder = tmp_path_factory.mktemp("doors")
    lake = Lake.create(Settings(uri=str(folder / "lake")))
    for symbol in ("BTC/USDT", ODD):
        write(lake, "trades", trades(3, symbol=symbol))
        write(lake, "bars_1m", bars(symbol=symbol))
    lake.write("trades", trades(1, symbol="L" * 300))
    lake.bundles.pin("one", note=ODD, table=["trades", "bars_1m"])
    (folder / "home").mkdir()
    return folder


def test_a_found_file_does_not_get_the_key_of_another_origin(folder: Path) -> None:
    cloned = folder / "cloned"
    cloned.mkdir()
    (cloned / "lake.toml").write_text('[exchanges.binance]\nurl = "https://elsewhere.example"\n')
    uri = {"LAKE_URI": str(folder / "lake"), "LAKE_EXCHANGES__BINANCE__API_KEY": "planted-5e"}
    refused = run_lake(cloned, "status", **uri)
    assert refused.code == 2
    assert "would get the api_key of" in refused.err
    assert str(cloned / "lake.toml") in refused.err
    assert "5e" not in refused.err + refused.out


def test_sql_reads_the_lake_and_opened_folders_only(folder: Path) -> None:
    own = folder / "own"
    own.mkdir()
    (own / "mine.csv").write_text("name\nhidden\n")
    for text in ("read_text('/proc/self/environ')", f"read_csv('{own}/mine.csv')"):
        refused = run_lake(folder, "sql", f"SELECT * FROM {text}")  # noqa: S608
        assert (refused.code, refused.out) == (2, "")
        assert "--allow-files" in refused.err
    read = run_lake(folder, "sql", f"FROM '{own}/mine.csv'", "--allow-files", str(own), "--csv")
    assert read.out == "name\nhidden\n"


@pytest.mark.parametrize(
    "command",
    [
        "sql 'SELECT DISTINCT symbol FROM trades'",
        "status",
        "describe trades --symbol '{ODD}'",
        "quality check trades",
        "bundle ls",
        "bundle show one",
        "bundle diff one one",
        "replay one",
        "audit commits",
        "ingest bars -e binance -s '{ODD}' --since 2024-01-01 --until 2024-01-02",
        "sql \"SELECT * FROM trades WHERE symbol = '{ODD}'\"",
        "sql \"SELECT error('{ODD}')\"",
        "describe '{ODD}'",
        "bundle show '{ODD}'",
    ],
)
def test_text_from_outside_is_text(folder: Path, command: str) -> None:
    arguments = [part.replace("{ODD}", ODD) for part in shlex.split(command)]
    offline = {"LAKE_EXCHANGES__BINANCE__URL": "http://127.0.0.1:9", "LAKE_RETRY__ATTEMPTS": "1"}
    shown = run_lake(folder, *arguments, **offline)
    assert "\x1b" not in shown.out + shown.err
    assert "\u202e" not in shown.out + shown.err
    assert "Traceback" not in shown.err
    assert shown.code in {0, 2, 3, 4}, shown.err


def test_the_odd_name_is_shown_as_it_is_stored(folder: Path) -> None:
    shown = run_lake(folder, "sql", "SELECT DISTINCT symbol FROM trades WHERE symbol LIKE 'A%'")
    assert SHOWN in shown.out


def test_a_name_that_the_store_cannot_carry_is_in_quarantine(folder: Path) -> None:
    read = run_lake(folder, "sql", "SELECT reason FROM quarantine", "--csv")
    assert read.out == "reason\nsymbol_unstorable\n"


def test_an_exported_folder_with_a_link_is_refused(folder: Path) -> None:
    exported = folder / "exported"
    assert run_lake(folder, "bundle", "export", "one", str(exported), "-q").code == 0
    file = next(file for file in exported.rglob("*.parquet") if "exchange=" in str(file))
    moved = folder / "moved.parquet"
    file.rename(moved)
    file.symlink_to(moved)
    for command in ("import", "verify"):
        refused = run_lake(folder, "bundle", command, str(exported), LAKE_URI=str(folder / "lake"))
        assert refused.code in {2, 3}
        assert "Traceback" not in refused.err


def test_an_archive_that_unpacks_to_very_much_is_refused(folder: Path) -> None:
    bomb = folder / "bomb.tar.zst"
    bomb.write_bytes(compress(bytes(300_000_000)))
    refused = run_lake(folder, "bundle", "import", str(bomb), before=["prlimit", "--as=8000000000"])
    assert refused.code == 3
    assert "bomb.tar.zst" in refused.err


def test_urls_are_shown_without_their_secrets(folder: Path) -> None:
    urls = {
        "LAKE_EXCHANGES__BINANCE__URL": "https://user:planted-5e@mine.example",
        "LAKE_EXCHANGES__BINANCE__FALLBACK_URL": "https://mine.example/x?token=planted-5e",
    }
    shown = run_lake(folder, "config", **urls)
    assert shown.code == 0, shown.err
    assert "mine.example" in shown.out
    assert "5e" not in shown.out + shown.err


def test_a_lake_does_not_run_the_code_of_its_maker(folder: Path) -> None:
    maker = folder / "maker"
    maker.mkdir()
    Lake.create(Settings(uri=str(maker / "lake")))
    write(Lake(Settings(uri=str(maker / "lake"))), "trades", trades(3))
    (maker / "theirs.py").write_text("open('ran', 'w').close()\n")
    schema = "[checks.theirs]\nseverity = 'warning'\npython = 'theirs:check'\n"
    (maker / "lake.toml").write_text(schema.replace("[checks.", "[quality.checks.trades."))
    refused = run_lake(maker, "quality", "check", "trades", PYTHONPATH=str(maker))
    assert refused.code == 2, refused.err
    assert "quality.python_modules" in refused.err
    assert not (maker / "ran").exists()


BUG = """
import lake.api.lake
def fail(self):
    secret = self._context.settings.exchanges['okx'].secret.get_secret_value()
    raise RuntimeError('no \\x1b[2J way:\\n' + secret)
lake.api.lake.Lake.tables = fail
"""


@pytest.mark.parametrize("verbose", ["", "--verbose"])
def test_what_no_command_expects_is_one_line(folder: Path, verbose: str) -> None:
    more = [verbose] if verbose else []
    key = {"LAKE_EXCHANGES__OKX__SECRET": "planted-5e"}
    shown = run_lake(folder, "tables", *more, program=BUG, **key)
    assert shown.code == 1
    assert "unexpected RuntimeError: no \\x1b[2J way: ***" in shown.err
    assert ("Traceback" in shown.err) == bool(verbose)
    assert "5e" not in shown.err
    if not verbose:
        assert len(shown.err.splitlines()) == 2
        assert "--verbose" in shown.err


def test_a_folder_as_the_name_of_a_bundle_is_an_error(tmp_path: Path) -> None:
    lake = Lake.create(Settings(uri=str(tmp_path / "lake")))
    write(lake, "trades", trades(3))
    lake.bundles.pin("one", table="trades")
    (lake.root.path / "bundles" / "names" / "two").mkdir()
    assert run_lake(tmp_path, "bundle", "verify", "one").code == 0
    for arguments in (["ls"], ["show", "two"], ["pin", "two", "trades"]):
        shown = run_lake(tmp_path, "bundle", *arguments)
        assert shown.code == 2, shown.err
        assert "a folder where a file should be" in shown.err
        assert "Traceback" not in shown.err


def test_a_pin_of_damaged_files_is_an_error(tmp_path: Path) -> None:
    lake = Lake.create(Settings(uri=str(tmp_path / "lake")))
    write(lake, "trades", pl.concat([trades(3), trades(3, symbol="ETH/USDT")]))
    for file in sorted((lake.root.tables / "trades").rglob("*.parquet")):
        content = file.read_bytes()
        for change in (file.unlink, lambda file=file: file.write_bytes(b"ruined" * 99)):
            change()
            shown = run_lake(tmp_path, "bundle", "pin", "one", "trades", "--no-check")
            assert shown.code == 3, shown.err
            assert "nothing was pinned" in shown.err
            assert "Traceback" not in shown.err
        file.write_bytes(content)
