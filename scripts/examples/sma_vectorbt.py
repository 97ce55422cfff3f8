"""Two moving averages in vectorbt, over all spot markets of a pinned bundle at once.

usage: python scripts/examples/sma_vectorbt.py BUNDLE [--lake FOLDER]
"""

import argparse

import vectorbt

import lake
from lake.adapters.vectorbt import prices

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("bundle")
parser.add_argument("--lake", help="folder of the lake")
arguments = parser.parse_args()

bundle = lake.open_bundle(arguments.bundle, arguments.lake)
close = prices(bundle, "bars_1m", exchange="binance", symbol=["BTC/USDT", "ETH/USDT"])
rising = close.rolling(30).mean() > close.rolling(120).mean()
portfolio = vectorbt.Portfolio.from_signals(close, rising, ~rising, init_cash=10_000)
print("bars", *close.count())
print("orders", *portfolio.orders.count())
print("value", *portfolio.final_value())
