"""The Python API: a thin façade over jobs and reads."""

from __future__ import annotations

from pathlib import Path

from lake.api.context import utc_now
from lake.api.lake import Lake
from lake.settings import load_settings

__all__ = ["Lake", "open_lake", "utc_now"]


def open_lake(uri: str | Path | None = None, *, config: Path | None = None) -> Lake:
    """Open a lake: see `lake.open`."""
    overrides = {} if uri is None else {"uri": str(uri)}
    return Lake(load_settings(overrides, config=config))
