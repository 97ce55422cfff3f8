"""Defects at random places of recorded rows are found; `tests/bench` prints the whole table."""

from __future__ import annotations

import numpy as np
import pytest

from tests.quality.injection.bars import BAR_KINDS
from tests.quality.injection.books import BOOK_KINDS
from tests.quality.injection.count import FEW, Kind, count_hits, require_hits
from tests.quality.injection.recordings import needs_recordings
from tests.quality.injection.trades import TRADE_KINDS
from tests.quality.real import needs_data

KINDS = {kind.name: kind for kind in (*BAR_KINDS, *TRADE_KINDS, *BOOK_KINDS)}
PAIRS = [
    pytest.param(kind, witness, seed, id=f"{kind.name}-{witness}")
    for seed, kind in enumerate(KINDS.values())
    for witness, least in kind.least.items()
    if least
]


@needs_data
@needs_recordings
@pytest.mark.parametrize(("kind", "witness", "seed"), PAIRS)
def test_defects_are_found(kind: Kind, witness: str, seed: int) -> None:
    require_hits(kind, witness, *count_hits(kind, np.random.default_rng(seed), witness, FEW))
