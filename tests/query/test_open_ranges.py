"""What status shows as open: what is left of refusals, each time once for a reason."""

from __future__ import annotations

from datetime import timedelta

from lake.model.market import Market
from lake.model.time import TimeRange
from lake.query.open_ranges import describe_refusals
from lake.store.refusals import Refusal
from tests.conftest import DAY, T0

NOW = T0 + 9 * DAY
AGAIN = NOW + DAY


def of(first: int, last: int | None, reason: str = "too_long_ago", again: int = 0) -> Refusal:
    end = None if last is None else T0 + last * DAY
    market = Market("binance", "BTC/USDT")
    start, again_at = T0 + first * DAY, AGAIN + again * DAY
    return Refusal("trades", market, "ccxt", start, end, reason, "no", 1, NOW, again_at)


def span(first: int, last: int) -> TimeRange:
    return TimeRange(T0 + first * DAY, T0 + last * DAY)


def test_only_what_is_not_covered_since_is_open() -> None:
    assert describe_refusals([of(0, 4)], (span(1, 2), span(3, 9)), NOW) == [
        (
            "too_long_ago 2024-01-01T00:00:00Z to 2024-01-02T00:00:00Z, "
            "asked again after 2024-01-11T00:00:00Z"
        ),
        (
            "too_long_ago 2024-01-03T00:00:00Z to 2024-01-04T00:00:00Z, "
            "asked again after 2024-01-11T00:00:00Z"
        ),
    ]
    assert describe_refusals([of(0, 4)], (span(0, 4),), NOW) == []


def test_overlaps_are_told_once_with_the_last_time_at_which_they_are_asked() -> None:
    assert describe_refusals([of(0, 4), of(2, 6, again=6), of(8, None)], (), NOW) == [
        (
            "too_long_ago 2024-01-01T00:00:00Z to 2024-01-07T00:00:00Z, "
            "asked again after 2024-01-17T00:00:00Z"
        ),
        "too_long_ago 2024-01-09T00:00:00Z, asked again after 2024-01-11T00:00:00Z",
    ]
    assert len(describe_refusals([of(0, 4), of(0, 4, "forbidden")], (), NOW)) == 2


def test_one_without_end_is_over_once_later_times_are_fetched() -> None:
    refusal, later = of(2, None), NOW + timedelta(hours=1)
    assert refusal.limit((TimeRange(T0, NOW),)).end is None
    limited = refusal.limit((TimeRange(T0, later),))
    assert limited.end == NOW
    assert describe_refusals([limited], (TimeRange(T0, later),), later + DAY) == []
