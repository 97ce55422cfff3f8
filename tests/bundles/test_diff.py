"""The difference between two bundles: days that were added, removed and changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.bundles.diff import DAY_DIFF, ROW_DIFF, diff_days, diff_rows
from lake.errors import DamagedError, UnknownNameError
from tests.bundles.pairs import (
    BTC,
    ETH,
    all_rows,
    bars_with_volume,
    copy_with_data,
    jobs_by_day,
    pin_before_and_after_a_revision,
    write_as,
)
from tests.conftest import DAY, SECOND, T0, bars, trades, write


def test_added_removed_and_changed_days_are_listed_with_their_rows(lake: Lake) -> None:
    for symbol in (BTC, ETH):
        write(lake, "trades", trades(6, step=DAY / 2, symbol=symbol))
    lake.bundles.pin("a", table="trades", until=T0 + 2 * DAY)
    write(lake, "trades", trades(1, first=9, start=T0 + DAY - 9 * SECOND))
    lake.bundles.pin("b", table="trades", symbol=BTC, since=T0 + DAY)
    days = lake.bundles.diff("a", "b")
    assert days.schema == DAY_DIFF
    key = [pl.col("symbol"), pl.col("date").dt.day() - 1]
    assert days.select(*key, "change", "rows_before", "rows_after").rows() == [
        (BTC, 0, "removed", 2, 0),
        (BTC, 1, "changed", 2, 3),
        (BTC, 2, "added", 0, 2),
        (ETH, 0, "removed", 2, 0),
        (ETH, 1, "removed", 2, 0),
    ]
    assert days["table"].unique().to_list() == ["trades"]
    assert days["exchange"].unique().to_list() == ["binance"]


def test_the_same_rows_have_no_difference(lake: Lake) -> None:
    write(lake, "bars_1m", bars(5))
    lake.bundles.pin("a", table="bars_1m")
    write(lake, "bars_1m", bars(9, start=T0 + DAY))
    lake.bundles.pin("b", table="bars_1m", until=T0 + DAY)
    assert lake.bundles.open("a").id != lake.bundles.open("b").id
    for one, other in (("a", "b"), ("a", "a")):
        assert lake.bundles.diff(one, other).equals(pl.DataFrame(schema=DAY_DIFF))
        [nothing] = lake.bundles.diff(one, other, rows=True)
        assert nothing.equals(pl.DataFrame(schema=ROW_DIFF))


def test_days_are_compared_without_any_data_file(lake: Lake) -> None:
    write(lake, "bars_1m", bars_with_volume(1.0, range(3)))
    lake.bundles.pin("a", table="bars_1m")
    write_as(lake, "revision", "bars_1m", bars_with_volume(2.0, [1]))
    lake.bundles.pin("b", table="bars_1m")
    files = list((lake.root.tables / "bars_1m").glob("exchange=*"))
    assert files
    for folder in files:
        shutil.rmtree(folder)
    assert jobs_by_day(lake.bundles.diff("a", "b")) == {"2024-01-02": ["revision"]}
    with pytest.raises(DamagedError, match="missing"):
        list(lake.bundles.diff("a", "b", rows=True))


def test_tables_of_one_bundle_only_are_added_or_removed(lake: Lake) -> None:
    write(lake, "bars_1m", bars_with_volume(1.0, range(2)))
    write(lake, "trades", trades(3))
    lake.bundles.pin("a", table="bars_1m")
    lake.bundles.pin("b", table="trades")
    days = lake.bundles.diff("a", "b")
    assert days.select("table", "change").rows() == [("bars_1m", "removed")] * 2 + [
        ("trades", "added")
    ]
    assert days["jobs"].to_list() == [[]] * 3
    rows = all_rows(lake, "a", "b")
    assert rows.group_by("table", "change").len().sort("table").rows() == [
        ("bars_1m", "removed", 2),
        ("trades", "added", 3),
    ]
    assert lake.bundles.diff("a", "b", table="trades")["table"].to_list() == ["trades"]
    assert all_rows(lake, "a", "b", ["trades"])["table"].unique().to_list() == ["trades"]


def test_a_table_in_neither_bundle_is_an_error_at_once(lake: Lake) -> None:
    write(lake, "trades", trades(3))
    lake.bundles.pin("a", table="trades")
    with pytest.raises(UnknownNameError, match=r"'bars_1m' is in neither bundle\n.*trades"):
        lake.bundles.diff("a", "a", table="bars_1m")
    with pytest.raises(UnknownNameError, match="there is no bundle 'c'"):
        lake.bundles.diff("a", "c")
    with pytest.raises(UnknownNameError, match=r"'bars_1m' is in neither bundle\n.*trades"):
        lake.bundles.diff("a", "a", table="bars_1m", rows=True)
    with pytest.raises(UnknownNameError, match="there is no bundle 'c'"):
        lake.bundles.diff("a", "c", rows=True)


def test_bundles_that_bring_their_data_are_compared_too(lake: Lake, tmp_path: Path) -> None:
    before, after = pin_before_and_after_a_revision(lake)
    own = copy_with_data(before, tmp_path / "a"), copy_with_data(after, tmp_path / "b")
    pairs = [(before, after), (own[0], after), (before, own[1])]
    for pair in (*pairs, own):
        expected = [] if pair == own else ["revision"]
        assert jobs_by_day(diff_days(*pair)) == {"2024-01-01": expected}
        [_, rows] = diff_rows(*pair)
        assert rows.select("column", "old", "new").rows() == [("volume", "1.0", "2.0")]
