"""Names that are not there: which ones are meant, and how to say so."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from lake.errors import UnknownNameError

_SHOWN = 5


def plain(name: str) -> str:
    """A name without case and punctuation: `BTC/USDT` and `btc-usdt` are `btcusdt`."""
    return "".join(filter(str.isalnum, name)).lower()


def closest(name: str, names: Mapping[str, Iterable[str]], most: int = _SHOWN) -> list[str]:
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
    wanted = plain(name)
    owners: dict[str, list[str]] = {}
    for owner, others in names.items():
        for form in dict.fromkeys((plain(owner), *map(plain, others))):
            owners.setdefault(form, []).append(owner)
    near = difflib.get_close_matches(wanted, owners, n=4 * most, cutoff=0.5)
    return list(dict.fromkeys(owner for form in near for owner in owners[form]))[:most]


def unknown_name(what: str, name: str, names: Mapping[str, Iterable[str]]) -> UnknownNameError:
    """An error that names the closest, and how many there are."""
    near = closest(name, names)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    return UnknownNameError(f"{what} {name!r}", f"{hint}It has {len(names):,} in all.")
