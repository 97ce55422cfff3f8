"""What other engines wrote into a log is read for what it says, and breaks nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lake.api import Lake
from lake.errors import DamagedError
from lake.store.log import locate_log_file, parse_metadata, read_commit_time, read_commits
from tests.conftest import trades


@pytest.fixture
def filled(lake: Lake) -> Lake:
    lake.write("trades", trades(3))
    return lake


def commit(lake: Lake, *actions: dict[str, Any]) -> dict[str, Any]:
    """Commit by hand, and give what the audit says of it."""
    table = lake.root.tables / "trades"
    lines = (json.dumps(action, separators=(",", ":")) + "\n" for action in actions)
    locate_log_file(table, 2).write_text("".join(lines))
    return lake.audit("trades", limit=1).row(0, named=True)


@pytest.mark.parametrize("metadata", ["by hand", "[1]", '{"job": 5}', '{"by": "hand"}', 7])
def test_a_commit_of_another_engine_has_no_job(filled: Lake, metadata: object) -> None:
    row = commit(
        filled,
        {"commitInfo": {"timestamp": 1_700_000_000_000, "userMetadata": metadata}},
        {"txn": {"appId": "another", "version": 1}},
    )
    assert (row["version"], row["job"], row["source"]) == (2, None, None)
    assert parse_metadata({"userMetadata": metadata}) == {}
    assert filled.audit("trades")["job"].null_count() == 2  # and the table's first commit


@pytest.mark.parametrize("info", [[], [{"commitInfo": {"timestamp": "2024-01-01"}}]])
def test_where_a_commit_has_no_time_that_of_its_file_counts(
    filled: Lake, info: list[dict[str, Any]]
) -> None:
    row = commit(filled, *info, {"txn": {"appId": "another", "version": 1}})
    table = filled.root.tables / "trades"
    written = locate_log_file(table, 2).stat().st_mtime
    assert row["time"].timestamp() == pytest.approx(written, abs=0.002)
    assert [entry.version for entry in read_commits(table)] == [0, 1, 2]
    assert read_commit_time(table, 2) == list(read_commits(table))[2].time == row["time"]


def test_counts_of_spark_are_counts(filled: Lake) -> None:
    metrics = {"numTargetRowsInserted": "5", "numTargetRowsUpdated": "2"}
    info = {"timestamp": 1_700_000_000_000, "operation": "MERGE", "operationMetrics": metrics}
    row = commit(filled, {"commitInfo": info})
    assert (row["inserted"], row["updated"], row["deleted"]) == (5, 2, None)


@pytest.mark.parametrize("text", ["", "{", '{"commitInfo":[1]}\n', '{"commitInfo":\n'])
def test_a_commit_that_is_no_json_is_damage(filled: Lake, text: str) -> None:
    table = filled.root.tables / "trades"
    locate_log_file(table, 2).write_text(text)
    with pytest.raises(DamagedError, match="table trades: commit 2 cannot be read"):
        read_commit_time(table, 2)
    with pytest.raises(DamagedError, match="table trades: commit 2 cannot be read"):
        filled.audit("trades")
