"""Names that are not there: which ones are meant, and how to say so."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from lake.errors import UnknownNameError

_SHOWN = 5


def simplify(name: str) -> str:
    """A name without case and punctuation: `BTC/USDT` and `btc-usdt` are `btcusdt`."""
    return "".join(filter(str.isalnum, name)).lower()


def find_closest(name: str, names: Mapping[str, Iterable[str]], limit: int = _SHOWN) -> list[str]:
    """The names nearest to one, best first.

    Parameters
    ----------
    name
        What somebody wrote.
    names
        Each name, and its other names, by which it may be meant as well.
    most
        How many to give.
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
    """An error that names the closest, and how many there are."""
    matches = find_closest(name, names)
    hint = f"Did you mean {', '.join(matches)}? " if matches else ""
    return UnknownNameError(f"{what} {name!r}", f"{hint}It has {len(names):,} in all.")
