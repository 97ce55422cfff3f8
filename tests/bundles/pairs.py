"""Pairs of bundles to compare."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from lake.api import Lake
from lake.bundles.contents import Contents
from lake.store.store import Origin
from tests.conftest import DAY, T0, bars, store_of, write

HOUR = timedelta(hours=1)
BTC, ETH = "BTC/USDT", "ETH/USDT"


def write_as(lake: Lake, job: str, table: str, frame: pl.DataFrame, source: str = "") -> None:
    """Write rows as a separate job."""
    store = store_of(lake)
    store.write(store.catalog.dataset(table), frame, Origin(job, source or f"source of {job}"))


def jobs_by_day(days: pl.DataFrame) -> dict[str, list[str]]:
    return {str(day): jobs for day, jobs in days.select("date", "jobs").iter_rows()}


def all_rows(lake: Lake, before: str, after: str, tables: Iterable[str] = ()) -> pl.DataFrame:
    return pl.concat(list(lake.bundles.diff(before, after, table=tuple(tables), rows=True)))


def bar(day: int, **columns: Any) -> pl.DataFrame:
    """Build one bar at noon of a day."""
    return bars(1, start=T0 + day * DAY + 12 * HOUR, **columns)


def bars_with_volume(volume: float, days: Iterable[int]) -> pl.DataFrame:
    return pl.concat([bar(day, volume=[volume]) for day in days])


def pin_before_and_after_a_revision(lake: Lake) -> tuple[Contents, Contents]:
    write(lake, "bars_1m", bars(3))
    before = lake.bundles.pin("a", table="bars_1m").contents
    write_as(lake, "revision", "bars_1m", bars(1, volume=[2.0]))
    return before, lake.bundles.pin("b", table="bars_1m").contents


def copy_with_data(contents: Contents, folder: Path) -> Contents:
    """Copy a bundle with its data files, like an export."""
    shutil.copytree(contents.folder, folder)
    shutil.copytree(contents.tables, folder / "data", ignore=shutil.ignore_patterns("_delta_log"))
    return Contents.open(folder)


def moment(number: int) -> Any:
    """Return one of eight times: two on each of four days in two years."""
    return T0 + (number // 2 - 2) * DAY + number % 2 * HOUR


def days_of(key: tuple[str, int, int]) -> tuple[str, date]:
    return key[0], moment(key[1]).date()
