"""Which lists of a venue hold a symbol: `lake.sources.market_lists`."""

from typing import Any

import ccxt.async_support as ccxt
import pytest

from lake.sources.market_lists import ALL_IN_ONE, choose_lists, find_lists, select_lists

BINANCE = ("spot", "linear", "inverse")
OKX = ("spot", "future", "swap", "option")


@pytest.mark.parametrize(
    ("symbol", "names", "chosen"),
    [
        ("BTC/USDT", BINANCE, ("spot",)),
        ("BTC/USDT:USDT", BINANCE, ("linear",)),
        ("BTC/USD:BTC", BINANCE, ("inverse",)),
        ("BTC/USDT:USDT-240329", BINANCE, ("linear",)),
        ("BTC/USD:BTC-240329", BINANCE, ("inverse",)),
        ("BTC/USDT", OKX, ("spot",)),
        ("BTC/USDT:USDT", OKX, ("swap",)),
        ("BTC/USD:BTC-240329", OKX, ("future",)),
        ("BTC/USD:BTC-240329-50000-C", OKX, ("option",)),
        ("BTC/USDT:USDT", ("swap", "future", "contract"), ("swap", "contract")),
        ("XYZ-TSLA/USDC:USDC", ("spot", "swap", "hip3"), ("swap", "hip3")),
        # the symbol does not tell, or nothing fits: all
        ("BTCUSDT", BINANCE, BINANCE),
        ("BTC/USDT", ("linear",), ("linear",)),
        ("BTC/USDT", (ALL_IN_ONE,), (ALL_IN_ONE,)),
        ("BTC/USDT:USDT", (ALL_IN_ONE,), (ALL_IN_ONE,)),
    ],
)
def test_a_symbol_tells_its_list(
    symbol: str, names: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    assert choose_lists(symbol, names) == chosen


@pytest.mark.parametrize(
    ("exchange", "names"),
    [
        ("binance", BINANCE),
        ("binanceusdm", ("linear",)),
        ("okx", OKX),
        ("htx", BINANCE),
        ("mexc", ("spot", "swap")),
        ("coinbase", (ALL_IN_ONE,)),
        ("kraken", (ALL_IN_ONE,)),
    ],
)
def test_lists_are_those_of_ccxt(exchange: str, names: tuple[str, ...]) -> None:
    assert find_lists(getattr(ccxt, exchange)().options) == names


@pytest.mark.parametrize(
    ("option", "names", "types"),
    [
        (["spot", "linear"], ["linear"], ["linear"]),
        ({"spot": True, "linear": True}, ["spot"], {"spot": True, "linear": False}),
        (
            {"spot": True, "swap": {"linear": True, "inverse": False}},
            ["swap"],
            {"spot": False, "swap": {"linear": True, "inverse": False}},
        ),
    ],
)
def test_options_select_lists(option: Any, names: list[str], types: Any) -> None:
    options = {"fetchMarkets": {"types": option, "loadAllOptions": False}, "other": 1}
    expected = {"fetchMarkets": {"types": types, "loadAllOptions": False}, "other": 1}
    assert select_lists(options, names) == expected


def test_options_without_lists_stay() -> None:
    for options in ({"a": 1}, {"fetchMarkets": "fetchMarketsV3"}):
        assert select_lists(options, [ALL_IN_ONE]) == options
