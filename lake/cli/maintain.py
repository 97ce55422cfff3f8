"""`lake maintain`: compact tables, and delete what neither they nor a bundle need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.options import Tables, Timeframes, which
from lake.cli.output import show
from lake.cli.session import Session, command
from lake.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from lake.store.vacuum import VacuumReport

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")]
Yes = Annotated[bool, typer.Option("--yes", help="Delete it.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Compact tables, delete what nobody needs.")
    for verb in (optimize, vacuum, checkpoint, gc):
        group.command(verb.__name__)(command(verb))
    app.add_typer(group, name="maintain")


def optimize(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    before: Annotated[
        str | None, typer.Option(help="Compact dates that ended by then; by default by today.")
    ] = None,
) -> None:
    """Make one file of the many of each closed date; every row stays, checked by its digest.

    The old files stay until `lake maintain vacuum`.
    """
    done = session.lake().maintenance.optimize(
        **which(table, timeframe), before=before, progress=session.progress()
    )
    show(session, done)
    total = done.sum()
    _note(
        session,
        f"Compacted {total['dates'][0]:,} dates: {total['files_before'][0]:,} files became "
        f"{total['files_after'][0]:,}.",
    )


def vacuum(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    keep: Annotated[
        str, typer.Option(metavar="DURATION", help="Versions of this time stay: 7d, 24h; 1h least.")
    ] = "7d",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete data files that neither a recent version nor a bundle needs.

    What a bundle needs stays, whatever --keep says, until `lake bundle rm`.
    """
    _require_choice("vacuum", dry_run=dry_run, yes=yes)
    report = session.lake().maintenance.vacuum(
        **which(table, timeframe), keep=keep, dry_run=dry_run
    )
    show(session, report.files)
    _tell_held(session, report)
    _note(session, _summary(report.files, "files", dry_run=dry_run))


def checkpoint(session: Session, table: Tables = None, timeframe: Timeframes = None) -> None:
    """Write checkpoints of the tables' logs, which make them quicker to open."""
    show(session, session.lake().maintenance.checkpoint(**which(table, timeframe)))


def gc(session: Session, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Delete unfinished bundles and temporary files that crashes left behind."""
    _require_choice("gc", dry_run=dry_run, yes=yes)
    leftovers = session.lake().maintenance.gc(dry_run=dry_run)
    show(session, leftovers)
    _note(session, _summary(leftovers, "leftovers", dry_run=dry_run))


def _require_choice(verb: str, *, dry_run: bool, yes: bool) -> None:
    if dry_run == yes:
        raise UsageError(
            f"lake maintain {verb} deletes files: say whether it shall",
            f"`lake maintain {verb} --dry-run` shows what would go, and "
            f"`lake maintain {verb} --yes` deletes it.",
        )


def _tell_held(session: Session, report: VacuumReport) -> None:
    for bundle, name, table, files, size in report.held.iter_rows():
        _note(
            session,
            f"Bundle {name} ({bundle[:12]}) holds back {files:,} files of {table}, "
            f"{size / 1e6:,.1f} MB. `lake bundle rm {name}` would release them.",
        )


def _summary(files: pl.DataFrame, what: str, *, dry_run: bool) -> str:
    verb = "would be deleted" if dry_run else "deleted"
    return f"{files.height:,} {what} {verb}, {int(files['bytes'].sum()) / 1e6:,.1f} MB."


def _note(session: Session, text: str) -> None:
    session.stderr().print(text, highlight=False, markup=False, soft_wrap=True)
