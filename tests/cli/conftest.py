"""The command line, run in this process on a lake that was filled from the sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lake.cli.app import run
from lake.sandbox import Sandbox

UNTIL = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
SINCE = UNTIL - timedelta(days=1)
RANGE = ("--since", f"{SINCE:%Y-%m-%d}", "--until", f"{UNTIL:%Y-%m-%d}")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The error object of --json: the last line on stderr."""
        found: dict[str, str] = json.loads(self.err.splitlines()[-1])
        return found


Cli = Callable[..., Outcome]


@pytest.fixture(scope="session")
def exchange() -> Iterator[Sandbox]:
    with Sandbox(weight_limit=False) as running:
        yield running


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, exchange: Sandbox) -> Path:
    """A lake with a day of bars and trades, and a bundle; tests only read it."""
    path = tmp_path_factory.mktemp("cli") / "lake"
    with pytest.MonkeyPatch.context() as patch:
        _point_at(patch, exchange)
        patch.setenv("LAKE_URI", str(path))
        assert run(["init"]) == 0
        for symbol in ("BTC/USDT", "ETH/USDT"):
            command = ["ingest", "bars", "trades", "-e", "binance", "-s", symbol, *RANGE]
            assert run([*command, "-q"]) == 0
        assert run(["bundle", "pin", "one-day", "bars_1m", "trades", "-q"]) == 0
    return path


@pytest.fixture
def cli(
    tmp_path: Path,
    exchange: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    """Runs a command in an empty folder, with `LAKE_URI` naming no lake yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    _point_at(monkeypatch, exchange)

    def invoke(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run(list(arguments))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return invoke


def _point_at(patch: pytest.MonkeyPatch, exchange: Sandbox) -> None:
    patch.setenv("LAKE_EXCHANGES__BINANCE__URL", exchange.url)
    patch.setenv("LAKE_HTTP__RATE_LIMIT", "false")
    patch.setenv("LAKE_HTTP__TIMEOUT_SECONDS", "2")
    patch.setenv("LAKE_RETRY__ATTEMPTS", "4")
    patch.setenv("LAKE_RETRY__WAIT_INITIAL_SECONDS", "0.01")
    patch.setenv("LAKE_RETRY__WAIT_MAX_SECONDS", "0.05")
