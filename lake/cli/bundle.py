"""`lake bundle`: pin versions of tables, list, show and verify what is pinned."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.options import Exchange, Since, Symbol, Tables, Timeframes, Until, where, which
from lake.cli.output import rounded_down, show, show_record, show_stream
from lake.cli.session import Format, Session, command
from lake.errors import DamagedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import polars as pl

    from lake.api.bundles import Bundles
    from lake.bundles.bundle import Bundle

Reference = Annotated[str, typer.Argument(help="A bundle's NAME, ID, or NAME@ID.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Pin versions of tables for ever.")
    group.command("pin")(command(pin))
    group.command("ls")(command(list_bundles))
    group.command("show")(command(show_bundle))
    group.command("verify")(command(verify))
    group.command("warm")(command(warm))
    group.command("export")(command(export))
    group.command("import")(command(import_bundle))
    group.command("rm")(command(remove))
    group.command("diff")(command(diff))
    app.add_typer(group, name="bundle")


def pin(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name by which it is opened.")],
    table: Annotated[list[str], typer.Argument(help="Tables as bars_1m, trades.")],
    timeframe: Timeframes = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
    as_of: Annotated[
        str | None, typer.Option(help="Pin the tables as they were at this time.")
    ] = None,
    require_complete: Annotated[
        bool, typer.Option("--require-complete", help="Refuse where an interval is not answered.")
    ] = False,
    min_quality: Annotated[
        float | None, typer.Option(help="Refuse below this quality score.", min=0, max=1)
    ] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Pin without checking, and without a score.")
    ] = False,
    note: Annotated[str, typer.Option(help="A note for the manifest.")] = "",
    move: Annotated[
        bool, typer.Option("--move", help="Let a name that exists point to the new bundle.")
    ] = False,
) -> None:
    """Pin a selection of tables as they are now: what is read from it never changes.

    lake bundle pin research-1 bars_1m trades -e binance -s BTC/USDT --since 2026-01-01
    """
    bundle = session.lake().bundles.pin(
        name,
        **which(table, timeframe),
        **where(exchange, symbol, since, until),
        as_of=as_of,
        require_complete=require_complete,
        min_quality=min_quality,
        check=not no_check,
        note=note,
        move=move,
        progress=session.progress(),
    )
    _summary(session, bundle, name)


def list_bundles(session: Session) -> None:
    """List the bundles."""
    show(session, session.lake().bundles.ls())


def show_bundle(session: Session, reference: Reference) -> None:
    """Show what a bundle pins, and how to read it; with --json the whole manifest."""
    bundle = session.lake().bundles.open(reference)
    if session.format in (Format.json, Format.ndjson):
        show_record(session, bundle.manifest.model_dump(mode="json"))
        return
    _summary(session, bundle, reference)
    for language, example in bundle.manifest.access.items():
        session.stderr().print(f"\n[bold]{language}[/bold]")
        session.stderr().print(example, highlight=False, markup=False, soft_wrap=True)


def verify(
    session: Session,
    reference: Reference,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every row, against the digest of its day.")
    ] = False,
) -> None:
    """Check every file of a bundle; exit code 3 where something is not as it was pinned."""
    import polars as pl

    bundle = session.lake().bundles.open(reference)
    problems = bundle.verify(deep=deep, progress=session.progress())
    schema = dict.fromkeys(("kind", "place", "expected", "found"), pl.String())
    if problems or session.format is not Format.table:
        show(session, pl.DataFrame([asdict(problem) for problem in problems], schema=schema))
    if problems:
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(p.kind for p in problems).items())
        raise DamagedError(
            f"bundle {reference} is not what was pinned: {kinds}",
            "Restore the named files from a backup or an export.",
        )
    session.stderr().print(f"Bundle {reference} is whole.", highlight=False)


def warm(
    session: Session,
    reference: Reference,
    table: Tables = None,
    timeframe: Timeframes = None,
) -> None:
    """Put a bundle's rows into the cache: the next reads map them instead of decoding files."""
    size = (
        session.lake()
        .bundles.open(reference)
        .warm(**which(table, timeframe), progress=session.progress())
    )
    session.stderr().print(f"{size:,} bytes were put into the cache.", highlight=False)


