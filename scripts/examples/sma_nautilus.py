"""Two moving averages in NautilusTrader, with a catalog written from a pinned bundle.

usage: python scripts/examples/sma_nautilus.py BUNDLE [--lake FOLDER]
"""

import argparse
import tempfile
from pathlib import Path

from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.indicators import SimpleMovingAverage
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.objects import Money
from nautilus_trader.trading.strategy import Strategy

import lake
from lake.adapters.nautilus import write_catalog


class MovingAverages(Strategy):
    """Holds a position while the fast average is above the slow one."""

    def __init__(self, instrument, bar_type):
        super().__init__()
        self.instrument, self.bar_type = instrument, bar_type
        self.quick, self.slow = SimpleMovingAverage(30), SimpleMovingAverage(120)

    def on_start(self):
        for average in (self.quick, self.slow):
            self.register_indicator_for_bars(self.bar_type, average)
        self.subscribe_bars(self.bar_type)

    def on_bar(self, _bar):
        above = self.slow.initialized and self.quick.value > self.slow.value
        flat = self.portfolio.is_flat(self.instrument.id)
        if above and flat:
            size = self.instrument.make_qty(1)
            order = self.order_factory.market(self.instrument.id, OrderSide.BUY, size)
            self.submit_order(order)
        elif not above and not flat:
            self.close_all_positions(self.instrument.id)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("bundle")
parser.add_argument("--lake", help="folder of the lake")
arguments = parser.parse_args()

bundle = lake.open_bundle(arguments.bundle, arguments.lake)
with tempfile.TemporaryDirectory() as folder:
    catalog = write_catalog(
        bundle, Path(folder) / "catalog", exchange="binance", symbol="BTC/USDT", tables="bars_1m"
    )
    (instrument,), bars = catalog.instruments(), catalog.bars()

engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
engine.add_venue(
    venue=instrument.id.venue,
    oms_type=OmsType.NETTING,
    account_type=AccountType.CASH,
    starting_balances=[Money(10_000_000, USDT)],
)
engine.add_instrument(instrument)
engine.add_data(bars)
engine.add_strategy(MovingAverages(instrument, bars[0].bar_type))
engine.run()
print("bars", len(bars))
print("fills", len(engine.trader.generate_order_fills_report()))
print("balance", engine.portfolio.account(instrument.id.venue).balance_total(USDT))
engine.dispose()
