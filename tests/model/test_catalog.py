"""The datasets of the product, and how a catalog resolves a table by name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from lake.errors import UnknownNameError, UsageError
from lake.model.catalog import Catalog, builtin, builtin_files, parse_granularity
from lake.model.dataset import Column, Dataset, Interpolation, RepairPolicy
from tests.model.everything import EVERYTHING

FAMILIES = builtin().families


def tables() -> list[str]:
    return [f + "_1m" if builtin().has_timeframes(f) else f for f in FAMILIES]


@pytest.mark.parametrize("name", tables())
def test_every_column_says_what_it_means_and_in_which_unit(name: str) -> None:
    def has_unit(column: Column) -> bool:
        return bool(column.unit) or column.type not in ("timestamp", "float64", "list<float64>")

    for column in builtin().dataset(name).columns:
        assert column.meaning.endswith("."), column.name
        assert has_unit(column), column.name


@pytest.mark.parametrize("name", tables())
def test_every_dataset_starts_with_its_partition_columns(name: str) -> None:
    columns = [column.name for column in builtin().dataset(name).columns]
    assert columns[:3] == ["exchange", "symbol", "date"]
    assert len(columns) == len(set(columns))


def test_months_and_minutes_are_different_tables() -> None:
    minutes, months = builtin().dataset("bars_1m"), builtin().dataset("bars_1mo")
    assert (str(minutes.timeframe), minutes.granularity) == ("1m", "day")
    assert (str(months.timeframe), months.granularity) == ("1M", "year")
    assert minutes.name != months.name


def test_the_exchanges_name_of_months_is_the_same_table() -> None:
    assert builtin().dataset("bars_1M") == builtin().dataset("bars_1mo")


@pytest.mark.parametrize(
    ("name", "granularity"), [("bars_30m", "day"), ("bars_1h", "year"), ("bars_1d", "year")]
)
def test_bars_of_an_hour_and_longer_are_kept_by_year(name: str, granularity: str) -> None:
    assert builtin().dataset(name).granularity == granularity


def test_the_granularity_of_single_tables_can_be_chosen() -> None:
    catalog = Catalog(builtin_files(), {"bars_1h": "day", "trades": "year"})
    assert catalog.dataset("bars_1h").granularity == "day"
    assert catalog.dataset("bars_2h").granularity == "year"
    assert catalog.dataset("trades").granularity == "year"


@pytest.mark.parametrize("name", ["bars", "bars_", "bars_1x", "bars_0m", "trades_1m", "Trades", ""])
def test_an_unknown_dataset_is_an_error(name: str) -> None:
    with pytest.raises(UnknownNameError, match="there is no dataset"):
        builtin().dataset(name)


def test_an_unknown_dataset_gets_the_closest_names_first() -> None:
    with pytest.raises(UnknownNameError) as caught:
        builtin().dataset("trade")
    assert caught.value.hint.startswith("Datasets: trades,")


@pytest.mark.parametrize("text", ["funding", "funding=", "=day", "funding=week", "funding=Day"])
def test_a_malformed_granularity_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not TABLE=day, TABLE=month or TABLE=year"):
        parse_granularity(text)


def test_records_are_the_tables_of_the_lakes_own_record() -> None:
    own = (
        "alerts",
        "checks",
        "coverage",
        "findings",
        "jobs",
        "quarantine",
        "refusals",
        "repairs",
        "scores",
    )
    assert builtin().records == own


@pytest.mark.parametrize(
    ("table", "method", "by_range", "window"),
    [
        ("bars_1m", "fetchOHLCV", True, timedelta(minutes=10_000)),
        ("bars_1h", "fetchOHLCV", True, timedelta(hours=10_000)),
        ("trades", "fetchTrades", True, timedelta(hours=6)),
        ("funding", "fetchFundingRateHistory", True, timedelta(days=360)),
        ("orderbooks", "fetchOrderBook", False, None),
        ("instruments", "fetchMarkets", False, None),
    ],
)
def test_how_a_table_is_fetched(
    table: str, method: str, by_range: bool, window: timedelta | None
) -> None:
    dataset = builtin().dataset(table)
    assert dataset.fetch is not None
    assert (dataset.fetch.method, dataset.fetch.window) == (method, window)
    assert (dataset.is_fetched_by_range, dataset.is_fetched_as_present) == (by_range, not by_range)


@pytest.mark.parametrize(
    ("table", "interpolate", "margin", "join_within"),
    [
        ("bars_1m", "flat", timedelta(0), timedelta(hours=1)),
        ("bars_1h", "flat", timedelta(0), timedelta(hours=60)),
        ("trades", None, timedelta(seconds=1), timedelta(minutes=10)),
        ("funding", "last", timedelta(minutes=1), timedelta(days=30)),
        ("orderbooks", None, timedelta(0), timedelta(0)),
    ],
)
def test_how_a_table_is_repaired(
    table: str, interpolate: Interpolation | None, margin: timedelta, join_within: timedelta
) -> None:
    policy = RepairPolicy(interpolate, margin, join_within)
    assert builtin().dataset(table).repair == policy


def test_a_dataset_is_resolved_once() -> None:
    assert builtin().dataset("bars_1m") is builtin().dataset("bars_1m")


def available(dataset: Dataset, **columns: list[datetime | None]) -> list[datetime]:
    schema = {name: dataset.polars_schema[name] for name in columns}
    times: list[datetime] = (
        pl.DataFrame(columns, schema=schema)
        .with_columns(closed=pl.lit(value=True))
        .select(dataset.availability())["available_at"]
        .to_list()
    )
    return times


@pytest.mark.parametrize(
    ("name", "opens", "available_at"),
    [
        ("bars_1m", datetime(2024, 1, 1, 23, 59, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)),
        ("bars_12h", datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)),
        ("bars_1w", datetime(2024, 1, 29, tzinfo=UTC), datetime(2024, 2, 5, tzinfo=UTC)),
        ("bars_1mo", datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("bars_3mo", datetime(2023, 10, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_bar_is_known_at_its_end(name: str, opens: datetime, available_at: datetime) -> None:
    dataset = builtin().dataset(name)
    assert available(dataset, timestamp=[opens], received_at=[None]) == [available_at]
    assert dataset.timeframe is not None
    assert dataset.timeframe.after(opens) == available_at


@pytest.mark.parametrize("name", ["trades", "orderbooks"])
def test_a_row_is_known_when_it_was_received_or_else_at_its_time(name: str) -> None:
    happened = datetime(2024, 1, 1, tzinfo=UTC)
    received = happened.replace(microsecond=7)
    times: list[datetime | None] = [happened, happened]
    times_known = available(builtin().dataset(name), timestamp=times, received_at=[received, None])
    assert times_known == [received, happened]


@pytest.mark.parametrize("name", ["trades", "orderbooks", "funding"])
def test_a_row_received_before_it_happened_is_known_when_it_happened(name: str) -> None:
    happened = datetime(2024, 1, 1, tzinfo=UTC)
    behind: list[datetime | None] = [happened - timedelta(milliseconds=1270)]
    assert available(builtin().dataset(name), timestamp=[happened], received_at=behind) == [
        happened
    ]


def test_a_bar_is_known_at_its_end_or_when_it_was_received_whichever_is_later() -> None:
    opens = datetime(2024, 1, 1, tzinfo=UTC)
    end = opens + timedelta(minutes=1)
    received = [None, opens + timedelta(seconds=30), end, end + timedelta(milliseconds=80)]
    known = available(
        builtin().dataset("bars_1m"), timestamp=[opens] * 4, received_at=list(received)
    )
    assert known == [end, end, end, end + timedelta(milliseconds=80)]


def test_an_announcement_is_known_before_its_time_but_not_before_it_was_received() -> None:
    time = datetime(2024, 3, 1, tzinfo=UTC)
    announced, received = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    unlocks = replace(
        builtin().dataset("trades"),
        columns=(*builtin().dataset("trades").columns, Column("announced_at", "timestamp", "")),
        available_at="announced_at",
    )
    known = available(
        unlocks,
        timestamp=[time] * 3,
        announced_at=[announced, announced, None],
        received_at=[None, received, None],
    )
    assert known == [announced, received, time]


def test_a_column_received_at_that_is_no_time_says_nothing() -> None:
    trades = builtin().dataset("trades")
    columns = [replace(c, type="string") if c.name == "received_at" else c for c in trades.columns]
    other = replace(trades, columns=tuple(columns), available_at=None)
    time = datetime(2024, 1, 1, tzinfo=UTC)
    assert available(other, timestamp=[time]) == [time]


def test_a_row_of_another_dataset_is_known_at_its_time() -> None:
    time = datetime(2024, 1, 1, tzinfo=UTC)
    assert builtin().dataset("instruments").available_at is None
    assert available(builtin().dataset("instruments"), valid_from=[time]) == [time]


@pytest.mark.parametrize("name", tables())
def test_times_of_availability_are_microseconds_of_utc(name: str) -> None:
    dataset = builtin().dataset(name)
    frame = dataset.empty().select(dataset.availability())
    assert frame.schema == {"available_at": pl.Datetime("us", "UTC")}


def test_availability_is_no_part_of_the_fingerprint() -> None:
    other = replace(EVERYTHING, available_at="later")
    assert other != EVERYTHING
    assert other.fingerprint == EVERYTHING.fingerprint
