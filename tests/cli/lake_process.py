"""The installed command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cli.conftest import Outcome

LAKE = Path(sys.executable).parent / "lake"
# The owner of files that nobody may read can read them, if he is root and may do anything.
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def run_lake(
    folder: Path, *arguments: str, before: Sequence[str] = (), program: str = "", **variables: str
) -> Outcome:
    """Run `lake` in a folder, on the lake `lake` in it.

    Parameters
    ----------
    before
        A command that runs it, such as `prlimit`.
    program
        Python that runs before it in the same process.
    variables
        Variables of its environment.
    """
    command = [str(LAKE)]
    if program:
        command = [sys.executable, "-c", f"{program}\nfrom lake.cli.app import main\nmain()"]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(folder / "home"),
        "LAKE_URI": str(folder / "lake"),
        **variables,
    }
    done = subprocess.run(
        [*before, *command, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
