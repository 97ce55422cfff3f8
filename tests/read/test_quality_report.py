"""The report holds what was checked, and nothing else."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import QualityError
from lake.quality.report.document import from_json, to_json
from lake.quality.report.page import html
from lake.quality.score import MEASURES
from lake.read.report import summary
from tests.conftest import DAY, MINUTE, T0, bars, trades, write


@pytest.fixture
def checked(lake: Lake) -> Lake:
    """Two markets of bars, one with a hole, and trades that came late."""
    for symbol in ("BTC/USDT", "ETH/USDT"):
        kept = ~pl.int_range(pl.len()).is_between(100, 109) | pl.lit(symbol == "ETH/USDT")
        write(lake, "bars_1m", bars(2 * 1440, symbol=symbol).filter(kept))
    received = [T0 + n * MINUTE for n in range(1, 101)]
    write(lake, "trades", trades(100, symbol="SOL/USDT", step=MINUTE, received_at=received))
    lake.check()
    return lake


def test_what_was_never_checked_has_no_report(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    with pytest.raises(QualityError, match="no check has run"):
        lake.quality_report()


def test_totals_and_markets_are_those_of_the_scores(checked: Lake) -> None:
    made = checked.quality_report()
    scores = checked.scores()
    assert (made.start, made.end) == (date(2024, 1, 1), date(2024, 1, 3))
    assert made.totals.rows == scores["rows"].sum() == 4 * 1440 - 10 + 100
    assert made.totals.missing.unknown == 10
    assert made.totals.missing.losses == 10
    (hole,) = [one for one in made.markets if one.missing.unknown]
    assert (hole.dataset, hole.symbol) == ("bars_1m", "BTC/USDT")
    assert hole.days.rows == (1430, 1440)
    assert hole.days.missing == ((0, "unknown", 10),)
    assert hole.scores.completeness == pytest.approx(2870 / 2880)
    frame = summary(made)
    assert frame.height == len(made.markets) == 3
    assert set(MEASURES) <= set(frame.columns)


def test_findings_have_their_context_and_a_chart(checked: Lake) -> None:
    made = checked.quality_report()
    listed = checked.findings()
    assert made.findings_total == listed.height
    assert [one.finding_id for one in made.findings] == listed["finding_id"].to_list()
    (gap,) = [one for one in made.findings if one.check == "gaps"]
    assert (gap.start, gap.rows) == (T0 + 100 * MINUTE, 10)
    times = [row["timestamp"] for row in gap.context]
    assert {"2024-01-01T01:39:00Z", "2024-01-01T01:50:00Z"} <= set(times)
    (chart,) = [one for one in made.charts if one.finding_id == gap.finding_id]
    assert chart.kind == "gap"
    assert len(chart.times) == 40 + 40
    assert chart.mark_start == T0.timestamp() + 100 * 60
    assert chart.mark_end == T0.timestamp() + 110 * 60


def test_the_latency_is_that_of_the_receive_times(checked: Lake) -> None:
    (one,) = checked.quality_report().latency
    assert (one.dataset, one.symbol, one.days) == ("trades", "SOL/USDT", (0,))
    assert one.p50_ms == (60_000.0,)


def test_the_provenance_names_versions_and_jobs(checked: Lake) -> None:
    made = checked.quality_report().provenance
    assert [(one.table, one.rows) for one in made.tables] == [
        ("bars_1m", 4 * 1440 - 10),
        ("trades", 100),
    ]
    assert made.jobs[0].command.startswith("check")
    assert made.jobs[0].status == "ok"


def test_a_selection_reports_only_its_own(checked: Lake) -> None:
    made = checked.quality_report(symbol="ETH/USDT", since=T0 + DAY)
    assert (made.start, made.totals.rows) == (date(2024, 1, 2), 1440)
    assert [one.symbol for one in made.markets] == ["ETH/USDT"]


def test_a_report_survives_json_and_becomes_a_page(checked: Lake) -> None:
    made = checked.quality_report()
    assert from_json(to_json(made)) == made
    page = html(made)
    assert page.startswith("<!doctype html>")
    assert made.title in page
