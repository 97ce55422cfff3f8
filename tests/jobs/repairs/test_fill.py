"""What no source gives: derived where finer data are complete, interpolated only on request."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.jobs.repairs.repair import undo
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.sandbox import Sandbox
from tests.conftest import DAY, ORIGIN, bars
from tests.jobs.conftest import NOW, MakeLake
from tests.jobs.repairs.damage import (
    BTC,
    MINUTE,
    PERPETUAL,
    SINCE,
    UNTIL,
    XRP,
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
from tests.jobs.repairs.lakes import GONE, copy_to_gone_venue, ingest_all, rows_of_market


def test_a_gap_for_which_there_is_nothing_is_marked_and_not_asked_for_again(
    make_lake: MakeLake, sandbox: Sandbox
) -> None:
    lake = ingest_all(make_lake(), "bars_1m", market=XRP)
    there = set(rows(lake, "bars_1m")["timestamp"])
    time = next(t for n in range(600) if (t := SINCE + n * MINUTE) not in there)
    found = findings(finding("bars_1m", XRP, minutes(1, time)))
    before = rows(lake, "bars_1m")
    report = repair(lake, found)
    [mark] = report.marked
    assert json.loads(rows(lake, "repairs")["evidence"][0])["answer"] == "nothing"
    assert "nothing there" in report.failed[0].reason
    sandbox.clear_log()
    version = versions(lake)
    assert not repair(lake, found).marked
    assert not sandbox.log
    assert versions(lake) == version
    assert_frame_equal(rows(lake, "bars_1m"), before)

    undo(store_of(lake), mark.repair_id)
    repair(lake, found)
    assert sandbox.log


def _quiet(lake: Lake, reason: str = "no_trade") -> pl.DataFrame:
    """All minutes without a bar, as intervals."""
    opens = pl.datetime_range(SINCE, UNTIL, "1m", closed="left", eager=True).alias("start")
    absent = opens.filter(~opens.is_in(rows(lake, "bars_1m")["timestamp"].implode()))
    return absent.to_frame().with_columns(
        end=pl.col("start") + MINUTE,
        dataset=pl.lit("bars_1m"),
        exchange=pl.lit(XRP.exchange),
        symbol=pl.lit(XRP.symbol),
        reason=pl.lit(reason),
    )


def test_flat_bars_are_filled_in_on_request_and_never_look_observed(
    make_lake: MakeLake, sandbox: Sandbox
) -> None:
    lake = ingest_all(make_lake(), "bars_1m", market=XRP)
    observed, quiet = rows(lake, "bars_1m"), _quiet(lake)
    first = observed["timestamp"][0]
    assert not repair(lake, findings(), no_trade=quiet).applied
    sandbox.clear_log()
    report = repair(lake, findings(), no_trade=quiet, interpolate=True)
    assert not sandbox.log
    assert {one.method for one in report.applied} == {"interpolate"}
    filled = rows(lake, "bars_1m")
    made = filled.filter(pl.col("fill").is_not_null())
    assert_frame_equal(filled.filter(pl.col("fill").is_null()), observed)
    assert made.height == report.inserted == quiet.filter(pl.col("start") > first).height
    assert set(made["fill"]) == {"interpolated:flat"}
    assert made["volume"].sum() == made["trade_count"].sum() == 0
    last = made.join_asof(observed.select("timestamp", was="close"), on="timestamp")
    for name in ("open", "high", "low", "close"):
        assert last[name].equals(last["was"].alias(name))

    version = versions(lake)
    assert not repair(lake, findings(), no_trade=quiet, interpolate=True).applied
    assert versions(lake) == version
    for applied in report.applied:
        undo(store_of(lake), applied.repair_id)
    assert_frame_equal(rows(lake, "bars_1m"), observed)


@pytest.mark.parametrize("reason", ["unknown", "not_fetched", "venue_outage", "lost"])
def test_only_minutes_without_trades_are_filled_in_flat(make_lake: MakeLake, reason: str) -> None:
    lake = ingest_all(make_lake(), "bars_1m", market=XRP)
    report = repair(lake, findings(), no_trade=_quiet(lake, reason), interpolate=True)
    assert not report.applied


def test_a_flat_bar_needs_the_bar_right_before_it(make_lake: MakeLake) -> None:
    lake = ingest_all(make_lake(), "bars_1m")
    delete(lake, "bars_1m", BTC, minutes(6))
    quiet = findings(finding("bars_1m", BTC, minutes(3, minutes(3).end), reason="no_trade"))
    report = repair(lake, quiet, interpolate=True)
    assert not report.applied
    assert "last price is not known" in report.failed[0].reason


def test_flat_bars_go_on_for_days(make_lake: MakeLake) -> None:
    """They are made a day at a time, and each day goes on from the one before."""
    lake = make_lake()
    first = bars(1, start=SINCE - 3 * DAY, exchange=GONE.exchange, close=[100.0])
    lake.write("bars_1m", first)
    span = TimeRange(SINCE - 3 * DAY + MINUTE, SINCE)
    quiet = findings(finding("bars_1m", GONE, span, reason="no_trade"))
    report = repair(lake, quiet, interpolate=True)
    assert report.inserted == 3 * 1440 - 1
    made = rows(lake, "bars_1m")
    assert made["close"].unique().to_list() == [100.0]
    assert made["fill"].null_count() == 1


@pytest.mark.parametrize("interpolate", [False, True])
def test_funding_that_nobody_has_takes_the_last_rate_on_request(
    make_lake: MakeLake, interpolate: bool
) -> None:
    lake = make_lake()
    lake.ingest(
        "funding",
        exchange="binance",
        symbol=PERPETUAL.symbol,
        since=UNTIL - timedelta(days=10),
        until=UNTIL,
    )
    gone = Market("gone", PERPETUAL.symbol)
    copy_to_gone_venue(lake, "funding")
    truth = rows_of_market(lake, "funding", gone)
    nominal = truth["timestamp"][12].replace(second=0, microsecond=0)
    span = TimeRange(nominal, nominal + MINUTE)
    delete(lake, "funding", gone, span)
    found = findings(finding("funding", gone, span, "funding_missing"))
    report = repair(lake, found, interpolate=interpolate)
    filled = rows_of_market(lake, "funding", gone).filter(pl.col("fill").is_not_null())
    assert filled.height == interpolate
    assert len(report.failed) == (not interpolate)
    if interpolate:
        [row] = filled.rows(named=True)
        assert (row["timestamp"], row["fill"]) == (nominal, "interpolated:last")
        assert row["funding_rate"] == truth["funding_rate"][11]
        assert row["mark_price"] is None
        version = versions(lake)
        repair(lake, found, interpolate=True)
        assert versions(lake) == version
    # Filled in or not, it is lost.
    checked = lake.quality.check("funding", exchange="gone")
    (loss,) = checked.findings.filter(dimension="completeness").rows(named=True)
    assert loss["check"] == ("guessed" if interpolate else "funding_gaps")
    assert (loss["timestamp"], loss["rows"], loss["reason"]) == (nominal, 1, "unknown")
    assert lake.quality.scores("funding", exchange="gone")["expected"].sum() == truth.height
    assert checked.scores["completeness"] == pytest.approx(1 - 1 / truth.height)


def test_a_rate_that_was_filled_in_goes_when_the_venue_gives_one(
    make_lake: MakeLake, sandbox: Sandbox
) -> None:
    lake = make_lake()
    lake.ingest(
        "funding",
        exchange="binance",
        symbol=PERPETUAL.symbol,
        since=UNTIL - timedelta(days=10),
        until=UNTIL,
    )
    truth = rows(lake, "funding")
    time = next(t for t in truth["timestamp"][5:] if t.microsecond)
    nominal = time.replace(second=0, microsecond=0)
    span = TimeRange(nominal, nominal + MINUTE)
    delete(lake, "funding", PERPETUAL, span)
    made = (
        truth.filter(timestamp=time)
        .drop("date")
        .with_columns(
            pl.lit(nominal).cast(truth.schema["timestamp"]).alias("timestamp"),
            fill=pl.lit("interpolated:last"),
        )
    )
    store = store_of(lake)
    store.write(store.catalog.dataset("funding"), made, ORIGIN)
    filled = rows(lake, "funding")
    report = repair(lake, findings(finding("funding", PERPETUAL, span, "funding_missing")))
    assert_frame_equal(rows(lake, "funding"), truth)
    for applied in report.applied[::-1]:
        undo(store, applied.repair_id)
    assert_frame_equal(rows(lake, "funding"), filled)
    assert sandbox.log


def test_an_observed_rate_is_never_replaced_by_a_filled_one(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.ingest(
        "funding",
        exchange="binance",
        symbol=PERPETUAL.symbol,
        since=UNTIL - timedelta(days=3),
        until=UNTIL,
    )
    truth, store = rows(lake, "funding"), store_of(lake)
    other = truth.drop("date").with_columns(pl.col("funding_rate") * 2)
    given = other.with_columns(fill=pl.lit("interpolated:last"))
    assert store.write(store.catalog.dataset("funding"), given, ORIGIN).updated == 0
    assert_frame_equal(rows(lake, "funding"), truth)
    rate = truth["timestamp"][4]
    report = repair(lake, findings(spike("funding", PERPETUAL, rate, 1.0)), again=True)
    assert [one.method for one in report.marked] == ["mark"]


def test_rows_of_one_event_that_an_earlier_version_stored_go_but_for_one(
    make_lake: MakeLake,
) -> None:
    lake = make_lake()
    lake.ingest(
        "funding",
        exchange="binance",
        symbol=PERPETUAL.symbol,
        since=UNTIL - timedelta(days=10),
        until=UNTIL,
    )
    truth, store = rows(lake, "funding"), store_of(lake)
    dataset = store.catalog.dataset("funding")
    exact = replace(dataset, schedule=None, time_tolerance=timedelta(0))
    early = truth.drop("date").with_columns(pl.col("timestamp") - timedelta(milliseconds=30))
    assert store.write(exact, early, ORIGIN).inserted == truth.height
    lake.quality.check("funding")
    doubled = lake.quality.findings(check="duplicates")
    assert (doubled["rows"].sum(), doubled["severity"].unique().to_list()) == (
        truth.height,
        ["error"],
    )
    lake.quality.repair("funding")
    assert_frame_equal(rows(lake, "funding"), truth)
    assert lake.quality.findings(check="duplicates").is_empty()


POOL = """
name = "pool"
title = "State of a pool"
description = "Of a user's own."
rows = "revisable"
date = "year"
time_column = "timestamp"
key = ["timestamp"]
{kept}
[repair]
interpolate = "linear"

