"""`lake bundle`: pin versions of tables, list, show and verify what is pinned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.output import show, show_record
from lake.cli.session import Format, Session, command
from lake.errors import DamagedError
from lake.model.time import parse_time

if TYPE_CHECKING:
    from lake.read.bundles.bundle import Bundle

Reference = Annotated[str, typer.Argument(help="A bundle's NAME, ID, or NAME@ID.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Pin versions of tables for ever.")
    group.command("pin")(command(pin))
    group.command("ls")(command(list_bundles))
    group.command("show")(command(show_bundle))
    group.command("verify")(command(verify))
    app.add_typer(group, name="bundle")


def pin(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name by which it is opened.")],
    dataset: Annotated[
        list[str], typer.Option("--dataset", "-d", help="A table as bars_1m; may be repeated.")
    ],
    exchange: Annotated[
        list[str] | None, typer.Option("--exchange", "-e", help="May be repeated; all by default.")
    ] = None,
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", "-s", help="May be repeated; all by default.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Start, inclusive; all by default.")] = None,
    until: Annotated[str | None, typer.Option(help="End, exclusive; all by default.")] = None,
    note: Annotated[str, typer.Option(help="A note for the manifest.")] = "",
    move: Annotated[
        bool, typer.Option("--move", help="Let a name that exists point to the new bundle.")
    ] = False,
) -> None:
    """Pin a selection of tables as they are now: what is read from it never changes.

    lake bundle pin research-1 -d bars_1m -d trades -e binance -s BTC/USDT --since 2026-01-01
    """
    now = session.now
    bundle = session.lake().pin(
        name,
        dataset,
        exchange=exchange or (),
        symbol=symbol or (),
        since=parse_time(since, now) if since else None,
        until=parse_time(until, now) if until else None,
        note=note,
        move=move,
    )
    _summary(session, bundle, name)


def list_bundles(session: Session) -> None:
    """List the bundles."""
    show(session, session.lake().bundles())


def show_bundle(session: Session, reference: Reference) -> None:
    """Show what a bundle pins, and how to read it; with --json the whole manifest."""
    bundle = session.lake().bundle(reference)
    if session.format in (Format.json, Format.ndjson):
        show_record(session, bundle.manifest.model_dump(mode="json"))
        return
    _summary(session, bundle, reference)
    for language, example in bundle.manifest.access.items():
        session.stderr().print(f"\n[bold]{language}[/bold]")
        session.stderr().print(example, highlight=False, markup=False, soft_wrap=True)


def verify(session: Session, reference: Reference) -> None:
    """Read every pinned row and compare; exit code 3 where something differs."""
    import polars as pl

    bundle = session.lake().bundle(reference)
    differences = bundle.verify()
    rows = [{"place": d.place, "expected": d.expected, "found": d.found} for d in differences]
    schema = {"place": pl.String(), "expected": pl.String(), "found": pl.String()}
    if rows or session.format is not Format.table:
        show(session, pl.DataFrame(rows, schema=schema))
    if differences:
        places = ", ".join(difference.place for difference in differences)
        raise DamagedError(
            f"bundle {reference} is not what was pinned: {places}",
            "Restore the named files from a backup.",
        )
    session.stderr().print(f"Bundle {reference} is whole.", highlight=False)


def _summary(session: Session, bundle: Bundle, name: str) -> None:
    import polars as pl

    refs = [
        {
            "table": ref.table,
            "version": ref.version,
            "rows": ref.rows,
            "first": ref.first,
            "last": ref.last,
            "digest": ref.digest,
        }
        for _, ref in bundle.manifest.refs()
    ]
    if session.format in (Format.json, Format.ndjson):
        metadata = bundle.manifest.metadata.model_dump(mode="json")
        shown = [ref.model_dump(mode="json") for _, ref in bundle.manifest.refs()]
        show_record(session, {"name": name, "id": bundle.id, "metadata": metadata, "refs": shown})
        return
    show(session, pl.DataFrame(refs))
    session.stderr().print(f"Bundle {name}: {bundle.id}", highlight=False, soft_wrap=True)
