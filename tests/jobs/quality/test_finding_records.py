"""What a check finds is one commit, whatever the number of markets; in parts it is the same."""

from __future__ import annotations

import polars as pl
import pytest

from lake.api import Lake
from lake.jobs.quality import check
from lake.jobs.quality.findings import FindingCounts
from lake.jobs.quality.owed import select_touched
from lake.jobs.touched import Touched
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import TimeRange
from tests.conftest import DAY, MINUTE, T0, NewLake, bars, store_of, write

HOUR = 60 * MINUTE
SYMBOLS = [f"S{number}/USDT" for number in range(6)]


def fill(lake: Lake, *missing: int) -> None:
    """Store an hour of bars of six markets, without some of them."""
    hour = bars(60).filter(~pl.int_range(pl.len()).is_in(missing))
    write(lake, "bars_1m", pl.concat(hour.with_columns(symbol=pl.lit(s)) for s in SYMBOLS))


def count_commits(lake: Lake, table: str) -> int:
    return lake.versions(table).filter(pl.col("operation") != "CREATE TABLE").height


def test_findings_of_all_markets_are_one_commit_and_so_are_scores(lake: Lake) -> None:
    fill(lake, 10, 30)
    assert lake.quality.check().recorded == FindingCounts(opened=12)
    assert count_commits(lake, "findings") == count_commits(lake, "scores") == 1
    fill(lake)
    assert lake.quality.check().recorded == FindingCounts(closed=12)
    assert count_commits(lake, "findings") == 2


def test_markets_with_the_same_days_are_one_selection(lake: Lake) -> None:
    fill(lake, 10)
    touched = [
        Touched("bars_1m", Market("binance", symbol), TimeRange(T0, T0 + (n + 1) * HOUR))
        for n, symbol in enumerate(SYMBOLS)
    ]
    [(table, selection)] = select_touched(store_of(lake), touched)
    assert (table, selection) == (
        "bars_1m",
        Selection(("binance",), tuple(SYMBOLS), T0, T0 + DAY),
    )


def test_findings_recorded_in_parts_stay_open(
    new_lake: NewLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later part must not close what an earlier one has recorded."""
    whole, parts = new_lake(), new_lake()
    fill(whole, 10, 30)
    whole.quality.check()
    monkeypatch.setattr(check, "_MOST_WAITING", 3)
    fill(parts, 10, 30)
    assert parts.quality.check().recorded == FindingCounts(opened=12)
    assert count_commits(parts, "findings") > 1
    assert set(parts.quality.findings()["finding_id"]) == set(
        whole.quality.findings()["finding_id"]
    )
    assert parts.quality.check().recorded == FindingCounts(kept=12)
