"""Killed at any moment, or run twice at once: a rerun gives what one quiet run gives."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.sandbox import Sandbox
from tests.jobs.conftest import NOW, MakeLake, ingest_all, settings_for
from tests.jobs.ingest import children

UNTIL = NOW.replace(hour=0, minute=0, second=0)
SINCE = UNTIL - timedelta(hours=9)


@pytest.fixture(scope="module")
def expected(quiet_lake: MakeLake) -> dict[str, pl.DataFrame]:
    """The tables after one quiet run."""
    lake = quiet_lake()
    ingest_all(lake, children.requests(lake, SINCE, UNTIL))
    return _content(lake)


def _content(lake: Lake) -> dict[str, pl.DataFrame]:
    tables = {table: lake.scan(table).collect() for table in children.TABLES}
    return {**tables, "coverage": lake.coverage()}


def _require_equal(lake: Lake, expected: dict[str, pl.DataFrame]) -> None:
    for name, frame in _content(lake).items():
        assert_frame_equal(frame, expected[name])
    verified = lake.maintenance.verify()
    assert verified.is_intact
    unrecorded = verified.files.filter(pl.col("table").is_in([*expected, "jobs"]))
    assert unrecorded.is_empty(), "the next writer records what a killed one did not"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_at_ten_random_moments_a_rerun_completes_it(
    make_lake: MakeLake, sandbox: Sandbox, expected: dict[str, pl.DataFrame]
) -> None:
    dice = random.Random(20260310)
    begun = time.monotonic()
    path = make_lake("timed").root.path
    children.start(path, sandbox.url, SINCE, UNTIL).join()
    duration = time.monotonic() - begun
    commits_before_death = []
    for number in range(10):
        lake = make_lake(f"killed-{number}")
        child = children.start(lake.root.path, sandbox.url, SINCE, UNTIL)
        time.sleep(dice.uniform(0.1, 0.9) * duration)
        child.kill()
        child.join()
        commits_before_death.append(lake.audit().height)
        children.ingest(lake.root.path, sandbox.url, SINCE, UNTIL)
        _require_equal(lake, expected)
    assert max(commits_before_death) > 10, "no child lived long enough to write"
    assert len(set(commits_before_death)) > 2, "the moments were not random enough"


@pytest.mark.timeout(120)
def test_two_overlapping_ingestions_at_once_give_the_same(
    make_lake: MakeLake, sandbox: Sandbox, expected: dict[str, pl.DataFrame]
) -> None:
    path: Path = make_lake("shared").root.path
    two = [
        children.start(path, sandbox.url, SINCE, UNTIL - timedelta(hours=3)),
        children.start(path, sandbox.url, SINCE + timedelta(hours=3), UNTIL),
    ]
    for child in two:
        child.join()
    assert [child.exitcode for child in two] == [0, 0]
    lake = Lake(settings_for(path, sandbox.url), now=lambda: NOW)
    _require_equal(lake, expected)
