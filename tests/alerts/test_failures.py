"""Failing channels, simultaneous and killed runs: no message is lost, and no run is blocked."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from lake.api import Lake
from tests import processes
from tests.alerts.conftest import NOW, Clock, Receiver, Watched, findings, rule, settings, wait_for
from tests.conftest import write

CLOSED_PORT = "json://127.0.0.1:1/path-hush"


def put(lake: Lake, frame: pl.DataFrame) -> None:
    write(lake._context.store, "findings", frame)


def test_a_failing_channel_is_reported_and_notified_when_it_works(
    watched: Watched, receiver: Receiver, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()])
    put(lake, findings(1))
    receiver.status = 500
    report = lake.alerts.run()
    (outcome,) = report.failed
    assert outcome.error is not None
    assert "HTTP status 500" in outcome.error
    assert "HTTP status 500" in lake.alerts.ls()["error"][0]
    assert lake.alerts.ls()["sent_at"].to_list() == [None]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert 'event="alert not delivered"' in caplog.text
    assert "channel=chat" in caplog.text

    receiver.taken()
    receiver.status = 200
    clock.turn(seconds=1)
    assert lake.alerts.run().failed == ()
    assert [message.title for message in receiver.taken()] == ["lake: bad: 1 raised"]
    (row,) = lake.alerts.ls().to_dicts()
    assert (row["error"], row["timestamp"], row["sent_at"]) == (None, NOW, clock.now)


def test_an_alert_that_ends_before_a_channel_works_again_is_sent_raised_and_resolved(
    watched: Watched, receiver: Receiver, clock: Clock
) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()])
    put(lake, findings(1))
    receiver.status = 503
    lake.alerts.run()
    clock.turn(minutes=5)
    put(lake, findings(1, status="closed"))
    lake.alerts.run()
    receiver.taken()
    receiver.status = 200
    lake.alerts.run()
    assert [message.title for message in receiver.taken()] == ["lake: bad: 1 raised, 1 resolved"]
    lake.alerts.run()
    assert receiver.taken() == []


def test_a_failing_channel_does_not_stop_messages_to_others(
    watched: Watched, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    lake = watched(
        channels={"dead": CLOSED_PORT, "chat": receiver.url},
        rules=[rule(channels=["dead", "log", "chat"])],
    )
    put(lake, findings(1))
    lake.alerts.run()
    assert len(receiver.taken()) == 1
    sent = dict(lake.alerts.ls().select("channel", pl.col("sent_at").is_not_null()).iter_rows())
    assert sent == {"dead": False, "log": True, "chat": True}
    assert "event=alert " in caplog.text


def test_secrets_are_neither_in_the_table_nor_in_logs(
    watched: Watched, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    lake = watched(channels={"chat": CLOSED_PORT}, rules=[rule()])
    put(lake, findings(1))
    report = lake.alerts.run()
    everything = [
        *(
            frame.write_json()
            for frame in (lake.alerts.ls(), report.frame(), lake._context.ledger.read_jobs())
        ),
        *(repr(value) for value in (report, lake.settings)),
        caplog.text,
        *capfd.readouterr(),
    ]
    assert "refused" in everything[0]
    for text in everything:
        assert "hush" not in text


def test_a_hanging_channel_costs_its_timeout_once_a_run(
    watched: Watched, receiver: Receiver, other_receiver: Receiver
) -> None:
    lake = watched(
        channels={"chat": receiver.url, "mail": other_receiver.url},
        rules=[rule(f"rule-{n}", channels=["chat", "mail"]) for n in range(5)],
        timeout_seconds=4,
    )
    put(lake, findings(1))
    lake.alerts.test("mail")  # loads apprise, which takes as long as the machine is busy
    other_receiver.taken()
    receiver.hang = True
    begun = time.monotonic()
    report = lake.alerts.run()
    assert time.monotonic() - begun < 20
    assert len(report.failed) == 5
    assert len(receiver.taken()) == 1
    assert len(other_receiver.taken()) == 5
    receiver.hang = False
    assert lake.alerts.run().failed == ()
    assert len(receiver.taken()) == 5
    assert other_receiver.taken() == []


def test_a_slow_channel_has_its_timeout_for_all_its_messages(
    watched: Watched, receiver: Receiver
) -> None:
    alerts = {
        "channels": {"chat": receiver.url},
        "rules": [rule(f"rule-{n}") for n in range(8)],
    }
    lake = watched(timeout_seconds=2.5, **alerts)
    put(lake, findings(1))
    lake.alerts.test("chat")
    receiver.slow_seconds = 1
    report = lake.alerts.run()
    assert len(report.failed) >= 5
    assert report.failed[-1].error in {
        "channel 'chat' did not accept the message: no answer in time",
        "channel 'chat' had no time left: earlier messages took too long",
    }
    receiver.slow_seconds = 0
    patient = watched(str(lake.root.path), timeout_seconds=60, **alerts)
    assert patient.alerts.run().failed == ()
    assert lake.alerts.ls()["sent_at"].null_count() == 0


def test_an_answer_that_comes_late_leaves_no_time_for_the_next(
    watched: Watched, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lake.jobs import alerts

    lake = watched(channels={"chat": receiver.url}, rules=[rule("a"), rule("b")])
    put(lake, findings(1))
    # No receiver can answer in the very moment in which the time is over.
    monkeypatch.setattr(alerts, "_send", lambda *_: time.sleep(0.02))
    lake = watched(
        str(lake.root.path),
        timeout_seconds=0.01,
        **lake.settings.alerts.model_dump(include={"rules"}),
    )
    assert [outcome.error for outcome in lake.alerts.run().outcomes] == [
        None,
        "channel 'chat' had no time left: earlier messages took too long",
    ]


def test_a_failure_that_stays_the_same_writes_nothing_new(watched: Watched) -> None:
    lake = watched(channels={"chat": CLOSED_PORT}, rules=[rule()])
    put(lake, findings(1))
    lake.alerts.run()
    commits = len(lake._context.ledger.read_commits("alerts"))
    assert len(lake.alerts.run().failed) == 1
    assert len(lake._context.ledger.read_commits("alerts")) == commits


def test_without_apprise_a_run_goes_on_and_says_so(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The import fails as it does where the extra is not installed.
    monkeypatch.setitem(sys.modules, "apprise", None)
    lake = watched(channels={"chat": CLOSED_PORT}, rules=[rule(channels=["chat", "log"])])
    put(lake, findings(1))
    (outcome,) = lake.alerts.run().failed
    assert outcome.error == (
        "channel 'chat' needs apprise, which is not installed. "
        "Install the extra `alerts`: pip install 'marketlake[alerts]'"
    )


def test_a_channel_that_is_not_there_is_a_failure(watched: Watched) -> None:
    lake = watched(rules=[rule(channels=["nobody"])])
    put(lake, findings(1))
    assert [outcome.error for outcome in lake.alerts.run().failed] == [
        "there is no channel 'nobody'"
    ]


def _child(uri: str, url: str) -> None:
    # A message without an answer in time is sent again: a busy machine may pause for seconds.
    alerts = {"channels": {"chat": url}, "rules": [rule()], "timeout_seconds": 60}
    Lake(settings(uri, **alerts)).alerts.run()


def test_two_processes_at_once_send_one_message(watched: Watched, receiver: Receiver) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()])
    put(lake, findings(3))
    children = [processes.start(_child, str(lake.root.path), receiver.url) for _ in range(3)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len(receiver.taken()) == 1
    assert lake.alerts.ls().height == 1


def test_threads_of_one_process_send_one_message(watched: Watched, receiver: Receiver) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()])
    put(lake, findings(3))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: lake.alerts.run(), range(4)))
    assert len(receiver.taken()) == 1


def test_a_run_that_waits_in_vain_for_another_does_nothing_and_says_so(
    watched: Watched, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lake.jobs import alerts

    lake = watched(channels={"chat": receiver.url}, rules=[rule()], timeout_seconds=20)
    put(lake, findings(1))
    receiver.hang = True
    # Waiting takes half a minute otherwise.
    monkeypatch.setattr(alerts, "_estimate_longest_run", lambda _: timedelta(seconds=0.2))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lake.alerts.run)
        wait_for(lambda: len(receiver.requests) == 1)
        assert lake.alerts.run().busy
        receiver.closing.set()
        assert not first.result().busy
    assert len(receiver.requests) == 1


def _killed_after_delivery(uri: str, url: str) -> None:
    from lake.jobs import alerts

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    # The kill must strike between delivery and record, which no clock can hit.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alerts, "_record", die)
        _child(uri, url)


def test_after_a_kill_between_delivery_and_record_the_message_is_sent_again(
    watched: Watched, receiver: Receiver
) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()])
    put(lake, findings(1))
    child = processes.start(_killed_after_delivery, str(lake.root.path), receiver.url)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert [message.title for message in receiver.taken()] == ["lake: bad: 1 raised"]
    assert lake.alerts.ls().is_empty()
    lake.alerts.run()
    assert [message.title for message in receiver.taken()] == ["lake: bad: 1 raised"]
    lake.alerts.run()
    assert receiver.taken() == []
