"""Repairs from the sandbox exchange: what was damaged equals the truth again, and can be undone."""

from __future__ import annotations

import json
from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import SourceUnavailableError, UnknownNameError
from lake.jobs.repairs.repair import undo
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.sandbox import Fault, Sandbox, SyntheticMarkets
from lake.settings import load_settings
from tests.conftest import ORIGIN
from tests.jobs.conftest import Clock, MakeLake
from tests.jobs.repairs.damage import (
    BTC,
    DAY,
    MINUTE,
    PERPETUAL,
    SINCE,
    UNTIL,
    damage,
    delete,
    finding,
    findings,
    minutes,
    repair,
    rows,
    spike,
    store_of,
    versions,
)

SPIKE = SINCE + 7 * timedelta(hours=1)
GAP = minutes(12)


def _ingested(lake: Lake, *tables: str, market: Market = BTC) -> Lake:
    for table in tables:
        lake.ingest(table, exchange=market.exchange, symbol=market.symbol, since=SINCE, until=UNTIL)
    return lake


@pytest.fixture
def lake(make_lake: MakeLake) -> Lake:
    """A day of bars of a market that trades in every minute."""
    return _ingested(make_lake(), "bars_1m")


def _spoil(lake: Lake, high: float = 1e6) -> None:
    """Bars of a gap are deleted, and one bar gets a spike."""
    delete(lake, "bars_1m", BTC, GAP)
    lifted = pl.lit(high).alias("high")
    damage(lake, "bars_1m", BTC, minutes(1, SPIKE), lambda bars: bars.with_columns(lifted))


FOUND = findings(finding("bars_1m", BTC, GAP), spike("bars_1m", BTC, SPIKE, 1e6))


def test_deleted_and_spoiled_bars_are_refetched_and_equal_the_truth(lake: Lake) -> None:
    truth = rows(lake, "bars_1m")
    _spoil(lake)
    assert not rows(lake, "bars_1m").equals(truth)
    report = repair(lake, FOUND)
    assert_frame_equal(rows(lake, "bars_1m"), truth, check_exact=True)
    assert (report.inserted, report.updated) == (12, 1)
    assert not report.marked
    assert not report.failed
    gap, lifted = report.applied
    assert (gap.window, gap.method, gap.source) == (GAP, "refetch", "ccxt:binance")
    assert lifted.findings == (FOUND["finding_id"][1],)


def test_a_repair_is_a_commit_and_a_row_that_tells_everything(lake: Lake) -> None:
    truth = rows(lake, "bars_1m")
    _spoil(lake)
    before = lake.tables().filter(table="bars_1m")["version"].item()
    report = repair(lake, FOUND)
    stored = rows(lake, "repairs")
    assert stored["repair_id"].to_list() == [one.repair_id for one in report.applied]
    gap, lifted = stored.rows(named=True)
    assert (gap["version_before"], gap["version_after"]) == (before, before + 1)
    [commit] = lake.audit("bars_1m").filter(version=before + 1).rows(named=True)
    assert (commit["job"], commit["source"]) == (report.job_id, "ccxt:binance")
    assert gap["findings"] == [FOUND["finding_id"][0]]
    assert gap["why"] == "gaps: gaps was found"
    assert json.loads(gap["before"]) == []
    assert len(json.loads(gap["after"])) == gap["inserted"] == 12
    assert json.loads(lifted["before"])[0]["high"] == 1e6
    [true] = truth.filter(timestamp=SPIKE).rows(named=True)
    assert json.loads(lifted["after"])[0]["high"] == true["high"]
    evidence = json.loads(lifted["evidence"])
    assert evidence["digest"] == commit["digest"]
    [job] = lake.jobs().filter(command="quality repair").rows(named=True)
    assert (job["job_id"], job["status"]) == (report.job_id, "ok")


def test_repairing_twice_changes_nothing_and_asks_nothing(lake: Lake, sandbox: Sandbox) -> None:
    _spoil(lake)
    repair(lake, FOUND)
    before = versions(lake)
    sandbox.clear_log()
    report = repair(lake, FOUND)
    assert not report.applied
    assert report.job_id is None
    assert set(report.skipped) == set(FOUND["finding_id"])
    assert versions(lake) == before
    assert not sandbox.log


def test_undo_restores_the_damaged_rows_exactly(lake: Lake) -> None:
    truth = rows(lake, "bars_1m")
    _spoil(lake)
    damaged = rows(lake, "bars_1m")
    store = store_of(lake)
    gap, lifted = repair(lake, FOUND).applied
    report = undo(store, gap.repair_id)
    assert (report.removed, report.restored, report.kept) == (12, 0, 0)
    assert undo(store, lifted.repair_id).restored == 1
    assert_frame_equal(rows(lake, "bars_1m"), damaged, check_exact=True)
    assert set(rows(lake, "repairs")["status"]) == {"undone"}

    version = versions(lake)
    assert undo(store, gap.repair_id).removed == 0
    assert versions(lake) == version
    repair(lake, FOUND)
    assert_frame_equal(rows(lake, "bars_1m"), truth, check_exact=True)


