"""All commands, killed at random places and times: the same commands again give the same lake."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.sandbox import Sandbox, SyntheticMarkets
from tests import processes
from tests.jobs.command_children import BUNDLE, REVISED, STEPS, Death, count_places, run, start
from tests.jobs.conftest import NOW, settings_for

KILLS = int(os.environ.get("TRIAL_KILLS", str(len(STEPS))))
SEED = int(os.environ.get("TRIAL_SEED", "20261130"))
TABLES = ("bars_1m", "bars_5m", "trades", "funding")
VARYING = ("job_id", "found_at", "closed_by", "closed_at", "checked_at")
"""Columns that say when and by which job: they differ from run to run."""

MakeLake = Callable[[str], Lake]


@dataclass(frozen=True)
class QuietRun:
    """Each step once, undisturbed: the lake at its end, and the length of each step."""

    content: Mapping[str, pl.DataFrame]
    bundle: str
    seconds: Mapping[str, float]
    places: Mapping[str, int]


@pytest.fixture(scope="module")
def venue() -> Iterator[Sandbox]:
    with Sandbox(SyntheticMarkets(seed=7), now=lambda: NOW, weight_limit=False) as running:
        yield running


@pytest.fixture(scope="module")
def true_high(venue: Sandbox) -> str:
    """High of the bar that the venue first sends wrongly."""
    opens = int(REVISED.timestamp() * 1000)
    query = f"symbol=BTCUSDT&interval=1m&startTime={opens}&limit=1"
    with urlopen(f"{venue.url}/api.binance.com/api/v3/klines?{query}") as answer:  # noqa: S310
        return str(json.load(answer)[0][2])


@pytest.fixture(scope="module")
def make(venue: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> MakeLake:
    def make_lake(name: str) -> Lake:
        path = tmp_path_factory.mktemp(name) / "lake"
        return Lake.create(settings_for(path, venue.url), now=lambda: NOW)

    return make_lake


@pytest.fixture(scope="module")
def quiet(make: MakeLake, venue: Sandbox, true_high: str) -> QuietRun:
    lake, report = make("quiet"), Path(make("report").root.path / "places")
    seconds, places = {}, {}
    for step in STEPS:
        _revise(venue, true_high if step == "repair" else "900000.00", step)
        begun = time.monotonic()
        processes.start(count_places, lake.root.path, venue.url, step, report).join()
        seconds[step] = time.monotonic() - begun
        places[step] = int(report.read_text())
        report.unlink()
    return QuietRun(_read_content(lake), lake.bundles.resolve(BUNDLE), seconds, places)


def _revise(venue: Sandbox, high: str, step: str) -> None:
    """Before the first step the venue sends a wrong bar; before the repair it corrects it."""
    if step in ("ingest", "repair"):
        venue.revise("BTC/USDT", "1m", REVISED, exchange="binance", high=high)


def _read_content(lake: Lake) -> dict[str, pl.DataFrame]:
    """What must not depend on kills: rows, coverage, findings, scores."""
    return {
        **{table: lake.scan(table).collect() for table in TABLES},
        "coverage": lake.coverage(),
        "findings": _without_jobs(lake.quality.findings(status=None)),
        "scores": _without_jobs(lake.quality.scores()),
    }


def _without_jobs(frame: pl.DataFrame) -> pl.DataFrame:
    names = [name for name in frame.columns if name not in VARYING]
    return frame.select(names).sort([n for n in names if frame.schema[n] != pl.List(pl.String)])


def _draw_death(dice: random.Random, step: str, quiet: QuietRun) -> Death:
    if dice.random() < 0.5 and quiet.places[step] > 0:
        return Death(place=dice.randint(1, quiet.places[step]))
    return Death(seconds=dice.uniform(0.02, 1.0) * quiet.seconds[step])


@pytest.mark.slow
@pytest.mark.timeout(60 + 15 * KILLS)
def test_killed_anywhere_the_same_commands_again_give_what_a_quiet_run_gives(
    make: MakeLake, venue: Sandbox, quiet: QuietRun, true_high: str
) -> None:
    print(f"TRIAL_KILLS={KILLS} TRIAL_SEED={SEED}")
    dice, struck = random.Random(SEED), 0
    for number in range(0, KILLS, len(STEPS)):
        lake = make(f"killed-{number}")
        for step in list(STEPS)[: KILLS - number]:
            _revise(venue, true_high if step == "repair" else "900000.00", step)
            death = _draw_death(dice, step, quiet)
            print(f"{number}: {step}, {death}")
            child = start(lake.root.path, venue.url, step, death)
            child.join()
            struck += child.exitcode != 0
            run(lake.root.path, venue.url, step)
        _require_same(lake, quiet)
    assert struck > KILLS / 2, "most children lived to the end"


def _require_same(lake: Lake, quiet: QuietRun) -> None:
    for name, frame in _read_content(lake).items():
        assert_frame_equal(frame, quiet.content[name])
    unchecked = lake.status().filter(pl.col("unchecked_since").is_not_null())
    assert unchecked.is_empty(), unchecked
    assert lake.bundles.resolve(BUNDLE) == quiet.bundle
    assert lake.bundles.verify(BUNDLE, deep=True) == []
