"""Starting: what importing the package costs beside Polars, and commands beside what they need."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.conftest import best_seconds
from tests.paths import ROOT

pytestmark = pytest.mark.bench

PACKAGES = "import duckdb, polars, deltalake, typer, pydantic_settings"
COMMANDS = {
    "sql": ["sql", "select 1"],
    "status": ["status"],
    "tables": ["tables"],
    "describe": ["describe", "bars_1m"],
    "help": ["--help"],
}
BOUND = 1.5


def test_import_lake_against_import_polars() -> None:
    lake, polars = best_seconds(
        lambda: _run("-c", "import lake"), lambda: _run("-c", "import polars"), rounds=7
    )
    print(f"\nimport lake {lake:.3f} s, import polars {polars:.3f} s (bound: 0.15 s more)")
    assert lake <= polars + 0.15


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_on_an_empty_lake_against_the_imports_of_its_packages(
    tmp_path: Path, command: str
) -> None:
    # An installed package has its bytecode; the environment may forbid to write it.
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONPYCACHEPREFIX=str(tmp_path / "code"))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    folder = str(tmp_path / "lake")

    def lake(*arguments: str) -> None:
        _run("-m", "lake.cli.app", *arguments, environment=environment, folder=tmp_path)

    lake("init", folder)
    ours, packages = best_seconds(
        lambda: lake("--lake", folder, *COMMANDS[command]),
        lambda: _run("-c", PACKAGES, environment=environment),
        rounds=9,
        clock=_cpu_of_children,
    )
    print(f"\nlake {command}: {ours:.3f} CPU-s, imports {packages:.3f} (bound: {BOUND} times)")
    assert ours <= BOUND * packages


def _run(
    *arguments: str, environment: dict[str, str] | None = None, folder: Path | None = None
) -> None:
    subprocess.run(
        [sys.executable, *arguments], check=True, env=environment, cwd=folder, capture_output=True
    )


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