def test_undo_leaves_rows_that_were_changed_since(lake: Lake, sandbox: Sandbox) -> None:
    delete(lake, "bars_1m", BTC, GAP)
    [applied] = repair(lake, FOUND.head(1)).applied
    time = GAP.start + 5 * MINUTE
    sandbox.revise("BTC/USDT", "1m", time, volume="77.00000000")
    lake.ingest(
        "bars_1m", exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL, refetch=True
    )
    report = undo(store_of(lake), applied.repair_id)
    assert (report.removed, report.kept) == (11, 1)
    assert report.kept_times == (time.isoformat().replace("+00:00", "Z"),)
    left = rows(lake, "bars_1m").filter(
        pl.col("timestamp").is_between(GAP.start, GAP.end, closed="left")
    )
    assert left["volume"].to_list() == [77.0]


def test_an_unknown_repair_is_refused(lake: Lake) -> None:
    with pytest.raises(UnknownNameError, match="no repair 'x'"):
        undo(store_of(lake), "x")


def test_a_spike_that_the_source_repeats_is_marked_and_stays(lake: Lake, sandbox: Sandbox) -> None:
    price = str(rows(lake, "bars_1m").filter(timestamp=SPIKE)["high"].item() * 2)
    sandbox.revise("BTC/USDT", "1m", SPIKE, high=price)
    lake.ingest(
        "bars_1m", exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL, refetch=True
    )
    found = findings(spike("bars_1m", BTC, SPIKE, float(price)))
    before = rows(lake, "bars_1m")
    report = repair(lake, found)
    assert not report.applied
    assert [one.method for one in report.marked] == ["mark"]
    assert_frame_equal(rows(lake, "bars_1m"), before)
    [mark] = rows(lake, "repairs").rows(named=True)
    evidence = json.loads(mark["evidence"])
    assert evidence["answer"] == "the same"
    assert evidence["measured"] == float(price)
    assert json.loads(evidence["rows"])[0]["high"] == float(price)

    sandbox.clear_log()
    version = versions(lake)
    assert "asked before" in repair(lake, found).failed[0].reason
    assert not sandbox.log
    assert versions(lake) == version
    assert repair(lake, found, again=True).marked
    assert sandbox.log


def test_where_the_source_repeats_itself_the_second_source_is_asked(
    lake: Lake, sandbox: Sandbox, clock: Clock
) -> None:
    truth = rows(lake, "bars_1m")
    price = str(truth.filter(timestamp=SPIKE)["high"].item() * 2)
    sandbox.revise("BTC/USDT", "1m", SPIKE, high=price)
    lake.ingest(
        "bars_1m", exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL, refetch=True
    )
    with Sandbox(SyntheticMarkets(seed=7), now=clock, weight_limit=False) as second:
        chosen = lake.settings.model_dump()
        chosen["exchanges"]["binance"]["fallback_url"] = second.url
        settings = load_settings(chosen)
        report = repair(lake, findings(spike("bars_1m", BTC, SPIKE, 1.0)), settings)
    [applied] = report.applied
    assert (applied.source, applied.updated) == ("ccxt:binance (fallback)", 1)
    assert not report.marked
    assert_frame_equal(rows(lake, "bars_1m"), truth)


def test_missing_trades_are_refetched(make_lake: MakeLake) -> None:
    lake = _ingested(make_lake(), "trades")
    truth = rows(lake, "trades")
    lost = truth.slice(2000, 3)
    span = TimeRange(truth["timestamp"][1999], truth["timestamp"][2003])
    delete(lake, "trades", BTC, TimeRange(lost["timestamp"][0], lost["timestamp"][2] + MINUTE / 60))
    found = findings(finding("trades", BTC, span, "ids_skip"))
    report = repair(lake, found)
    assert report.inserted >= 3
    assert_frame_equal(rows(lake, "trades"), truth)
    damaged = truth.join(lost, on="trade_id", how="anti")
    assert undo(store_of(lake), report.applied[0].repair_id).removed == report.inserted
    assert rows(lake, "trades").height <= damaged.height


def test_a_reference_is_refetched_with_the_rows_that_disagree(make_lake: MakeLake) -> None:
    lake = _ingested(make_lake(), "bars_1m", "bars_5m")
    truth = rows(lake, "bars_1m")
    five = minutes(5, SPIKE)
    damage(lake, "bars_1m", BTC, minutes(1, SPIKE), lambda bars: bars.with_columns(volume=0.5))
    found = findings(
        finding("bars_5m", BTC, five, "reconciliation", "consistency", against="bars_1m")
    )
    report = repair(lake, found)
    assert [one.table for one in report.applied] == ["bars_1m"]
    assert_frame_equal(rows(lake, "bars_1m"), truth)


