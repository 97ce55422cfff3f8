"""The same source gives a bundle of the same id in a new lake."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lake.api import Lake
from tests.jobs.conftest import NOW, MakeLake

TABLES = ("bars_1m", "bars_1h", "trades", "funding")


def fill(lake: Lake, *steps: timedelta) -> None:
    """Ingest two days up to now, by ranges that end so long before it."""
    for table in TABLES:
        for step in steps:
            lake.ingest(
                table,
                exchange="binance",
                symbol="BTC/USDT:USDT",
                since=NOW - timedelta(days=2),
                until=NOW - step,
            )


@pytest.mark.parametrize("batch_rows", [700, 125_000])
def test_a_new_lake_gives_the_same_id(make_lake: MakeLake, batch_rows: int) -> None:
    one, other = make_lake("one"), make_lake("other", batch_rows=batch_rows)
    fill(one, timedelta())
    fill(other, timedelta(hours=31), timedelta(hours=5), timedelta())
    other.maintenance.optimize()
    pins = [lake.bundles.pin("b", table=TABLES) for lake in (one, other)]
    assert pins[0].id == pins[1].id
    assert pins[0].contents.days.equals(pins[1].contents.days)
    assert pins[0].manifest.metadata.lake_id != pins[1].manifest.metadata.lake_id
