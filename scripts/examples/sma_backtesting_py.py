"""Two moving averages in backtesting.py, over a pinned bundle.

usage: python scripts/examples/sma_backtesting_py.py BUNDLE [--lake FOLDER]
"""

import argparse

from backtesting import Backtest, Strategy
from backtesting.lib import crossover

import lake
from lake.adapters.backtesting_py import ohlcv


def average(values, bars):
    return values.s.rolling(bars).mean()


class MovingAverages(Strategy):
    """Holds a position while the fast average is above the slow one."""

    def init(self):
        self.quick = self.I(average, self.data.Close, 30)
        self.slow = self.I(average, self.data.Close, 120)

    def next(self):
        if crossover(self.quick, self.slow):
            self.buy()
        elif crossover(self.slow, self.quick):
            self.position.close()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("bundle")
parser.add_argument("--lake", help="folder of the lake")
arguments = parser.parse_args()

bundle = lake.open_bundle(arguments.bundle, arguments.lake)
frame = ohlcv(bundle, "bars_1m", exchange="binance", symbol="BTC/USDT")
result = Backtest(frame, MovingAverages, cash=10_000_000, finalize_trades=True).run()
print("bars", len(frame))
print("trades", result["# Trades"])
print("equity", result["Equity Final [$]"])
