"""Options by which several commands select rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypedDict

import typer

Table = Annotated[str, typer.Argument(help="As bars_1m, trades.")]
Tables = Annotated[list[str] | None, typer.Argument(help="Tables as bars_1m; all by default.")]
Timeframe = Annotated[
    str | None, typer.Option("--timeframe", "-t", help="Of bars: 1m, 1h, …; or name bars_1h.")
]
Timeframes = Annotated[
    list[str] | None,
    typer.Option("--timeframe", "-t", help="Of bars: 1m, 1h, …; may be repeated."),
]
Exchange = Annotated[
    list[str] | None, typer.Option("--exchange", "-e", help="May be repeated; all by default.")
]
Symbol = Annotated[
    list[str] | None, typer.Option("--symbol", "-s", help="May be repeated; all by default.")
]
Since = Annotated[str | None, typer.Option(help="Start, inclusive; all by default.")]
Until = Annotated[str | None, typer.Option(help="End, exclusive; all by default.")]


class Which(TypedDict):
    """What the API takes for tables and their timeframes; all where none is named."""

    table: Sequence[str]
    timeframe: Sequence[str]


def which(table: Sequence[str] | None, timeframe: Sequence[str] | None) -> Which:
    """The arguments and options as the API takes them."""
    return Which(table=table or (), timeframe=timeframe or ())


class Where(TypedDict):
    """What the API takes for these options."""

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
    """The options as the API takes them."""
    return Where(
        exchange=exchange or (),
        symbol=symbol or (),
        since=since,
        until=until,
    )
