"""The embedded exchange: a real HTTP server on loopback that speaks Binance's dialect."""

from lake.sandbox.embedded import Sandbox, redirect, serve
from lake.sandbox.faults import HARD_KINDS, KINDS, Fault, RandomFaults
from lake.sandbox.market import Bars, Book, Funding, Market, MarketData, Trades
from lake.sandbox.recorded import RecordedMarkets
from lake.sandbox.server import LogEntry
from lake.sandbox.synthetic import SyntheticMarkets

__all__ = [
    "HARD_KINDS",
    "KINDS",
    "Bars",
    "Book",
    "Fault",
    "Funding",
    "LogEntry",
    "Market",
    "MarketData",
    "RandomFaults",
    "RecordedMarkets",
    "Sandbox",
    "SyntheticMarkets",
    "Trades",
    "redirect",
    "serve",
]
