"""A market: one symbol on one exchange, by ccxt's unified names."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import total_ordering

from lake.errors import UsageError

MARKET_COLUMNS = ("exchange", "symbol")
"""Columns that name the market of a row."""
DATASET_MARKET = ("dataset", *MARKET_COLUMNS)
"""Columns by which a row of the lake's own tables names a table and a market in it."""

_LONGEST_SYMBOL = 60  # percent-encoded, it must still be the name of a folder
_WRAPPED = {
    "WAVAX": "AVAX",
    "WBNB": "BNB",
    "WBTC": "BTC",
    "WETH": "ETH",
    "WMATIC": "MATIC",
    "WPOL": "POL",
}
_LONGEST_FOLDER = 255
_MISSING = "__HIVE_DEFAULT_PARTITION__"
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
_EXCHANGE = re.compile(r"[a-z0-9_]+(:[a-z0-9_]+)?")


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """An exchange's id (`binance`; `ethereum:uniswap_v3` for a DEX) and a symbol on it.

    A symbol is ccxt's unified one: `BTC/USDT` (spot), `BTC/USDT:USDT` (perpetual). Markets are
    equal if their names are, whether their rows are stored or still to be fetched.
    """

    exchange: str
    symbol: str

    def __post_init__(self) -> None:
        if _EXCHANGE.fullmatch(self.exchange) is None:
            raise UsageError(
                f"{self.exchange!r} is not an exchange's id",
                "Ids are lower case, as in ccxt: binance, kraken, okx.",
            )
        too_long = len(self.symbol) > _LONGEST_SYMBOL
        if not self.symbol.strip() or not self.symbol.isprintable() or too_long:
            raise UsageError(
                f"{self.symbol!r} is not a symbol", "Symbols look like BTC/USDT or BTC/USDT:USDT."
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Market):
            return NotImplemented
        return self.exchange == other.exchange and self.symbol == other.symbol

    def __lt__(self, other: Market) -> bool:
        return (self.exchange, self.symbol) < (other.exchange, other.symbol)

    def __hash__(self) -> int:
        return hash((self.exchange, self.symbol))

    @property
    def is_on_chain(self) -> bool:
        """Whether its exchange is a protocol on a chain."""
        return ":" in self.exchange

    def __str__(self) -> str:
        return f"{self.exchange} {self.symbol}"


class StoredMarket(Market):
    """A market of stored rows, with any names: rows of a user may have names of their own."""

    def __post_init__(self) -> None: ...


def is_storable(name: str) -> bool:
    """Whether an exchange or a symbol can name a folder: encoded, it has at most 255 bytes.

    Readers take one name for a missing value.
    """
    encoded = sum(1 if byte in _PLAIN else 3 for byte in name.encode(errors="replace"))
    return encoded <= _LONGEST_FOLDER - len("exchange=") and name != _MISSING


def make_storable(name: str) -> str:
    """Shorten a name that cannot be stored, so that it can; others stay, and stay others."""
    if is_storable(name):
        return name
    return f"{name[:12]}…{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:12]}"


def unwrap_symbol(symbol: str) -> str:
    """Replace wrapped tokens of a symbol by their coins: `ETH/USDC` for `WETH/USDC`."""
    return "/".join(_WRAPPED.get(token, token) for token in symbol.split("/"))
