"""Refusals as they are recorded: the same one again grows, and pauses for longer."""

from __future__ import annotations

from datetime import datetime

from lake.api import Lake
from lake.model.market import Market
from lake.store.refusals import NewRefusal, Refusal, Refusals
from lake.store.store import Store
from tests.conftest import DAY, MINUTE, ORIGIN, T0

NOW = T0 + 30 * DAY
PAUSES = (60 * MINUTE, DAY, 7 * DAY)


def record(lake: Lake, now: datetime, *refusals: NewRefusal) -> list[Refusal]:
    stored = Refusals(Store(lake.root, lambda: now))
    stored.record(refusals, ORIGIN)
    return sorted(stored.read(), key=lambda item: item.start)


def of(
    first: int, last: int | None, symbol: str = "BTC/USDT", reason: str = "too_long_ago"
) -> NewRefusal:
    end = None if last is None else T0 + last * DAY
    return NewRefusal("trades", Market("binance", symbol), T0 + first * DAY, end, reason, "no")


def test_a_beginning_that_moves_with_time_is_the_same_refusal(lake: Lake) -> None:
    for n in range(3):
        [kept] = record(lake, NOW + n * DAY, of(n, 10 + n))
        assert (kept.start, kept.end, kept.times) == (T0, T0 + (10 + n) * DAY, n + 1)
        assert kept.again_at - (NOW + n * DAY) == PAUSES[min(n, 2)]
    [kept] = record(lake, NOW, of(5, None))
    assert (kept.start, kept.end, kept.times) == (T0, None, 4)


def test_two_windows_of_one_earlier_refusal_are_recorded_as_one(lake: Lake) -> None:
    record(lake, NOW, of(0, 10))
    [kept] = record(lake, NOW + DAY, of(1, 2), of(4, 12))
    assert (kept.start, kept.end, kept.times) == (T0, T0 + 12 * DAY, 2)


def test_another_market_reason_or_range_is_another_refusal(lake: Lake) -> None:
    record(lake, NOW, of(0, 2))
    others = (of(2, 3), of(1, 3, "ETH/USDT"), of(1, 3, reason="forbidden"))
    kept = record(lake, NOW, *others)
    assert [item.times for item in kept] == [1, 1, 1, 1]
