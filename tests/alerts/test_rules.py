"""Rules and channels in settings: errors of wrong ones, which never show a URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lake.errors import ConfigError
from lake.settings import load_settings

RULE = '[[alerts.rules]]\nname = "bad"\n'


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LAKE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def write(text: str) -> None:
    Path("lake.toml").write_text(text, encoding="utf-8")


def test_rules_and_channels_are_read() -> None:
    write(
        "[alerts]\nrepeat_seconds = 0\n"
        '[alerts.channels]\nops = "log"\nchat = "slack://a/b/c"\n'
        f'{RULE}severity = "error"\nmin_findings = 5\nchannels = ["ops", "chat"]\n'
        '[[alerts.rules]]\nname = "old"\nfreshness_seconds = 120\nchannels = ["log"]\n'
    )
    alerts = load_settings().alerts
    assert [rule.name for rule in alerts.rules] == ["bad", "old"]
    assert (alerts.rules[0].min_findings, alerts.rules[0].symbol) == (5, "*")
    assert list(alerts.targets) == ["log", "ops", "chat"]


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ('channels = ["log"]', "0: rule bad needs severity, for findings, or freshness"),
        ('severity = "error"', r"0\.channels: Field required"),
        ('severity = "error"\nchannels = []', r"0\.channels: "),
        ('severity = "bad"\nchannels = ["log"]', r"0\.severity: "),
        (
            'severity = "error"\nchannels = ["log", "log"]',
            "0: rule bad names the same channel twice",
        ),
        ('severity = "error"\nchannels = ["log"]\ndatset = "*"', r"0\.datset: unknown setting"),
        ('severity = "error"\nchannels = ["log"]\nmin_findings = 0', r"0\.min_findings: "),
        (
            'freshness_seconds = 9\ncheck = "gap"\nmin_findings = 2\nchannels = ["log"]',
            "0: rule bad has freshness_seconds, and check, min_findings, which apply to findings",
        ),
        (
            'severity = "error"\nchannels = ["nobody"]',
            "0: rule 'bad' names the unknown channel 'nobody'",
        ),
    ],
)
def test_a_wrong_rule_is_reported_with_its_place(rest: str, reason: str) -> None:
    write(f"{RULE}{rest}\n")
    with pytest.raises(ConfigError, match=rf"lake\.toml: alerts\.rules\.{reason}"):
        load_settings()


def test_two_rules_of_one_name_are_an_error() -> None:
    text = f'{RULE}severity = "error"\nchannels = ["log"]\n'
    write(text + text)
    with pytest.raises(ConfigError, match=r"lake\.toml: alerts: two rules have the name bad"):
        load_settings()


def test_a_name_with_braces_is_shown_unchanged() -> None:
    write('[[alerts.rules]]\nname = "{x}"\nchannels = ["log"]\n')
    with pytest.raises(ConfigError, match=r"rule \{x\} needs severity"):
        load_settings()


def test_a_channel_may_be_defined_elsewhere_than_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    write(f'{RULE}severity = "error"\nchannels = ["chat"]\n')
    monkeypatch.setenv("LAKE_ALERTS__CHANNELS__CHAT", "json://host/hush")
    target = load_settings().alerts.targets["chat"]
    assert target.get_secret_value() == "json://host/hush"


@pytest.mark.parametrize("value", ["token-hush", "://hush", "json://", 5, ["json://hush"]])
def test_a_target_that_is_none_is_an_error_that_does_not_show_it(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"command line: alerts\.channels\.chat: ") as caught:
        load_settings({"alerts": {"channels": {"chat": value}}})
    assert "hush" not in str(caught.value)


def test_a_url_where_a_name_of_a_channel_belongs_is_not_shown() -> None:
    write(f'{RULE}severity = "error"\nchannels = ["slack://hush"]\n')
    with pytest.raises(ConfigError, match=r"alerts\.rules\.0: rule bad has a URL as") as caught:
        load_settings()
    assert "hush" not in str(caught.value)


def test_urls_are_never_shown() -> None:
    settings = load_settings({"alerts": {"channels": {"chat": "json://host/hush"}}})
    for shown in (repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "hush" not in shown
