"""Checks in processes of their own, which can be killed."""

from __future__ import annotations

from multiprocessing.process import BaseProcess
from pathlib import Path

from lake.api import Lake
from lake.settings import Settings
from tests import processes


def start_check(path: Path) -> BaseProcess:
    """Start a check of all tables."""
    return processes.start(check, path)


def check(path: Path) -> None:
    Lake(Settings(uri=str(path))).quality.check()
