"""Pins, compactions and vacuums in processes of their own, which can be killed."""

from __future__ import annotations

from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

from lake.api import Lake, utc_now
from lake.settings import CacheSettings, Settings
from tests import processes
from tests.conftest import MINUTE, T0, bars, write


def start(path: Path, seed: int) -> BaseProcess:
    """Start `work` in a process of its own."""
    return processes.start(work, path, seed)


def work(path: Path, seed: int) -> None:
    """Revise, pin, compact and vacuum, as of a time when everything is old."""
    settings = Settings(uri=str(path), cache=CacheSettings(enabled=False))
    lake = Lake(settings, now=lambda: utc_now() + timedelta(days=10))
    for number in range(3):
        volume = [float(seed * 10 + number)] * 50
        write(lake, "bars_1m", bars(50, start=T0 + number * 100 * MINUTE, volume=volume))
        lake.bundles.pin(f"child-{seed}-{number}", table=("bars_1m", "trades"), check=False)
        lake.maintenance.optimize()
        lake.maintenance.vacuum(keep=timedelta(hours=1))
