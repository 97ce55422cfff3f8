"""Where one table cannot be read, a command shows what it did for the others, and ends in 3."""

from __future__ import annotations

import pytest

from lake.api import Lake
from tests.cli.conftest import Cli
from tests.conftest import DAY, T0, bars, trades, write


@pytest.fixture
def damaged(lake: Lake) -> Lake:
    """A lake with two days of bars in several files, and trades whose first commit is damaged."""
    for day in range(2):
        for hour in range(2):
            write(lake, "bars_1m", bars(3, start=T0 + day * DAY + hour * DAY / 24))
    write(lake, "trades", trades(3))
    log = lake.root.tables / "trades" / "_delta_log"
    for entry in log.glob("*.json"):
        entry.write_text("{")
    return lake


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("maintain optimize", "files_before"),
        ("maintain vacuum --dry-run --keep 1h", None),
        ("audit bars_1m trades", "operation"),
    ],
)
def test_what_was_done_for_other_tables_is_shown(
    cli: Cli, damaged: Lake, command: str, shown: str | None
) -> None:
    done = cli(*command.split(), "--lake", str(damaged.root.path), "--json")
    assert done.code == 3
    assert "table trades" in done.err
    assert isinstance(done.json, list)
    if shown is not None:
        assert {row["table"] for row in done.json} >= {"bars_1m"}
        assert all(shown in row for row in done.json)
