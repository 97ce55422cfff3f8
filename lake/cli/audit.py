"""`lake audit`: what each commit did and why, and which jobs ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.options import Tables, Timeframes, where, which
from lake.cli.output import show
from lake.cli.session import Format, Session, command
from lake.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

_WHY_CHARACTERS = 44


def add_to(app: typer.Typer) -> None:
    app.command("audit")(command(audit))


def audit(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    exchange: Annotated[
        list[str] | None,
        typer.Option("--exchange", "-e", help="Touching files of it; may be repeated."),
    ] = None,
    symbol: Annotated[
        list[str] | None,
        typer.Option("--symbol", "-s", help="Touching files of it; may be repeated."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Committed (started, with --jobs) at this time or later.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="And before this time.")] = None,
    jobs: Annotated[bool, typer.Option("--jobs", help="Show jobs instead of commits.")] = False,
    job: Annotated[
        str | None, typer.Option(metavar="ID", help="Of this job, or of all whose id begins so.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Of this source, as ccxt:binance.")] = None,
    operation: Annotated[str | None, typer.Option(help="As merge, write, delete.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
) -> None:
    """Show who wrote what, when and why: commits with job, source and counts, newest first.

    lake audit bars_1m --since 7d -s BTC/USDT
    """
    lake = session.lake()
    if jobs:
        _require_none_of(table, timeframe, source, operation, exchange, symbol)
        found = lake.jobs(since=since, until=until, job=job).reverse().head(limit)
    else:
        found = lake.audit(
            **which(table, timeframe),
            **where(exchange, symbol, since, until),
            job=job,
            source=source,
            operation=operation,
            limit=limit,
        )
    show(session, _narrowed(found) if session.format is Format.table else found)


def _require_none_of(*choices: object) -> None:
    if any(choices):
        raise UsageError(
            "--jobs shows all that ran, whatever they wrote",
            "With --jobs, choose by --since, --until and --job; without it, by any.",
        )


def _narrowed(found: pl.DataFrame) -> pl.DataFrame:
    """What fits into a terminal: every other format has all."""
    import polars as pl

    found = found.drop("exchange", "symbol", "date", "digest", "arguments", strict=False)
    if "why" not in found.columns:
        return found
    why = pl.col("why")
    short = pl.when(why.str.len_chars() > _WHY_CHARACTERS).then(
        why.str.slice(0, _WHY_CHARACTERS - 1) + "…"
    )
    return found.with_columns(short.otherwise(why).alias("why"))
