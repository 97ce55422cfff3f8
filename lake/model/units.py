"""Units of amounts: what `amount` of trades and `volume` of bars count on a market. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from lake.model.venues import Unit, find_capabilities

Field = Literal["amount", "volume"]


@dataclass(frozen=True, slots=True)
class Units:
    """Units of one market.

    Attributes
    ----------
    amount, volume
        Unit of `amount` of trades, and of `volume` and `taker_buy_volume` of bars; None: unknown.
    contract_size
        Size of a contract: in base, of inverse contracts in quote. None: unknown, or no contracts.
    inverse
        Whether contracts are settled in base, so that their size is in quote.
    """

    amount: Unit | None = "base"
    volume: Unit | None = "base"
    contract_size: float | None = None
    inverse: bool = False

    @property
    def is_unknown(self) -> bool:
        """Whether one of the units is unknown."""
        return self.amount is None or self.volume is None

    def convert(
        self, amount: pl.Expr, price: pl.Expr, source: Unit | None, target: Unit | None
    ) -> pl.Expr | None:
        """Convert amounts at a price from one unit to another; None if a unit is unknown."""
        if source is None or target is None:
            return None
        if source == target:
            return amount
        base = self._to_base(amount, price, source)
        if base is None or target == "base":
            return base
        if target == "quote":
            return base * price
        size = self._contract_in_base(price)
        return None if size is None else base / size

    def _to_base(self, amount: pl.Expr, price: pl.Expr, source: Unit) -> pl.Expr | None:
        if source == "base":
            return amount
        if source == "quote":
            return amount / price
        size = self._contract_in_base(price)
        return None if size is None else amount * size

    def _contract_in_base(self, price: pl.Expr) -> pl.Expr | None:
        if self.contract_size is None:
            return None
        size = pl.lit(self.contract_size)
        return size / price if self.inverse else size


def find_units(exchange: str, symbol: str, instrument: Mapping[str, Any] | None = None) -> Units:
    """Return the units of a market, by ccxt's conventions and what is known of the venue.

    ccxt gives amounts of trades on derivatives in contracts. Volumes of bars differ by venue.

    Parameters
    ----------
    instrument
        The market's row of `instruments`; None: there is none.
    """
    given = instrument or {}
    if ":" not in symbol and given.get("type") in (None, "spot"):
        return Units()
    size = given.get("contract_size")
    if size is None:
        return Units(None, None)
    inverse = given.get("linear") is False
    known = find_capabilities(exchange)
    volume = known.inverse_volume if inverse else known.linear_volume
    amount: Unit = "contracts"
    if not inverse and size == 1:  # a contract is a unit of base
        amount, volume = "base", "base" if volume in ("base", "contracts") else volume
    return Units(amount, volume, float(size), inverse)
