"""Whatever is done in whatever order: an observed row is what a source sent, and stays observed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.jobs.repairs.repair import undo
from lake.model.time import TimeRange
from lake.sandbox import Sandbox, SyntheticMarkets
from tests.jobs.conftest import NOW, settings_for
from tests.jobs.repairs.damage import (
    MINUTE,
    UNTIL,
    XRP,
    delete,
    finding,
    findings,
    minutes,
    repair,
    rows,
    store_of,
)

SPAN = 90
SINCE = UNTIL - SPAN * MINUTE
VALUES = ("open", "high", "low", "close", "volume")
Row = tuple[float, ...]
Rows = dict[datetime, tuple[Row, str | None]]

PLACES = st.tuples(st.integers(0, SPAN - 20), st.integers(1, 20)).map(
    lambda pair: minutes(pair[1], SINCE + pair[0] * MINUTE)
)
STEPS = st.tuples(
    st.sampled_from(
        [
            "ingest", "delete", "revise", "refetch", "derive", "suspect", "interpolate", "undo",
            "undo the first",
        ]
    ),
    PLACES,
)  # fmt: skip


def _stored(lake: Lake) -> Rows:
    bars = rows(lake, "bars_1m")
    return {
        row[0]: (row[1:-1], row[-1]) for row in bars.select("timestamp", *VALUES, "fill").rows()
    }


def _ingest(lake: Lake, table: str = "bars_1m") -> None:
    exchange, symbol = XRP.exchange, XRP.symbol
    lake.ingest(table, exchange=exchange, symbol=symbol, since=SINCE, until=UNTIL, refetch=True)


class Story:
    """A lake, what happened to it, and all that its source has ever sent."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.lake = Lake.create(settings_for(folder, sandbox.url), now=lambda: NOW)
        self.sandbox = sandbox
        self.sent: set[tuple[datetime, Row]] = set()
        self.serial = 0
        for table in ("trades", "bars_1m"):
            _ingest(self.lake, table)
        self.take_in()

    def take_in(self) -> None:
        """What the source sends now, read by another lake."""
        fresh = Lake.create(
            settings_for(self.lake.root.path.with_name(f"fresh-{self.serial}"), self.sandbox.url),
            now=lambda: NOW,
        )
        self.serial += 1
        _ingest(fresh)
        self.sent |= {(time, values) for time, (values, _) in _stored(fresh).items()}

    def step(self, what: str, place: TimeRange) -> None:
        gap = findings(finding("bars_1m", XRP, place))
        if what == "ingest":
            _ingest(self.lake)
        elif what == "delete":
            if any(place.start <= time < place.end for time in _stored(self.lake)):
                delete(self.lake, "bars_1m", XRP, place)
        elif what == "revise":
            self.revise(place)
        elif what in ("refetch", "derive"):
            repair(self.lake, gap, again=True, offline=what == "derive")
        elif what == "suspect":
            found = finding("bars_1m", XRP, place, "reconciliation", "accuracy")
            repair(self.lake, findings(found), again=True)
        elif what == "interpolate":
            quiet = gap.with_columns(reason=pl.lit("no_trade"))
            repair(self.lake, quiet, again=True, interpolate=True)
        else:
            self.undo(first=what == "undo the first")

    def revise(self, place: TimeRange) -> None:
        times = [time for time, _ in self.sent if place.start <= time < place.end]
        if times:
            self.serial += 1
            self.sandbox.revise(XRP.symbol, "1m", min(times), volume=f"{self.serial}.00000000")
            self.take_in()

    def undo(self, *, first: bool) -> None:
        if "repairs" in self.lake.tables()["table"]:
            made = rows(self.lake, "repairs").filter(status="done").sort("version_after")
            if made.height:
                undo(store_of(self.lake), made["repair_id"][0 if first else -1])


@pytest.mark.slow
@settings(
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, min_size=2, max_size=9))
def test_an_observed_row_is_what_a_source_sent_and_stays_observed(
    steps: list[tuple[str, TimeRange]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Sandbox(SyntheticMarkets(seed=7), now=lambda: NOW, weight_limit=False) as sandbox:
        story = Story(tmp_path_factory.mktemp("story") / "lake", sandbox)
        for what, place in steps:
            before = _stored(story.lake)
            story.step(what, place)
            after = _stored(story.lake)
            observed = {(t, values) for t, (values, fill) in after.items() if fill is None}
            assert observed <= story.sent
            if not what.startswith("undo"):  # only this brings back what was filled in before
                for time, (_, fill) in before.items():
                    if fill is None and time in after:
                        assert after[time][1] is None
            if what != "delete" and not what.startswith("undo"):
                assert before.keys() <= after.keys()
            for time, (values, fill) in before.items():
                if what in ("derive", "interpolate") and fill is None:
                    assert after[time] == (values, None)
