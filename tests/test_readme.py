"""Every command and every example of the README works as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lake.model.catalog import builtin
from lake.quality.configure import configure
from lake.sandbox import Sandbox
from lake.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python|toml)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
BIN = Path(sys.executable).parent
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
                _run([sys.executable, "-c", text], tmp_path, environment)
                commands += 1
            for line in text.splitlines() if language == "bash" else ():
                if line not in BY_CI:
                    _run(["bash", "-c", line], tmp_path, environment)
                    commands += 1
    assert commands > 20


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    assert done.stdout or done.stderr, f"{command[-1]} says nothing"


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
