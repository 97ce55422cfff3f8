"""Words of messages: numbers with the nouns that they count."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, singular: str, plural: str = "") -> str:
    """Write a number and the noun that it counts: `1 file`, `2,000 files`."""
    return f"{number:,} {pluralize(number, singular, plural)}"


def pluralize(number: int, singular: str, plural: str = "") -> str:
    """Return the form of a noun for a number; by default the plural ends in `s`."""
    return singular if number == 1 else plural or f"{singular}s"


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Join words, at least one, as a sentence does: `a`, `a and b`, `a, b and c`.

    Parameters
    ----------
    last
        Stands before the last word: `and`, `or`.
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
