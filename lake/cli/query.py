"""`lake sql`, `tables`, `describe`, `status`: query a lake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.options import Exchange, Symbol, Table, Timeframe
from lake.cli.output import show, show_stream, write_parquet
from lake.cli.session import Format, Session, command
from lake.errors import UsageError
from lake.model.words import count

if TYPE_CHECKING:
    import duckdb
    import polars as pl

_BATCH_ROWS = 100_000


def add_to(app: typer.Typer) -> None:
    app.command("sql")(command(sql))
    app.command("tables")(command(tables))
    app.command("describe")(command(describe))
    app.command("status")(command(status))


def sql(
    session: Session,
    query: Annotated[str, typer.Argument(help="One SELECT; every table is a view.")],
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE=VERSION", help="Read a table at a version."),
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(metavar="TIME", help="Read the tables as they were at this time.")
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="Query the tables of this bundle.")] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Write the result to this Parquet file."),
    ] = None,
    allow_files: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Let the query read the files in this folder too."),
    ] = None,
) -> None:
    """Run a DuckDB SQL query over the tables of the lake; it cannot write.

    It reads the lake and nothing else, unless --allow-files opens a folder of your own files.
    """
    lake = session.lake()
    _require_one(bundle, at, as_of)
    if bundle:
        relation = lake.bundles.open(bundle).sql(query, allow_files=allow_files or ())
    else:
        versions = dict(_version(text) for text in at or [])
        relation = lake.sql(query, at=versions, as_of=as_of, allow_files=allow_files or ())
    if to is not None:
        rows = write_parquet(_frames(relation), to)
        session.stderr().print(f"Wrote {count(rows, 'row')} to {to}.")
    else:
        show_stream(session, _frames(relation))


def tables(session: Session) -> None:
    """List the tables: rows, markets, times, size, version."""
    show(session, session.lake().tables())


def describe(
    session: Session,
    table: Table,
    timeframe: Timeframe = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
) -> None:
    """Show the columns of a table: type, unit (of the selected markets), meaning."""
    from lake.query.overview import describe_availability, describe_partitions

    lake = session.lake()
    dataset = lake.dataset(table, timeframe=timeframe)
    if session.format is Format.table:
        text = f"{dataset.title}. {dataset.description}\n"
        if dataset.kind == "data":
            text += f"{describe_availability(dataset)}\n"
        text += f"{describe_partitions(dataset)}\n"
        session.stderr().print(text, soft_wrap=True)
    show(session, lake.describe(dataset.name, exchange=exchange or (), symbol=symbol or ()))


def status(session: Session) -> None:
    """Show rows, coverage, holes, missing rows, what is open and why, and what is unchecked.

    This goes by the log; `lake verify table` looks whether files are missing or changed.
    """
    show(session, session.lake().status())


def _require_one(bundle: str | None, at: list[str] | None, as_of: str | None) -> None:
    if bundle and (at or as_of):
        raise UsageError(
            f"--bundle and {'--at' if at else '--as-of'} cannot be combined",
            "A bundle pins its own versions: leave out --at and --as-of.",
        )
    if at and as_of:
        raise UsageError(
            "--at and --as-of cannot be combined",
            "Give the version of each table by --at, or one time for all by --as-of.",
        )


def _version(text: str) -> tuple[str, int]:
    table, _, version = text.partition("=")
    if not table or not version.isdecimal():
        raise UsageError(f"--at {text}: not TABLE=VERSION", "For example --at bars_1m=3.")
    return table, int(version)


def _frames(relation: duckdb.DuckDBPyRelation) -> Iterator[pl.DataFrame]:
    from lake.query.sql import fetch_batches

    return fetch_batches(relation, _BATCH_ROWS)
