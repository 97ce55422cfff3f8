"""A command imports what it needs, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lake.cli import verbs
from lake.cli.app import app
from tests.paths import ROOT

HEAVY = {
    "ccxt", "web3", "aiohttp", "numpy", "pyarrow", "structlog", "stamina",
    "lake.bundles.manifest", "lake.jobs.quality.check", "lake.jobs.ingest.run",
}  # fmt: skip
_CODE = """
import sys
from lake.cli.app import run
code = run(sys.argv[2:])
print(*sorted(set(sys.argv[1].split(",")) & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def _list_imports(*arguments: str) -> set[str]:
    """Run a command, and return which of the heavy modules it imported."""
    command = [sys.executable, "-c", _CODE, ",".join(HEAVY), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", ["status", "tables", "describe bars_1m"])
def test_a_command_that_reads_the_log_imports_nothing_heavy(tmp_path: Path, arguments: str) -> None:
    folder = str(tmp_path / "lake")
    subprocess.run([sys.executable, "-m", "lake.cli.app", "init", folder], check=True, cwd=tmp_path)
    assert _list_imports("--lake", folder, *arguments.split()) == set()


def test_help_imports_nothing_heavy() -> None:
    assert _list_imports("--help") == set()


def test_each_verb_is_in_the_module_that_is_named_for_it() -> None:
    import typer

    for verb, module in verbs.MODULES.items():
        part = typer.Typer()
        __import__(f"lake.cli.{module}")
        sys.modules[f"lake.cli.{module}"].add_to(part)
        commands = typer.main.get_group(part).commands
        assert verb in commands
        assert set(commands) <= {name for name, own in verbs.MODULES.items() if own == module}
    assert isinstance(typer.main.get_command(app), verbs.Verbs)
