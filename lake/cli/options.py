"""Options that select rows, shared by several commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypedDict

import typer

Table = Annotated[str, typer.Argument(help="Table, such as bars_1m or trades.")]
Tables = Annotated[list[str] | None, typer.Argument(help="Tables, such as bars_1m; default: all.")]
Timeframe = Annotated[
    str | None, typer.Option("--timeframe", "-t", help="Timeframe of bars: 1m, 1h, …")
]
Timeframes = Annotated[
    list[str] | None,
    typer.Option("--timeframe", "-t", help="Timeframe of bars: 1m, 1h, …; repeatable."),
]
Exchange = Annotated[
    list[str] | None, typer.Option("--exchange", "-e", help="Exchange; repeatable; default: all.")
]
Symbol = Annotated[
    list[str] | None, typer.Option("--symbol", "-s", help="Symbol; repeatable; default: all.")
]
Since = Annotated[str | None, typer.Option(help="Start, inclusive: 2026-01-01, 7d, now.")]
Until = Annotated[str | None, typer.Option(help="End, exclusive: 2026-01-01, 7d, now.")]


class Which(TypedDict):
    """What the API takes for tables and their timeframes; all where none is named."""

    table: Sequence[str]
    timeframe: Sequence[str]


def which(table: Sequence[str] | None, timeframe: Sequence[str] | None) -> Which:
    """The arguments and options as the API takes them."""
    return Which(table=table or (), timeframe=timeframe or ())


class Where(TypedDict):
    """The keyword arguments of the API for these options."""

    exchange: Sequence[str]
    symbol: Sequence[str]
    since: str | None
    until: str | None


def where(
    exchange: Sequence[str] | None,
    symbol: Sequence[str] | None,
    since: str | None = None,
    until: str | None = None,
) -> Where:
    """Return the options as keyword arguments of the API."""
    return Where(
        exchange=exchange or (),
        symbol=symbol or (),
        since=since,
        until=until,
    )
