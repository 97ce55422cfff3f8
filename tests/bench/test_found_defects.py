"""Print how many of 50 defects of each kind the checks find: alone, and with each witness.

A defect is found if findings of at least the severity of a warning name two thirds of its rows;
findings that the clean rows have, too, do not count. `LAKE_BENCH_SEED` is the seed.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.quality.injection.bars import BAR_KINDS
from tests.quality.injection.books import BOOK_KINDS
from tests.quality.injection.count import Kind, count_hits, require_hits
from tests.quality.injection.recordings import needs_recordings
from tests.quality.injection.trades import TRADE_KINDS
from tests.quality.real import needs_data

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800), needs_data, needs_recordings]

WITNESSES = ("alone", "venue", "trades", "bars")
SEED = int(os.environ.get("LAKE_BENCH_SEED", "20240808"))


@pytest.fixture(scope="module", autouse=True)
def _print_head() -> None:
    print(f"\nfound of 50 defects (least), seed {SEED}")
    print(f"{'kind':36}" + "".join(f"{witness:>11}" for witness in WITNESSES))


@pytest.mark.parametrize("kind", [*BAR_KINDS, *TRADE_KINDS, *BOOK_KINDS], ids=lambda k: k.name)
def test_defects_are_found(kind: Kind) -> None:
    counts = {
        witness: count_hits(kind, np.random.default_rng(SEED), witness) for witness in kind.least
    }
    cells = (
        f"{counts[witness][0]} ({kind.least[witness]})" if witness in counts else "-"
        for witness in WITNESSES
    )
    print(f"\n{kind.name:36}" + "".join(f"{cell:>11}" for cell in cells), end="")
    for witness, (hits, total) in counts.items():
        require_hits(kind, witness, hits, total)
