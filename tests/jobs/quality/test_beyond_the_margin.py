"""References of rows that are not bars: far neighbours, trades, and exchanges beside a pool."""

from __future__ import annotations

import random
from datetime import timedelta

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.jobs.quality.run import open_inputs
from lake.model.market import Market, unwrap_symbol
from lake.model.selection import Selection
from lake.settings import Settings
from lake.store import chunks
from tests.conftest import DAY, MINUTE, SECOND, T0, NewLake, bars, store_of, trades, write
from tests.quality.checks.onchain import BLOCKS, POOL, SWAPS, chain_of, v2_swaps

HOUR = timedelta(hours=1)
POOL_NAMES = {"exchange": pl.lit(POOL.exchange), "symbol": pl.lit(POOL.symbol)}


def books(times: list[int], bids: list[float], depth: int = 1) -> pl.DataFrame:
    """Books `times` seconds after the start, of these best bids."""
    levels = [[bid - n / 100 for n in range(depth)] for bid in bids]
    return pl.DataFrame(
        {
            "exchange": "binance",
            "symbol": "BTC/USDT",
            "timestamp": [T0 + n * SECOND for n in times],
            "sequence": range(len(times)),
            "bid_prices": levels,
            "bid_amounts": [[1.0 + n / 7 for n in range(depth)]] * len(times),
            "ask_prices": [[2 * bid[0] - price + 0.01 for price in bid] for bid in levels],
            "ask_amounts": [[1.0 + n / 7 for n in range(depth)]] * len(times),
            "received_at": [T0 + n * SECOND for n in times],
        },
        schema_overrides={
            "timestamp": pl.Datetime("us", "UTC"),
            "received_at": pl.Datetime("us", "UTC"),
            "sequence": pl.Int64,
        },
    )


def by_day(lake: Lake, table: str, count: int) -> pl.DataFrame:
    """Findings if each day is checked by itself, the last one first."""
    for day in reversed(range(count)):
        lake.quality.check(table, since=T0 + day * DAY, until=T0 + (day + 1) * DAY)
    return lake.quality.findings(table)


def test_trades_show_that_a_book_is_frozen(lake: Lake) -> None:
    write(lake, "orderbooks", books(list(range(0, 3600, 60)), [100.0] * 60))
    assert lake.quality.check("orderbooks").findings["reason"].to_list() == ["unchanged"]
    write(lake, "trades", trades(60, step=MINUTE))
    (finding,) = lake.quality.check("orderbooks").findings.rows(named=True)
    assert (finding["check"], finding["reason"], finding["against"]) == (
        "stale_book",
        "frozen",
        "trades",
    )


def test_ids_that_are_missing_over_midnight_are_found_by_the_day(lake: Lake) -> None:
    before = trades(100, start=T0 + 20 * HOUR)
    after = trades(100, first=2100, start=T0 + 30 * HOUR - 2100 * SECOND)
    write(lake, "trades", pl.concat([before, after]))
    findings = by_day(lake, "trades", 2).filter(pl.col("check") == "ids_skip")
    assert findings["rows"].to_list() == [2000]
    assert findings["timestamp"].to_list() == [T0 + DAY]