def test_a_dry_run_asks_nothing_and_writes_nothing(lake: Lake, sandbox: Sandbox) -> None:
    _spoil(lake)
    before = lake.tables()
    sandbox.clear_log()
    report = repair(lake, FOUND, dry_run=True)
    assert [(one.method, one.window) for one in report.planned] == [
        ("refetch", GAP),
        ("refetch", minutes(1, SPIKE)),
    ]
    assert not report.applied
    assert not sandbox.log
    assert_frame_equal(lake.tables(), before)


def test_close_gaps_are_asked_for_at_once(lake: Lake) -> None:
    gaps = [minutes(2, SINCE + n * 30 * MINUTE) for n in range(1, 5)]
    for gap in gaps:
        delete(lake, "bars_1m", BTC, gap)
    found = findings(*(finding("bars_1m", BTC, gap) for gap in gaps))
    [planned] = repair(lake, found, dry_run=True).planned
    assert planned.window == TimeRange(gaps[0].start, gaps[-1].end)
    assert len(planned.findings) == 4
    assert repair(lake, found).inserted == 8


def test_an_outage_and_late_rows_are_told_and_left(lake: Lake, sandbox: Sandbox) -> None:
    sandbox.clear_log()
    report = repair(
        lake,
        findings(
            finding("bars_1m", BTC, GAP, reason="venue_outage"),
            finding("bars_1m", BTC, GAP, "stale", "timeliness"),
            finding("bars_1m", BTC, GAP, "gaps2", reason="no_trade"),
            finding("nothing", BTC, GAP),
        ),
    )
    said = [one.reason for one in report.failed]
    words = ("venue was down", "stay late", "no trade happened", "no dataset 'nothing'")
    assert all(word in text for word, text in zip(words, said, strict=True))
    assert report.job_id is None
    assert not sandbox.log


def test_a_market_that_the_source_does_not_list_is_told(lake: Lake) -> None:
    gone = Market("binance", "GONE/USDT")
    store = store_of(lake)
    bars = rows(lake, "bars_1m").head(3).drop("date").with_columns(symbol=pl.lit("GONE/USDT"))
    store.write(store.catalog.dataset("bars_1m"), bars, ORIGIN)
    _spoil(lake)
    found = findings(finding("bars_1m", gone, GAP), finding("bars_1m", BTC, GAP))
    report = repair(lake, found)
    [failed] = report.failed
    assert "has no market 'GONE/USDT'" in failed.reason
    assert report.inserted == 12


def test_a_source_that_goes_down_leaves_what_was_repaired_recorded(
    make_lake: MakeLake, sandbox: Sandbox
) -> None:
    lake = _ingested(make_lake(), "bars_1m", "bars_5m")
    truths = {table: rows(lake, table) for table in ("bars_1m", "bars_5m")}
    for table in truths:
        delete(lake, table, BTC, minutes(60))
    found = findings(*(finding(table, BTC, minutes(60)) for table in truths))
    sandbox.fail(Fault("503", match="interval=5m", times=10**6))
    with pytest.raises(SourceUnavailableError, match="binance"):
        repair(lake, found)
    [recorded] = rows(lake, "repairs").rows(named=True)
    assert (recorded["dataset"], recorded["inserted"]) == ("bars_1m", 60)
    [job] = lake.jobs().filter(command="quality repair").rows(named=True)
    assert job["status"] == "failed"

    sandbox.recover()
    report = repair(lake, found)
    assert [one.table for one in report.applied] == ["bars_5m"]
    for table, truth in truths.items():
        assert_frame_equal(rows(lake, table), truth)


def test_a_pinned_bundle_keeps_what_it_pinned(lake: Lake) -> None:
    _spoil(lake)
    bundle = lake.bundles.pin("b", table="bars_1m")
    pinned = bundle.scan("bars_1m").collect()
    [first, _] = repair(lake, FOUND).applied
    undo(store_of(lake), first.repair_id)
    assert_frame_equal(bundle.scan("bars_1m").collect(), pinned)


def test_funding_that_is_missing_is_refetched_first(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.ingest(
        "funding",
        exchange="binance",
        symbol=PERPETUAL.symbol,
        since=UNTIL - 10 * DAY,
        until=UNTIL,
    )
    truth = rows(lake, "funding")
    time = truth["timestamp"][12]
    span = TimeRange(time.replace(second=0, microsecond=0), time + MINUTE)
    delete(lake, "funding", PERPETUAL, span)
    report = repair(lake, findings(finding("funding", PERPETUAL, span, "funding_missing")))
    assert report.inserted == 1
    assert_frame_equal(rows(lake, "funding"), truth)


def test_there_is_nothing_to_do_without_findings(make_lake: MakeLake) -> None:
    lake = make_lake()
    assert repair(lake, findings()).job_id is None
    assert lake.tables().is_empty()
