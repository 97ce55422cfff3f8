"""`lake bundle`: pin tables; list, verify, compare, export and import bundles."""

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
from lake.model.words import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import polars as pl

    from lake.api.bundles import Bundles
    from lake.bundles.bundle import Bundle

Reference = Annotated[str, typer.Argument(help="Bundle: NAME, ID or NAME@ID.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Pin tables; verify, compare, export bundles.")
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
    name: Annotated[str, typer.Argument(help="Name of the bundle.")],
    table: Annotated[list[str], typer.Argument(help="Tables, such as bars_1m trades.")],
    timeframe: Timeframes = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
    as_of: Annotated[
        str | None, typer.Option(help="Pin the tables as they were at this time.")
    ] = None,
    require_complete: Annotated[
        bool, typer.Option("--require-complete", help="Refuse if the coverage has holes.")
    ] = False,
    min_quality: Annotated[
        float | None, typer.Option(help="Minimum quality score, 0 to 1.", min=0, max=1)
    ] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Pin without a check and without a score.")
    ] = False,
    note: Annotated[str, typer.Option(help="Note for the manifest.")] = "",
    move: Annotated[
        bool, typer.Option("--move", help="Move an existing name to the new bundle.")
    ] = False,
) -> None:
    """Pin a selection of tables: reads of the bundle never change.

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
    """Show a bundle and how to read it; with --json the whole manifest."""
    bundle = session.lake().bundles.open(reference)
    if session.format in (Format.json, Format.ndjson):
        show_record(session, bundle.manifest.model_dump(mode="json"))
        return
    _summary(session, bundle, reference)
    for language, example in bundle.manifest.access.items():
        session.stderr().print(f"\n{language}", style="bold")
        session.stderr().print(example, soft_wrap=True)


def verify(
    session: Session,
    reference: Reference,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Read every row and compare the digest of each market-day."),
    ] = False,
) -> None:
    """Verify every file of a bundle; exit with 3 at a mismatch."""
    import polars as pl

    bundle = session.lake().bundles.open(reference)
    problems = bundle.verify(deep=deep, progress=session.progress())
    schema = dict.fromkeys(("kind", "place", "expected", "found"), pl.String())
    if problems or session.format is not Format.table:
        show(session, pl.DataFrame([asdict(problem) for problem in problems], schema=schema))
    if problems:
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(p.kind for p in problems).items())
        raise DamagedError(
            f"bundle {reference} differs from what was pinned: {kinds}",
            "Restore the named files from a backup or an export.",
        )
    session.stderr().print(f"Bundle {reference} is whole.")


def warm(
    session: Session,
    reference: Reference,
    table: Tables = None,
    timeframe: Timeframes = None,
) -> None:
    """Fill the cache with a bundle's rows, so that reads need not decode files."""
    size = (
        session.lake()
        .bundles.open(reference)
        .warm(**which(table, timeframe), progress=session.progress())
    )
    text = f"Cached {size:,} bytes." if size else "Cached already: nothing was written."
    session.stderr().print(text)


def export(
    session: Session,
    reference: Reference,
    path: Annotated[
        Path, typer.Argument(help="New file NAME.tar.zst, or new folder.", show_default=False)
    ],
) -> None:
    """Export a bundle with its data to a file or folder that opens without a lake.

    lake bundle export research-1 research-1.tar.zst
    """
    bundle = session.lake().bundles.open(reference, cache=False)
    target = bundle.export(path, progress=session.progress())
    if session.format in (Format.json, Format.ndjson):
        show_record(session, {"id": bundle.id, "path": str(target)})
    session.stderr().print(
        f"Exported bundle {bundle.id} to {target}.",
        soft_wrap=True,
    )


def import_bundle(
    session: Session,
    path: Annotated[Path, typer.Argument(help="Exported file or folder.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="Name of the bundle; default: none, open it by ID.")
    ] = None,
    move: Annotated[
        bool, typer.Option("--move", help="Move an existing name to the bundle.")
    ] = False,
) -> None:
    """Import an exported bundle after a full check; exit with 3 if it is damaged.

    lake bundle import research-1.tar.zst --name research-1
    """
    bundle = session.lake().bundles.import_(path, name=name, move=move, progress=session.progress())
    _summary(session, bundle, name or bundle.id[:12])


def remove(
    session: Session,
    reference: Reference,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the removal.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only name the bundle to remove.")
    ] = False,
) -> None:
    """Remove a bundle and its names; files that only it needs may be vacuumed."""
    bundles = session.lake().bundles
    bundle_id = bundles.resolve(reference)
    if dry_run:
        session.stderr().print(f"Would remove bundle {bundle_id}.")
        return
    if not yes:
        raise UsageError(
            f"removing bundle {reference} lets `lake maintain vacuum` delete what only it needs",
            "Confirm with --yes; --dry-run only names the bundle.",
        )
    bundle_id, names = bundles.rm(reference)
    named = f" ({', '.join(names)})" if names else ""
    session.stderr().print(f"Removed bundle {bundle_id}{named}.", soft_wrap=True)


def diff(
    session: Session,
    before: Annotated[str, typer.Argument(metavar="A", help="Bundle: NAME, ID or NAME@ID.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Bundle to compare it with.")],
    table: Tables = None,
    timeframe: Timeframes = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="List each row and value that differs.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Maximum number of lines.", min=1)] = None,
) -> None:
    """List market-days that differ between bundles A and B, and the jobs that wrote them.

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
    session.stderr().print(_describe_diff(before, after, days), soft_wrap=True)


def _note_reshaped(
    session: Session, bundles: Bundles, before: str, after: str, days: pl.DataFrame
) -> None:
    from lake.bundles.diff import list_reshaped_tables

    contents = [bundles.open(reference, cache=False).contents for reference in (before, after)]
    for name in list_reshaped_tables(*contents):
        if name in days["table"]:
            note = f"{name} has other columns in {after}: each of its days counts as changed."
            session.stderr().print(note, soft_wrap=True)


def _first(frames: Iterable[pl.DataFrame], limit: int) -> Iterator[pl.DataFrame]:
    for frame in frames:
        yield frame.head(limit)
        limit -= min(limit, frame.height)
        if not limit:
            return


def _describe_diff(before: str, after: str, days: pl.DataFrame) -> str:
    if days.is_empty():
        return f"{before} and {after} hold the same rows."
    counts = Counter(days["change"])
    parts = [f"{counts[kind]:,} {kind}" for kind in ("added", "removed", "changed") if counts[kind]]
    sums = (
        f"{count(int(days['rows_before'].sum()), 'row')} before, {days['rows_after'].sum():,} after"
    )
    return f"From {before} to {after}, market-days: {', '.join(parts)}; in them {sums}."


def _summary(session: Session, bundle: Bundle, name: str) -> None:
    import polars as pl

    from lake.bundles.left_out import describe_left_out

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
    lines = [f"Bundle {name}: {bundle.id}"]
    lines += describe_left_out(ref for _, ref in bundle.manifest.refs())
    if bundle.manifest.quality_report is not None:
        score = rounded_down(bundle.manifest.metadata.data_quality_score)
        command = f"lake quality report --bundle {name}{session.lake_option}"
        lines.append(f"Quality score {score}: `{command}` explains it.")
    session.stderr().print("\n".join(lines), soft_wrap=True)
