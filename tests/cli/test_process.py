"""The command as a process: what it loads, how it is stopped, where its output goes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lake.sandbox import Fault, Sandbox
from tests.cli.conftest import SINCE

LAKE = Path(sys.executable).parent / "lake"
HEAVY = ("ccxt", "web3", "duckdb", "polars", "deltalake", "pyarrow")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["ingest", "--help"], ["nope"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from lake.cli.app import run; run(sys.argv[1:]);"
        f"loaded = [m for m in {HEAVY} if m in sys.modules]; sys.exit(','.join(loaded) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_import_lake_loads_nothing_heavy() -> None:
    code = f"import sys, lake; sys.exit(','.join(m for m in {HEAVY} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_ends_in_141(filled: Path) -> None:
    query = "SELECT * FROM range(2000000)"
    command = f"{LAKE} sql '{query}' --csv --lake {filled} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (141, "range\n", "")


def _environment(path: Path, exchange: Sandbox) -> dict[str, str]:
    return {
        **os.environ,
        "LAKE_URI": str(path),
        "LAKE_EXCHANGES__BINANCE__URL": exchange.url,
        "LAKE_HTTP__RATE_LIMIT": "false",
        "LAKE_HTTP__TIMEOUT_SECONDS": "60",
        "LAKE_INGEST__BATCH_ROWS": "1000",
    }


def _started(
    path: Path, exchange: Sandbox, *arguments: str, before: Sequence[str] = ()
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, str(LAKE), *arguments],
        env=_environment(path, exchange),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# As a shell without job control does for a background job.
IGNORE_INTERRUPT = ("bash", "-c", 'trap "" INT; exec "$@"', "bash")


@pytest.fixture
def hanging(tmp_path: Path, exchange: Sandbox) -> Iterator[Path]:
    """A lake, and an exchange that answers the first request for bars only."""
    path = tmp_path / "lake"
    assert _started(path, exchange, "init").wait() == 0
    exchange.clear_log()
    exchange.fail(Fault("timeout", match="klines", skip=1, times=1000, hang_seconds=60))
    yield path
    exchange.recover()


INGEST = (
    "ingest", "bars", "-e", "binance", "-s", "BTC/USDT", "--since", f"{SINCE:%Y-%m-%d}"
)  # fmt: skip


def _wait_until_it_hangs(exchange: Sandbox) -> None:
    deadline = time.monotonic() + 60
    while not any(entry.fault for entry in exchange.log) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)


def _read_jobs(path: Path, exchange: Sandbox) -> list[tuple[str, str | None]]:
    jobs = json.loads(_started(path, exchange, "audit", "--jobs", "--json").communicate()[0])
    return [(job["status"], job["error"]) for job in jobs]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_command_and_keeps_what_was_fetched(
    hanging: Path, exchange: Sandbox, number: signal.Signals, code: int
) -> None:
    child = _started(hanging, exchange, *INGEST)
    _wait_until_it_hangs(exchange)
    assert _read_jobs(hanging, exchange) == [("running", None)]
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode == code, err
    assert "Traceback" not in err
    assert err.endswith("error: interrupted\nThe same command continues from here.\n")
    assert ": interrupted, " in err, "the summary of what was stored"
    assert _read_jobs(hanging, exchange) == [("interrupted", "stopped by a signal")]
    assert list((hanging / "jobs").iterdir()) == []


def test_a_background_job_that_ignores_ctrl_c_is_ended_by_sigterm(
    hanging: Path, exchange: Sandbox
) -> None:
    child = _started(hanging, exchange, *INGEST, before=IGNORE_INTERRUPT)
    _wait_until_it_hangs(exchange)
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 143, err
    assert "Traceback" not in err
    assert ": interrupted, " in err
    assert _read_jobs(hanging, exchange) == [("interrupted", "stopped by a signal")]


def test_a_terminal_that_is_closed_ends_a_command(hanging: Path, exchange: Sandbox) -> None:
    """Where its summary would be written is gone: that is no error of the job."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(LAKE, ["lake", *INGEST], _environment(hanging, exchange))  # noqa: S606
    _wait_until_it_hangs(exchange)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert _read_jobs(hanging, exchange) == [("interrupted", "stopped by a signal")]


def test_a_command_that_is_killed_is_interrupted(hanging: Path, exchange: Sandbox) -> None:
    child = _started(hanging, exchange, *INGEST)
    _wait_until_it_hangs(exchange)
    child.kill()
    child.communicate()
    [(status, _)] = _read_jobs(hanging, exchange)
    assert status == "interrupted"


def test_the_sandbox_serves_until_it_is_stopped(tmp_path: Path, exchange: Sandbox) -> None:
    for stop in (signal.SIGINT, signal.SIGTERM):
        child = _started(tmp_path, exchange, "sandbox", "serve", "--json")
        assert child.stdout is not None
        url = json.loads(child.stdout.readline())["url"]
        assert url.startswith("http://127.0.0.1:")
        child.send_signal(stop)
        assert child.wait(timeout=10) == 0
        assert child.stderr is not None
        assert child.stderr.read() == ""


def test_version_and_changelog_agree() -> None:
    version = subprocess.run(
        [str(LAKE), "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog.split("## ", 2)[1].startswith(version)
