"""Processes that start in milliseconds: children of a server that has imported what they need."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess

CONTEXT = multiprocessing.get_context("forkserver")
# One server a process of pytest: whoever sets another list takes this one from all.
CONTEXT.set_forkserver_preload(
    [
        "ccxt.async_support",  # takes seconds
        "lake.api",
        "lake.cli.app",
        "lake.jobs.maintain",
        "lake.jobs.repairs.repair",
        "lake.sources.ccxt_rest",
        "tests.conftest",
        "tests.jobs.conftest",
    ]
)


def start(work: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a function of a module in a process of its own."""
    child = CONTEXT.Process(target=work, args=arguments)
    child.start()
    return child
