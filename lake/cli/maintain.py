"""`lake maintain`: compact tables, write checkpoints, delete unneeded files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.options import Tables, Timeframes, which
from lake.cli.output import show
from lake.cli.partial import show_done
from lake.cli.session import Session, command
from lake.errors import UsageError
from lake.model.words import count

if TYPE_CHECKING:
    import polars as pl

    from lake.store.vacuum import VacuumReport

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list the files to delete.")]
Yes = Annotated[bool, typer.Option("--yes", help="Confirm the deletion.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Compact tables, delete unneeded files.")
    for verb in (optimize, vacuum, checkpoint, gc):
        group.command(verb.__name__)(command(verb))
    app.add_typer(group, name="maintain")


def optimize(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    before: Annotated[
        str | None, typer.Option(help="Compact dates that ended by this time; default: today.")
    ] = None,
) -> None:
    """Compact closed dates, and many small files of others; compare the rows by digest.

    `lake maintain vacuum` deletes the old files.
    """
    import polars as pl

    maintenance, progress = session.lake().maintenance, session.progress()
    tables = which(table, timeframe)
    show_done(
        lambda: maintenance.optimize(**tables, before=before, progress=progress),
        pl.DataFrame,
        lambda result: _show_compacted(session, result),
    )


def vacuum(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    keep: Annotated[
        str,
        typer.Option(metavar="DURATION", help="Keep versions of this time: 7d, 24h; minimum 1h."),
    ] = "7d",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete data files that neither a recent version nor a bundle needs.

    Files of bundles stay, whatever --keep says, until `lake bundle rm`.
    """
    _require_choice(session, "vacuum", dry_run=dry_run, yes=yes)
    from lake.store.vacuum import VacuumReport

    maintenance, tables = session.lake().maintenance, which(table, timeframe)
    show_done(
        lambda: maintenance.vacuum(**tables, keep=keep, dry_run=dry_run),
        VacuumReport,
        lambda report: _show_deleted(session, report, dry_run=dry_run),
    )


def checkpoint(session: Session, table: Tables = None, timeframe: Timeframes = None) -> None:
    """Write a checkpoint of each table's log, so that it opens faster."""
    import polars as pl

    maintenance, tables = session.lake().maintenance, which(table, timeframe)
    show_done(
        lambda: maintenance.checkpoint(**tables), pl.DataFrame, lambda result: show(session, result)
    )


def gc(session: Session, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Delete unfinished bundles and temporary files of crashed runs."""
    _require_choice(session, "gc", dry_run=dry_run, yes=yes)
    leftovers = session.lake().maintenance.gc(dry_run=dry_run)
    show(session, leftovers)
    _note(session, _summary(leftovers, "leftover", dry_run=dry_run))


def _show_compacted(session: Session, result: pl.DataFrame) -> None:
    show(session, result)
    total = result.sum()
    _note(
        session,
        f"Compacted {count(total['dates'][0], 'date')}: "
        f"{count(total['files_before'][0], 'file')} became "
        f"{total['files_after'][0]:,}.",
    )


def _show_deleted(session: Session, report: VacuumReport, *, dry_run: bool) -> None:
    show(session, report.files)
    _note_held(session, report)
    _note(session, _summary(report.files, "file", dry_run=dry_run))


def _require_choice(session: Session, verb: str, *, dry_run: bool, yes: bool) -> None:
    if dry_run == yes:
        command = f"lake maintain {verb}{session.lake_option}"
        raise UsageError(
            f"lake maintain {verb} deletes files; confirm with --yes",
            f"`{command} --dry-run` lists them, `{command} --yes` deletes them.",
        )


def _note_held(session: Session, report: VacuumReport) -> None:
    for bundle, name, table, files, size in report.held.iter_rows():
        _note(
            session,
            f"Bundle {name} ({bundle[:12]}) needs {count(files, 'file')} of {table}, "
            f"{size / 1e6:,.1f} MB. `lake bundle rm {name}{session.lake_option}` gives it up.",
        )


def _summary(files: pl.DataFrame, what: str, *, dry_run: bool) -> str:
    verb = "would be deleted" if dry_run else "deleted"
    return f"{count(files.height, what)} {verb}, {int(files['bytes'].sum()) / 1e6:,.1f} MB."


def _note(session: Session, text: str) -> None:
    session.stderr().print(text, soft_wrap=True)
