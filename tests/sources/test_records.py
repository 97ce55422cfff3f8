"""Records of an answer: `lake.sources.records`."""

from typing import Any

import pytest

from lake.sources.faults import Fault
from lake.sources.records import join_anomalies, parse_records
from lake.sources.venues.binance_pages import parse_agg_trades, parse_klines
from tests.sources.test_binance_pages import START, minutes, trade


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (trade(7, 7, T=None), "timestamp_missing"),
        ({**trade(7, 7), "a": None}, "id_missing"),
        ({"a": 7}, "unreadable"),
        (trade(7, 7, T="noon"), "unreadable"),
        ("seven", "unreadable"),
        (None, "unreadable"),
    ],
)
def test_one_bad_trade_does_not_cost_the_others(record: Any, reason: str) -> None:
    answer = [trade(6, 6), record, trade(8, 8)]
    records = parse_records(answer, parse_agg_trades, ("timestamp", "id"))
    assert records.frame["trade_id"].to_list() == ["6", "8"]
    assert [refused.reason for refused in records.refused] == [reason]
    assert records.anomaly is not None
    assert records.anomaly.startswith(f"1 unusable records, the first {reason}: ")


def test_one_bad_bar_does_not_cost_the_others() -> None:
    short, late = minutes(1)[0][:5], [None, *minutes(2)[0][1:]]
    records = parse_records([*minutes(0), short, late, *minutes(3)], parse_klines)
    assert [time.minute for time in records.frame["timestamp"]] == [0, 3]
    assert [refused.reason for refused in records.refused] == ["unreadable", "timestamp_missing"]
    assert records.refused[1].raw.startswith("[null,")


def test_an_answer_without_a_usable_record_is_a_fault() -> None:
    for answer in ({"code": 0}, "rows", None, [None], [1, 2]):
        with pytest.raises(Fault):
            parse_records(answer, parse_klines)


def test_a_good_answer_is_parsed_as_a_whole() -> None:
    records = parse_records(minutes(0, 1), parse_klines)
    assert records.frame["timestamp"][0] == START
    assert records.refused == ()
    assert records.anomaly is None
    assert parse_records([], parse_klines).frame.is_empty()


def test_anomalies_are_joined() -> None:
    assert join_anomalies(None, None) is None
    assert join_anomalies("a", None, "b") == "a; b"
