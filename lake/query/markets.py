"""Look up what is known of markets: the units of their amounts and volumes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from lake.model.market import MARKET_COLUMNS, Market
from lake.model.selection import Selection
from lake.model.units import Units, find_units
from lake.store.reader import EVERYTHING
from lake.store.store import Store

Instruments = Mapping[tuple[str, str], Mapping[str, object]]
"""By exchange and symbol, `type`, `linear` and `contract_size` of the newest specification."""

_COLUMNS = ("type", "linear", "contract_size")


def read_instruments(
    store: Store, selection: Selection = EVERYTHING, as_of: datetime | None = None
) -> Instruments:
    """Read the newest specification of each market of a selection."""
    rows = store.read(store.catalog.dataset("instruments"), selection, as_of)
    newest = rows.sort("valid_from").unique(MARKET_COLUMNS, keep="last", maintain_order=True)
    return {
        (exchange, symbol): dict(zip(_COLUMNS, values, strict=True))
        for exchange, symbol, *values in newest.select(*MARKET_COLUMNS, *_COLUMNS).iter_rows()
    }


def find_market_units(store: Store, market: Market) -> Units:
    """Return the units of amounts and volumes of a market, by its newest specification."""
    instruments = read_instruments(store, Selection((market.exchange,), (market.symbol,)))
    return units_of(market, instruments)


def units_of(market: Market, instruments: Instruments) -> Units:
    """Return the units of amounts and volumes of a market."""
    instrument = instruments.get((market.exchange, market.symbol))
    return find_units(market.exchange, market.symbol, instrument)
