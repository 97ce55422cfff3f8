"""Checks in processes of their own, which can be killed."""

from __future__ import annotations

import multiprocessing
from multiprocessing.process import BaseProcess
from pathlib import Path

from lake.api import Lake
from lake.settings import Settings

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["lake.api"])


def start_check(path: Path) -> BaseProcess:
    """Start a check of all that is there."""
    child = _context.Process(target=check, args=(path,))
    child.start()
    return child


def check(path: Path) -> None:
    Lake(Settings(uri=str(path))).quality.check()
