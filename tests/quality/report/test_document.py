"""The document of a report is read from JSON unchanged, or rejected."""

from __future__ import annotations

import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import DamagedError
from lake.quality.report.document import MissingSlots, from_json, to_json
from tests.quality.report import sample


@given(st.integers(1, 5), st.integers(2, 12), st.integers(0, 20), st.integers(0, 10_000))
def test_a_report_comes_back_from_json_as_it_was(
    markets: int, days: int, findings: int, seed: int
) -> None:
    report = sample.report(markets, days, findings, charts=3, seed=seed)

    assert from_json(to_json(report)) == report


def test_times_are_iso_with_a_z_and_days_are_days() -> None:
    written = orjson.loads(to_json(sample.report(markets=2, days=4, findings=1)))

    assert written["made_at"] == "2025-01-05T03:00:00Z"
    assert (written["start"], written["end"]) == ("2025-01-01", "2025-01-05")
    assert written["findings"][0]["start"].endswith("Z")


def test_only_slots_that_should_hold_a_row_are_losses() -> None:
    assert MissingSlots(no_trade=1, venue_outage=2, not_fetched=4, unknown=8, lost=16).losses == 28


@given(st.integers(0, 10_000))
def test_a_cut_document_is_damaged(seed: int) -> None:
    text = to_json(sample.report(markets=2, days=3, findings=2))

    with pytest.raises(DamagedError, match="not a quality report"):
        from_json(text[: random.Random(seed).randrange(len(text))])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("format",), 2),
        (("made_at",), "yesterday"),
        (("markets", 0, "days", "missing"), [[0, "eaten", 1]]),
        (("markets", 0, "rows"), "many"),
        (("totals", "scores"), None),
    ],
)
def test_a_document_of_another_shape_is_damaged_and_the_error_says_where(
    place: tuple[str | int, ...], value: object
) -> None:
    document = orjson.loads(to_json(sample.report(markets=2, days=3, findings=2)))
    inner = document
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value

    with pytest.raises(DamagedError) as error:
        from_json(orjson.dumps(document))
    assert ".".join(map(str, place)) in error.value.message
