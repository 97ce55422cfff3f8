"""Words of messages."""

from __future__ import annotations


def count(number: int, singular: str, plural: str = "") -> str:
    """Write a number and the noun that it counts: `1 file`, `2,000 files`."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"
