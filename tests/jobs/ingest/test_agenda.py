"""What is asked next after refusals: against a model of a venue that refuses by rule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import SourceError, SourceRefusedError, SourceUnavailableError
from lake.jobs.ingest.agenda import PATIENCE, Agenda
from lake.jobs.ingest.plan import Task, plan_tasks
from lake.model.catalog import builtin
from lake.model.intervals import subtract, union
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.sources.base import FetchRequest
from tests.conftest import MINUTE, T0

BARS = builtin().dataset("bars_1m")
BTC, ETH = (FetchRequest(BARS, Market("okx", f"{coin}/USDT")) for coin in ("BTC", "ETH"))
WINDOW = timedelta(minutes=240)
Answer = Callable[[FetchRequest, TimeRange], SourceError | None]


def refused(reason: str) -> SourceRefusedError:
    return SourceRefusedError("no", reason=reason)  # type: ignore[arg-type]


def tasks_of(*requests: FetchRequest, windows: int = 8, batch_size: int = 1) -> list[Task]:
    gap = TimeRange(T0, T0 + windows * WINDOW)
    return plan_tasks({request: [gap] for request in requests}, lambda _: WINDOW, batch_size)


def work(agenda: Agenda, answer: Answer, concurrency: int = 1) -> list[Task]:
    """Take tasks, several at once, until none is left; return those that were asked, in order."""
    asked: list[Task] = []
    running: list[Task] = []
    while True:
        while len(running) < concurrency and (task := agenda.take()):
            running.append(task)
            asked.append(task)
        if not running:
            return asked
        task = running.pop(0)
        errors = [e for request in task.requests if (e := answer(request, task.window))]
        if errors:
            agenda.fail(task, errors[0])
        else:
            agenda.complete(task)


@given(
    st.integers(0, 8 * 240),
    st.integers(1, 40),
    st.sampled_from([1, 8]),
    st.sampled_from([1, 2]),
)
def test_what_is_not_too_long_ago_is_fetched_to_a_fine_grain(
    limit: int, windows: int, concurrency: int, batch_size: int
) -> None:
    oldest = T0 + limit * MINUTE

    def answer(_request: FetchRequest, window: TimeRange) -> SourceError | None:
        return refused("too_long_ago") if window.start < oldest else None

    agenda = Agenda(tasks_of(BTC, ETH, windows=windows, batch_size=batch_size))
    asked = work(agenda, answer, concurrency)
    end = T0 + windows * WINDOW
    for request in (BTC, ETH):
        left = union(item.window for item in agenda.failures if item.request == request)
        given_ranges = union(
            task.window
            for task in asked
            if request in task.requests and task.window.start >= oldest
        )
        # Each part of what was planned is either given or refused, and never both.
        assert union([*left, *given_ranges]) == (TimeRange(T0, end),)
        assert subtract(left, given_ranges) == left
        if left:
            assert left[0].start == T0
            assert len(left) == 1
            assert left[0].end - min(oldest, end) <= WINDOW / 16
    assert len(asked) <= 2 * (windows + 16 + 2 * concurrency)


def test_windows_before_one_that_is_too_long_ago_are_not_asked() -> None:
    oldest = T0 + 1000 * WINDOW

    def answer(_request: FetchRequest, window: TimeRange) -> SourceError | None:
        return refused("too_long_ago") if window.start < oldest else None

    agenda = Agenda(tasks_of(BTC, windows=1024))
    refusals = [task for task in work(agenda, answer) if task.window.start < oldest]
    assert len(refusals) < 25
    assert union(item.window for item in agenda.failures) == (TimeRange(T0, oldest),)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_market_that_is_gone_stops_only_itself(batch_size: int) -> None:
    def answer(request: FetchRequest, _window: TimeRange) -> SourceError | None:
        return refused("not_listed") if request == ETH else None

    agenda = Agenda(tasks_of(BTC, ETH, batch_size=batch_size))
    asked = work(agenda, answer)
    assert {item.request for item in agenda.failures} == {ETH}
    assert union(item.window for item in agenda.failures) == (TimeRange(T0, T0 + 8 * WINDOW),)
    assert sum(task.requests == (ETH,) for task in asked) == 1
    assert union(t.window for t in asked if BTC in t.requests) == (TimeRange(T0, T0 + 8 * WINDOW),)


def test_a_refused_window_stops_no_other_window() -> None:
    bad = TimeRange(T0 + 3 * WINDOW, T0 + 4 * WINDOW)

    def answer(_request: FetchRequest, window: TimeRange) -> SourceError | None:
        return refused("refused") if window == bad else None

    agenda = Agenda(tasks_of(BTC))
    assert len(work(agenda, answer)) == 8
    assert [item.window for item in agenda.failures] == [bad]


@pytest.mark.parametrize("error", [SourceUnavailableError("down"), SourceError("unreadable")])
def test_an_exchange_that_is_down_is_not_asked_for_the_rest(error: SourceError) -> None:
    agenda = Agenda(tasks_of(BTC, ETH, windows=100))
    asked = work(agenda, lambda _request, _window: error)
    assert len(asked) == PATIENCE
    assert len(agenda.failures) == 200


def test_a_market_that_fails_again_and_again_is_left_and_the_others_go_on() -> None:
    down = SourceUnavailableError("down")
    agenda = Agenda(tasks_of(BTC, ETH, windows=100))
    asked = work(agenda, lambda request, _window: down if request == ETH else None)
    assert sum(task.requests == (ETH,) for task in asked) == PATIENCE
    assert sum(task.requests == (BTC,) for task in asked) == 100
