"""Two moving averages in freqtrade, with a data folder written from a pinned bundle.

Freqtrade requests the rules of the market from its exchange before it reads any data. Here the
exchange is the sandbox of lake, so that nothing leaves this machine; remove `ccxt_config` to use
the real exchange.

usage: python scripts/examples/sma_freqtrade.py BUNDLE [--lake FOLDER]
"""

import argparse
import contextlib
import logging
import sys
import tempfile
from pathlib import Path

import ccxt
from freqtrade.enums import RunMode
from freqtrade.optimize.backtesting import Backtesting

import lake
from lake.adapters.freqtrade import write
from lake.sandbox import Sandbox, redirect

STRATEGY = '''
from freqtrade.strategy import IStrategy

class MovingAverages(IStrategy):
    """In the market while the quick average is above the slow one."""

    timeframe = "1m"
    minimal_roi = {}
    stoploss = -0.99

    def populate_indicators(self, frame, metadata):
        frame["quick"] = frame["close"].rolling(30).mean()
        frame["slow"] = frame["close"].rolling(120).mean()
        return frame

    def populate_entry_trend(self, frame, metadata):
        frame.loc[frame["quick"] > frame["slow"], "enter_long"] = 1
        return frame

    def populate_exit_trend(self, frame, metadata):
        frame.loc[frame["quick"] <= frame["slow"], "exit_long"] = 1
        return frame
'''


def settings(folder, url):
    """Return the configuration that `freqtrade backtesting` would read from files and options."""
    return {
        "runmode": RunMode.BACKTEST,
        "strategy": "MovingAverages",
        "strategy_path": str(folder),
        "user_data_dir": folder,
        "datadir": folder / "data" / "binance",
        "dataformat_ohlcv": "feather",
        "exchange": {
            "name": "binance",
            "pair_whitelist": ["BTC/USDT"],
            "ccxt_config": {"urls": {"api": redirect(ccxt.binance().urls["api"], url)}},
        },
        "pairlists": [{"method": "StaticPairList"}],
        "stake_currency": "USDT",
        "stake_amount": 1000,
        "dry_run_wallet": 10_000,
        "max_open_trades": 1,
        "fee": 0.001,
        "entry_pricing": {"price_side": "same"},
        "exit_pricing": {"price_side": "same"},
        "dry_run": True,
        "export": "none",
    }


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("bundle")
parser.add_argument("--lake", help="folder of the lake")
arguments = parser.parse_args()
logging.disable(logging.WARNING)

bundle = lake.open_bundle(arguments.bundle, arguments.lake)
with tempfile.TemporaryDirectory() as name, Sandbox(weight_limit=False) as sandbox:
    folder = Path(name)
    (folder / "moving_averages.py").write_text(STRATEGY)
    configuration = settings(folder, sandbox.url)
    write(bundle, configuration["datadir"], "bars_1m", exchange="binance", symbol="BTC/USDT")
    with contextlib.redirect_stdout(sys.stderr):  # keeps its own tables out of the result
        test = Backtesting(configuration)
        test.start()

result = test.results["strategy"]["MovingAverages"]
print("trades", result["total_trades"])
print("profit", result["profit_total_abs"])
print("balance", result["final_balance"])
