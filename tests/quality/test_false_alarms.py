"""Recorded rows raise next to no alarm; `tests/bench` prints the table of all recorded rows."""

from __future__ import annotations

import pytest

from tests.quality.false_alarms import SOURCES_OF_ROWS, require_few, run_all
from tests.quality.injection.recordings import needs_recordings
from tests.quality.real import needs_data


@needs_data
@needs_recordings
@pytest.mark.parametrize("name", ["recorded funding", "recorded trades"])
def test_recorded_rows_raise_next_to_no_alarm(name: str) -> None:
    require_few(run_all(SOURCES_OF_ROWS[name]()))
