"""Names of tables as users give them: `bars_1m`, or `bars` and a timeframe."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence

from lake.errors import UnknownNameError, UsageError
from lake.model.selection import Selection
from lake.model.timeframe import Timeframe

Families = Mapping[str, Sequence[str]]
"""By dataset with one table a timeframe, as `bars`, its tables that exist."""
Markets = Collection[tuple[str, str]]
"""Exchange and symbol of each."""
_LISTED = 10  # symbols that an error lists at most


def expand_tables(
    names: Sequence[str], timeframes: Sequence[str], families: Families
) -> tuple[str, ...]:
    """The tables that names mean, each once; a name that is no family's stays as it is.

    A family alone means all its tables that exist, with timeframes the table of each.

    Raises
    ------
    UnknownNameError
        A family has no table yet.
    UsageError
        A timeframe is none, or no family is named to which it belongs.
    """
    _require_family(names, timeframes, families)
    tables: list[str] = []
    for name in names:
        if name not in families:
            tables.append(name)
        elif timeframes:
            tables += [table_of(name, timeframe) for timeframe in timeframes]
        else:
            tables += _existing(name, families)
    return tuple(dict.fromkeys(tables))


def expand_table(name: str, timeframe: str | None, families: Families) -> str:
    """The one table that a name means.

    Raises
    ------
    UnknownNameError, UsageError
        As `expand_tables`; or a family is named without a timeframe: names its tables that exist.
    """
    if timeframe is None and name in families:
        existing = _existing(name, families)
        raise UsageError(
            f"{name} of which timeframe?", f"Name one of its tables: {', '.join(existing)}."
        )
    (table,) = expand_tables([name], [] if timeframe is None else [timeframe], families)
    return table


def table_of(family: str, timeframe: str) -> str:
    """The table of a timeframe: `bars_1h`.

    Raises
    ------
    UsageError
        It is no timeframe.
    """
    return f"{family}_{Timeframe.parse(timeframe).table_suffix}"


def list_closest(name: str, names: Iterable[str], limit: int | None = None) -> str:
    """Names for an error, those first that are close to a wrong one; `…` where some are left out.

    Empty where there are none.
    """
    every = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, every, n=max(1, len(every)), cutoff=0.5)
    listed = [*close, *(other for other in every if other not in close)]
    more = ["…"] if limit is not None and len(listed) > limit else []
    return ", ".join([*listed[:limit], *more])


def list_absent(markets: Markets, selection: Selection) -> list[str]:
    """The exchanges and symbols of a selection of which there is no market in it."""
    inside = [market for market in markets if _is_in(market, selection)]
    present = {name for market in inside for name in market}
    return [name for name in (*selection.exchanges, *selection.symbols) if name not in present]


def require_markets(where: str, markets: Markets, selection: Selection) -> None:
    """Refuse a selection that names an exchange or symbol without a market.

    Parameters
    ----------
    where
        What has the markets: tables.

    Raises
    ------
    UnknownNameError
        Names the closest.
    """
    absent = list_absent(markets, selection)
    if not absent:
        return
    unheld = [name for name in absent if name in selection.symbols] or [*selection.symbols]
    exchanges = sorted({exchange for exchange, _ in markets})
    if absent[0] in selection.exchanges and absent[0] not in exchanges:
        listed = list_closest(absent[0], exchanges) or "none"
        raise UnknownNameError(f"{where}: no rows of exchange {absent[0]}", f"Exchanges: {listed}.")
    raise _unknown_symbols(where, unheld, markets, selection)


def _unknown_symbols(
    where: str, symbols: Sequence[str], markets: Markets, selection: Selection
) -> UnknownNameError:
    of_exchanges = Selection(selection.exchanges)
    held = sorted({market[1] for market in markets if _is_in(market, of_exchanges)})
    named = " ".join([", ".join(selection.exchanges), ", ".join(symbols)]).strip()
    listed = list_closest(symbols[0], held, limit=_LISTED) or "none"
    return UnknownNameError(f"{where}: no rows of {named}", f"Symbols: {listed}.")


def _is_in(market: tuple[str, str], selection: Selection) -> bool:
    exchange, symbol = market
    return (not selection.exchanges or exchange in selection.exchanges) and (
        not selection.symbols or symbol in selection.symbols
    )


def _existing(family: str, families: Families) -> Sequence[str]:
    if not families[family]:
        raise UnknownNameError(
            f"there is no table of {family} yet", f"Ingest one: `lake ingest {family} --help`."
        )
    return families[family]


def _require_family(names: Sequence[str], timeframes: Sequence[str], families: Families) -> None:
    if timeframes and not any(name in families for name in names):
        raise UsageError(
            f"timeframe {', '.join(timeframes)} is given, but no dataset that has timeframes",
            f"Give it with {' or '.join(families)}, or name the table: bars_1h.",
        )
