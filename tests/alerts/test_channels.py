"""Channels with a real receiver: messages, failures, and secrets that are never shown."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from lake.alerts.channels import Channel, DeliveryError, NoAnswerError, deliver
from lake.alerts.messages import Level
from lake.errors import ConfigError
from tests.alerts.conftest import Receiver, wait_for

PASSWORD = "pass-hush"  # noqa: S105 - of nobody


def channel(url: str) -> Channel:
    return Channel("chat", SecretStr(url))


def test_a_message_arrives_as_json(receiver: Receiver) -> None:
    deliver(channel(receiver.url), "the title", "one\ntwo *bars_1m* <b>", "error")
    (message,) = receiver.taken()
    assert message.path == "/hook"
    assert message.title == "the title"
    assert message.text == "one\ntwo *bars_1m* <b>"
    assert message.headers["user-agent"] == "lake"


@pytest.mark.parametrize(
    ("level", "kind"),
    [("info", "info"), ("warning", "warning"), ("critical", "failure"), ("resolved", "success")],
)
def test_a_level_becomes_a_kind_of_apprise(receiver: Receiver, level: Level, kind: str) -> None:
    deliver(channel(receiver.url), "title", "body", level)
    assert receiver.taken()[0].body["type"] == kind


def test_a_plain_url_is_a_web_hook_with_path_query_and_password(receiver: Receiver) -> None:
    url = f"http://user:{PASSWORD}@127.0.0.1:{receiver.port}/a/b-c/D?token=x%20y%26z&flag="
    deliver(channel(url), "title", "body", "info")
    (message,) = receiver.taken()
    assert message.path in {"/a/b-c/D?token=x+y%26z&flag=", "/a/b-c/D?token=x%20y%26z&flag="}
    assert message.headers["authorization"].startswith("Basic ")


def test_a_native_url_of_a_service_is_known_as_that_service() -> None:
    from lake.alerts.channels import _open_service

    url = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert type(_open_service(channel(url))).__name__ == "NotifySlack"
    assert type(_open_service(channel("https://example.org/hook"))).__name__ == "NotifyJSON"
    assert type(_open_service(channel("mailto://user:pass@example.org"))).__name__ == "NotifyEmail"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(500, r"HTTP status 500 \(Internal Server Error\)"), (403, "HTTP status 403"), (302, "302")],
)
def test_a_status_that_is_no_success_is_a_failure(
    receiver: Receiver, status: int, reason: str
) -> None:
    receiver.status = status
    with pytest.raises(
        DeliveryError, match=f"channel 'chat' did not accept the message: .*{reason}"
    ):
        deliver(channel(receiver.url), "title", "body", "info")


def test_a_closed_port_is_a_failure() -> None:
    with pytest.raises(DeliveryError, match="the connection was refused"):
        deliver(channel("json://127.0.0.1:1/hook"), "title", "body", "info")


def test_a_host_that_is_not_known_is_a_failure() -> None:
    with pytest.raises(DeliveryError, match="its host is unknown"):
        deliver(channel("json://nowhere.invalid/hook"), "title", "body", "info")


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_server_that_hangs_is_left_in_time(receiver: Receiver, fault: str) -> None:
    deliver(channel(receiver.url), "first", "loads apprise", "info")
    setattr(receiver, fault, True)
    begun = time.monotonic()
    with pytest.raises(NoAnswerError, match="no answer in time"):
        deliver(channel(receiver.url), "title", "body", "info", timeout_seconds=0.5)
    # The receiver never ends; the bound is wide, for a busy machine stands still for seconds.
    assert time.monotonic() - begun < 20


def test_a_url_that_apprise_does_not_know_is_an_error_without_the_url() -> None:
    with pytest.raises(
        ConfigError, match="channel 'chat': apprise does not support its URL"
    ) as caught:
        deliver(channel("nosuch://token-hush/"), "title", "body", "info")
    assert "hush" not in str(caught.value)


def test_without_apprise_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # The import fails as it does where the extra is not installed.
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigError, match="channel 'chat' needs apprise") as caught:
        deliver(channel("json://127.0.0.1:1/"), "title", "body", "info")
    assert caught.value.hint == "Install the extra `alerts`: pip install 'marketlake[alerts]'"
    deliver(channel("log"), "title", "body", "info")


@pytest.mark.parametrize("url", ["json://user:{}@127.0.0.1:{}/{}?-k={}&+H={}", "xml://{}@nowhere/"])
def test_nothing_of_a_url_is_shown(
    receiver: Receiver,
    url: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.status = 500
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")
    port = str(receiver.port)
    url = url.format(PASSWORD, port, "path-hush", "query-hush", "header-hush")
    web_hook = channel(url)
    with pytest.raises(DeliveryError) as caught:
        deliver(web_hook, "title", "body", "info", timeout_seconds=5)
    captured = capfd.readouterr()
    trace = "".join(traceback.format_exception(caught.value))
    shown = (repr(web_hook), str(caught.value), trace, captured.err, caplog.text)
    assert captured.out == ""
    for text in shown:
        assert "hush" not in text


def test_apprise_prints_nothing_beside_us(
    receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    receiver.status = 500
    with pytest.raises(DeliveryError):
        deliver(channel(receiver.url), "title", "body", "info")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_others_who_use_apprise_still_see_its_warnings(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(channel(receiver.url), "title", "body", "info")
    logging.getLogger("apprise").warning("of somebody else")
    logging.getLogger("apprise").debug("too much")
    assert caplog.messages == ["of somebody else"]


def test_messages_at_once_do_not_take_each_others_reasons(
    receiver: Receiver, other_receiver: Receiver
) -> None:
    receiver.status, other_receiver.status = 500, 403

    def reason(receiver: Receiver) -> str:
        with pytest.raises(DeliveryError) as caught:
            deliver(channel(receiver.url), "title", "body", "info")
        return caught.value.message

    with ThreadPoolExecutor(8) as pool:
        reasons = list(pool.map(reason, [receiver, other_receiver] * 8))
    assert ["500" in text for text in reasons] == [True, False] * 8
    assert ["403" in text for text in reasons] == [False, True] * 8


def test_a_log_line_holds_the_whole_message(caplog: pytest.LogCaptureFixture) -> None:
    deliver(channel("log"), "the title", "one\ntwo", "error")
    deliver(channel("log"), "the title", "one\ntwo", "resolved")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    line = caplog.messages[0]
    assert line.startswith("event=alert")
    assert 'title="the title"' in line
    assert "\n" not in line


def test_a_log_that_leaves_a_line_out_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("lake").setLevel(logging.ERROR)
    with pytest.raises(
        DeliveryError, match=r"channel 'chat' did not accept the message: .* \[log\]"
    ) as caught:
        deliver(channel("log"), "the title", "body", "resolved")
    assert "level" in str(caught.value.hint)
    assert caplog.records == []
    deliver(channel("log"), "the title", "body", "error")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("options", "fits"), [("", True), ("?overflow=upstream", False)])
def test_what_is_too_long_for_a_service_is_cut(options: str, fits: bool) -> None:
    from lake.alerts.channels import _open_service

    service = _open_service(channel(f"discord://1742162980/JHMHI8qBe7bk2ZwO5U711o3dVjs{options}"))
    # Discord rejects messages of more than 2,000 characters; it is not available here.
    (part,) = service._apply_overflow("a line\n" * 1000, "the title")
    assert (len(part["title"]) + len(part["body"]) <= 2000) is fits


def test_a_thread_that_hangs_keeps_nobody_from_ending(receiver: Receiver) -> None:
    receiver.hang = True
    with pytest.raises(NoAnswerError):
        deliver(channel(receiver.url), "title", "body", "info", timeout_seconds=0.5)
    left = [thread for thread in threading.enumerate() if thread.name == "alert"]
    assert all(thread.daemon for thread in left)
    wait_for(lambda: not any(thread.is_alive() for thread in left))
