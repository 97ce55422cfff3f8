"""SQL reads the lake, or the bundle, and nothing else."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pytest

from lake.api import Lake
from lake.errors import LakeError, UnknownNameError, UsageError
from lake.query.sql import fetch_batches
from tests.conftest import bars, trades, write

ELSEWHERE = [
    "SELECT content FROM read_text('/proc/self/environ')",
    "SELECT content FROM read_blob('{own}/secret.csv')",
    "SELECT * FROM read_csv('{own}/secret.csv')",
    "SELECT * FROM '{own}/secret.csv'",
    "SELECT * FROM glob('{own}/*')",
    "SELECT * FROM sniff_csv('{own}/secret.csv')",
    "SELECT * FROM query('SELECT * FROM read_text(''{own}/secret.csv'')')",
    "SELECT * FROM read_csv('{lake}/tables/trades/../../../own/secret.csv')",
    "SELECT * FROM read_parquet('https://127.0.0.1:1/x.parquet')",
    "SELECT * FROM trades, read_csv('{own}/secret.csv')",
    "EXPLAIN ANALYZE SELECT * FROM read_csv('{own}/secret.csv')",
]


@pytest.fixture
def own(lake: Lake, tmp_path: Path) -> Path:
    write(lake, "trades", trades(3))
    write(lake, "bars_1m", bars())
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "secret.csv").write_text("key\nhidden\n")
    return folder


@pytest.mark.parametrize("text", ELSEWHERE)
def test_a_query_reads_nothing_outside_the_lake(lake: Lake, own: Path, text: str) -> None:
    text = text.format(own=own, lake=lake.root.path)
    with pytest.raises(UsageError) as caught:
        list(fetch_batches(lake.sql(text), 10))
    assert "hidden" not in str(caught.value)
    assert "--allow-files" in caught.value.hint


@pytest.mark.parametrize("text", ELSEWHERE)
def test_a_query_reads_nothing_outside_a_bundle(lake: Lake, own: Path, text: str) -> None:
    bundle = lake.bundles.pin("pinned", table="trades")
    with pytest.raises(UsageError):
        list(fetch_batches(bundle.sql(text.format(own=own, lake=lake.root.path)), 10))


def test_a_query_reads_no_folder_of_the_working_directory(
    lake: Lake, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own)
    (own / ".tmp").mkdir()
    (own / ".tmp" / "secret.txt").write_text("hidden")
    with pytest.raises(UsageError, match="Cannot access"):
        lake.sql("SELECT content FROM read_text('.tmp/secret.txt')")


@pytest.mark.usefixtures("own")
def test_a_query_sees_no_variables_of_python(lake: Lake) -> None:
    hidden = pl.DataFrame({"key": ["hidden"]})
    with pytest.raises(UnknownNameError, match="hidden does not exist"):
        lake.sql("SELECT * FROM hidden")
    assert hidden.height == 1


@pytest.mark.parametrize(
    "text",
    [
        "SET enable_external_access = true",
        "SELECT set_config('enable_external_access', 'true')",
        "RESET allowed_directories",
        "ATTACH '/tmp/other.db'",
        "COPY trades TO '{own}/out.csv'",
        "INSTALL httpfs",
        "LOAD httpfs",
    ],
)
def test_no_statement_opens_it_again(lake: Lake, own: Path, text: str) -> None:
    with pytest.raises(LakeError):
        lake.sql(text.format(own=own)).fetchall()
    assert not (own / "out.csv").exists()


def test_a_relation_stays_confined(lake: Lake, own: Path) -> None:
    relation = lake.sql("SELECT * FROM trades")
    text = f"SELECT * FROM read_csv('{own}/secret.csv')"  # noqa: S608
    with pytest.raises(duckdb.PermissionException, match="disabled by configuration"):
        relation.query("t", text)


@pytest.mark.parametrize("text", ["read_csv('{own}/secret.csv')", "'{own}/secret.csv'"])
def test_a_folder_of_own_files_can_be_opened(lake: Lake, own: Path, text: str) -> None:
    text = f"SELECT key, count(*) FROM trades, {text.format(own=own)} GROUP BY key"  # noqa: S608
    assert lake.sql(text, allow_files=[own]).fetchall() == [("hidden", 3)]
    bundle = lake.bundles.pin("pinned", table="trades")
    assert bundle.sql(text, allow_files=[own]).fetchall() == [("hidden", 3)]


def test_a_relative_folder_can_be_opened(
    lake: Lake, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.parent)
    text = "SELECT key FROM 'own/secret.csv'"
    assert lake.sql(text, allow_files=["own"]).fetchall() == [("hidden",)]
    assert lake.sql("SELECT key FROM 'own/secret.csv'", allow_files=["."]).fetchall() == [
        ("hidden",)
    ]


def test_a_folder_that_is_not_there_is_refused(lake: Lake, own: Path) -> None:
    with pytest.raises(UsageError, match=r"secret\.csv is not a folder"):
        lake.sql("SELECT 1", allow_files=[own / "secret.csv"])
