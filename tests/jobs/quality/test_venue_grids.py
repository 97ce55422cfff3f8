"""Days that begin at 16:00 UTC, weeks that begin on Thursday: checked, repaired, and left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import QualityError
from lake.model.grid import Grid
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from lake.model.units import Units
from lake.query.grids import find_grid
from lake.query.markets import find_market_units
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
from tests.conftest import DAY, ORIGIN, T0, TIME, bars, store_of, trades, write

HOUR = timedelta(hours=1)
EXCHANGE, SYMBOL = "gone", "BTC/USDT"
MARKET = Market(EXCHANGE, SYMBOL)


def hours_of(days: int) -> pl.DataFrame:
    """Hours that move by themselves."""
    count = 24 * days
    prices = [100.0 + n % 9 for n in range(count + 1)]
    return bars(
        count,
        step=HOUR,
        exchange=EXCHANGE,
        symbol=SYMBOL,
        open=prices[:-1],
        close=prices[1:],
        high=[max(pair) + 1 for pair in pairwise(prices)],
        low=[min(pair) - 1 for pair in pairwise(prices)],
    )


def longer(hours: pl.DataFrame, first: datetime, length: timedelta) -> pl.DataFrame:
    """Bars of whole hours that open at `first` and each `length` after it."""
    parts = length / HOUR
    place = (pl.col("timestamp") - first).dt.total_seconds() // int(length.total_seconds())
    return (
        hours.filter(pl.col("timestamp") >= first)
        .group_by("exchange", "symbol", _bar=place)
        .agg(
            pl.col("timestamp", "open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
            pl.col("closed").first(),
            _parts=pl.len(),
        )
        .filter(pl.col("_parts") == parts)
        .drop("_bar", "_parts")
        .sort("timestamp")
    )


@pytest.mark.parametrize(
    ("table", "first", "length"),
    [
        ("bars_1d", T0 + 16 * HOUR, DAY),
        ("bars_1w", T0 + 3 * DAY, 7 * DAY),
        ("bars_4h", T0 + HOUR, 4 * HOUR),
    ],
)
def test_bars_on_the_grid_of_the_venue_are_no_defects(
    lake: Lake, table: str, first: datetime, length: timedelta
) -> None:
    hours = hours_of(40)
    frame = longer(hours, first, length)
    write(lake, "bars_1h", hours)
    write(lake, table, frame)
    assert lake.quality.check(table).findings.is_empty()
    assert set(lake.quality.scores(table)["score"]) == {1.0}

    wrong = frame.with_columns(volume=pl.col("volume") + pl.int_range(pl.len()).eq(2).cast(float))
    write(lake, table, wrong)
    findings = lake.quality.check(table).findings
    assert findings.select("check", "timestamp", "against").rows() == [
        ("reconciliation", frame["timestamp"][2], "bars_1h")
    ]


def test_a_missing_day_is_derived_where_the_days_of_the_venue_begin(lake: Lake) -> None:
    hours = hours_of(10)
    frame = longer(hours, T0 + 16 * HOUR, DAY)
    write(lake, "bars_1h", hours)
    write(lake, "bars_1d", frame.filter(pl.int_range(pl.len()) != 4))
    report = lake.quality.check("bars_1d")
    gone = T0 + 4 * DAY + 16 * HOUR
    assert report.findings.select("check", "timestamp", "rows").rows() == [("gaps", gone, 1)]
    assert lake.quality.repair(offline=True).inserted == 1
    stored = lake.scan("bars_1d").collect()
    columns = ["timestamp", "open", "high", "low", "close", "volume"]
    assert stored.select(columns).equals(frame.select(columns))
    assert stored.filter(pl.col("fill").is_not_null())["timestamp"].to_list() == [gone]
    assert lake.quality.findings("bars_1d", check=("gaps", "off_grid")).is_empty()


def test_nothing_is_derived_where_stored_bars_have_no_common_grid(lake: Lake) -> None:
    hours = hours_of(10)
    midnight, afternoon = (longer(hours, T0 + n * HOUR, DAY) for n in (0, 16))
    write(lake, "bars_1h", hours)
    write(lake, "bars_1d", pl.concat([midnight.head(3), afternoon.tail(4)]))
    store = store_of(lake)
    assert find_grid(store, lake.dataset("bars_1d"), MARKET) is None
    assert lake.quality.check("bars_1d").findings.filter(check="off_grid").height
    before = lake.scan("bars_1d").collect()
    assert not lake.quality.repair(offline=True).applied
    assert lake.scan("bars_1d").collect().equals(before)


def test_no_short_bar_is_derived_into_one_that_is_off_the_grid(lake: Lake) -> None:
    minutes = bars(180, exchange=EXCHANGE, symbol=SYMBOL)
    fives = bars(36, step=timedelta(minutes=5), exchange=EXCHANGE, symbol=SYMBOL, volume=[5.0] * 36)
    moved = pl.when(pl.int_range(pl.len()) == 9).then(pl.col("timestamp") + timedelta(minutes=2))
    write(lake, "bars_1m", minutes)
    write(lake, "bars_5m", fives.with_columns(moved.otherwise("timestamp").alias("timestamp")))
    lake.quality.check("bars_5m")
    assert not lake.quality.repair(offline=True).applied


def test_the_grid_of_a_venue_is_known_before_its_first_bar_is_stored(lake: Lake) -> None:
    store, days = store_of(lake), lake.dataset("bars_1d")
    day = Timeframe.parse("1d")
    assert find_grid(store, days, Market("htx", SYMBOL)) == Grid(day, 16 * HOUR)
    assert find_grid(store, days, MARKET) == Grid(day)
    write(lake, "bars_1d", bars(3, step=DAY, exchange="htx", symbol=SYMBOL))
    assert find_grid(store, days, Market("htx", SYMBOL)) == Grid(day)


def test_amounts_in_contracts_are_compared_by_the_specification(lake: Lake) -> None:
    market = {"exchange": "okx", "symbol": "BTC/USDT:USDT"}
    names = {name: pl.lit(value) for name, value in market.items()}
    specification = {
        "valid_from": [T0], "venue_symbol": ["BTC-USDT-SWAP"], "type": ["swap"], "base": ["BTC"],
        "quote": ["USDT"], "settle": ["USDT"], "linear": [True], "contract_size": [0.01],
    }  # fmt: skip
    write(lake, "instruments", pl.DataFrame(specification).with_columns(**names))

    ticks = trades(240, step=timedelta(seconds=15), price=[100.0] * 240, amount=[10.0] * 240)
    write(lake, "trades", ticks.with_columns(**names))
    write(lake, "bars_1m", bars(60, volume=[0.4] * 60).with_columns(**names))
    assert find_market_units(store_of(lake), Market("okx", "BTC/USDT:USDT")) == Units(
        "contracts", "base", 0.01
    )
    assert lake.quality.check("bars_1m").findings.filter(dimension="consistency").is_empty()
    write(lake, "bars_1m", bars(1, start=T0 + HOUR / 2, volume=[0.41]).with_columns(**names))
    assert lake.quality.check("bars_1m").findings["reason"].to_list() == ["volume"]


def test_a_pin_of_weeks_is_complete_though_none_opens_at_its_beginning(lake: Lake) -> None:
    weeks = longer(hours_of(40), T0 + 3 * DAY, 7 * DAY)
    write(lake, "bars_1w", weeks)
    answered = [CoveredRange(TimeRange(T0 + 3 * DAY, T0 + 38 * DAY), weeks.height)]
    Ledger(store_of(lake)).record_coverage({part_of("bars_1w", MARKET): answered}, ORIGIN)
    lake.bundles.pin(
        "weeks", table="bars_1w", since=T0 + DAY, until=T0 + 38 * DAY, require_complete=True
    )
    with pytest.raises(QualityError, match="not complete"):
        lake.bundles.pin(
            "more", table="bars_1w", since=T0 + DAY, until=T0 + 46 * DAY, require_complete=True
        )


def test_a_month_that_opens_in_the_afternoon_is_available_at_its_end(lake: Lake) -> None:
    opens = [datetime(2024, month, day, 16, tzinfo=UTC) for month, day in ((1, 31), (2, 29))]
    known = lake.dataset("bars_1M").availability()
    frame = pl.DataFrame({"timestamp": opens}, schema={"timestamp": TIME})
    frame = frame.with_columns(closed=pl.lit(value=True))
    if lake.dataset("bars_1M").records_receipt:
        frame = frame.with_columns(received_at=pl.lit(None, dtype=TIME))
    assert frame.select(known)["available_at"].to_list() == [
        datetime(2024, 2, 29, 16, tzinfo=UTC),
        datetime(2024, 3, 31, 16, tzinfo=UTC),
    ]
