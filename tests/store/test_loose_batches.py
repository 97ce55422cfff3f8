"""A late row, or windows of several markets, lead a merge to their own files and to no others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.store.local_table import LocalTable
from lake.store.log import read_actions
from lake.store.prepare import find_touched_files
from lake.store.store import Store
from tests.conftest import DAY, T0, bars, store_of, write

HOUR = timedelta(hours=1)
SYMBOLS = [f"COIN{number}/USDT" for number in range(4)]
TABLES = ["bars_1m", "bars_1h"]


def fill(store: Store, table: str, days: int = 20) -> None:
    for day in range(days):
        rows = [bars(3, start=T0 + day * DAY, step=HOUR, symbol=symbol) for symbol in SYMBOLS]
        write(store, table, pl.concat(rows))


def late(symbol: str, day: int) -> pl.DataFrame:
    return bars(1, start=T0 + day * DAY, symbol=symbol, volume=[77.0])


def list_removed_days(store: Store, table: str, version: int) -> int:
    actions = read_actions(store.root.tables / table, version)
    return sum("remove" in action for action in actions)


def read_metrics(store: Store, table: str, version: int) -> dict[str, Any]:
    actions = read_actions(store.root.tables / table, version)
    metrics: dict[str, Any] = next(a["commitInfo"] for a in actions if "commitInfo" in a)
    return dict(metrics["operationMetrics"])


@pytest.mark.parametrize("table", TABLES)
def test_a_late_row_is_looked_for_in_its_own_file(lake: Lake, table: str) -> None:
    store = store_of(lake)
    fill(store, table)
    new = [bars(3, start=T0 + 20 * DAY, step=HOUR, symbol=symbol) for symbol in SYMBOLS]
    result = write(store, table, pl.concat([late(SYMBOLS[1], 3), *new]))
    assert (result.inserted, result.updated) == (12, 1)
    assert result.version is not None
    metrics = read_metrics(store, table, result.version)
    assert metrics["num_target_files_scanned"] <= 1
    assert list_removed_days(store, table, result.version) == 1


@pytest.mark.parametrize("table", TABLES)
def test_windows_of_several_markets_touch_their_own_files(lake: Lake, table: str) -> None:
    store = store_of(lake)
    fill(store, table)
    before = store.read(store.catalog.dataset(table))
    windows = [late(symbol, 4 * number) for number, symbol in enumerate(SYMBOLS)]
    result = write(store, table, pl.concat(windows))
    assert (result.inserted, result.updated) == (0, 4)
    assert result.version is not None
    assert read_metrics(store, table, result.version)["num_target_files_scanned"] <= 4
    after = store.read(store.catalog.dataset(table))
    keys = ["symbol", "timestamp"]
    expected = before.update(pl.concat(windows).select(*keys, "volume"), on=keys)
    assert_frame_equal(after, expected)


def test_the_touched_files_are_those_in_whose_times_a_row_is(lake: Lake) -> None:
    store = store_of(lake)
    fill(store, "bars_1h", days=40)
    dataset = store.catalog.dataset("bars_1h")
    snapshot = store.snapshot(dataset)
    rows = pl.concat([late(SYMBOLS[0], 1), late(SYMBOLS[0], 39), late(SYMBOLS[2], 20)])
    dated = rows.with_columns(date=pl.col("timestamp").dt.date())
    touched = find_touched_files(snapshot, dated)
    assert touched.select("symbol", "first").rows() == [
        (SYMBOLS[0], T0 + 1 * DAY),
        (SYMBOLS[0], T0 + 39 * DAY),
        (SYMBOLS[2], T0 + 20 * DAY),
    ]
    assert touched.columns == snapshot.files().columns


def test_many_places_are_one_merge(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(lake)
    fill(store, "bars_1m", days=80)
    merges: list[str] = []
    merge = LocalTable.merge

    def count(self: LocalTable, *args: Any, **kwargs: Any) -> Any:
        merges.append(kwargs["predicate"])
        return merge(self, *args, **kwargs)

    monkeypatch.setattr(LocalTable, "merge", count)
    result = write(store, "bars_1m", pl.concat(late(SYMBOLS[d % 4], d) for d in range(80)))
    assert (result.inserted, result.updated) == (0, 80)
    assert len(merges) == 1
