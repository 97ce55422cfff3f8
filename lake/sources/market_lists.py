"""Which lists of a venue can hold a market: spot, linear, inverse and others. Pure.

ccxt names the lists that an exchange loads in `options["fetchMarkets"]["types"]`; each is a
request, often to a host of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ALL_IN_ONE = "all"

_DERIVATIVES = frozenset({"linear", "inverse", "swap", "future", "delivery", "contract", "option"})
_PARTS_OF_KIND = {1: "swap", 2: "future"}  # BTC:USDT, BTC:USDT-240329; options have four


def find_lists(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the lists that an exchange of ccxt loads, by its options.

    Exchanges whose lists have no names load all at once: `ALL_IN_ONE`.
    """
    types = _find_types(options)
    if isinstance(types, Mapping):
        return tuple(name for name, wanted in types.items() if wanted) or (ALL_IN_ONE,)
    if isinstance(types, Sequence) and not isinstance(types, str):
        return tuple(map(str, types)) or (ALL_IN_ONE,)
    return (ALL_IN_ONE,)


def choose_lists(symbol: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the lists that can hold a symbol; all where the symbol does not tell.

    `BTC/USDT` is spot, `BTC/USDT:USDT` linear, `BTC/USD:BTC` inverse; what follows a minus is the
    date of a future, or date, strike and side of an option. Lists of other names may hold any
    derivative.
    """
    chosen = tuple(name for name in names if name in _find_kinds(symbol) or _may_hold(name, symbol))
    return chosen or tuple(names)


def select_lists(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the options of an exchange of ccxt with which it loads some of its lists."""
    types = _find_types(options)
    if types is None or ALL_IN_ONE in names:
        return dict(options)
    chosen: Any = list(names)
    if isinstance(types, Mapping):
        chosen = {name: value if name in names else False for name, value in types.items()}
    return {**options, "fetchMarkets": {**options["fetchMarkets"], "types": chosen}}


def _find_types(options: Mapping[str, Any]) -> Any:
    option = options.get("fetchMarkets")
    return option.get("types") if isinstance(option, Mapping) else None


def _find_kinds(symbol: str) -> frozenset[str]:
    pair, _, contract = symbol.partition(":")
    if "/" not in pair:
        return frozenset()
    if not contract:
        return frozenset({"spot"})
    settle, *details = contract.split("-")
    kind = _PARTS_OF_KIND.get(1 + len(details), "option")
    if kind == "option":
        return frozenset({"option"})
    side = "inverse" if settle == pair.partition("/")[0] else "linear"
    return frozenset({kind, side, "contract"} | ({"delivery"} if kind == "future" else set()))


def _may_hold(name: str, symbol: str) -> bool:
    return ":" in symbol and name != "spot" and name not in _DERIVATIVES
