"""Ingestion from the sandbox by the real ccxt client: complete, once, resumable."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import LakeError, UnknownNameError, UsageError
from lake.jobs.ingest.request import IngestRequest
from lake.model.market import Market
from lake.sandbox import Sandbox
from tests.jobs.conftest import NOW, Clock, MakeLake, ingest_all

BTC = "BTC/USDT"
PERPETUAL = "BTC/USDT:USDT"
DAY = timedelta(days=1)
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0)


def _bars(lake: Lake, **options: object) -> None:
    lake.ingest("bars_1m", exchange="binance", symbol=BTC, **options)  # type: ignore[arg-type]


def _asked(sandbox: Sandbox, endpoint: str) -> int:
    return sum(entry.path.endswith(endpoint) for entry in sandbox.log)


def test_every_bar_equals_the_aggregate_of_its_trades(make_lake: MakeLake) -> None:
    lake = make_lake()
    requests = [
        IngestRequest(lake.dataset(table), Market("binance", symbol), MIDNIGHT - DAY, MIDNIGHT)
        for table in ("bars_1m", "bars_1h", "trades")
        for symbol in (BTC, "XRP/ETH", PERPETUAL)
    ]
    ingest_all(lake, requests)
    for table, unit in (("bars_1m", "minute"), ("bars_1h", "hour")):
        unequal = lake.sql(
            f"""
            WITH aggregated AS (
                SELECT symbol, date_trunc('{unit}', timestamp) AS timestamp,
                    first(price ORDER BY trade_id::BIGINT) AS open, max(price) AS high,
                    min(price) AS low, last(price ORDER BY trade_id::BIGINT) AS close,
                    sum(amount) AS volume, sum(price * amount) AS quote_volume,
                    sum(last_id - first_id + 1) AS trade_count,
                    sum(amount) FILTER (side = 'buy') AS taker_buy_volume
                FROM trades GROUP BY ALL
            )
            SELECT * FROM aggregated FULL JOIN {table} AS bars USING (symbol, timestamp)
            WHERE aggregated.open IS DISTINCT FROM bars.open
                OR aggregated.high IS DISTINCT FROM bars.high
                OR aggregated.low IS DISTINCT FROM bars.low
                OR aggregated.close IS DISTINCT FROM bars.close
                OR aggregated.trade_count IS DISTINCT FROM bars.trade_count
                OR abs(aggregated.volume - bars.volume) > 1e-9 * bars.volume
                OR abs(aggregated.quote_volume - bars.quote_volume) > 1e-9 * bars.quote_volume
                OR abs(coalesce(aggregated.taker_buy_volume, 0) - bars.taker_buy_volume) > 1e-9
            """  # noqa: S608
        ).pl()
        assert unequal.is_empty()
    assert lake.scan("bars_1m", symbol=BTC).collect().height == 1440
    assert lake.scan("trades").select(pl.len()).collect().item() > 5000


def test_a_second_run_asks_for_nothing_and_writes_nothing(
    make_lake: MakeLake, sandbox: Sandbox
) -> None:
    lake = make_lake()
    _bars(lake, since=MIDNIGHT - DAY, until=MIDNIGHT)
    versions = lake.tables().select("table", "version")
    sandbox.clear_log()
    report = lake.ingest(
        "bars_1m", exchange="binance", symbol=BTC, since=MIDNIGHT - DAY, until=MIDNIGHT
    )
    assert report.job_id is None
    assert not sandbox.log
    assert_frame_equal(lake.tables().select("table", "version"), versions)


def test_only_the_missing_part_is_asked_for(make_lake: MakeLake, sandbox: Sandbox) -> None:
    lake = make_lake()
    _bars(lake, since=MIDNIGHT - 3 * DAY, until=MIDNIGHT - 2 * DAY)
    _bars(lake, since=MIDNIGHT - DAY, until=MIDNIGHT)
    sandbox.clear_log()
    report = lake.ingest(
        "bars_1m", exchange="binance", symbol=BTC, since=MIDNIGHT - 3 * DAY, until=MIDNIGHT
    )
    assert report.rows == 1440
    assert lake.scan("bars_1m").collect().height == 3 * 1440
    assert lake.coverage("bars_1m").select("start", "end").rows() == [
        (MIDNIGHT - 3 * DAY, MIDNIGHT)
    ]


def test_the_open_bar_is_stored_but_not_covered_and_later_replaced(
    make_lake: MakeLake, clock: Clock
) -> None:
    lake = make_lake()
    _bars(lake, since=NOW - timedelta(minutes=10))
    first = lake.scan("bars_1m").collect()
    assert first["closed"].to_list() == [True] * (first.height - 1) + [False]
    [(_, _, _, _, covered_until)] = lake.coverage("bars_1m").rows()
    assert covered_until == first["timestamp"][-1]

    clock.time += timedelta(minutes=2)
    _bars(lake)
    second = lake.scan("bars_1m").collect()
    assert second["closed"].to_list() == [True] * (second.height - 1) + [False]
    assert second.height == first.height + 2
    was_open = first["timestamp"][-1]
    final = second.filter(pl.col("timestamp") == was_open)
    assert final["volume"].item() > first["volume"][-1]
    assert_frame_equal(lake.scan("bars_1m", version=1).collect(), first)


def test_without_a_range_it_goes_on_and_fills_holes(make_lake: MakeLake, clock: Clock) -> None:
    lake = make_lake()
    _bars(lake, since=MIDNIGHT - 2 * DAY, until=MIDNIGHT - DAY)
    _bars(lake, since=MIDNIGHT, until=MIDNIGHT + timedelta(hours=1))
    clock.time = MIDNIGHT + DAY + timedelta(seconds=40)
    _bars(lake)
    assert lake.scan("bars_1m").filter("closed").collect().height == 3 * 1440


def test_a_revision_updates_only_the_row_that_differs(
    make_lake: MakeLake, sandbox: Sandbox
) -> None:
    lake = make_lake()
    _bars(lake, since=MIDNIGHT - DAY, until=MIDNIGHT)
    before = lake.scan("bars_1m").collect()
    time = MIDNIGHT - timedelta(hours=5)
    sandbox.revise(BTC, "1m", time, volume="123.5")
    report = lake.ingest(
        "bars_1m",
        exchange="binance",
        symbol=BTC,
        since=MIDNIGHT - DAY,
        until=MIDNIGHT,
        refetch=True,
    )
    [bars] = [table for table in report.tables if table.table == "bars_1m"]
    assert (bars.inserted, bars.updated, bars.rows) == (0, 1, 1440)
    revised = pl.when(pl.col("timestamp") == time).then(123.5).otherwise("volume")
    after = before.with_columns(revised.alias("volume"))
    assert_frame_equal(lake.scan("bars_1m").collect(), after)
    assert_frame_equal(lake.scan("bars_1m", version=1).collect(), before)


def test_an_hour_without_trades_is_covered_as_empty(make_lake: MakeLake, clock: Clock) -> None:
    lake = make_lake()
    before_listing = clock.time.replace(year=2019)
    report = lake.ingest(
        "trades",
        exchange="binance",
        symbol=BTC,
        since=before_listing,
        until=before_listing + timedelta(hours=3),
    )
    assert report.rows - sum(t.rows for t in report.tables if t.table == "instruments") == 0
    covered = lake.sql('SELECT status, rows, timestamp, "end" FROM coverage').fetchall()
    assert [row[:2] for row in covered] == [("empty", 0)]
    sandbox_silent = lake.ingest(
        "trades",
        exchange="binance",
        symbol=BTC,
        since=before_listing,
        until=before_listing + timedelta(hours=3),
    )
    assert sandbox_silent.job_id is None


def test_funding_keeps_the_times_of_the_venue(make_lake: MakeLake) -> None:
    lake = make_lake()
    since = MIDNIGHT - 10 * DAY
    lake.ingest("funding", exchange="binance", symbol=PERPETUAL, since=since, until=MIDNIGHT)
    rows = lake.scan("funding").collect()
    assert rows.height == 30
    past_the_hour = rows["timestamp"] - rows["timestamp"].dt.truncate("8h")
    assert past_the_hour.max() > timedelta(0)  # type: ignore[operator]
    assert past_the_hour.max() < timedelta(seconds=1)  # type: ignore[operator]
    assert (rows["date"] == rows["timestamp"].dt.date()).all()


def test_order_books_are_taken_to_the_depth_asked_for(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.order_books("binance", symbol=[BTC, PERPETUAL], depth=7)
    books = lake.scan("orderbooks").collect()
    assert books["symbol"].to_list() == [BTC, PERPETUAL]
    for column in ("bid_prices", "bid_amounts", "ask_prices", "ask_amounts"):
        assert books[column].list.len().to_list() == [7, 7]
    assert (books["bid_prices"].list.first() < books["ask_prices"].list.first()).all()


def test_instruments_get_a_row_only_when_something_changed(make_lake: MakeLake) -> None:
    lake = make_lake()
    first = lake.instruments("binance")
    assert sum(table.inserted for table in first.tables) > 4
    again = lake.instruments("binance")
    assert again.tables == ()
    btc = lake.scan("instruments", symbol=PERPETUAL).collect()
    assert btc.select("type", "base", "quote", "settle", "linear", "active").row(0) == (
        "swap",
        "BTC",
        "USDT",
        "USDT",
        True,
        True,
    )


@pytest.mark.parametrize(
    ("table", "exchange", "symbol", "kind", "words"),
    [
        ("bars_1m", "binanze", BTC, UnknownNameError, "binanze"),
        ("bars_1m", "binance", "BTC/USDC", UnknownNameError, "BTC/USDC"),
        ("bars_7m", "binance", BTC, UnknownNameError, "7m"),
        ("funding", "binance", BTC, LakeError, "funding"),
        ("barz_1m", "binance", BTC, UnknownNameError, "barz_1m"),
        ("bars_1m", "Binance!", BTC, UsageError, "Binance!"),
    ],
)
def test_what_the_venue_does_not_have_is_refused_by_name(
    make_lake: MakeLake, table: str, exchange: str, symbol: str, kind: type[LakeError], words: str
) -> None:
    lake = make_lake()
    with pytest.raises(kind, match=words) as refused:
        lake.ingest(table, exchange=exchange, symbol=symbol, since=MIDNIGHT - DAY)
    assert refused.value.hint
    assert "bars_1m" not in lake.tables()["table"]
    assert lake.jobs().is_empty()


def test_a_job_records_what_it_did(make_lake: MakeLake) -> None:
    lake = make_lake()
    _bars(lake, since=MIDNIGHT - DAY, until=MIDNIGHT)
    # The clock stands still: both began at one time.
    checking, job = lake.jobs().sort("command").rows(named=True)
    assert (job["status"], job["command"], job["error"]) == ("ok", "ingest bars_1m", None)
    assert (checking["status"], checking["command"]) == ("ok", "check bars_1m")
    assert job["rows"] == job["inserted"] == 1440 + 1
    commits = lake.audit("bars_1m").filter(pl.col("operation") == "MERGE")
    assert commits["job"].unique().to_list() == [job["job_id"]]
    assert commits["source"].unique().to_list() == ["ccxt:binance"]
    assert commits["inserted"].sum() == 1440


def test_small_batches_give_the_same_table(make_lake: MakeLake) -> None:
    whole, parts = make_lake("whole"), make_lake("parts", batch_rows=300)
    for lake in (whole, parts):
        _bars(lake, since=MIDNIGHT - DAY, until=MIDNIGHT)
    assert parts.versions("bars_1m").height > whole.versions("bars_1m").height
    assert_frame_equal(parts.scan("bars_1m").collect(), whole.scan("bars_1m").collect())


async def _inside_a_loop(lake: Lake) -> int:
    return lake.ingest(
        "bars_1h", exchange="binance", symbol=BTC, since=MIDNIGHT - DAY, until=MIDNIGHT
    ).rows


def test_it_works_where_an_event_loop_runs_already(make_lake: MakeLake) -> None:
    import asyncio

    assert asyncio.run(_inside_a_loop(make_lake())) == 24 + 1
