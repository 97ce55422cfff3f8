"""What an undoing gives back: under later repairs, after maintenance, and what it checks again."""

from __future__ import annotations

import json
from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake, utc_now
from lake.errors import DamagedError
from lake.jobs.maintain import Maintainer
from lake.jobs.repairs.records import Records
from lake.jobs.repairs.repair import undo
from lake.sandbox import Sandbox
from lake.store.store import Store
from tests.jobs.conftest import MakeLake
from tests.jobs.maintenance_children import maintainer
from tests.jobs.repairs.damage import (
    BTC,
    MINUTE,
    SINCE,
    UNTIL,
    damage,
    delete,
    finding,
    findings,
    minutes,
    repair,
    rows,
    store_of,
)

GAP = minutes(12)
FOUND = findings(finding("bars_1m", BTC, GAP))


@pytest.fixture
def lake(make_lake: MakeLake) -> Lake:
    """A day of bars, of which some minutes are gone."""
    lake = make_lake()
    lake.ingest("bars_1m", exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL)
    delete(lake, "bars_1m", BTC, GAP)
    return lake


def test_a_repair_beneath_a_later_one_is_undone_after_it(lake: Lake, sandbox: Sandbox) -> None:
    damaged = rows(lake, "bars_1m")
    [first] = repair(lake, FOUND).applied
    repaired = rows(lake, "bars_1m")
    for n in range(12):
        sandbox.revise("BTC/USDT", "1m", GAP.start + n * MINUTE, volume=f"{n + 1}.00000000")
    suspect = findings(finding("bars_1m", BTC, GAP, "reconciliation", "accuracy"))
    [second] = repair(lake, suspect).applied
    assert second.updated == 12

    store = store_of(lake)
    nothing = undo(store, first.repair_id)
    assert (nothing.removed, nothing.restored, nothing.kept) == (0, 0, 12)
    assert nothing.later == (second.repair_id,)
    assert set(rows(lake, "repairs")["status"]) == {"done"}

    assert undo(store, second.repair_id).later == ()
    assert_frame_equal(rows(lake, "bars_1m"), repaired)
    assert undo(store, first.repair_id).removed == 12
    assert_frame_equal(rows(lake, "bars_1m"), damaged)
    assert set(rows(lake, "repairs")["status"]) == {"undone"}


def _maintained(lake: Lake) -> Maintainer:
    """Long after all commits, so that no old file is too young to go."""
    return maintainer(Store(lake.root, lambda: utc_now() + timedelta(days=30)))


def test_a_repair_can_be_undone_after_the_table_was_compacted(lake: Lake) -> None:
    [applied] = repair(lake, FOUND).applied
    compacted = _maintained(lake).optimize(["bars_1m"], before=utc_now())
    assert compacted["files_before"].sum() > compacted["files_after"].sum()
    whole = rows(lake, "bars_1m")
    assert undo(store_of(lake), applied.repair_id).removed == 12
    inside = pl.col("timestamp").is_between(GAP.start, GAP.end, closed="left")
    assert_frame_equal(rows(lake, "bars_1m"), whole.filter(~inside))


def test_where_a_vacuum_took_the_old_rows_that_is_said_and_nothing_changes(lake: Lake) -> None:
    damage(lake, "bars_1m", BTC, minutes(1, SINCE), lambda bars: bars.with_columns(volume=1.5))
    suspect = findings(finding("bars_1m", BTC, minutes(1, SINCE), "reconciliation", "accuracy"))
    [applied] = repair(lake, suspect).applied
    assert _maintained(lake).vacuum(["bars_1m"]).files.height
    before = rows(lake, "bars_1m")
    with pytest.raises(DamagedError, match=f"repair {applied.repair_id} cannot be undone") as told:
        undo(store_of(lake), applied.repair_id)
    assert "vacuum" in told.value.hint
    assert_frame_equal(rows(lake, "bars_1m"), before)
    assert rows(lake, "repairs")["status"].to_list() == ["done"]
    old = json.loads(rows(lake, "repairs")["before"][0])
    assert [row["volume"] for row in old] == [1.5]


def test_killed_between_the_rows_and_the_record_an_undo_goes_on(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = rows(lake, "bars_1m")
    [applied] = repair(lake, FOUND).applied

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Records, "record_undo", killed)  # nothing else stops it at that very moment
        with pytest.raises(KeyboardInterrupt):
            undo(store_of(lake), applied.repair_id)
    assert_frame_equal(rows(lake, "bars_1m"), damaged)
    assert rows(lake, "repairs")["status"].to_list() == ["done"]
    again = undo(store_of(lake), applied.repair_id)
    assert (again.removed, again.restored, again.kept) == (0, 0, 0)
    assert rows(lake, "repairs")["status"].to_list() == ["undone"]


def test_what_was_found_elsewhere_because_of_it_is_checked_again_too(lake: Lake) -> None:
    """Bars of five minutes are told to disagree with those of one minute, which are repaired."""
    lake.ingest("bars_5m", exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL)
    assert lake.quality.repair().inserted == 12
    spoiled = minutes(1, GAP.start)
    damage(lake, "bars_1m", BTC, spoiled, lambda bars: bars.with_columns(pl.col("volume") + 0.5))
    lake.quality.check()
    open_ones = lake.quality.findings().filter(status="open", check="reconciliation")
    assert open_ones["dataset"].to_list() == ["bars_5m"]
    [applied] = lake.quality.repair().applied
    assert applied.table == "bars_1m"
    assert lake.quality.findings().filter(status="open", check="reconciliation").is_empty()
    lake.quality.undo(applied.repair_id)
    assert lake.quality.findings().filter(status="open", check="reconciliation").height == 1
