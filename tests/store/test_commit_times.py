"""Time travel by time has one rule, whatever the clocks of writers show."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.errors import UnknownNameError
from lake.model.catalog import builtin
from lake.model.time import MICROSECOND, to_ms
from lake.settings import Settings
from lake.store.clock import CommitClock
from lake.store.log import CommitTimes, find_version, locate_log_file, read_commit_info
from lake.store.store import Store
from tests import processes
from tests.conftest import DAY, MINUTE, ORIGIN, SECOND, trades

TRADES = builtin().dataset("trades")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time


def write_log(table: Path, commits: list[tuple[int, bool]]) -> list[datetime]:
    """Write a log whose commits come from clocks of these seconds, some stamped by a lake."""
    (table / "_delta_log").mkdir(parents=True)
    clock = Clock()
    stamps = CommitClock(clock)
    right: list[datetime] = []
    for version, (seconds, is_of_lake) in enumerate(commits):
        clock.time = NOW + seconds * SECOND
        info: dict[str, object] = {"timestamp": to_ms(clock.time)}
        if is_of_lake:
            stamped = stamps.stamp({"job": "j"}, table, version - 1)
            info["userMetadata"] = json.dumps(stamped)
            right.append(max(clock.time, right[-1] + MICROSECOND) if right else clock.time)
        else:
            right.append(max([clock.time, *right[-1:]]))
        line = json.dumps({"commitInfo": info}, separators=(",", ":"))
        locate_log_file(table, version).write_text(line + "\n")
    return right


commits = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=60)
@given(commits, st.integers(-6, 6), st.integers(-1, 3))
def test_the_version_of_a_time_is_the_last_one_not_later(
    tmp_path_factory: pytest.TempPathFactory,
    log: list[tuple[int, bool]],
    second: int,
    microseconds: int,
) -> None:
    table = tmp_path_factory.mktemp("log") / "trades"
    right = write_log(table, log)
    assert right == sorted(right)
    times = CommitTimes(table)
    assert [times.at(version) for version in range(len(log))] == right
    assert [CommitTimes(table).at(version) for version in range(len(log))] == right
    time = NOW + second * SECOND + microseconds * MICROSECOND
    reached = [version for version, at in enumerate(right) if at <= time]
    if reached:
        assert find_version(table, TRADES, time, NOW + DAY) == reached[-1]
    else:
        with pytest.raises(UnknownNameError, match="did not exist at"):
            find_version(table, TRADES, time, NOW + DAY)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clocked(lake: Lake, clock: Clock) -> Lake:
    return Lake(lake.settings, clock)


def write_at(lake: Lake, clock: Clock, times: list[datetime]) -> None:
    """Write one trade at each time, and read nothing."""
    for number, time in enumerate(times):
        clock.time = time
        lake.write("trades", trades(1, first=number))


@pytest.mark.parametrize("wrong", range(1, 7))
def test_a_clock_that_was_wrong_once_hides_no_row_that_was_there_before(
    clocked: Lake, clock: Clock, wrong: int
) -> None:
    times = [NOW + hour * 60 * MINUTE for hour in range(7)]
    times[wrong] = NOW + 18 * DAY
    write_at(clocked, clock, times)
    clock.time = NOW + 10 * DAY
    assert clocked.scan("trades", as_of=clock.time).collect().height == wrong
    assert clocked.scan("trades", as_of="now").collect().height == wrong
    bundle = clocked.bundles.pin("b", table="trades", as_of="now")
    assert bundle.scan("trades").collect().height == wrong
    assert clocked.sql("SELECT count(*) FROM trades", as_of="now").fetchall() == [(wrong,)]
    clock.time = NOW + 18 * DAY + 7 * MICROSECOND
    assert clocked.scan("trades", as_of=clock.time).collect().height == 7


def test_stamps_in_the_future_are_named_where_a_time_is_before_them(
    clocked: Lake, clock: Clock
) -> None:
    write_at(clocked, clock, [NOW + DAY])
    clock.time = NOW
    with pytest.raises(UnknownNameError, match="its first commit is stamped") as caught:
        clocked.scan("trades", as_of="now")
    assert "the clock of a writer was ahead" in caught.value.hint
    assert "Without as_of, the newest version is read" in caught.value.hint
    assert clocked.scan("trades").collect().height == 1
    clock.time = NOW + 2 * DAY
    with pytest.raises(UnknownNameError, match="did not exist at"):
        clocked.scan("trades", as_of=NOW)


def test_a_clock_that_is_behind_is_reported_once_and_listed(
    clocked: Lake, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    write_at(clocked, clock, [NOW, NOW + DAY, NOW + MINUTE, NOW + 2 * MINUTE])
    behind = [record for record in caplog.records if "clock of this machine" in record.message]
    assert len(behind) == 1
    versions = clocked.versions("trades").sort("version")
    assert versions["time"].to_list()[-3:] == [
        NOW + DAY,
        NOW + DAY + MICROSECOND,
        NOW + DAY + 2 * MICROSECOND,
    ]
    assert versions["clock"].to_list()[-3:] == [None, NOW + MINUTE, NOW + 2 * MINUTE]
    assert clocked.audit("trades", until=NOW + 2 * DAY).height == versions.height


def test_the_audit_finds_a_job_whose_clock_was_behind(clocked: Lake, clock: Clock) -> None:
    write_at(clocked, clock, [NOW + 18 * DAY, NOW, NOW + DAY])
    jobs = clocked.jobs()["job_id"].to_list()
    assert [clocked.audit("trades", job=job).height for job in jobs] == [1, 1, 1]


# A writer in a process of its own, whose clock is wrong by its number of days.
def _write_ahead(number: int, path: str, count: int) -> None:
    lake = Lake(Settings(uri=path))
    store = Store(lake.root, lambda: datetime.now(UTC) + number * DAY)
    for turn in range(count):
        frame = trades(1, first=turn, symbol=f"S{number}/USDT")
        store.write(store.catalog.dataset("trades"), frame, ORIGIN)


def test_writers_at_once_whose_clocks_differ_give_increasing_times(lake: Lake) -> None:
    count = 4
    writers = [
        processes.start(_write_ahead, number, str(lake.root.path), count) for number in range(3)
    ]
    for writer in writers:
        writer.join(100)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    table = lake.root.tables / "trades"
    infos = [read_commit_info(table, version) for version in range(3 * count + 1)]
    stamps = [json.loads(info["userMetadata"])["committed_at"] for info in infos]
    times = [datetime.fromisoformat(stamp) for stamp in stamps]
    assert all(later > earlier for earlier, later in pairwise(times))
    assert lake.scan("trades").collect().height == 3 * count
