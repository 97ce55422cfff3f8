"""Columns of bars: prices, and what they sum up."""

from __future__ import annotations

PRICES = ("open", "high", "low", "close")
OHLCV = (*PRICES, "volume")
