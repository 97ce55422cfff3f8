"""Every command and every example of the README works as printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lake.cli.app import run
from lake.model.catalog import builtin
from lake.quality.configure import configure
from lake.sandbox import Sandbox
from lake.settings import Settings
from tests import processes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python|toml)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
BIN = Path(sys.executable).parent
SHELL = {"|", ">", "&&", ";"}
# These set up an environment, or run this very test: .ci/run runs them.
BY_CI = ("./scripts/demo", "./scripts/test", "./scripts/examples/run", "pip install .")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_command_and_example_works_as_printed(tmp_path: Path) -> None:
    commands = 0
    with Sandbox(weight_limit=False) as sandbox:
        environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "LAKE_EXCHANGES__BINANCE__URL": sandbox.url,
            "LAKE_HTTP__RATE_LIMIT": "false",
        }
        for language, text in BLOCKS:
            if language == "python":
                _run_child(tmp_path, environment, _run_python, text)
                commands += 1
            for line in text.splitlines() if language == "bash" else ():
                if line not in BY_CI:
                    _run_line(tmp_path, environment, line)
                    commands += 1
    assert commands > 20


def _run_line(folder: Path, environment: dict[str, str], line: str) -> None:
    """Run a line as a shell does; `lake` in a child that need not import everything anew."""
    program, *arguments = shlex.split(line)
    if program == "lake" and not set(arguments) & SHELL:
        _run_child(folder, environment, _run_lake, arguments)
        return
    command = ["bash", "-c", line]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    _require_success(line, done.returncode, done.stdout + done.stderr)


def _run_child(
    folder: Path, environment: dict[str, str], work: Callable[[Any], None], argument: Any
) -> None:
    output = folder / "output"
    child = processes.start(_run_in, folder, environment, output, work, argument)
    child.join()
    _require_success(argument, child.exitcode, output.read_text(encoding="utf-8"))
    output.unlink()


def _require_success(command: object, code: int | None, written: str) -> None:
    assert code == 0, f"{command}\n{written}"
    assert written, f"{command} says nothing"


def _run_in(
    folder: Path,
    environment: dict[str, str],
    output: Path,
    work: Callable[[Any], None],
    argument: Any,
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    with output.open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    work(argument)


def _run_lake(arguments: list[str]) -> None:
    sys.exit(run(arguments))


def _run_python(text: str) -> None:
    exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102


def test_the_commands_left_to_ci_are_run_there() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("scripts/demo", "scripts/test", "scripts/examples/run"):
        assert command in ci


def test_the_settings_shown_are_settings() -> None:
    *parts, whole = [text for language, text in BLOCKS if language == "toml"]
    for text in parts:
        for table, overrides in tomllib.loads(text)["quality"]["checks"].items():
            assert configure(
                builtin().dataset(f"{table.removesuffix('_1m')}_1m"), {table: overrides}
            )
    shown = Settings.model_validate(tomllib.loads(whole))
    for section in ("http", "retry", "ingest", "quality", "cache", "log"):
        assert getattr(shown, section) == getattr(Settings(), section), "not the defaults"


def test_every_command_is_documented() -> None:
    listed = subprocess.run(
        [str(BIN / "lake"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    verbs = re.findall(r"^│ ([a-z]+) {2,}[A-Z]", listed, re.MULTILINE)
    assert len(verbs) > 8
    for verb in verbs:
        assert re.search(rf"(lake |\./scripts/){verb}\b", README), f"lake {verb}"
