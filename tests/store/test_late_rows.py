"""Late rows: the log says which files can hold them, so that no other file is opened."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from lake.api import Lake
from lake.model.selection import Selection
from tests.conftest import DAY, T0, TIME, bars, store_of, trades, write

LATE = T0 + 7 * DAY + timedelta(microseconds=999)
BEFORE = Selection(end=T0 + 6 * DAY)


def find(lake: Lake, table: str, since: object) -> Selection | None:
    snapshot = store_of(lake).snapshot(lake.dataset(table))
    return snapshot.find_late(BEFORE, since)  # type: ignore[arg-type]


@pytest.mark.parametrize("compacted", [False, True])
def test_only_files_that_can_hold_late_rows_are_read(lake: Lake, *, compacted: bool) -> None:
    received = pl.Series([None, LATE], dtype=TIME)
    write(lake, "trades", trades(5, step=DAY))
    write(lake, "trades", trades(2, first=100, start=T0 - 97.5 * DAY, step=DAY,
                                 received_at=received))  # fmt: skip
    if compacted:
        lake.maintenance.optimize()
    late = T0 + 3.5 * DAY
    narrowed = Selection(start=late if not compacted else T0 + 3 * DAY, end=BEFORE.end)
    for since in (T0 + 6 * DAY, LATE - timedelta(microseconds=998), LATE):
        assert find(lake, "trades", since) == narrowed
    assert find(lake, "trades", LATE + timedelta(milliseconds=1)) is None


def test_historical_rows_are_never_late(lake: Lake) -> None:
    write(lake, "bars_1m", bars(5, step=DAY))
    assert find(lake, "bars_1m", T0 + DAY) is None


def test_files_of_which_the_log_says_nothing_are_read(lake_before: Lake) -> None:
    assert find(lake_before, "trades", T0 + DAY) == Selection(start=T0, end=BEFORE.end)
