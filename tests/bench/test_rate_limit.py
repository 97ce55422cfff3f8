"""What an ingestion uses of the weight that Binance allows, at its limit and in its minutes."""

from __future__ import annotations

import pytest

from lake.sources.venues.rate_limits import find_limit
from tests.bench.conftest import report
from tests.canned import serve_canned
from tests.sources.test_rate_filled import measure

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]
PAGES = 4000  # 80 seconds at the limit


@pytest.mark.parametrize(("delay_ms", "jitter_ms"), [(20, 0), (200, 0), (200, 200)])
def test_share_of_the_allowed_weight(delay_ms: int, jitter_ms: int) -> None:
    limit = find_limit("binance", "public", "klines")
    assert limit is not None
    with serve_canned(delay_ms, jitter_ms) as venue:
        share = measure(venue, limit.allowance, PAGES)
    report(f"share of the allowed weight at {delay_ms} ms + {jitter_ms} ms", share, ">= 0.9")
    assert share >= 0.9
