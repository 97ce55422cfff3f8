"""Alerts of a lake, sent to a real receiver: once per condition, grouped, limited, resolved."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import polars as pl
import pytest
from deltalake import ColumnProperties, WriterProperties, write_deltalake

from lake.api import Lake
from lake.errors import DamagedError
from lake.jobs.alerts import AlertReport
from tests.alerts.conftest import NOW, Clock, Receiver, Watched, findings, rule
from tests.conftest import TIME, bars, funding, trades, write


def put(lake: Lake, table: str, frame: Any) -> None:
    write(lake._context.store, table, frame)


def test_a_condition_is_sent_once_when_raised_and_once_when_resolved(
    watched: Watched, receiver: Receiver, clock: Clock
) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()])
    put(lake, "findings", findings(3))
    lake.alerts.run()
    (message,) = receiver.taken()
    assert message.title == "lake: bad: 1 raised"
    assert message.body["type"] == "failure"
    assert "[error] bars_1m binance BTC/USDT: 3 open findings (gap 3) since 2024" in message.text
    assert "a gap of one minute" in message.text
    for _ in range(3):
        clock.turn(minutes=5)
        lake.alerts.run()
    assert receiver.taken() == []

    put(lake, "findings", findings(3, status="closed"))
    lake.alerts.run()
    (message,) = receiver.taken()
    assert message.title == "lake: bad: 1 resolved"
    assert message.body["type"] == "success"
    assert "after 15 min: bars_1m binance BTC/USDT" in message.text
    clock.turn(minutes=5)
    lake.alerts.run()
    assert receiver.taken() == []

    put(lake, "findings", findings(1))
    lake.alerts.run()
    assert [message.title for message in receiver.taken()] == ["lake: bad: 1 raised"]
    assert lake.alerts.ls()["status"].to_list() == ["resolved", "raised"]


def test_the_table_records_what_was_sent_and_when(
    watched: Watched, receiver: Receiver, clock: Clock
) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()])
    put(lake, "findings", findings(2))
    lake.alerts.run()
    clock.turn(minutes=2)
    put(lake, "findings", findings(2, status="closed"))
    lake.alerts.run()
    (row,) = lake.alerts.ls().to_dicts()
    later = NOW + timedelta(minutes=2)
    assert (row["rule"], row["channel"], row["dataset"], row["symbol"]) == (
        "bad",
        "chat",
        "bars_1m",
        "BTC/USDT",
    )
    assert (row["timestamp"], row["sent_at"]) == (NOW, NOW)
    assert (row["resolved_at"], row["resolved_sent_at"]) == (later, later)
    assert (row["severity"], row["count"], row["error"]) == ("error", 2, None)
    jobs = lake._context.ledger.read_jobs()
    assert jobs["command"].to_list() == ["alert run", "alert run"]
    assert lake._context.ledger.read_commits("alerts")[0]["job"] == jobs["job_id"][1]


def test_conditions_of_a_rule_are_one_message_with_a_bounded_list(
    watched: Watched, receiver: Receiver
) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()])
    for number in range(23):
        put(lake, "findings", findings(1, symbol=f"A{number:02}/USDT"))
    lake.alerts.run()
    (message,) = receiver.taken()
    assert message.title == "lake: bad: 23 raised"
    assert message.text.count("open finding") == 20
    assert message.text.splitlines()[-1] == "and 3 more"


def test_each_rule_and_each_channel_has_its_own_message(
    watched: Watched, receiver: Receiver, other_receiver: Receiver
) -> None:
    lake = watched(
        channels={"chat": receiver.url, "mail": other_receiver.url},
        rules=[rule("a", channels=["chat", "mail"]), rule("b", check="gap")],
    )
    put(lake, "findings", findings(1))
    report = lake.alerts.run()
    assert {message.title for message in receiver.taken()} == {
        "lake: a: 1 raised",
        "lake: b: 1 raised",
    }
    assert [message.title for message in other_receiver.taken()] == ["lake: a: 1 raised"]
    assert report.frame()["raised"].to_list() == [1, 1, 1]


@pytest.mark.parametrize(
    ("choice", "symbols"),
    [
        ({"severity": "critical"}, set()),
        ({"severity": "error"}, {"BTC/USDT"}),
        ({"severity": "info"}, {"BTC/USDT", "ETH/USDT", "ETH/BTC"}),
        ({"dataset": "bars_*"}, {"BTC/USDT"}),
        ({"exchange": "krak?n"}, {"ETH/BTC"}),
        ({"symbol": "*/USDT"}, {"BTC/USDT", "ETH/USDT"}),
        ({"check": "spike"}, {"ETH/USDT"}),
        ({"min_findings": 2}, {"BTC/USDT"}),
        ({"min_findings": 3}, set()),
        ({"within_seconds": 3600}, {"ETH/USDT", "ETH/BTC"}),
        ({"within_seconds": 3601}, {"BTC/USDT", "ETH/USDT", "ETH/BTC"}),
    ],
)
def test_a_rule_chooses_by_severity_table_market_check_and_rate(
    watched: Watched, receiver: Receiver, choice: dict[str, Any], symbols: set[str]
) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule(**{"severity": "info", **choice})])
    hour_ago = NOW - timedelta(hours=1)
    put(lake, "findings", findings(2, found_at=hour_ago))
    mild = partial(findings, 1, dataset="trades", severity="info")
    put(lake, "findings", mild(symbol="ETH/USDT", check="spike"))
    put(lake, "findings", mild(symbol="ETH/BTC", exchange="kraken"))
    put(lake, "findings", findings(1, symbol="XRP/USDT", status="closed"))
    lake.alerts.run()
    assert set(lake.alerts.ls()["symbol"]) == symbols


def test_a_lasting_alert_is_sent_again_with_its_present_state(
    watched: Watched, receiver: Receiver, clock: Clock
) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()], repeat_seconds=3600)
    put(lake, "findings", findings(1))
    lake.alerts.run()
    put(lake, "findings", findings(2, severity="critical"))
    clock.turn(minutes=59)
    lake.alerts.run()
    assert len(receiver.taken()) == 1
    clock.turn(minutes=1)
    lake.alerts.run()
    (message,) = receiver.taken()
    assert message.title == "lake: bad: 1 still"
    assert "[critical] bars_1m binance BTC/USDT: 2 open findings" in message.text
    clock.turn(minutes=59)
    lake.alerts.run()
    assert receiver.taken() == []


def test_messages_of_a_flapping_condition_are_held_back_and_sent_together(
    watched: Watched, receiver: Receiver, clock: Clock
) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()], min_interval_seconds=60)
    put(lake, "findings", findings(1))
    lake.alerts.run()
    receiver.taken()
    held_back = []
    for status in ("closed", "open", "closed"):
        clock.turn(seconds=10)
        put(lake, "findings", findings(1, status=status))
        held_back.append(lake.alerts.run().held_back)
    assert held_back == [1, 2, 2]
    assert receiver.taken() == []
    clock.turn(seconds=30)
    lake.alerts.run()
    (message,) = receiver.taken()
    assert message.title == "lake: bad: 1 raised, 2 resolved"
    assert message.body["type"] == "success"


def test_rows_that_are_too_old_raise_an_alert_that_new_rows_resolve(
    watched: Watched, receiver: Receiver, clock: Clock
) -> None:
    stale = {"name": "stale", "freshness_seconds": 120, "channels": ["chat"]}
    lake = watched(channels={"chat": receiver.url}, rules=[{**stale, "dataset": "trades"}])
    put(lake, "trades", trades(1, start=NOW))
    put(lake, "trades", trades(1, start=NOW - timedelta(hours=3), symbol="ETH/USDT"))
    put(lake, "bars_1m", bars(1))
    lake.alerts.run()
    (message,) = receiver.taken()
    assert "[warning] trades binance ETH/USDT: the newest row is 3 h old" in message.text
    assert "BTC/USDT" not in message.text
    assert "the limit is 2 min" in message.text
    clock.turn(seconds=121)
    lake.alerts.run()
    assert "trades binance BTC/USDT" in receiver.taken()[0].text
    put(lake, "trades", trades(1, first=9, start=clock.now))
    clock.turn(seconds=60)
    lake.alerts.run()
    assert [message.title for message in receiver.taken()] == ["lake: stale: 1 resolved"]


def test_a_named_table_without_rows_raises_an_alert_until_it_has_rows(
    watched: Watched, receiver: Receiver, clock: Clock
) -> None:
    stale = {"name": "stale", "freshness_seconds": 60, "channels": ["chat"]}
    lake = watched(
        channels={"chat": receiver.url}, rules=[{**stale, "dataset": "trades", "symbol": "BTC/*"}]
    )
    put(lake, "trades", trades(1, start=NOW, symbol="ETH/USDT"))
    for _ in range(2):
        lake.alerts.run()
        clock.turn(minutes=2)
    (message,) = receiver.taken()
    assert message.text.splitlines() == [
        "Raised:",
        "- [warning] trades * BTC/*: there are no rows",
    ]
    put(lake, "trades", trades(1, start=clock.now))
    lake.alerts.run()
    assert [message.title for message in receiver.taken()] == ["lake: stale: 1 resolved"]


def test_a_bar_is_as_old_as_its_end(watched: Watched, clock: Clock) -> None:
    lake = watched(rules=[{"name": "stale", "freshness_seconds": 60, "channels": ["log"]}])
    put(lake, "bars_1h", bars(1, start=NOW - timedelta(hours=1)))
    put(lake, "funding", funding([NOW]))
    clock.turn(seconds=60)
    assert lake.alerts.run().conditions == 0
    clock.turn(seconds=1)
    assert lake.alerts.run().conditions == 2


def test_the_record_of_the_lake_itself_is_never_too_old(watched: Watched, clock: Clock) -> None:
    lake = watched(rules=[{"name": "stale", "freshness_seconds": 60, "channels": ["log"]}])
    put(lake, "findings", findings(1))
    put(lake, "trades", trades(1))
    for _ in range(2):
        clock.turn(days=1)
        assert lake.alerts.run().conditions == 1


def test_rows_in_a_file_without_statistics_are_as_new_as_they_are(
    watched: Watched, clock: Clock
) -> None:
    lake = watched(rules=[{"name": "stale", "freshness_seconds": 60, "channels": ["log"]}])
    put(lake, "trades", trades(1))
    stored = lake._context.store.read(lake.dataset("trades"))
    newer = stored.with_columns(
        pl.lit("foreign").alias("trade_id"),
        pl.lit(NOW, dtype=TIME).alias("timestamp"),
        pl.lit(NOW.date()).alias("date"),
    )
    none = ColumnProperties(statistics_enabled="NONE")
    write_deltalake(
        lake.root.tables / "trades",
        newer,
        mode="append",
        writer_properties=WriterProperties(default_column_properties=none),
    )
    assert lake.alerts.run().conditions == 0
    clock.turn(seconds=61)
    assert lake.alerts.run().conditions == 1


def test_without_rules_nothing_is_done(watched: Watched, receiver: Receiver) -> None:
    lake = watched(channels={"chat": receiver.url})
    put(lake, "findings", findings(1))
    assert lake.alerts.run().conditions == 0
    assert lake._context.store.tables() == ("findings",)
    assert lake.alerts.ls().is_empty()


def test_where_nothing_changes_nothing_is_written(watched: Watched, receiver: Receiver) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule()])
    put(lake, "findings", findings(1))
    lake.alerts.run()
    before = (
        len(lake._context.ledger.read_commits("alerts")),
        lake._context.ledger.read_jobs().height,
    )
    lake.alerts.run()
    assert (
        len(lake._context.ledger.read_commits("alerts")),
        lake._context.ledger.read_jobs().height,
    ) == before


def test_alerts_of_a_rule_that_is_no_more_stay_as_they_are(
    watched: Watched, receiver: Receiver, clock: Clock
) -> None:
    lake = watched(channels={"chat": receiver.url}, rules=[rule("a"), rule("b")])
    put(lake, "findings", findings(1))
    lake.alerts.run()
    receiver.taken()
    less = watched(str(lake.root.path), channels={"chat": receiver.url}, rules=[rule("b")])
    clock.turn(minutes=5)
    put(lake, "findings", findings(1, status="closed"))
    less.alerts.run()
    assert [message.title for message in receiver.taken()] == ["lake: b: 1 resolved"]
    lake.alerts.run()
    assert [message.title for message in receiver.taken()] == ["lake: a: 1 resolved"]


def test_an_alert_about_a_table_that_cannot_be_read_is_not_resolved(
    watched: Watched, receiver: Receiver, clock: Clock
) -> None:
    old = rule("old", dataset="*", freshness_seconds=60.0, severity=None)
    lake = watched(channels={"chat": receiver.url}, rules=[old])
    put(lake, "trades", trades(1))
    put(lake, "bars_1m", bars(1))
    lake.alerts.run()
    assert [message.title for message in receiver.taken()] == ["lake: old: 2 raised"]
    (lake.root.tables / "trades" / "_delta_log").rename(lake.root.path / "log")
    put(lake, "bars_1m", bars(1, start=NOW))
    clock.turn(minutes=1)
    with pytest.raises(DamagedError, match="table trades") as caught:
        Lake(lake.settings, now=clock).alerts.run()
    assert isinstance(caught.value.report, AlertReport)
    assert caught.value.report.conditions == 1
    assert [message.title for message in receiver.taken()] == ["lake: old: 1 resolved"]
