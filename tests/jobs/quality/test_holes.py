"""A hole of any length is checked in chunks: its missing bars are listed one by one."""

from __future__ import annotations

import polars as pl
import pytest

from lake.model.selection import Selection
from lake.quality.checks.completeness import gaps
from lake.store import chunks
from tests.conftest import DAY, T0, bars
from tests.jobs.quality.test_chunks import inputs_of

LENGTH = 30


def test_a_hole_of_many_days_is_cut_as_days_with_rows_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_CHECK_ROWS", 5 * 1440)
    rows = pl.concat([bars(1440), bars(1440, start=T0 + LENGTH * DAY)])
    rows = rows.with_columns(fill=pl.lit(None, dtype=pl.String))
    slices = list(inputs_of({"bars_1m": rows}).cut_slices("bars_1m", Selection()))
    days = [item.range.duration // DAY for item in slices]
    assert sum(days) == LENGTH + 1
    assert max(days) <= 6
    missing = pl.concat([gaps(item).collect() for item in slices])
    assert missing["rows"].sum() == (LENGTH - 1) * 1440
    assert missing.height == LENGTH - 1
