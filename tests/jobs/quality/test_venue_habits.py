"""Habits of venues, asked by the real client: days that begin at 16:00 UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.model.time import to_ms
from lake.settings import load_settings
from tests.jobs.quality.venues import Answer, htx, serving

NOW = datetime(2024, 3, 1, 12, 0, 30, tzinfo=UTC)
pytestmark = pytest.mark.slow
SINCE, UNTIL = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 21, tzinfo=UTC)
GONE = datetime(2024, 1, 10, 16, tzinfo=UTC)


def ingest(path: Path, answer: Answer, *tables: str) -> Lake:
    with serving(answer, NOW) as url:
        settings = load_settings(
            {
                "uri": str(path),
                "http": {"rate_limit": False, "timeout_seconds": 5.0},
                "retry": {"attempts": 2, "wait_initial_seconds": 0.001, "wait_max_seconds": 0.01},
                "exchanges": {"htx": {"url": url}},
            }
        )
        lake = Lake.create(settings, now=lambda: NOW)
        for table in tables:
            lake.ingest(table, exchange="htx", symbol="BTC/USDT", since=SINCE, until=UNTIL)
    return lake


@pytest.mark.parametrize(("table", "count"), [("bars_1d", 20), ("bars_1w", 3)])
def test_bars_of_the_venues_own_days_and_weeks_are_no_errors(
    tmp_path: Path, table: str, count: int
) -> None:
    lake = ingest(tmp_path / "lake", htx(NOW), table)
    assert lake.scan(table).collect().height == count
    assert lake.quality.check().findings.is_empty()
    assert set(lake.quality.scores()["score"]) == {1.0}


def test_days_are_compared_with_their_hours_and_repaired_where_they_begin(tmp_path: Path) -> None:
    lake = ingest(tmp_path / "lake", htx(NOW, frozenset({to_ms(GONE)})), "bars_1h", "bars_1d")
    findings = lake.quality.check().findings
    assert findings.select("check", "timestamp", "dataset").rows() == [("gaps", GONE, "bars_1d")]
    lake.quality.repair(offline=True)
    days = lake.scan("bars_1d").collect()
    assert set(days["timestamp"].dt.hour()) == {16}
    assert days.filter(pl.col("fill").is_not_null())["timestamp"].to_list() == [GONE]
    assert days.height == 20
