"""Recorded markets are served exactly as they were recorded."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import ConfigError
from lake.sandbox import RecordedMarkets, Sandbox
from lake.sandbox.recorded import format_number
from tests.paths import SHARED

Ask = Callable[..., Any]
Use = Callable[..., Any]

DATA = SHARED / "cex"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recorded data at {DATA}")
FUTURES = "fapi.binance.com/fapi/v1"


@pytest.fixture(scope="module")
def recorded() -> Iterator[Sandbox]:
    """A sandbox that serves the recordings."""
    with Sandbox(RecordedMarkets(DATA), weight_limit=False) as sandbox:
        yield sandbox


def pages(
    ask: Ask, sandbox: Sandbox, path: str, first: dict[str, Any], after: Callable[[Any], Any]
) -> list[Any]:
    """Fetch all rows page by page; `after` returns the next query from the last row."""
    rows: list[Any] = []
    query = dict(first)
    while page := ask(sandbox, path, **query, limit=1000).json:
        rows += page
        query |= after(page[-1])
    return rows


@needs_data
@pytest.mark.parametrize(
    ("name", "symbol", "interval"),
    [
        ("binance_UNITTEST-BTC_1m", "UNITTESTBTC", "1m"),
        ("binance_XRP-ETH_1m", "XRPETH", "1m"),
        ("binance_ADA-BTC_5m", "ADABTC", "5m"),
        ("ftx_BTC-PERP_1m", "BTCPERP", "1m"),
    ],
)
def test_bars_parse_back_to_the_recorded_floats(
    recorded: Sandbox, ask: Ask, name: str, symbol: str, interval: str
) -> None:
    first = {"symbol": symbol, "interval": interval, "startTime": 0}
    rows = pages(ask, recorded, "klines", first, lambda row: {"startTime": row[0] + 1})
    frame = pl.read_parquet(DATA / "bars" / f"{name}.parquet")
    times = frame["timestamp"].dt.epoch("ms").to_list()
    assert [row[0] for row in rows] == times
    for place, column in enumerate(("open", "high", "low", "close", "volume"), start=1):
        assert [float(row[place]) for row in rows] == frame[column].to_list()
        assert not any("e" in row[place].lower() for row in rows)


@needs_data
def test_trades_are_the_recorded_ones(recorded: Sandbox, ask: Ask) -> None:
    first = {"symbol": "XRPETH", "fromId": 0}
    rows = pages(ask, recorded, "aggTrades", first, lambda row: {"fromId": row["a"] + 1})
    frame = pl.read_parquet(DATA / "trades" / "binance_XRP-ETH.parquet")
    assert [str(row["a"]) for row in rows] == frame["id"].to_list()
    assert [row["T"] for row in rows] == frame["timestamp"].dt.epoch("ms").to_list()
    assert [float(row["p"]) for row in rows] == frame["price"].to_list()
    assert [float(row["q"]) for row in rows] == frame["amount"].to_list()
    assert ["sell" if row["m"] else "buy" for row in rows] == frame["side"].to_list()
    assert all(row["f"] == row["l"] == row["a"] for row in rows)


@needs_data
def test_bars_have_the_columns_that_recorded_trades_give(recorded: Sandbox, ask: Ask) -> None:
    query = {"symbol": "XRPETH", "interval": "1m", "startTime": 0, "limit": 1000}
    rows = ask(recorded, "klines", **query).json
    frame = pl.read_parquet(DATA / "trades" / "binance_XRP-ETH.parquet")
    bought = pl.when(pl.col("side") == "buy")
    minutes = (
        frame.group_by(pl.col("timestamp").dt.truncate("1m"), maintain_order=True)
        .agg(
            (pl.col("price") * pl.col("amount")).sum().alias("quote"),
            pl.len().alias("trades"),
            bought.then(pl.col("amount")).otherwise(0).sum().alias("taker"),
        )
        .head(1000)
    )
    assert [float(row[7]) for row in rows] == pytest.approx(minutes["quote"].to_list(), rel=1e-12)
    assert [row[8] for row in rows] == minutes["trades"].to_list()
    assert [float(row[9]) for row in rows] == minutes["taker"].to_list()


@needs_data
def test_values_that_were_not_recorded_are_not_invented(recorded: Sandbox, ask: Ask) -> None:
    bars = ask(recorded, "klines", symbol="UNITTESTBTC", interval="1m").json
    assert {tuple(row[7:]) for row in bars} == {("0", 0, "0", "0", "0")}
    assert ask(recorded, "klines", symbol="UNITTESTBTC", interval="1h").json == []
    assert ask(recorded, "depth", symbol="XRPETH").json["bids"] == []
    assert ask(recorded, "trades", symbol="ADABTC").json == []


@needs_data
def test_an_interval_that_was_not_recorded_comes_from_the_trades(
    recorded: Sandbox, ask: Ask
) -> None:
    days = ask(recorded, "klines", symbol="XRPETH", interval="1d").json
    minutes = [
        row
        for start in (0, 1570838400000)
        for row in ask(
            recorded, "klines", symbol="XRPETH", interval="1m", startTime=start, limit=1000
        ).json
    ]
    first_day = [row for row in minutes if row[0] < days[1][0]]
    assert sum(row[8] for row in days) == 12_477
    assert days[0][1] == minutes[0][1]
    assert max(map(float, (row[2] for row in first_day))) <= float(days[0][2])


@needs_data
def test_funding_parses_back_to_the_recorded_rates(recorded: Sandbox, ask: Ask) -> None:
    rows = ask(recorded, "fundingRate", host=FUTURES, symbol="XRPUSDT").json
    frame = pl.read_parquet(DATA / "funding" / "binanceusdm_XRP-USDT-USDT.parquet")
    assert [row["fundingTime"] for row in rows] == frame["timestamp"].dt.epoch("ms").to_list()
    assert [float(row["fundingRate"]) for row in rows] == frame["funding_rate"].to_list()
    assert {row["markPrice"] for row in rows} == {""}


@needs_data
def test_ccxt_sees_the_recorded_markets(recorded: Sandbox, use: Use) -> None:
    async def fetch(client: Any) -> Any:
        markets = await client.load_markets()
        return markets, await client.fetch_ohlcv("BTC/PERP", "1m", limit=1)

    markets, bars = use(recorded, fetch)
    assert markets["BTC/PERP"]["id"] == "BTCPERP"
    assert markets["XRP/USDT:USDT"]["swap"]
    assert all(market["active"] for market in markets.values())
    assert len(bars) == 1


@needs_data
def test_the_clock_hides_what_had_not_happened(ask: Ask) -> None:
    now = datetime(2019, 10, 11, 0, 10, 30, tzinfo=UTC)
    with Sandbox(RecordedMarkets(DATA), now=lambda: now) as sandbox:
        bars = ask(sandbox, "klines", symbol="XRPETH", interval="1m").json
        trades = ask(sandbox, "trades", symbol="XRPETH").json
    now_ms = int(now.timestamp()) * 1000
    still_open = [trade for trade in trades if trade["time"] >= now_ms - 30_000]
    assert trades[-1]["time"] < now_ms
    assert len(bars) > 5
    assert sum(row[8] for row in bars) == len(trades)
    assert bool(still_open) == (bars[-1][0] == now_ms - 30_000)


@given(number=st.floats(0, 1e15))
def test_a_plain_decimal_parses_back_to_the_same_float(number: float) -> None:
    text = format_number(number)
    assert float(text) == number
    assert "e" not in text.lower()


def test_a_plain_decimal_is_as_short_as_can_be() -> None:
    numbers = (23.0, 0.0, 1e22, 5.330000000000001e-05, -0.0001)
    texts = ["23", "0", "1" + "0" * 22, "0.00005330000000000001", "-0.0001"]
    assert [format_number(number) for number in numbers] == texts


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        RecordedMarkets(tmp_path / "nowhere")


def test_a_folder_without_markets_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    (tmp_path / "bars" / "binanceusdm_XRP-USDT-USDT_mark-8h.parquet").touch()
    with pytest.raises(ConfigError, match="no recorded markets"):
        RecordedMarkets(tmp_path)


def good_bars() -> pl.DataFrame:
    """Three bars."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    times = pl.Series([start + timedelta(minutes=n) for n in range(3)])
    names = ("open", "high", "low", "close", "volume")
    return pl.DataFrame({"timestamp": times} | {name: [1.0, 2.0, 3.0] for name in names})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: frame.drop("high"),
        lambda frame: frame.reverse(),
        lambda frame: frame.clear(),
        lambda frame: frame.with_columns(close=pl.lit(None, pl.Float64)),
        lambda frame: frame.with_columns(close=pl.lit("high")),
        lambda frame: pl.concat([frame, frame.tail(1)]),
    ],
)
def test_an_invalid_file_is_an_error(
    tmp_path: Path, spoil: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    path = tmp_path / "bars" / "binance_A-B_1m.parquet"
    path.parent.mkdir()
    good_bars().write_parquet(path)
    assert [market.symbol for market in RecordedMarkets(tmp_path).markets] == ["A/B"]
    spoil(good_bars()).write_parquet(path)
    with pytest.raises(ConfigError, match="binance_A-B_1m"):
        RecordedMarkets(tmp_path)


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bars" / "binance_A-B_1m.parquet"
    path.parent.mkdir()
    good_bars().write_parquet(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match="cannot be read"):
        RecordedMarkets(tmp_path)
    shutil.copy(path, tmp_path / "bars" / "notes.parquet")  # files with other names are ignored
    path.unlink()
    with pytest.raises(ConfigError, match="no recorded markets"):
        RecordedMarkets(tmp_path)
