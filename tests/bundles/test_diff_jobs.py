"""The difference between two bundles names the jobs that wrote into each day."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.bundles.diff import diff_days
from lake.errors import DamagedError
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
from tests.conftest import DAY, MINUTE, T0, TIME, bars, store_of, trades, write
from tests.jobs.maintenance_children import maintainer


def test_each_day_names_the_jobs_that_wrote_into_it(lake: Lake) -> None:
    write_as(lake, "first", "bars_1m", bars_with_volume(1.0, range(6)))
    lake.bundles.pin("a", table="bars_1m")
    write_as(lake, "one", "bars_1m", bars_with_volume(2.0, [1, 3]))
    write_as(lake, "two", "bars_1m", bars_with_volume(3.0, [3, 4]))
    write_as(lake, "two", "bars_1m", bars_with_volume(4.0, [4]), source="another")
    write_as(
        lake, "elsewhere", "bars_1m", bars_with_volume(2.0, [2]).with_columns(symbol=pl.lit(ETH))
    )
    lake.bundles.pin("b", table="bars_1m", symbol=BTC)
    write_as(lake, "later", "bars_1m", bars_with_volume(9.0, [1]))
    expected = {"2024-01-02": ["one"], "2024-01-04": ["one", "two"], "2024-01-05": ["two"]}
    for days in (lake.bundles.diff("a", "b"), lake.bundles.diff("b", "a")):
        assert jobs_by_day(days) == expected
        assert days["sources"].to_list() == [
            ["source of one"],
            ["source of one", "source of two"],
            ["source of two", "another"],
        ]
        assert days["change"].unique().to_list() == ["changed"]


def test_compaction_is_nobodys_change(lake: Lake) -> None:
    for minute in range(3):
        write_as(lake, "first", "bars_1m", bars(1, start=T0 + minute * MINUTE))
    lake.bundles.pin("a", table="bars_1m")
    compacted = maintainer(store_of(lake)).optimize(["bars_1m"])
    assert compacted["commits"].to_list() == [1]
    lake.bundles.pin("compacted", table="bars_1m")
    write_as(lake, "revision", "bars_1m", bars(1, volume=[5.0]))
    lake.bundles.pin("b", table="bars_1m")
    assert lake.bundles.diff("a", "compacted").is_empty()
    assert jobs_by_day(lake.bundles.diff("a", "b")) == {"2024-01-01": ["revision"]}
    assert lake.bundles.diff("a", "b")["sources"].to_list() == [["source of revision"]]


def test_the_lakes_own_rows_have_jobs_too(lake: Lake) -> None:
    ledger = maintainer(store_of(lake))
    write(lake, "trades", trades(1))
    ledger.checkpoint()
    lake.bundles.pin("a", table="jobs")
    ledger.checkpoint()
    lake.bundles.pin("b", table="jobs")
    [jobs] = lake.bundles.diff("a", "b")["jobs"].to_list()
    assert len(jobs) == 1
    assert lake.bundles.diff("a", "b")["sources"].to_list() == [["lake"]]


def test_jobs_in_a_partition_of_a_year_are_attributed_by_their_days(lake: Lake) -> None:
    """A revision rewrites the file of the year, with rows that it did not touch."""
    times = range(0, 60, 10)
    write_as(lake, "first", "bars_1h", bars_with_volume(1.0, times))
    lake.bundles.pin("a", table="bars_1h")
    write_as(lake, "early", "bars_1h", bars_with_volume(2.0, [10]))
    write_as(lake, "late", "bars_1h", bars_with_volume(3.0, [40, 50]))
    write_as(lake, "new", "bars_1h", bars_with_volume(3.0, [45]))
    lake.bundles.pin("b", table="bars_1h")
    expected = {
        "2024-01-11": ["early"],
        "2024-02-10": ["late"],
        "2024-02-15": ["late", "new"],  # between the first and the last row of `late`
        "2024-02-20": ["late"],
    }
    assert jobs_by_day(lake.bundles.diff("a", "b")) == expected
    assert jobs_by_day(lake.bundles.diff("b", "a")) == expected
    assert lake.bundles.diff("a", "b")["change"].to_list() == [
        "changed",
        "changed",
        "added",
        "changed",
    ]
    rows = all_rows(lake, "a", "b")
    assert rows.select("change", "old", "new").rows()[0] == ("changed", "1.0", "2.0")
    assert rows["change"].to_list() == ["changed", "changed", "added", "changed"]


def test_a_batch_over_the_turn_of_the_year_counts_for_its_days(lake: Lake) -> None:
    times = [T0 + day * DAY for day in (-2, -1, 0, 1)]
    rates = {"timestamp": times, "funding_rate": [0.1] * 4}
    frame = pl.DataFrame(rates, schema_overrides={"timestamp": TIME})
    frame = frame.with_columns(exchange=pl.lit("binance"), symbol=pl.lit("BTC/USDT:USDT"))
    write_as(lake, "first", "funding", frame[:1])
    lake.bundles.pin("a", table="funding")
    write_as(lake, "turn", "funding", frame[1:3])
    write_as(lake, "after", "funding", frame[3:])
    lake.bundles.pin("b", table="funding")
    assert jobs_by_day(lake.bundles.diff("a", "b")) == {
        "2023-12-31": ["turn"],
        "2024-01-01": ["turn"],
        "2024-01-02": ["after"],
    }


def test_a_wider_selection_is_nobodys_change(lake: Lake) -> None:
    write(lake, "bars_1m", bars_with_volume(1.0, range(3)))
    lake.bundles.pin("a", table="bars_1m", until=T0 + DAY)
    lake.bundles.pin("wider", table="bars_1m")
    write_as(lake, "revision", "bars_1m", bars_with_volume(2.0, [2]))
    lake.bundles.pin("b", table="bars_1m")
    assert jobs_by_day(lake.bundles.diff("a", "wider")) == {"2024-01-02": [], "2024-01-03": []}
    assert jobs_by_day(lake.bundles.diff("a", "b")) == {
        "2024-01-02": [],
        "2024-01-03": ["revision"],
    }


def test_a_table_that_was_created_again_has_no_jobs(lake: Lake, tmp_path: Path) -> None:
    before, after = pin_before_and_after_a_revision(lake)
    own = copy_with_data(before, tmp_path / "a")
    shutil.rmtree(lake.root.tables / "bars_1m")
    assert jobs_by_day(diff_days(own, after)) == {"2024-01-01": []}
    for volume in (1.0, 2.0, 3.0):
        write_as(lake, "anew", "bars_1m", bars(3, volume=[volume] * 3))
    assert jobs_by_day(diff_days(own, after)) == {"2024-01-01": []}
    anew = lake.bundles.pin("anew", table="bars_1m").contents
    assert jobs_by_day(diff_days(own, anew)) == {"2024-01-01": []}


def test_a_log_that_lost_a_commit_between_the_versions_is_an_error(lake: Lake) -> None:
    pin_before_and_after_a_revision(lake)
    log = lake.root.tables / "bars_1m" / "_delta_log"
    (log / f"{2:020}.json").write_text("{")
    with pytest.raises(DamagedError, match="table bars_1m: commit 2 cannot be read"):
        lake.bundles.diff("a", "b")


def test_commits_of_others_have_no_job(lake: Lake) -> None:
    pin_before_and_after_a_revision(lake)
    commit = lake.root.tables / "bars_1m" / "_delta_log" / f"{2:020}.json"
    actions = [json.loads(line) for line in commit.read_text().splitlines()]
    info = next(action["commitInfo"] for action in actions if "commitInfo" in action)
    for source in ("by hand", "[1]", None):
        info["userMetadata"] = source
        commit.write_text("\n".join(json.dumps(action) for action in actions))
        assert jobs_by_day(lake.bundles.diff("a", "b")) == {"2024-01-01": []}
