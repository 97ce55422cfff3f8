"""A lake of 100 markets and a year of days: what it costs to find nothing to do, to look, to go on.

`BIG_LAKE=FOLDER` uses a lake that an earlier run left there, or leaves one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.bench.conftest import report
from tests.conftest import bars
from tests.jobs.growing import DAY, EXCHANGE, START, GrowingLake, name_markets

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

MARKETS = 100
DAYS = 365


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrowingLake]:
    """Bars each hour, in 36,500 files of the table `bars_1m`."""
    folder = Path(os.environ.get("BIG_LAKE") or tmp_path_factory.mktemp("big")) / "lake"
    with pytest.MonkeyPatch.context() as patch:
        lake = GrowingLake(folder, patch, markets=MARKETS, every=DAY, step=60)
        lake.clock.time = START + DAYS * DAY - DAY
        if not lake.list_tables():
            lake.run()
        lake.clock.time = START + DAYS * DAY
        yield lake


def _measure(action: Callable[[], object]) -> float:
    begun = time.process_time()
    action()
    return time.process_time() - begun


def test_costs_of_a_big_lake(lake: GrowingLake) -> None:
    assert sum(lake.count_files("bars_1m").values()) >= MARKETS * DAYS
    nothing = min(_measure(lake.fetch) for _ in range(3))
    report("nothing to do for 100 markets, CPU seconds", nothing, "<= 1")
    status = min(_measure(lambda: lake.open().status()) for _ in range(3))
    report("status, CPU seconds", status, "<= 0.5")
    opened, symbol = lake.open(), name_markets(1)[0]

    def read_latest() -> None:
        opened.latest("bars_1m", exchange=EXCHANGE, symbol=symbol)

    read_latest()
    latest = []
    for number in range(5):
        start = lake.clock.time - timedelta(minutes=number + 1)
        opened.write("bars_1m", bars(1, start=start, exchange=EXCHANGE, symbol=symbol))
        latest.append(_measure(read_latest))
    report("latest row after a commit, CPU milliseconds", 1000 * min(latest), "<= 20")
    day = lake.run().cpu
    report("one new day of 100 markets, CPU seconds", day, "<= 15")
    assert nothing <= 1
    assert status <= 0.5
    assert min(latest) <= 0.02
    assert day <= 15
