"""`lake audit`: list commits with their reasons, and jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.options import Tables, Timeframes, where, which
from lake.cli.output import show
from lake.cli.partial import show_done
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
        typer.Option("--exchange", "-e", help="Commits that changed files of it; repeatable."),
    ] = None,
    symbol: Annotated[
        list[str] | None,
        typer.Option("--symbol", "-s", help="Commits that changed files of it; repeatable."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Start, inclusive, of commit times (with --jobs: of start times)."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="End, exclusive.")] = None,
    jobs: Annotated[bool, typer.Option("--jobs", help="List jobs instead of commits.")] = False,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Job ID or prefix.")] = None,
    source: Annotated[str | None, typer.Option(help="Source, such as ccxt:binance.")] = None,
    operation: Annotated[str | None, typer.Option(help="Operation: merge, write, delete.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of entries, newest first.")] = 100,
) -> None:
    """List commits with job, source, counts and reason, newest first.

    lake audit bars_1m --since 7d -s BTC/USDT
    """
    import polars as pl

    lake = session.lake()
    if jobs:
        _require_none_of(table, timeframe, source, operation, exchange, symbol)
        _show(session, lake.jobs(since=since, until=until, job=job).reverse().head(limit))
        return
    show_done(
        lambda: lake.audit(
            **which(table, timeframe),
            **where(exchange, symbol, since, until),
            job=job,
            source=source,
            operation=operation,
            limit=limit,
        ),
        pl.DataFrame,
        lambda entries: _show(session, entries),
    )


def _show(session: Session, entries: pl.DataFrame) -> None:
    show(session, _narrow(entries) if session.format is Format.table else entries)


def _require_none_of(*choices: object) -> None:
    if any(choices):
        raise UsageError(
            "--jobs cannot be combined with options that select commits",
            "With --jobs, use only --since, --until and --job.",
        )


def _narrow(entries: pl.DataFrame) -> pl.DataFrame:
    """Keep the columns that fit a terminal."""
    import polars as pl

    entries = entries.drop("exchange", "symbol", "date", "digest", "arguments", strict=False)
    if "clock" in entries.columns and entries["clock"].null_count() == entries.height:
        entries = entries.drop("clock")
    if "why" not in entries.columns:
        return entries
    why = pl.col("why")
    short = pl.when(why.str.len_chars() > _WHY_CHARACTERS).then(
        why.str.slice(0, _WHY_CHARACTERS - 1) + "…"
    )
    return entries.with_columns(short.otherwise(why).alias("why"))
