"""No way of reading depends on rows that became known later.

Each pair is two lakes that differ only in what became known after a time T. Everything that is read
up to T is equal, to the last row. A failure names the seed of its pair.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import pytest

from tests.conftest import NewLake
from tests.lookahead.pairs import TABLES, find_differences, make_pair
from tests.lookahead.reads import read_all

SEED = int(os.environ.get("TRIAL_SEED", "20260101"))
PAIRS = int(os.environ.get("TRIAL_PAIRS", "3"))
ALWAYS = ("bars_1m", "trades")


def check_pair(seed: int, new_lake: NewLake, tables: Sequence[str]) -> None:
    pair = make_pair(seed, new_lake, tables)
    read = partial(read_all, tables=tables)
    assert find_differences(pair, read) == [], f"pair of seed {seed}, T {pair.time}"


def test_a_pair_reads_alike_up_to_its_time(new_lake: NewLake) -> None:
    check_pair(SEED, new_lake, (*ALWAYS, "announced"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(1, PAIRS))
def test_pairs_read_alike_up_to_their_times(new_lake: NewLake, number: int) -> None:
    """Each pair has some of the tables: three of them follow another every time."""
    others = [table for table in TABLES if table not in ALWAYS]
    drawn = [others[(number + step) % len(others)] for step in (0, 3, 5)]
    check_pair(SEED + number, new_lake, (*ALWAYS, *drawn))
