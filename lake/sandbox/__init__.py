"""The embedded exchange: a real HTTP server on loopback that speaks Binance's dialect."""

from lake.sandbox.embedded import Sandbox, redirect, serve
from lake.sandbox.faults import KINDS, Fault, RandomFaults
from lake.sandbox.market import Bars, Book, Funding, Market, MarketData, Trades
from lake.sandbox.recorded import Recorded
from lake.sandbox.server import LogEntry
from lake.sandbox.synthetic import Synthetic

__all__ = [
    "KINDS",
    "Bars",
    "Book",
    "Fault",
    "Funding",
    "LogEntry",
    "Market",
    "MarketData",
    "RandomFaults",
    "Recorded",
    "Sandbox",
    "Synthetic",
    "Trades",
    "redirect",
    "serve",
]
