"""Print how many errors and warnings the checks find in rows as venues sent them.

Gaps are counted apart: that rows are missing is true of some recordings.
"""

from __future__ import annotations

import pytest

from tests.quality.false_alarms import SOURCES_OF_ROWS, require_few, run_all
from tests.quality.injection.recordings import needs_recordings
from tests.quality.lean import needs_lean
from tests.quality.real import needs_data

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(1800),
    needs_data,
    needs_recordings,
    needs_lean,
]


@pytest.fixture(scope="module", autouse=True)
def _print_head() -> None:
    columns = ("rows", "errors", "warnings", "gaps")
    print(f"\n{'findings of':20}" + "".join(f"{column:>12}" for column in columns))


@pytest.mark.parametrize("name", SOURCES_OF_ROWS)
def test_recorded_rows_raise_next_to_no_alarm(name: str) -> None:
    alarms = run_all(SOURCES_OF_ROWS[name]())
    counts = (alarms.rows, len(alarms.errors), len(alarms.warnings), alarms.missing)
    print(f"\n{name:20}" + "".join(f"{count:12,}" for count in counts), end="")
    require_few(alarms)
