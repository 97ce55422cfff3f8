"""Look up what is known of markets: the units of their amounts and volumes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from lake.model.dataset import Dataset
from lake.model.market import MARKET_COLUMNS, Market, StoredMarket
from lake.model.selection import Selection
from lake.model.units import Field, Units, find_units
from lake.store.reader import EVERYTHING
from lake.store.store import Store

Instruments = Mapping[tuple[str, str], Mapping[str, object]]
"""By exchange and symbol, `type`, `linear` and `contract_size` of the newest specification."""

_COLUMNS = ("type", "linear", "contract_size")
_FIELDS: Mapping[str, Field] = {"bar": "volume", "trade": "amount", "order_book": "amount"}
_COLUMNS_OF_AMOUNTS = ("amount", "volume", "taker_buy_volume", "bid_amounts", "ask_amounts")
_USUAL = "base"
_MOST_SHOWN = 3


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


def describe_units(
    store: Store, dataset: Dataset, selection: Selection = EVERYTHING
) -> dict[str, str]:
    """Return the unit of each column of amounts, where markets have another than the dataset says.

    The unit of a single market, or the usual one with the markets that differ.
    """
    field = _FIELDS.get(dataset.event or "")
    names = [column.name for column in dataset.columns if column.name in _COLUMNS_OF_AMOUNTS]
    if field is None or not names or not store.exists(dataset.name):
        return {}
    files = store.snapshot(dataset).files(selection)
    pairs = files.select(MARKET_COLUMNS).unique().sort(MARKET_COLUMNS)
    instruments = read_instruments(store, selection)
    markets = [StoredMarket(*pair) for pair in pairs.iter_rows()]
    units = {market: _format_unit(units_of(market, instruments), field) for market in markets}
    text = _join_units(units)
    return dict.fromkeys(names, text) if text else {}


def _format_unit(units: Units, field: Field) -> str:
    unit = getattr(units, field)
    if unit is None:
        return "unknown"
    if unit != "contracts":
        return str(unit)
    return f"contracts of {units.contract_size:g} {'quote' if units.inverse else 'base'}"


def _join_units(units: Mapping[StoredMarket, str]) -> str | None:
    """Join the units of markets to a text; None if all have the usual unit."""
    others = {market: unit for market, unit in units.items() if unit != _USUAL}
    if not others:
        return None
    if len(units) == 1:
        return next(iter(others.values()))
    shown = [f"{unit} on {market}" for market, unit in list(others.items())[:_MOST_SHOWN]]
    more = [f"{len(others) - _MOST_SHOWN} more markets differ"] if len(others) > _MOST_SHOWN else []
    return "; ".join([_USUAL, *shown, *more])