def test_blocks_that_are_missing_over_midnight_are_found_by_the_day(new_lake: NewLake) -> None:
    lake = new_lake(schemas={"user_blocks": BLOCKS})
    chain = chain_of(3 * 7200, start=T0).with_columns(**POOL_NAMES)
    first = int(chain["block_number"].min())  # type: ignore[arg-type]
    lost = pl.col("block_number").is_between(first + 6500, first + 8000)
    write(lake, "user_blocks", chain.filter(~lost))
    findings = by_day(lake, "user_blocks", 3)
    assert set(findings["check"]) == {"block_gaps"}
    assert findings["rows"].sum() == 1501
    assert findings["timestamp"].dt.date().n_unique() == 2


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 7_000), st.integers(0, 3)), min_size=60, max_size=80))
def test_ids_are_checked_the_same_however_days_are_cut(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    """Each trade some seconds after the one before, some ids after it; few are left out."""
    lake = Lake.create(Settings(uri=str(tmp_path_factory.mktemp("lakes") / "lake")))
    seconds, ids, now, number = [], [], 0, 0
    for n, (step, skipped) in enumerate(steps):
        now, number = now + step, number + 1 + (skipped if n == len(steps) // 2 else 0)
        seconds.append(now)
        ids.append(str(number))
    times = [T0 + n * SECOND for n in seconds]
    write(lake, "trades", trades(len(ids), timestamp=times, trade_id=ids))
    columns = ["timestamp", "end", "rows", "check", "reason", "measured"]
    at_once = lake.quality.check("trades").findings.select(columns)
    last = (times[-1] - T0) // DAY + 1
    assert by_day(lake, "trades", last).select(columns).equals(at_once)
    assert lake.quality.check("trades").recorded.opened == 0


@pytest.mark.parametrize("table", ["bars_1h", "bars_1m"])
def test_a_pool_is_compared_with_the_finest_bars_of_what_it_wraps(
    new_lake: NewLake, table: str
) -> None:
    lake = new_lake(schemas={"user_swaps": SWAPS})
    swaps = v2_swaps(400).with_columns(**POOL_NAMES)
    write(lake, "user_swaps", swaps)
    price = float(swaps["pool_price_after"].median())  # type: ignore[arg-type]
    wrong = [pl.lit(price * 100).alias(name) for name in ("open", "high", "low", "close")]
    write(lake, "bars_1h", bars(24, step=HOUR, symbol="ETH/USDC").with_columns(wrong))
    if table == "bars_1m":  # which say that the pool is right
        right = {"high": pl.lit(price * 3), "low": pl.lit(price / 3)}
        ends = {"open": pl.lit(price), "close": pl.lit(price)}
        write(lake, "bars_1m", bars(1440, symbol="ETH/USDC").with_columns(**ends, **right))
    findings = lake.quality.check("user_swaps").findings.filter(pl.col("check") == "dex_price")
    expected = [("bad_data", "binance ETH/USDC")] if table == "bars_1h" else []
    assert findings.select("reason", "against").unique().rows() == expected


def test_symbols_are_unwrapped_token_by_token() -> None:
    assert unwrap_symbol("WETH/WBTC") == "ETH/BTC"
    assert unwrap_symbol("WLD/USDC") == "WLD/USDC"
    assert POOL.is_on_chain
    assert not Market("binance", "BTC/USDT:USDT").is_on_chain


def test_deep_books_are_read_in_smaller_pieces(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = list(range(0, 3 * 86_400, 600))
    dice = random.Random(1)
    deep = books(seconds, [dice.uniform(100, 101) for _ in seconds], depth=400)
    amounts = [[dice.random() for _ in range(400)] for _ in seconds]
    write(lake, "orderbooks", deep.with_columns(bid_amounts=pl.Series(amounts)))
    monkeypatch.setattr(chunks, "_CHECK_ROWS", 2 * len(seconds))
    parts = open_inputs(store_of(lake), lake.settings, T0 + 9 * DAY).cut_slices(
        "orderbooks", Selection()
    )
    assert [part.range.duration for part in parts] == [DAY] * 3


def test_a_rejected_row_with_nan_is_found_beside_a_trade_of_its_time(lake: Lake) -> None:
    bad = trades(2, first=7, price=[float("nan"), float("inf")]).with_columns(timestamp=T0)
    write(lake, "trades", pl.concat([trades(5), bad]))
    rows = lake.scan("quarantine").collect()
    assert sorted(orjson.loads(text)["price"] for text in rows["row"]) == ["Infinity", "NaN"]
    lake.quality.check("trades")
    (finding,) = lake.quality.findings(check="refused").rows(named=True)
    assert (finding["rows"], finding["reason"]) == (2, "price_not_finite")


def test_rows_without_a_usable_time_are_found(lake: Lake) -> None:
    late = pl.lit(T0).dt.timestamp("us") * 1000  # microseconds, read as milliseconds
    wrong = trades(5).with_columns(timestamp=late.cast(pl.Datetime("us", "UTC")))
    write(lake, "trades", pl.concat([trades(5), wrong]))
    done = lake.quality.check("trades")
    (finding,) = done.findings.filter(pl.col("check") == "refused").rows(named=True)
    assert (finding["rows"], finding["severity"]) == (5, "warning")
    assert "timestamp_out_of_range" in finding["reason"]
    assert lake.quality.check("trades").recorded.opened == 0
