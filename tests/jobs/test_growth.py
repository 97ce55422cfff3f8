"""A run costs what it brings, not what is there: daily runs, and runs each five minutes.

`GROWTH_RUNS=365` makes it a year; `just growth` does.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.jobs.growing import OWN_TABLES, GrowingLake, median_cpu, read_number

RUNS = read_number("GROWTH_RUNS", 40)
FREQUENT_RUNS = read_number("GROWTH_FREQUENT_RUNS", 24)
MARKETS = 20
COMPARED = 8
FILES = 65

pytestmark = [pytest.mark.slow, pytest.mark.timeout((RUNS + FREQUENT_RUNS) * 30)]


@pytest.mark.parametrize("checks", [False, True], ids=["unchecked", "checked"])
def test_the_last_of_many_daily_runs_costs_what_the_first_ones_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, checks: bool
) -> None:
    old, young = (
        GrowingLake(tmp_path / name, monkeypatch, markets=MARKETS, checks=checks)
        for name in ("old", "young")
    )
    early = [old.run() for _ in range(RUNS - COMPARED)]
    for _ in range(5):
        young.run()
    # In turn, since a machine is not always as fast.
    pairs = [(young.run(), old.run()) for _ in range(COMPARED)]
    first, last = zip(*pairs, strict=True)
    ratio = median_cpu(last) / median_cpu(first)
    grown = last[-1].memory - early[5].memory
    print(
        f"\nCPU of a run at the start and the end: {median_cpu(first):.2f} "
        f"and {median_cpu(last):.2f} s, ratio {ratio:.2f}; memory {grown / 2**20:+.0f} MB"
    )
    assert old.open().tables().filter(table="bars_1m")["rows"].item() == RUNS * MARKETS * 1440
    assert ratio <= 1.2
    assert grown <= 100 * 2**20
    files = {name: old.count_files(name) for name in OWN_TABLES if name in old.list_tables()}
    print({name: max(counts.values()) for name, counts in files.items()})
    assert {name for name, counts in files.items() if max(counts.values()) > FILES} == set()


def test_runs_each_five_minutes_leave_few_files_and_whole_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hour, compact and pin: files and log are bounded by what was stored, pins verify."""
    lake = GrowingLake(
        tmp_path / "lake", monkeypatch, markets=10, every=timedelta(minutes=5), checks=True
    )
    runs = []
    for number in range(1, FREQUENT_RUNS + 1):
        runs.append(lake.run())
        if number % 12 == 0:
            lake.open().maintenance.optimize()
            lake.open().bundles.pin(f"hour-{number // 12}", table="bars_1m")
    ratio = median_cpu(runs[-12:]) / median_cpu(runs[:12])
    files = {name: max(lake.count_files(name).values()) for name in lake.list_tables()}
    log = {name: lake.measure_log(name) / len(runs) for name in lake.list_tables()}
    print(
        f"\nCPU of a run in the last hour over the first: {ratio:.2f}; files a partition: {files}"
    )
    print({name: f"{size / 1024:.1f} kB of log a run" for name, size in log.items()})
    opened = lake.open()
    assert ratio <= 1.2
    assert max(files.values()) <= FILES
    for hour in range(1, FREQUENT_RUNS // 12 + 1):
        assert opened.bundles.open(f"hour-{hour}").verify() == []
    assert opened.scan("bars_1m").collect().height == FREQUENT_RUNS * 5 * 10
