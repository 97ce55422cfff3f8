"""The same source gives a bundle of the same id in a new lake."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lake.api import Lake
from lake.bundles.bundle import Bundle
from tests.jobs.conftest import NOW, MakeLake

TABLES = ("bars_1m", "bars_1h", "trades", "funding")


def fill(lake: Lake, *steps: timedelta) -> None:
    """Ingest a day and a half up to now, by ranges that end so long before it."""
    for table in TABLES:
        for step in steps:
            lake.ingest(
                table,
                exchange="binance",
                symbol="BTC/USDT:USDT",
                since=NOW - timedelta(hours=36),
                until=NOW - step,
            )


@pytest.fixture(scope="module")
def first(quiet_lake: MakeLake) -> Bundle:
    lake = quiet_lake()
    fill(lake, timedelta())
    return lake.bundles.pin("b", table=TABLES, check=False)


@pytest.mark.parametrize("batch_rows", [2500, 125_000])
def test_a_new_lake_gives_the_same_id(make_lake: MakeLake, first: Bundle, batch_rows: int) -> None:
    other = make_lake("other", batch_rows=batch_rows)
    fill(other, timedelta(hours=31), timedelta(hours=5), timedelta())
    other.maintenance.optimize()
    second = other.bundles.pin("b", table=TABLES, check=False)
    assert first.id == second.id
    assert first.contents.days.equals(second.contents.days)
    assert first.manifest.metadata.lake_id != second.manifest.metadata.lake_id
