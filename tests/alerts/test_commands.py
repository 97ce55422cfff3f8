"""`lake alert`: outcomes on stdout, exit codes, and no secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lake.api import Lake
from lake.cli.app import run
from lake.settings import load_settings
from tests.alerts.conftest import Receiver, findings
from tests.conftest import NewLake, write

Configured = Callable[..., Lake]


@pytest.fixture
def configured(new_lake: NewLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configured:
    """Create a lake, and a `lake.toml` in the current folder with channels and a rule for each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))

    def make(**channels: str) -> Lake:
        lines = [f"uri = {str(new_lake().root.path)!r}", "[alerts.channels]"]
        lines += [f"{name} = {url!r}" for name, url in channels.items()]
        lines += ["[[alerts.rules]]", "name = 'bad'", "severity = 'warning'"]
        lines += [f"channels = {list(channels) or ['log']!r}"]
        Path("lake.toml").write_text("\n".join(lines), encoding="utf-8")
        return Lake(load_settings())

    return make


def test_all_channels_are_tested(
    configured: Configured, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(chat=receiver.url, dead="json://127.0.0.1:1/path-hush")
    assert run(["alert", "test", "--json"]) == 4
    captured = capsys.readouterr()
    outcomes = {row["channel"]: row for row in json.loads(captured.out)}
    assert [row["outcome"] for row in outcomes.values()] == ["sent", "sent", "failed"]
    assert "the connection was refused" in outcomes["dead"]["error"]
    error = json.loads(captured.err.splitlines()[-1])
    assert error["code"] == "delivery"
    assert error["message"] == "1 of 3 channels did not take the test message: dead"
    assert "hush" not in captured.out + captured.err
    (message,) = receiver.taken()
    assert message.title == "lake: test"
    assert "channel chat" in message.text


def test_one_channel_is_tested(configured: Configured, receiver: Receiver) -> None:
    configured(chat=receiver.url, dead="json://127.0.0.1:1/")
    assert run(["alert", "test", "chat"]) == 0
    assert len(receiver.taken()) == 1


def test_a_test_of_a_channel_that_is_not_there_is_a_usage_error(
    configured: Configured, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(chat="json://127.0.0.1:1/")
    assert run(["alert", "test", "caht"]) == 2
    assert "Channels are log, chat" in capsys.readouterr().err


def test_a_run_sends_messages_and_shows_them(
    configured: Configured, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = configured(chat=receiver.url)
    write(lake._context.store, "findings", findings(2))
    assert run(["alert", "run", "--json"]) == 0
    captured = capsys.readouterr()
    sent = {"rule": "bad", "channel": "chat", "raised": 1, "repeated": 0, "resolved": 0}
    assert json.loads(captured.out) == [{**sent, "error": None}]
    assert "Active alerts: 1; not sent, too soon: 0." in captured.err
    assert len(receiver.taken()) == 1
    assert run(["alert", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_run_whose_channel_fails_exits_so(
    configured: Configured, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = configured(dead="json://127.0.0.1:1/path-hush")
    write(lake._context.store, "findings", findings(1))
    assert run(["alert", "run"]) == 4
    captured = capsys.readouterr()
    assert "1 of 1 message did not arrive" in captured.err
    assert "hush" not in captured.out + captured.err


def test_what_holds_is_listed_and_what_is_over_on_request(
    configured: Configured, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(*options: str) -> list[str]:
        capsys.readouterr()
        assert run(["alert", "ls", "--json", *options]) == 0
        return [row["symbol"] for row in json.loads(capsys.readouterr().out)]

    lake = configured(chat=receiver.url)
    Path("lake.toml").write_text(
        Path("lake.toml").read_text() + "\n[alerts]\nmin_interval_seconds = 0\n"
    )
    assert listed() == []
    write(lake._context.store, "findings", findings(1))
    write(lake._context.store, "findings", findings(1, symbol="ETH/USDT"))
    run(["alert", "run", "-q"])
    write(lake._context.store, "findings", findings(1, status="closed"))
    run(["alert", "run", "-q"])
    assert listed() == ["ETH/USDT"]
    assert sorted(listed("--all")) == ["BTC/USDT", "ETH/USDT"]
    assert run(["alert", "ls"]) == 0
    assert "binance ETH/USDT" in capsys.readouterr().out
