"""Recorded answers of real venues, parsed by the real clients of these venues.

Origin of the samples: `../shared/data/ORIGIN.md`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiohttp import web

from lake.errors import SourceError
from lake.model.catalog import builtin

DAYS = timedelta(days=3)


@dataclass(frozen=True)
class Recording:
    """Serve samples by path; `nothing` answers all other requests."""

    symbol: str
    now: datetime
    nothing: bytes
    answers: dict[str, str]


RECORDINGS = {
    "bybit": Recording(
        "BTC/USDT:USDT",
        datetime(2024, 3, 8, 10, tzinfo=UTC),
        b'{"retCode":0,"retMsg":"OK","result":{"list":[]},"time":1}',
        {
            "instruments-info?category=linear": "http_get_instruments_linear.json",
            "recent-trade": "http_get_trades_recent.json",
            "funding/history": "http_get_funding_history.json",
            "orderbook": "http_get_orderbook.json",
        },
    ),
    "okx": Recording(
        "BTC/USDT:USDT",
        datetime(2025, 5, 13, tzinfo=UTC),
        b'{"code":"0","msg":"","data":[]}',
        {
            "instType=SWAP": "http_get_instruments_swap.json",
            "instType=SPOT": "http_get_instruments_spot.json",
            "candles": "http_get_candlesticks_full.json",
            "/books": "http_get_order_book.json",
        },
    ),
    "kraken": Recording(
        "BTC/USDT",
        datetime(2025, 11, 11, 2, tzinfo=UTC),
        b'{"error":[],"result":{}}',
        {
            "AssetPairs": "http_asset_pairs.json",
            "OHLC": "http_ohlc.json",
            "Trades": "http_trades.json",
            "Depth": "http_order_book.json",
        },
    ),
    "coinbase": Recording(
        "BTC/USD",
        datetime(2026, 4, 7, 0, 30, tzinfo=UTC),
        b'{"data":[],"products":[]}',
        {
            "market/products/BTC-USD/ticker": "http_ticker.json",
            "market/products/BTC-USD/candles": "http_candles.json",
            "product_book": "http_product_book.json",
            "products": "http_products.json",
        },
    ),
}


@pytest.fixture
def from_recording(
    serving: Any, connect: Any, sample: Callable[[str], bytes]
) -> Callable[[str, Callable[[Any, str], Any]], Any]:
    """Run `use(source)` with a source that receives recorded answers: `run(venue, use)`."""

    def run(venue: str, use: Callable[[Any, str], Any]) -> Any:
        recording = RECORDINGS[venue]
        bodies = {part: sample(f"{venue}/{name}") for part, name in recording.answers.items()}

        async def handle(request: web.Request) -> web.Response:
            matching = (body for part, body in bodies.items() if part in request.path_qs)
            body = next(matching, recording.nothing)
            return web.Response(body=body, content_type="application/json")

        async def run() -> Any:
            async with (
                serving(handle) as url,
                connect(venue, url, now=lambda: recording.now) as source,
            ):
                return await use(source, recording.symbol)

        return asyncio.run(run())

    return run


@pytest.fixture
def fetched(from_recording: Any, fetch: Any) -> Callable[..., Any]:
    """Fetch all rows of a dataset in the last days of a recording."""

    def run(venue: str, dataset: str, days: timedelta = DAYS) -> Any:
        now = RECORDINGS[venue].now
        return from_recording(
            venue, lambda source, symbol: fetch(source, dataset, symbol, now - days, now)
        )

    return run


def test_krakens_bars_are_the_latest_only(fetched: Any, sample: Callable[[str], bytes]) -> None:
    (rows,) = (
        rows
        for key, rows in orjson.loads(sample("kraken/http_ohlc.json"))["result"].items()
        if key != "last"
    )
    got = fetched("kraken", "bars_1m")
    assert got.frame.height == len(rows) > 700
    assert got.frame["close"].to_list() == [float(row[4]) for row in rows]
    assert got.frame["volume"].to_list() == [float(row[6]) for row in rows]
    first = datetime.fromtimestamp(rows[0][0], UTC)
    assert got.settled[0].start == first
    assert fetched("kraken", "bars_1m", timedelta(hours=9)).frame["timestamp"].min() > first


def test_krakens_trades(fetched: Any, sample: Callable[[str], bytes]) -> None:
    rows = orjson.loads(sample("kraken/http_trades.json"))["result"]["XBTUSDT"]
    got = fetched("kraken", "trades")
    assert got.frame["trade_id"].to_list() == [str(row[6]) for row in rows]
    assert got.frame["price"].to_list() == [float(row[0]) for row in rows]
    assert got.frame["amount"].to_list() == [float(row[1]) for row in rows]
    assert set(got.frame["side"]) == {"buy", "sell"}
    assert got.settled[0].start > datetime.fromtimestamp(rows[0][2], UTC)


def test_bars_of_another_timeframe_are_refused(fetched: Any) -> None:
    with pytest.raises(SourceError, match="bars that are shorter than 1h"):
        fetched("kraken", "bars_1h")


def test_bybits_trades_and_funding(fetched: Any) -> None:
    trades = fetched("bybit", "trades")
    assert trades.frame.drop("timestamp").rows() == [
        ("a905d5c3-1ed0-4f37-83e4-9c73a2fe2f01", 27450.5, 0.005, "buy")
    ]
    funding = fetched("bybit", "funding")
    assert funding.frame.rows() == [
        (datetime(2024, 3, 8, 0, tzinfo=UTC), 0.00015),
        (datetime(2024, 3, 8, 8, tzinfo=UTC), 0.0001),
    ]
    assert funding.settled[0].start == datetime(2024, 3, 8, tzinfo=UTC)


def test_okxs_bars(fetched: Any) -> None:
    got = fetched("okx", "bars_1m")
    assert got.frame["close"].to_list() == [102806.1, 102820.4]
    assert got.frame["closed"].to_list() == [True, True]


def test_coinbases_trades_and_bars(fetched: Any) -> None:
    trades = fetched("coinbase", "trades")
    assert trades.frame["trade_id"].to_list() == ["995098661", "995098662", "995098663"]
    # Coinbase sends the maker's side
    assert trades.frame["side"].to_list() in (["buy", "sell", "sell"], ["sell", "buy", "buy"])
    bars = fetched("coinbase", "bars_1h", timedelta(days=800))
    assert bars.frame["open"].to_list() == [65984.18, 66312.4]


@pytest.mark.parametrize(
    ("venue", "bid", "ask"),
    [
        ("bybit", 27450.5, 27451.0),
        ("okx", 41006.7, 41006.8),
        ("kraken", 105944.2, 105944.3),
        ("coinbase", 68923.66, 68923.67),
    ],
)
def test_books(from_recording: Any, venue: str, bid: float, ask: float) -> None:
    async def use(source: Any, symbol: str) -> Any:
        return await source.order_book(await source.market(symbol), 2)

    row = from_recording(venue, use).row(0, named=True)
    assert row["bid_prices"][0] == bid
    assert row["ask_prices"][0] == ask
    assert len(row["bid_amounts"]) == len(row["ask_amounts"]) == 2


@pytest.mark.parametrize(
    ("venue", "expected"),
    [
        ("bybit", ("BTCUSDT", "swap", 0.5, 0.001)),
        ("okx", ("BTC-USDT-SWAP", "swap", 0.1, 0.01)),
        ("kraken", ("XBTUSDT", "spot", 0.1, 1e-8)),
        ("coinbase", ("BTC-USD", "spot", 0.01, 1e-8)),
    ],
)
def test_instruments(from_recording: Any, venue: str, expected: tuple[Any, ...]) -> None:
    async def use(source: Any, symbol: str) -> Any:
        return (await source.instruments())[symbol]

    frame = from_recording(venue, use)
    row = frame.row(0, named=True)
    assert (row["venue_symbol"], row["type"], row["tick_size"], row["lot_size"]) == expected
    assert frame.schema.items() <= builtin().dataset("instruments").polars_schema.items()
