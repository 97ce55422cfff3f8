"""Slices have whole days, a bounded size, and all references."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from lake.api import Lake
from lake.jobs.quality.run import open_inputs
from lake.jobs.quality.slices import CheckInputs
from lake.model.intervals import split
from lake.model.market import Market, StoredMarket
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.quality.checks.completeness import gaps
from lake.quality.checks.reconciliation import CHECKS as RECONCILIATION
from lake.quality.checks.times import CHECKS
from lake.quality.slice import Slice
from lake.store import chunks
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
from lake.store.snapshot import Snapshot
from tests.conftest import (
    DAY,
    MINUTE,
    ORIGIN,
    SECOND,
    T0,
    TIME,
    NewLake,
    bars,
    store_of,
    trades,
    write,
)
from tests.model.everything import TEXT
from tests.quality.slices import collect_findings, outcome

HOUR = timedelta(hours=1)
BINANCE = Market("binance", "BTC/USDT")
EVERYTHING = Selection()


def inputs_of(lake: Lake, now: datetime = T0 + 100 * DAY) -> CheckInputs:
    return open_inputs(store_of(lake), lake.settings, now)


def slices(
    lake: Lake, table: str = "bars_1m", selection: Selection = EVERYTHING, **more: datetime
) -> list[Slice]:
    return list(inputs_of(lake, **more).cut_slices(table, selection))


def missing(parts: list[Slice]) -> list[tuple[datetime, int, str]]:
    """Start, slots and reason of all gaps."""
    frames = [collect_findings(gaps(part)).select("start", "rows", "reason") for part in parts]
    return [row for frame in frames for row in frame.rows()]


def cover(lake: Lake, table: str, *ranges: TimeRange) -> None:
    settled = [CoveredRange(range_, 1) for range_ in ranges]
    Ledger(store_of(lake)).record_coverage({part_of(table, BINANCE): settled}, ORIGIN)


def test_bounds_within_a_day_mean_all_of_it_unless_it_is_exact(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3 * 24, step=HOUR))
    noon = Selection(start=T0 + DAY + 12 * HOUR, end=T0 + DAY + 13 * HOUR)
    assert [part.range for part in slices(lake, selection=noon)] == [
        TimeRange(T0 + DAY, T0 + 2 * DAY)
    ]
    exact = inputs_of(lake).cut_slices("bars_1m", noon, exactly=True)
    assert [part.range for part in exact] == [TimeRange(noon.start or T0, noon.end or T0)]


def test_each_market_is_seen_by_itself_with_rows_around_the_range(lake: Lake) -> None:
    for exchange in ("binance", "kraken"):
        write(
            lake, "bars_1m", bars(3 * 1440, exchange=exchange, open=[1.0] * 4320, low=[1.0] * 4320)
        )
    day = Selection(start=T0 + DAY, end=T0 + 2 * DAY)
    first, second = slices(lake, selection=day)
    assert (first.market.exchange, second.market.exchange) == ("binance", "kraken")
    rows = first.frame.collect()
    assert set(rows["exchange"]) == {"binance"}
    assert (rows["timestamp"].min(), rows["timestamp"].max()) == (
        T0 + DAY - 500 * MINUTE,
        T0 + 2 * DAY + 499 * MINUTE,
    )
    assert first.span == TimeRange(T0, T0 + 3 * DAY - MINUTE + timedelta(milliseconds=1))
    assert [other.market.exchange for other in first.others] == ["kraken"]


@pytest.mark.parametrize(
    ("margin", "hours"), [("", 1), ('margin = "3h"', 3), ('margin = "36h"', 36)]
)
def test_a_slice_holds_rows_within_the_margin_of_the_dataset(
    new_lake: NewLake, margin: str, hours: int
) -> None:
    text = TEXT.replace("[columns]", f"{margin}\n\n[columns]")
    lake = new_lake(schemas={"everything": text})
    rows = trades(144, step=HOUR / 2).with_columns(id=pl.col("trade_id").cast(pl.Int64))
    write(lake, "everything", rows.select("exchange", "symbol", "timestamp", "id"))
    day = Selection(start=T0 + DAY, end=T0 + 2 * DAY)
    [part] = slices(lake, "everything", day)
    times = part.frame.collect()["timestamp"]
    assert times.min() == max(T0, T0 + DAY - hours * HOUR)
    assert times.max() == min(T0 + 3 * DAY, T0 + 2 * DAY + hours * HOUR) - HOUR / 2


@pytest.mark.parametrize("table", ["bars_1m", "bars_1h"])
def test_rows_of_1970_and_of_the_future_are_found_and_leave_the_others_alone(
    lake: Lake, table: str
) -> None:
    step = MINUTE if table == "bars_1m" else HOUR
    sound = bars(30, step=step).filter(pl.int_range(pl.len()) != 10)
    write(lake, table, sound)
    now = T0 + 29 * step + SECOND
    before = missing(slices(lake, table, now=now))
    assert before == [(T0 + 10 * step, 1, "unknown")]

    epoch = datetime(1970, 1, 20, 17, tzinfo=UTC)
    wrong = [epoch, epoch + 5 * step, now + 3 * HOUR, now + 9 * DAY, now + 40 * DAY]
    write(lake, table, bars(5, timestamp=wrong))
    parts = slices(lake, table, now=now)
    assert missing(parts) == before
    reasons = [
        row
        for part in parts
        for row in outcome(CHECKS, "implausible_time", part).select("start", "rows").rows()
    ]
    assert sum(rows for _, rows in reasons) == 5
    assert {start for start, _ in reasons} <= set(wrong)
    ends = [part.range for part in parts]
    assert ends == sorted(set(ends)), "no day is checked twice"


def test_a_row_that_is_ahead_today_is_checked_today(lake: Lake) -> None:
    now = T0 + 12 * HOUR
    write(lake, "bars_1m", bars(2, timestamp=[T0, T0 + 20 * HOUR]))
    (part,) = slices(lake, now=now)
    assert part.range == TimeRange(T0, T0 + DAY)
    assert outcome(CHECKS, "implausible_time", part)["reason"].to_list() == ["ahead"]
    assert missing([part]) == []


def test_trades_beyond_the_margin_are_read_if_there_are_none_within(lake: Lake) -> None:
    # Nothing was traded for three days, and the ids follow each other.
    write(lake, "bars_1m", bars(2, timestamp=[T0, T0 + 4 * DAY]))
    write(lake, "trades", pl.concat([trades(3), trades(1, first=3, start=T0 + 4 * DAY)]))
    whole = missing(slices(lake))
    assert {reason for _, _, reason in whole} == {"no_trade"}
    by_day = [
        gap
        for day in split(TimeRange(T0, T0 + 5 * DAY), DAY)
        for gap in missing(slices(lake, selection=Selection(start=day.start, end=day.end)))
    ]
    assert by_day == whole


def test_gaps_are_the_same_however_pieces_are_cut(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = pl.int_range(pl.len()) % 7 < 5
    write(lake, "bars_1m", bars(6 * 1440).filter(kept))
    write(lake, "trades", trades(3000, step=3 * MINUTE).filter(pl.int_range(pl.len()) % 11 > 0))
    cover(lake, "bars_1m", TimeRange(T0, T0 + 3 * DAY))
    cover(lake, "trades", TimeRange(T0 + DAY, T0 + 2 * DAY))
    at_once = slices(lake)
    assert len(at_once) == 1
    monkeypatch.setattr(chunks, "_CHECK_ROWS", 100)
    in_days = slices(lake)
    assert len(in_days) == 6
    assert missing(in_days) == missing(at_once)
    assert {reason for _, _, reason in missing(at_once)} == {
        "lost", "no_trade", "not_fetched", "unknown"
    }  # fmt: skip


def test_pieces_stay_bounded_by_all_that_is_read_beside_them(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_CHECK_ROWS", 3000)
    for exchange in ("binance", "kraken"):
        write(lake, "bars_1m", bars(8 * 1440, exchange=exchange))
    write(lake, "trades", trades(8 * 1440, step=MINUTE))
    binance = Selection(("binance",))
    parts = slices(lake, selection=binance)
    assert [part.range.duration for part in parts] == [DAY] * 8
    for part in parts:
        references = [reference.frame for reference in part.others]
        if part.trades is not None:
            references.append(part.trades.frame)
        # A day of each, and what is around it.
        assert all(frame.collect().height <= 1440 + 2 * 500 for frame in [part.frame, *references])


def test_a_silence_of_two_dense_markets_is_an_outage_in_any_selection(lake: Lake) -> None:
    is_there = ~pl.int_range(pl.len()).is_between(600, 630)
    for symbol in ("BTC/USDT", "ETH/USDT"):
        write(lake, "bars_1m", bars(2 * 1440, symbol=symbol).filter(is_there))
    selection = Selection(symbols=("BTC/USDT",), start=T0, end=T0 + DAY)
    assert missing(slices(lake, selection=selection)) == [(T0 + 600 * MINUTE, 31, "venue_outage")]
    # Another venue does not matter, but this venue's third market does.
    own = Selection(("binance",), ("BTC/USDT",))
    write(lake, "bars_1m", bars(2 * 1440, exchange="kraken"))
    assert missing(slices(lake, selection=own)) == [(T0 + 600 * MINUTE, 31, "venue_outage")]
    write(lake, "bars_1m", bars(2 * 1440, symbol="SOL/USDT"))
    assert missing(slices(lake, selection=own)) == [(T0 + 600 * MINUTE, 31, "unknown")]


@pytest.mark.parametrize(
    ("exchange", "omits", "reason"),
    [
        ("coinbase", None, "no_trade"),
        ("bitfinex", None, "no_trade"),
        ("binance", None, "unknown"),
        ("coinbase", False, "unknown"),
        ("binance", True, "no_trade"),
    ],
)
def test_a_venue_may_be_known_to_omit_empty_bars_or_settings_say_so(
    new_lake: NewLake, exchange: str, omits: bool | None, reason: str
) -> None:
    lake = new_lake()
    exchanges = {exchange: {"omits_empty_bars": omits}}
    settings = lake.settings.model_validate({"uri": lake.settings.uri, "exchanges": exchanges})
    write(lake, "bars_1m", bars(2, step=2 * MINUTE, exchange=exchange))
    settled = [CoveredRange(TimeRange(T0, T0 + DAY), 1)]
    market = Market(exchange, "BTC/USDT")
    Ledger(store_of(lake)).record_coverage({part_of("bars_1m", market): settled}, ORIGIN)
    seen = open_inputs(store_of(lake), settings, T0 + DAY).cut_slices("bars_1m", EVERYTHING)
    assert missing(list(seen)) == [(T0 + MINUTE, 1, reason)]


def test_days_and_markets_of_which_all_rows_were_refused_are_there(lake: Lake) -> None:
    write(lake, "bars_1m", bars(1))
    bad = bars(1, start=T0 + 5 * DAY, open=[-1.0], low=[-1.0])
    write(lake, "bars_1m", bad)
    write(lake, "bars_1m", bars(1, symbol="BAD/USDT", open=[-1.0], low=[-1.0]))
    parts = slices(lake)
    assert [(part.market.symbol, part.range.start) for part in parts] == [
        ("BAD/USDT", T0),
        ("BTC/USDT", T0),
        ("BTC/USDT", T0 + 5 * DAY),
    ]
    assert [part.quarantine.height if part.quarantine is not None else 0 for part in parts] == [
        1,
        0,
        1,
    ]
    assert missing(parts) == []


def test_of_rows_that_were_never_fetched_nothing_is_covered(lake: Lake) -> None:
    write(lake, "trades", trades(100, step=MINUTE))
    (part,) = slices(lake, "trades")
    assert (part.coverage, part.rows_per_second) == (None, None)
    cover(lake, "trades", TimeRange(T0, T0 + 50 * MINUTE))
    (part,) = slices(lake, "trades")
    assert part.coverage == (TimeRange(T0, T0 + 50 * MINUTE),)
    assert part.rows_per_second == 0.033


def test_files_without_statistics_are_read_for_their_times(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    seen = inputs_of(lake)
    table = seen.tables["bars_1m"]

    assert isinstance(table, Snapshot)

    class Untimed(Snapshot):
        def files(self, selection: Selection = EVERYTHING) -> pl.DataFrame:
            nothing = pl.lit(None, dtype=TIME)
            return super().files(selection).with_columns(first=nothing, last=nothing)

    tables = {"bars_1m": Untimed(table.dataset, table.table)}
    other = CheckInputs(tables, seen.coverage, seen.quarantine, seen.now, seen.omits_empty_bars)
    market = StoredMarket("binance", "BTC/USDT")
    assert other.listing.span("bars_1m", market) == seen.listing.span("bars_1m", market)
    assert other.estimate_rows("bars_1m", EVERYTHING) == 3


def test_a_bar_longer_than_a_day_is_compared_with_all_of_its_trades(lake: Lake) -> None:
    """Also if only the day in which it opens is checked."""
    ticks = trades(4 * 7 * 4, step=6 * HOUR)
    week = ticks.group_by_dynamic("timestamp", every="1w").agg(
        open=pl.col("price").first(),
        high=pl.col("price").max(),
        low=pl.col("price").min(),
        close=pl.col("price").last(),
        volume=pl.col("amount").sum(),
    )
    named = bars(4, timestamp=week["timestamp"]).select("exchange", "symbol", "closed")
    write(lake, "bars_1w", pl.concat([week, named], how="horizontal"))
    write(lake, "trades", ticks)
    cover(lake, "trades", TimeRange(T0, T0 + 28 * DAY))
    for start in (T0, T0 + 7 * DAY, T0 + 21 * DAY):
        (part,) = slices(lake, "bars_1w", Selection(start=start, end=start + DAY))
        assert outcome(RECONCILIATION, "reconciliation", part).is_empty()
        wrong = part.frame.with_columns(pl.col("volume") + 1)
        assert outcome(RECONCILIATION, "reconciliation", replace(part, frame=wrong)).height == 1


def test_long_bars_are_checked_by_the_day_in_which_they_open(lake: Lake) -> None:
    opens = [T0, datetime(2024, 4, 1, tzinfo=UTC)]
    write(lake, "bars_1mo", bars(2, timestamp=opens))
    expected = [
        (datetime(2024, 2, 1, tzinfo=UTC), 1, "unknown"),
        (datetime(2024, 3, 1, tzinfo=UTC), 1, "unknown"),
    ]
    assert missing(slices(lake, "bars_1mo", now=T0 + 200 * DAY)) == expected
    day = Selection(start=expected[1][0], end=expected[1][0] + DAY)
    assert missing(slices(lake, "bars_1mo", day, now=T0 + 200 * DAY)) == expected[1:]
