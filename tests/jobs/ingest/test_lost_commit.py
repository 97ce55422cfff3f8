"""What a power cut can leave: coverage that counts rows of a commit that is not there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from lake.api import Lake
from lake.errors import DamagedError, QualityError
from lake.store.log import locate_log_file, read_latest_version
from tests.jobs.conftest import NOW, MakeLake

SINCE = NOW.replace(hour=0, minute=0, second=0)
HOUR = timedelta(hours=1)


def ingest(lake: Lake, until_hour: int, *, refetch: bool = False) -> None:
    lake.ingest(
        "bars_1m",
        exchange="binance",
        symbol="BTC/USDT",
        since=SINCE,
        until=SINCE + until_hour * HOUR,
        refetch=refetch,
    )


def last_commit(lake: Lake) -> Path:
    folder = lake.root.tables / "bars_1m"
    return locate_log_file(folder, read_latest_version(folder))


@pytest.fixture
def filled(make_lake: MakeLake) -> Lake:
    lake = make_lake()
    ingest(lake, 1)
    ingest(lake, 2)
    return lake


def test_nothing_goes_on_with_an_empty_commit(filled: Lake) -> None:
    file = last_commit(filled)
    file.write_bytes(b"")
    later = Lake(filled.settings, now=lambda: NOW)
    for attempt in (
        lambda: ingest(later, 2),
        lambda: ingest(later, 3),
        lambda: later.bundles.pin("b", table="bars_1m", check=False),
        lambda: later.maintenance.optimize("bars_1m"),
        lambda: later.sql("SELECT * FROM bars_1m").fetchall(),
        lambda: later.quality.check("bars_1m"),
    ):
        with pytest.raises(DamagedError, match=f"commit 2 .*{file}"):
            attempt()
    assert later.status().filter(table="bars_1m")["rows"].to_list() == [None], "unknown, not 60"


def test_its_rows_are_missed_and_can_be_fetched_again(filled: Lake) -> None:
    commit = last_commit(filled)
    commit.unlink()
    later = Lake(filled.settings, now=lambda: NOW)
    assert later.status()["rows_missing"].to_list() == [60]
    with pytest.raises(QualityError, match="has 60 of 120 rows"):
        later.bundles.pin("b", table="bars_1m", check=False, require_complete=True)
    with pytest.raises(DamagedError, match="version 2 was committed and is not in the log"):
        ingest(later, 2, refetch=True)
    (commit.parents[1] / "_checksums" / f"{commit.stem}.sha256").unlink()
    ingest(later, 2, refetch=True)
    assert later.status()["rows_missing"].to_list() == [0]
    assert later.bundles.pin("b", table="bars_1m", check=False, require_complete=True)
    assert later.maintenance.verify().is_intact
