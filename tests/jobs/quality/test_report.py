"""The report holds what was checked, and nothing else."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import QualityError
from lake.jobs.quality.report import build_overview, build_summary
from lake.quality.report.document import from_json, to_json
from lake.quality.report.page import render_page
from lake.quality.score import MEASURES
from tests.conftest import DAY, MINUTE, T0, bars, trades, write


@pytest.fixture
def checked(lake: Lake) -> Lake:
    """Two markets of bars, one with a hole, and trades that came late."""
    for symbol in ("BTC/USDT", "ETH/USDT"):
        kept = ~pl.int_range(pl.len()).is_between(100, 109) | pl.lit(symbol == "ETH/USDT")
        write(lake, "bars_1m", bars(2 * 1440, symbol=symbol).filter(kept))
    received = [T0 + n * MINUTE for n in range(1, 101)]
    write(lake, "trades", trades(100, symbol="SOL/USDT", step=MINUTE, received_at=received))
    lake.quality.check()
    return lake


def test_what_was_never_checked_has_no_report(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    with pytest.raises(QualityError, match="no check has run"):
        lake.quality.report()


def test_totals_and_markets_are_those_of_the_scores(checked: Lake) -> None:
    report = checked.quality.report()
    scores = checked.quality.scores()
    assert (report.start, report.end) == (date(2024, 1, 1), date(2024, 1, 3))
    assert report.totals.rows == scores["rows"].sum() == 4 * 1440 - 10 + 100
    assert report.totals.missing.unknown == 10
    assert report.totals.missing.losses == 10
    (hole,) = [market for market in report.markets if market.missing.unknown]
    assert (hole.dataset, hole.symbol) == ("bars_1m", "BTC/USDT")
    assert hole.days.rows == (1430, 1440)
    assert hole.days.missing == ((0, "unknown", 10),)
    assert hole.scores.completeness == pytest.approx(2870 / 2880)
    frame = build_summary(report)
    assert frame.height == len(report.markets) == 3
    assert set(MEASURES) <= set(frame.columns)


def test_findings_have_their_context_and_a_chart(checked: Lake) -> None:
    report = checked.quality.report()
    listed = checked.quality.findings()
    assert report.findings_total == listed.height
    assert [finding.finding_id for finding in report.findings] == listed["finding_id"].to_list()
    (gap,) = [finding for finding in report.findings if finding.check == "gaps"]
    assert (gap.start, gap.rows) == (T0 + 100 * MINUTE, 10)
    times = [row["timestamp"] for row in gap.context]
    assert {"2024-01-01T01:39:00Z", "2024-01-01T01:50:00Z"} <= set(times)
    (chart,) = [chart for chart in report.charts if chart.finding_id == gap.finding_id]
    assert chart.kind == "gap"
    assert len(chart.times) == 40 + 40
    assert chart.mark_start == T0.timestamp() + 100 * 60
    assert chart.mark_end == T0.timestamp() + 110 * 60


def test_the_latency_is_that_of_the_receive_times(checked: Lake) -> None:
    (latency,) = checked.quality.report().latency
    assert (latency.dataset, latency.symbol, latency.days) == ("trades", "SOL/USDT", (0,))
    assert latency.p50_ms == (60_000.0,)


def test_the_provenance_names_versions_and_jobs(checked: Lake) -> None:
    report = checked.quality.report().provenance
    assert [(table.table, table.rows) for table in report.tables] == [
        ("bars_1m", 4 * 1440 - 10),
        ("trades", 100),
    ]
    assert report.jobs[0].command.startswith("check")
    assert report.jobs[0].status == "ok"


def test_a_selection_reports_only_its_own(checked: Lake) -> None:
    report = checked.quality.report(symbol="ETH/USDT", since=T0 + DAY)
    assert (report.start, report.totals.rows) == (date(2024, 1, 2), 1440)
    assert [market.symbol for market in report.markets] == ["ETH/USDT"]


def test_a_report_survives_json_and_becomes_a_page(checked: Lake) -> None:
    report = checked.quality.report()
    assert from_json(to_json(report)) == report
    page = render_page(report)
    assert page.startswith("<!doctype html>")
    assert report.title in page


def moving(days: int, *, exchange: str = "binance", symbol: str = "BTC/USDT") -> pl.DataFrame:
    """Bars of a price that goes up and down, so that none is stale."""
    frame = bars(days * 1440, exchange=exchange, symbol=symbol)
    price = 100 + (pl.int_range(pl.len()) * 7 % 13) / 100
    return frame.with_columns(price.alias(name) for name in ("open", "high", "low", "close"))


def test_a_gap_over_midnights_is_one_chart_with_candles_on_both_sides(lake: Lake) -> None:
    gone = pl.int_range(pl.len()).is_between(1000, 1440 * 3 + 99)
    write(lake, "bars_1m", moving(4).filter(~gone))
    lake.quality.check()
    report = lake.quality.report()

    assert len([finding for finding in report.findings if finding.check == "gaps"]) == 4
    (chart,) = [chart for chart in report.charts if chart.kind == "gap"]
    first, last = T0 + 1000 * MINUTE, T0 + 3 * DAY + 100 * MINUTE
    assert (chart.mark_start, chart.mark_end) == (first.timestamp(), last.timestamp())
    before = [at for at in chart.times if at < chart.mark_start]
    after = [at for at in chart.times if at >= chart.mark_end]
    assert (len(before), len(after), len(chart.times)) == (40, 40, 80)


def test_gaps_of_one_market_hide_neither_another_check_nor_another_market(lake: Lake) -> None:
    number = pl.int_range(pl.len())
    spoiled = moving(1).filter(~((number % 50 == 25) | (number == 26)))
    jump = pl.when(number == 700).then(pl.col("close") * 1.5).otherwise(pl.col("close"))
    spoiled = spoiled.with_columns(close=jump, high=pl.max_horizontal("high", jump))
    write(lake, "bars_1m", spoiled)
    write(lake, "bars_1m", moving(1, symbol="ETH/USDT").filter(number != 900))
    lake.quality.check()
    shown = lake.quality.report().charts

    gaps = [chart for chart in shown if chart.kind == "gap"]
    assert {chart.title for chart in gaps[:2]} == {
        "binance BTC/USDT · bars_1m",
        "binance ETH/USDT · bars_1m",
    }
    assert max(chart.mark_end - chart.mark_start for chart in gaps) == 120, "the longest is there"
    assert "spike" in {chart.kind for chart in shown[:3]}


def test_a_finding_that_stands_for_many_gaps_has_no_chart(lake: Lake) -> None:
    write(lake, "bars_1m", moving(1).filter(pl.int_range(pl.len()) % 5 != 3))
    lake.quality.check()
    report = lake.quality.report()

    assert any("more like this" in finding.message for finding in report.findings)
    assert report.charts
    assert all(chart.mark_end - chart.mark_start == 60 for chart in report.charts)


def test_a_minute_apart_is_seen_in_a_long_range(lake: Lake) -> None:
    number = pl.int_range(pl.len())
    write(lake, "bars_1m", moving(2))
    factor = pl.when(number == 1234).then(1.02).otherwise(1.0)
    other = moving(2, exchange="kraken").with_columns(
        pl.col("open", "high", "low", "close") * factor
    )
    write(lake, "bars_1m", other)
    lake.quality.check()
    (line,) = lake.quality.report().deviations

    assert (line.dataset, line.first, line.second) == ("bars_1m", "binance", "kraken")
    assert (line.compared, line.apart, line.threshold_bps) == (2880, 1, 50.0)
    lows = [low for low in line.low if low is not None]
    assert min(lows) == pytest.approx((1 / 1.02 - 1) * 1e4, abs=0.001)
    assert max(abs(mean) for mean in line.bps if mean is not None) < 50
    assert len(line.times) <= 400


def test_venues_with_findings_are_compared_first_and_in_the_finest_bars(lake: Lake) -> None:
    number = pl.int_range(pl.len())
    for symbol in "ABCDEFGH":
        for exchange in ("binance", "kraken", "okx"):
            factor = 1.02 if (symbol, exchange) == ("H", "okx") else 1.0
            frame = moving(1, exchange=exchange, symbol=f"{symbol}/USDT").head(60)
            late = pl.when(number.is_between(20, 40)).then(factor).otherwise(1.0)
            prices = pl.col("open", "high", "low", "close") * late
            write(lake, "bars_1m", frame.with_columns(prices))
            if symbol == "H":
                write(lake, "bars_5m", frame.filter(number % 5 == 0).with_columns(prices))
    lake.quality.check()
    lines = lake.quality.report().deviations

    assert len(lines) == 6
    assert [(line.symbol, line.second, line.dataset) for line in lines[:2]] == [
        ("H/USDT", "okx", "bars_1m"),
        ("H/USDT", "okx", "bars_1m"),
    ]
    assert {line.dataset for line in lines} == {"bars_1m"}
    assert all(line.apart == 21 for line in lines[:2])


def test_what_was_filled_in_is_compared_with_nothing(lake: Lake) -> None:
    write(lake, "bars_1m", moving(1))
    number = pl.int_range(pl.len())
    filled = pl.when(number < 10).then(pl.lit("flat"))
    write(lake, "bars_1m", moving(1, exchange="kraken").with_columns(fill=filled))
    lake.quality.check()
    (line,) = lake.quality.report().deviations

    assert line.compared == 1440 - 10


def test_all_jobs_are_counted(checked: Lake) -> None:
    report = checked.quality.report().provenance
    assert report.jobs_total == len(report.jobs)


def test_the_overview_fits_a_terminal_and_names_the_weakest_dimension(checked: Lake) -> None:
    rows = build_overview(checked.quality.report())
    worst = rows.row(0, named=True)

    assert (worst["market"], worst["weakest"]) == ("binance BTC/USDT", "completeness")
    assert worst["score"] == 0.9965  # 2870 of 2880, rounded down
    assert rows["score"].is_sorted()
    assert rows.filter(pl.col("score") == 1)["weakest"].null_count() == rows.height - 1
    assert (worst["lost"], worst["findings"]) == (10, 1)
