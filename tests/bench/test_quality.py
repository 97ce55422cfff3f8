"""Checks over bars and trades, against the row rules alone by dataframely; memory of a check."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lake.api import Lake, utc_now
from lake.model.catalog import builtin
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.quality.configure import configure
from lake.quality.run import run_checks, run_groups
from lake.quality.slice import Reference, Slice
from lake.settings import Settings
from lake.store.store import Origin, Store
from tests.bench.conftest import best_seconds, report

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

START = datetime(2023, 1, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
MINUTES = 365 * 1440
MARKETS = 10
GOALS = {"bars_1m": 3, "trades": 2}  # million rows a second
MOST = {"bars_1m": 12, "trades": 10}  # CPU time of all checks, in hourly medians and sums of rows
TRADES_A_MINUTE = 4  # 20M trades are those of 10 markets, about


def _market(number: int) -> Market:
    return Market("binance", f"COIN{number}/USDT")


def _trades(number: int) -> pl.DataFrame:
    """A year of trades of a market: a random walk on a tick, the same number each minute."""
    count = MINUTES * TRADES_A_MINUTE
    random = np.random.default_rng(number)
    steps = random.standard_normal(count) * 2
    ticks = 100_000 + np.cumsum(np.rint(steps - steps.mean()))
    market = _market(number)
    return pl.DataFrame(
        {
            "exchange": pl.repeat(market.exchange, count, eager=True),
            "symbol": pl.repeat(market.symbol, count, eager=True),
            "timestamp": pl.datetime_range(
                START, START + YEAR, timedelta(minutes=1) / TRADES_A_MINUTE, closed="left",
                time_unit="us", eager=True,
            ),
            "trade_id": pl.int_range(1, count + 1, eager=True).cast(pl.String),
            "price": ticks / 100,
            "amount": random.integers(1, 1000, count) / 1000,
            "side": pl.Series(np.where(steps > 0, "buy", "sell")),
        }
    )  # fmt: skip


def _bars(trades: pl.DataFrame) -> pl.DataFrame:
    price, amount = pl.col("price"), pl.col("amount")
    buys = pl.col("side") == "buy"
    return (
        trades.group_by("exchange", "symbol", pl.col("timestamp").dt.truncate("1m"))
        .agg(
            open=price.first(),
            high=price.max(),
            low=price.min(),
            close=price.last(),
            volume=amount.sum(),
            quote_volume=(price * amount).sum(),
            trade_count=pl.len().cast(pl.Int64),
            taker_buy_volume=amount.filter(buys).sum(),
            taker_buy_quote_volume=(price * amount).filter(buys).sum(),
        )
        .sort("timestamp")
    )


def _stored(table: str, rows: pl.DataFrame) -> pl.DataFrame:
    dataset = builtin().dataset(table)
    given = {"date": pl.col("timestamp").dt.date(), "closed": pl.lit(value=True)}
    absent = [
        given.get(name, pl.lit(None, dtype=dtype)).alias(name)
        for name, dtype in dataset.polars_schema.items()
        if name not in rows.columns
    ]
    return rows.with_columns(absent).select(list(dataset.polars_schema))


def _slice(table: str, rows: pl.DataFrame, number: int, **more: object) -> Slice:
    return Slice(
        dataset=builtin().dataset(table),
        market=_market(number),
        range=TimeRange(START, START + YEAR),
        now=START + YEAR,
        frame=rows.lazy(),
        **more,  # type: ignore[arg-type]
    )


def test_bars_and_trades_against_row_rules_alone() -> None:
    dataframely = pytest.importorskip("dataframely", reason="just bench brings it")
    trades = {n: _stored("trades", _trades(n)) for n in range(2)}
    years = {n: _stored("bars_1m", _bars(rows)) for n, rows in trades.items()}
    bars_checks = configure(builtin().dataset("bars_1m"))
    trade_checks = configure(builtin().dataset("trades"))
    rules = _rules(dataframely)

    def check_bars() -> None:
        """Ten market-years: the frames of two, five times."""
        slices = ([_slice("bars_1m", years[number % 2], number)] for number in range(MARKETS))
        for _, seen in run_groups(slices, bars_checks):
            assert seen.findings.is_empty()

    def check_bars_with_trades() -> None:
        for number, bars in years.items():
            witness = Reference(builtin().dataset("trades"), _market(number), trades[number].lazy())
            seen = run_checks(_slice("bars_1m", bars, number, trades=witness), bars_checks)
            assert seen.findings.is_empty()

    def check_trades() -> None:
        slices = ([_slice("trades", trades[number % 2], number)] for number in range(MARKETS))
        for _, seen in run_groups(slices, trade_checks):
            assert seen.findings.is_empty()

    def rules_alone() -> None:
        for number in range(MARKETS):
            good, _ = rules.filter(years[number % 2])
            assert good.height == MINUTES

    found = best_seconds(check_bars, rules_alone, check_trades, check_bars_with_trades, rounds=3)
    bars, alone, ticks, both = found
    bar_rows, trade_rows = MARKETS * MINUTES, MARKETS * MINUTES * TRADES_A_MINUTE
    print(f"\n{bar_rows:,} bars: {bar_rows / bars / 1e6:.1f}M rows/s")
    print(f"{trade_rows:,} trades: {trade_rows / ticks / 1e6:.1f}M rows/s")
    print(f"bars against their trades: {2 * MINUTES / both / 1e6:.1f}M bars/s with 4 trades each")
    report("row rules alone by dataframely against all checks of bars", alone / bars, "none")
    report("row rules alone against all checks of trades, per row",
           alone / bar_rows / (ticks / trade_rows), "none")  # fmt: skip


def test_checks_take_little_more_cpu_time_than_hourly_medians() -> None:
    """Rows a second depend on what else the machine does; a ratio of CPU times hardly does."""
    trades = _trades(0)
    rows = {"bars_1m": _stored("bars_1m", _bars(trades)), "trades": _stored("trades", trades)}
    names = {"bars_1m": ["open", "high", "low", "close", "volume"], "trades": ["price", "amount"]}
    for table, frame in rows.items():
        checks = configure(builtin().dataset(table))

        def check(table: str = table, checks: Any = checks) -> None:
            assert run_checks(_slice(table, rows[table], 0), checks).findings.is_empty()

        def summarize(table: str = table) -> None:
            numbers = [pl.col(name).median().name.suffix("_middle") for name in names[table]]
            numbers += [pl.col(name).sum() for name in names[table]]
            hour = pl.col("timestamp").dt.truncate("1h")
            rows[table].lazy().group_by(hour).agg(numbers).collect()

        seconds, baseline = best_seconds(check, summarize, rounds=9, clock=time.process_time)

        def check_four(table: str = table, checks: Any = checks) -> None:
            slices = ([_slice(table, rows[table], number)] for number in range(4))
            for _, seen in run_groups(slices, checks):
                assert seen.findings.is_empty()

        (elapsed,) = best_seconds(check_four, rounds=5)
        goal = GOALS[table]
        report(f"all checks of {table}, million rows a CPU second", frame.height / seconds / 1e6,
               "none")  # fmt: skip
        report(f"all checks of {table}, million rows a second", 4 * frame.height / elapsed / 1e6,
               f"{goal} on two idle cores")  # fmt: skip
        report("their CPU time against hourly medians and sums", seconds / baseline,
               f"< {MOST[table]}")  # fmt: skip
        assert seconds < MOST[table] * baseline


def _rules(dataframely: Any) -> Any:
    """The rules of bars as dataframely has them."""
    dy = dataframely

    class Bars(dy.Schema):  # type: ignore[name-defined,misc]
        exchange = dy.String()
        symbol = dy.String()
        timestamp = dy.Datetime(time_zone="UTC", time_unit="us", primary_key=True)
        open = dy.Float64(min_exclusive=0)
        high = dy.Float64(min_exclusive=0)
        low = dy.Float64(min_exclusive=0)
        close = dy.Float64(min_exclusive=0)
        volume = dy.Float64(min=0)

        @dy.rule()  # type: ignore[untyped-decorator]
        def high_is_highest(cls) -> pl.Expr:  # noqa: N805
            high = pl.col("high")
            return (high >= pl.col("open")) & (high >= pl.col("close")) & (high >= pl.col("low"))

        @dy.rule()  # type: ignore[untyped-decorator]
        def low_is_lowest(cls) -> pl.Expr:  # noqa: N805
            return (pl.col("low") <= pl.col("open")) & (pl.col("low") <= pl.col("close"))

    return Bars


def test_a_check_of_a_lake_stays_in_bounded_memory(tmp_path: Path) -> None:
    """Ten market-years of bars and 21M trades on disk, checked in a process of its own."""
    uri = str(tmp_path / "lake")
    store = Store(Lake.create(Settings(uri=uri)).root, utc_now)
    origin = Origin("bench", "bench")
    for number in range(MARKETS):
        trades = _trades(number)
        store.write(store.catalog.dataset("trades"), trades, origin)
        bars = _bars(trades).with_columns(closed=pl.lit(value=True))
        store.write(store.catalog.dataset("bars_1m"), bars, origin)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, uri], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    for table, (rows, seconds) in told["tables"].items():
        print(f"\ncheck of {rows:,} rows of {table} on disk: {seconds:.1f} s, "
              f"{rows / seconds / 1e6:.1f}M rows/s", end="")  # fmt: skip
    report("its peak memory in GB", told["peak_bytes"] / 1e9, "< 2")
    assert sum(rows for rows, _ in told["tables"].values()) == (
        MARKETS * MINUTES * (1 + TRADES_A_MINUTE)
    )
    assert told["findings"] == 0
    assert told["peak_bytes"] < 2e9


_CHILD = """
import json, re, sys, time
from pathlib import Path
from lake.api import Lake
from lake.settings import Settings

lake, tables, findings = Lake(Settings(uri=sys.argv[1])), {}, 0
for table in ("bars_1m", "trades"):
    begun = time.perf_counter()
    done = lake.quality.check(table)
    tables[table] = done.rows, time.perf_counter() - begun
    findings += done.findings.height
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"tables": tables, "peak_bytes": peak, "findings": findings}))
"""
