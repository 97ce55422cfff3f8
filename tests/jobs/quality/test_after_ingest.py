"""What an ingestion touched is checked: also what it fetched again, and where it failed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lake.errors import SourceUnavailableError
from lake.jobs.ingest.report import IngestReport
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.sandbox import Fault, Sandbox
from tests.jobs.conftest import NOW, MakeLake

UNTIL = NOW.replace(hour=0, minute=0, second=0)
SINCE = UNTIL - timedelta(hours=6)
BTC = Market("binance", "BTC/USDT")
WHAT = {"exchange": "binance", "symbol": "BTC/USDT", "since": SINCE, "until": UNTIL}


def test_a_revision_that_is_fetched_again_is_checked(make_lake: MakeLake, sandbox: Sandbox) -> None:
    lake = make_lake()
    lake.ingest("bars_1m", **WHAT)  # type: ignore[arg-type]
    assert lake.quality.findings(severity="warning").is_empty()
    time = SINCE + timedelta(hours=3)
    close = lake.scan("bars_1m", since=time).collect()["close"][0]
    sandbox.revise("BTC/USDT", "1m", time, high=f"{30 * close:.2f}", close=f"{30 * close:.2f}")
    report = lake.ingest("bars_1m", **WHAT, refetch=True)  # type: ignore[arg-type]
    assert report.findings
    [touched] = report.touched
    assert (touched.table, touched.market) == ("bars_1m", BTC)
    assert touched.range == TimeRange(SINCE, UNTIL)
    assert "spikes" in lake.quality.findings(severity="warning")["check"].to_list()


def test_what_came_before_a_failure_is_checked(make_lake: MakeLake, sandbox: Sandbox) -> None:
    lake = make_lake()
    sandbox.fail(Fault("503", match="aggTrades", times=10**6))
    with pytest.raises(SourceUnavailableError) as raised:
        lake.ingest(["bars_1m", "trades"], **WHAT)  # type: ignore[arg-type]
    report = raised.value.report
    assert isinstance(report, IngestReport)
    assert {item.table for item in report.touched} == {"bars_1m"}
    assert report.score == 1.0
    assert lake.quality.scores("bars_1m")["rows"].to_list() == [360]
    assert lake.jobs().filter(status="failed").height == 1


def test_bars_that_depend_on_what_was_touched_are_checked(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.ingest("bars_1m", **WHAT)  # type: ignore[arg-type]
    lake.ingest("trades", **WHAT)  # type: ignore[arg-type]
    assert "check bars_1m trades" in lake.jobs()["command"].to_list()
