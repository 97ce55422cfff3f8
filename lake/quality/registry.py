"""The checks of the product, by the name that dataset files and settings call them."""

from __future__ import annotations

from collections.abc import Mapping

from lake.quality import (
    bars,
    books,
    chain,
    completeness,
    dex,
    funding,
    levels,
    refused,
    spikes,
    times,
    trades,
    venues,
)
from lake.quality.check import Builtin

BUILTIN: Mapping[str, Builtin] = {
    name: builtin
    for module in (
        completeness,
        times,
        refused,
        bars,
        spikes,
        levels,
        trades,
        books,
        funding,
        venues,
        chain,
        dex,
    )
    for name, builtin in module.CHECKS.items()
}
