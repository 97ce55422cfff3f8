"""List the built-in checks by their names in dataset files and settings."""

from __future__ import annotations

from collections.abc import Mapping

from lake.quality.check import BuiltinCheck
from lake.quality.checks import (
    bars,
    book_levels,
    book_sides,
    books,
    chain,
    completeness,
    contradictions,
    cross_venue,
    dex,
    excursions,
    foreign_trades,
    frozen,
    funding,
    levels,
    open_bars,
    other_venues,
    pools,
    quarantined,
    reconciliation,
    spikes,
    time_shifts,
    times,
    trade_amounts,
    trade_ids,
    trades,
    volumes,
)

BUILTIN: Mapping[str, BuiltinCheck] = {
    name: builtin
    for module in (
        completeness,
        times,
        quarantined,
        contradictions,
        bars,
        frozen,
        levels,
        open_bars,
        spikes,
        excursions,
        other_venues,
        reconciliation,
        volumes,
        trade_ids,
        trade_amounts,
        trades,
        foreign_trades,
        books,
        book_levels,
        book_sides,
        funding,
        cross_venue,
        time_shifts,
        chain,
        pools,
        dex,
    )
    for name, builtin in module.CHECKS.items()
}
