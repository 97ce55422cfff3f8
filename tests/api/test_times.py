"""Times as users give them: datetimes with a zone, or the text of the command line, everywhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import lake as package
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import UsageError
from lake.model.time import Time
from lake.settings import Settings
from tests.conftest import DAY, MINUTE, NAIVE, T0, bars, store_of, write

NOW = T0 + 2 * DAY
BTC: dict[str, Any] = {"exchange": "binance", "symbol": "BTC/USDT"}
Work = Callable[[Lake, Bundle, Time, Time], Any]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two days of bars, checked and pinned, for which it is the third day."""
    made = Lake.create(Settings(uri=str(tmp_path_factory.mktemp("lake"))), now=lambda: NOW)
    write(store_of(made), "bars_1m", bars(48, step=60 * MINUTE))
    made.bundles.pin("b", table="bars_1m")
    made.quality.check("bars_1m")
    return made


def _frame(rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.collect()


def _aligned(source: Lake | Bundle, since: Time, until: Time) -> pl.DataFrame:
    how = package.AsOf(staleness=None, columns=["close"])
    return source.align({"x": "bars_1m"}, "1h", since=since, until=until, how=how).frame


WORK: dict[str, Work] = {
    "scan": lambda lake, _, since, until: _frame(lake.scan("bars_1m", since=since, until=until)),
    "available": lambda lake, _, since, until: _frame(
        lake.available("bars_1m", since=since, until=until)
    ),
    "at": lambda lake, _, since, __: lake.at("bars_1m", **BTC, time=since),
    "align": lambda lake, _, since, until: _aligned(lake, since, until),
    "audit": lambda lake, _, since, until: lake.audit(since=since, until=until),
    "jobs": lambda lake, _, since, until: lake.jobs(since=since, until=until),
    "check": lambda lake, _, since, until: lake.quality.check(since=since, until=until).rows,
    "findings": lambda lake, _, since, until: lake.quality.findings(since=since, until=until),
    "gaps": lambda lake, _, since, until: lake.quality.gaps("bars_1m", since=since, until=until),
    "scores": lambda lake, _, since, until: lake.quality.scores(since=since, until=until),
    "report": lambda lake, _, since, until: lake.quality.report(since=since, until=until).start,
    "repair": lambda lake, _, since, until: (
        lake.quality.repair(since=since, until=until, dry_run=True).planned
    ),
    "pin": lambda lake, _, since, until: (
        lake.bundles.pin(
            "part", table="bars_1m", since=since, until=until, check=False, move=True
        ).id
    ),
    "optimize": lambda lake, _, since, __: lake.maintenance.optimize("bars_1m", before=since),
    "Bundle.scan": lambda _, bundle, since, until: _frame(
        bundle.scan("bars_1m", since=since, until=until)
    ),
    "Bundle.available": lambda _, bundle, since, until: _frame(
        bundle.available("bars_1m", since=since, until=until)
    ),
    "Bundle.arrow": lambda _, bundle, since, until: pl.DataFrame(
        bundle.arrow("bars_1m", since=since, until=until)
    ),
    "Bundle.at": lambda _, bundle, since, __: bundle.at("bars_1m", **BTC, time=since),
    "Bundle.align": lambda _, bundle, since, until: _aligned(bundle, since, until),
    "Bundle.replay": lambda _, bundle, since, until: list(bundle.replay(since=since, until=until)),
}


@pytest.mark.parametrize("name", WORK)
def test_text_means_the_same_as_a_datetime(lake: Lake, name: str) -> None:
    bundle, work = lake.bundles.open("b"), WORK[name]
    since, until = T0 + DAY, T0 + DAY + timedelta(hours=12)
    expected = work(lake, bundle, since, until)
    for first, last in (("2024-01-02", "2024-01-02T12:00Z"), ("1d", "12h")):
        given = work(lake, bundle, first, last)
        if isinstance(expected, pl.DataFrame):
            assert_frame_equal(given, expected)
        else:
            assert given == expected


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("time", ["yesterday", NAIVE, 1_700_000_000])
def test_what_is_no_time_is_a_usage_error(lake: Lake, name: str, time: Any) -> None:
    with pytest.raises(UsageError, match=r"is not a time|has no time zone"):
        WORK[name](lake, lake.bundles.open("b"), time, T0 + DAY)


def test_the_lake_is_read_as_it_was_at_a_time_in_text(lake: Lake) -> None:
    store = store_of(lake)
    committed = lake.versions("bars_1m")["time"][0]
    write(store, "bars_1m", bars(1, start=T0 + 3 * DAY))
    text = (committed + timedelta(milliseconds=1)).isoformat()
    today = package.open(str(lake.root.path))  # commits have the time of the machine
    assert today.scan("bars_1m", as_of=text).collect().height == 48
    assert today.scan("bars_1m").collect().height == 49


def test_frames_are_aligned_at_times_in_text() -> None:
    times = package.grid("6h", since="2024-01-01", until="2024-01-02")
    assert_frame_equal(times, package.grid("6h", since=T0, until=T0 + DAY))
    rows = bars(4, step=60 * MINUTE).with_columns(available_at="timestamp")
    how = package.AsOf(staleness=None, columns=["close"])
    expected = package.align({"x": rows}, "1h", since=T0, until=T0 + DAY, how=how)
    given = package.align({"x": rows}, "1h", since="2024-01-01", until="2024-01-02", how=how)
    assert_frame_equal(given.frame, expected.frame)
    assert package.grid("1h", since="2d", until="now").height == 48
    for time in ("yesterday", datetime(2024, 1, 1)):  # noqa: DTZ001
        with pytest.raises(UsageError):
            package.grid("1h", since=time, until=T0 + DAY)


def test_a_vacuum_keeps_what_text_says(lake: Lake) -> None:
    report = lake.maintenance.vacuum(keep="30d", dry_run=True)
    assert_frame_equal(
        report.files, lake.maintenance.vacuum(keep=timedelta(days=30), dry_run=True).files
    )
    with pytest.raises(UsageError, match="'a week' is not a duration"):
        lake.maintenance.vacuum(keep="a week", dry_run=True)