[columns]
timestamp = {{ type = "timestamp", unit = "UTC", meaning = "When." }}
price = {{ type = "float64", unit = "quote", meaning = "Price." }}
fill = {{ type = "string", nullable = true, meaning = "How it was filled in." }}

[columns.received_at]
type = "timestamp"
unit = "UTC"
nullable = true
digest = false
meaning = "When it was received."
"""


@pytest.mark.parametrize("kept", ["", "keep_when = 't.fill IS NULL AND s.fill IS NOT NULL'"])
def test_rows_of_ones_own_dataset_are_filled_in_where_it_keeps_what_was_observed(
    make_lake: MakeLake, kept: str
) -> None:
    lake, pool = make_lake(), Market("chain", "A/B")
    folder = lake.root.path / "schemas"
    folder.mkdir(exist_ok=True)
    (folder / "pool.toml").write_text(POOL.format(kept=kept), encoding="utf-8")
    lake = Lake(lake.settings, now=lambda: NOW)
    times = [SINCE + n * timedelta(hours=1) for n in range(12)]
    told = pl.DataFrame({"timestamp": times, "price": [float(n) ** 2 for n in range(12)]})
    told = told.with_columns(exchange=pl.lit(pool.exchange), symbol=pl.lit(pool.symbol))
    lake.write("pool", told.filter(pl.col("timestamp") != times[5]))
    found = findings(finding("pool", pool, TimeRange(times[5], times[5] + MINUTE)))
    foreseen = repair(lake, found, interpolate=True, dry_run=True).planned
    report = repair(lake, found, interpolate=True)
    filled = rows(lake, "pool").filter(pl.col("fill").is_not_null())
    if not kept:
        assert filled.is_empty()
        assert [one.method for one in foreseen] == ["refetch"]
        assert "keep_when" in report.failed[0].reason
        return
    assert [(one.method, one.rows) for one in foreseen[1:]] == [("interpolate", 1)]
    assert filled.select("timestamp", "price", "fill", "received_at").rows() == [
        (times[5], (16.0 + 36.0) / 2, "interpolated:linear", times[6])
    ]
    lake.write("pool", told)
    assert rows(lake, "pool")["price"].to_list() == told["price"].to_list()
    assert rows(lake, "pool")["fill"].null_count() == 12