def export(
    session: Session,
    reference: Reference,
    path: Annotated[
        Path, typer.Argument(help="A new file NAME.tar.zst, or a new folder.", show_default=False)
    ],
) -> None:
    """Write a bundle with its data to a file or folder: it opens anywhere, without the lake.

    lake bundle export research-1 research-1.tar.zst
    """
    bundle = session.lake().bundles.open(reference, cache=False)
    target = bundle.export(path, progress=session.progress())
    if session.format in (Format.json, Format.ndjson):
        show_record(session, {"id": bundle.id, "path": str(target)})
    session.stderr().print(
        f"Exported bundle {bundle.id} to {target}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def import_bundle(
    session: Session,
    path: Annotated[
        Path, typer.Argument(help="What `lake bundle export` wrote.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="Name by which it is opened; its ID by default.")
    ] = None,
    move: Annotated[
        bool, typer.Option("--move", help="Let a name that exists point to the bundle.")
    ] = False,
) -> None:
    """Put an exported bundle into this lake, after checking all of it; exit code 3: not whole.

    lake bundle import research-1.tar.zst --name research-1
    """
    bundle = session.lake().bundles.import_(path, name=name, move=move, progress=session.progress())
    _summary(session, bundle, name or bundle.id[:12])


def remove(
    session: Session,
    reference: Reference,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Release a bundle: what only it needs may be vacuumed. Its names go with it."""
    bundles = session.lake().bundles
    bundle_id = bundles.resolve(reference)
    if dry_run:
        session.stderr().print(f"Would remove bundle {bundle_id}.", highlight=False)
        return
    if not yes:
        raise UsageError(
            f"removing bundle {reference} lets `lake maintain vacuum` delete what only it needs",
            "Add --yes to do it, or --dry-run to see.",
        )
    bundle_id, names = bundles.rm(reference)
    named = f" ({', '.join(names)})" if names else ""
    session.stderr().print(f"Removed bundle {bundle_id}{named}.", highlight=False, soft_wrap=True)


def diff(
    session: Session,
    before: Annotated[str, typer.Argument(metavar="A", help="A bundle's NAME, ID, or NAME@ID.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The one that it is compared with.")],
    table: Tables = None,
    timeframe: Timeframes = None,
    rows: Annotated[bool, typer.Option("--rows", help="Each row and value that differs.")] = False,
    limit: Annotated[int | None, typer.Option(help="Print this many lines at most.", min=1)] = None,
) -> None:
    """Show which market-days differ between bundles A and B, and which jobs wrote into them.

    lake bundle diff research-1 research-2 --rows
    """
    bundles = session.lake().bundles
    days = bundles.diff(before, after, **which(table, timeframe))
    _note_reshaped(session, bundles, before, after, days)
    frames: Iterable[pl.DataFrame] = [days]
    if rows:
        frames = bundles.diff(before, after, **which(table, timeframe), rows=True)
    if days.height or session.format is not Format.table:
        show_stream(session, frames if limit is None else _first(frames, limit))
    session.stderr().print(_compared(before, after, days), highlight=False, soft_wrap=True)


def _note_reshaped(
    session: Session, bundles: Bundles, before: str, after: str, days: pl.DataFrame
) -> None:
    from lake.bundles.diff import list_reshaped_tables

    contents = [bundles.open(reference, cache=False).contents for reference in (before, after)]
    for name in list_reshaped_tables(*contents):
        if name in days["table"]:
            note = f"{name} has other columns in {after}: each of its days counts as changed."
            session.stderr().print(note, highlight=False, soft_wrap=True)


def _first(frames: Iterable[pl.DataFrame], limit: int) -> Iterator[pl.DataFrame]:
    for frame in frames:
        yield frame.head(limit)
        limit -= min(limit, frame.height)
        if not limit:
            return


def _compared(before: str, after: str, days: pl.DataFrame) -> str:
    if days.is_empty():
        return f"{before} and {after} hold the same rows."
    counts = Counter(days["change"])
    told = [f"{counts[kind]:,} {kind}" for kind in ("added", "removed", "changed") if counts[kind]]
    sums = f"{days['rows_before'].sum():,} rows before, {days['rows_after'].sum():,} after"
    return f"From {before} to {after}, market-days: {', '.join(told)}; in them {sums}."


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
    told = [f"Bundle {name}: {bundle.id}"]
    if bundle.manifest.quality_report is not None:
        score = rounded_down(bundle.manifest.metadata.data_quality_score)
        told.append(f"Quality score {score}: `lake quality report --bundle {name}` says why.")
    session.stderr().print("\n".join(told), highlight=False, soft_wrap=True)
