"""Two different bars of one time in one answer: the last stays, and both are reported."""

from __future__ import annotations

import json

import polars as pl
import pytest

from lake.api import Lake
from tests.conftest import MINUTE, ORIGIN, T0, bars, store_of, write


def pair(first: float = 1.0, last: float = 2.0, **values: list[bool]) -> pl.DataFrame:
    return pl.concat([bars(1, volume=[first]), bars(1, volume=[last])]).with_columns(
        **{name: pl.Series(value) for name, value in values.items()}
    )


def stored(lake: Lake) -> list[float]:
    return lake.scan("bars_1m").sort("timestamp").collect()["volume"].to_list()


def test_the_last_stays_and_the_other_is_quarantined_counted_and_logged(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    written = lake.write("bars_1m", pl.concat([pair(), bars(2, start=T0 + MINUTE)]))
    assert (written.rows, written.inserted, written.rejected) == (4, 3, 1)
    assert (written.conflicting, written.unchanged) == (1, 0)
    assert stored(lake) == [2.0, 1.0, 2.0]
    [row] = lake.scan("quarantine").collect().to_dicts()
    assert (row["reason"], row["dataset"]) == ("contradicts_later_row", "bars_1m")
    assert [json.loads(row[name])["volume"] for name in ("row", "stored")] == [1.0, 2.0]
    assert "rows contradict later rows of one answer" in caplog.text
    assert lake.jobs()["rejected"].to_list() == [1]


def test_the_same_answer_again_changes_nothing_and_is_reported_again(lake: Lake) -> None:
    first = write(lake, "bars_1m", pair())
    again = write(lake, "bars_1m", pair())
    assert (again.updated, again.conflicting, again.version) == (0, 1, first.version)
    assert lake.scan("quarantine").collect().height == 1


def test_equal_bars_are_one_row(lake: Lake) -> None:
    written = write(lake, "bars_1m", pair(last=1.0))
    assert (written.inserted, written.rejected, written.unchanged) == (1, 0, 1)
    assert "quarantine" not in lake.tables()["table"].to_list()


def test_a_bar_and_its_final_form_do_not_conflict(lake: Lake) -> None:
    written = write(lake, "bars_1m", pair(closed=[False, True]))
    assert (written.inserted, written.conflicting) == (1, 0)
    # The final form of another answer stays, whatever two open ones say.
    assert write(lake, "bars_1m", pair(5.0, 6.0, closed=[False, False])).conflicting == 0
    assert stored(lake) == [2.0]


def test_answers_of_one_batch_revise_each_other(lake: Lake) -> None:
    store = store_of(lake)
    frame = pl.concat([pair(), pair(3.0, 4.0)])
    written = store.write(store.catalog.dataset("bars_1m"), frame, ORIGIN, pl.Series([0, 1, 2, 2]))
    assert (written.inserted, written.conflicting) == (1, 1)
    assert stored(lake) == [4.0]


def test_rejected_rows_leave_the_others_in_their_answers(lake: Lake) -> None:
    store = store_of(lake)
    frame = pl.concat([bars(1, high=[0.0]), pair()])
    answers = pl.Series([0, 0, 1])
    written = store.write(store.catalog.dataset("bars_1m"), frame, ORIGIN, answers)
    assert (written.inserted, written.rejected, written.conflicting) == (1, 1, 0)


def test_a_conflict_is_a_finding_until_a_later_answer_decides(lake: Lake) -> None:
    write(lake, "bars_1m", pl.concat([pair(), bars(5, start=T0 + MINUTE)]))

    def find() -> list[str]:
        lake.quality.check("bars_1m")
        rows = lake.quality.findings(check="contradicted")
        return rows["message"].to_list()

    [message] = find()
    assert "1 stored row is contradicted by other rows of the same answer" in message
    assert "has volume 2.0, rejected 1.0" in message
    write(lake, "bars_1m", bars(1, volume=[3.0]))
    assert find() == []


def test_a_correction_of_a_bar_that_was_pinned_leaves_the_bundle(lake: Lake) -> None:
    write(lake, "bars_1m", bars(2))
    pinned = lake.bundles.pin("before", table="bars_1m", check=False)
    assert write(lake, "bars_1m", pair()).updated == 1
    assert pinned.scan("bars_1m").collect()["volume"].to_list() == [1.0, 2.0]
    assert lake.bundles.verify("before") == []
