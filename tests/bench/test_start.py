"""Starting: what importing the package costs beside Polars."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bench.conftest import best_seconds

pytestmark = pytest.mark.bench


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_lake_against_import_polars() -> None:
    lake, polars = best_seconds(
        lambda: _run("import lake"), lambda: _run("import polars"), rounds=7
    )
    print(f"\nimport lake {lake:.3f} s, import polars {polars:.3f} s (bound: 0.15 s more)")
    assert lake <= polars + 0.15
