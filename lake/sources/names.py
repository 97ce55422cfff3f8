"""Errors for unknown names, with the closest known names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from lake.errors import UnknownNameError

_SHOWN = 5


def simplify(name: str) -> str:
    """Remove case and punctuation: `BTC/USDT` and `btc-usdt` become `btcusdt`."""
    return "".join(filter(str.isalnum, name)).lower()


def find_closest(name: str, names: Mapping[str, Iterable[str]], limit: int = _SHOWN) -> list[str]:
    """Find the names closest to a name, best first.

    Parameters
    ----------
    name
        The name that the user wrote.
    names
        Each known name with its alternative names.
    most
        Number of names to return.
    """
    simplified = simplify(name)
    owners: dict[str, list[str]] = {}
    for owner, others in names.items():
        for form in dict.fromkeys((simplify(owner), *map(simplify, others))):
            owners.setdefault(form, []).append(owner)
    matches = difflib.get_close_matches(simplified, owners, n=4 * limit, cutoff=0.5)
    return list(dict.fromkeys(owner for form in matches for owner in owners[form]))[:limit]


def build_unknown_name_error(
    what: str, name: str, names: Mapping[str, Iterable[str]]
) -> UnknownNameError:
    """Build an error that lists the closest names and the number of known names."""
    matches = find_closest(name, names)
    hint = f"Did you mean {', '.join(matches)}? " if matches else ""
    return UnknownNameError(f"{what} {name!r}", f"{hint}{len(names):,} names are known.")
