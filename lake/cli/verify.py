"""`lake verify`: compare the files of tables with what was committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lake.cli.options import Tables, Timeframes, which
from lake.cli.output import show
from lake.cli.partial import show_done
from lake.cli.session import Format, Session, command
from lake.errors import DamagedError
from lake.model.words import count

if TYPE_CHECKING:
    from lake.store.verify import TableVerification

_GROUP_HELP = "Compare files of tables with what was committed; see also `lake bundle verify`."


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help=_GROUP_HELP)
    group.command("table")(command(verify_table))
    app.add_typer(group, name="verify")


def verify_table(session: Session, table: Tables = None, timeframe: Timeframes = None) -> None:
    """Compare live files with the SHA-256 recorded at commit; exit with 3 at a mismatch.

    lake verify table bars_1m

    Files without a recorded hash, of an earlier version or of another program, are listed as
    `unrecorded`; they are no mismatch.
    """
    from lake.store.verify import TableVerification

    maintenance, progress = session.lake().maintenance, session.progress()
    tables = which(table, timeframe)
    show_done(
        lambda: maintenance.verify(**tables, progress=progress),
        TableVerification,
        lambda result: _show_verification(session, result),
    )


def _show_verification(session: Session, result: TableVerification) -> None:
    """Show what was verified; mismatches are an error, whatever else could not be verified."""
    import polars as pl

    problems = result.problems
    if session.format is not Format.table:
        show(session, result.files)
    elif problems.height:
        show(session, problems)
    else:
        show(session, result.tables)
    files, unrecorded = result.tables.select(pl.col("files", "unrecorded").sum()).row(0)
    if unrecorded:
        session.stderr().print(
            f"{unrecorded:,} of {count(files, 'file')} without a checksum: an earlier version of "
            "lake or another program wrote them, or their writer crashed.",
            soft_wrap=True,
        )
    if problems.height:
        names = ", ".join(problems["table"].unique().sort())
        is_commit = (pl.col("kind") == "missing") & pl.col("found").is_not_null()
        commits = problems.filter(is_commit).select("table", "found").iter_rows()
        vanished = "".join(f"; {name}: {found}" for name, found in commits)
        raise DamagedError(
            f"{count(problems.height, 'file')} of {names} "
            f"{'differs' if problems.height == 1 else 'differ'} from what was committed{vanished}",
            "Check the disk, and restore the files from a backup. `lake bundle verify` says which "
            "bundles are affected.",
        )
    whole = files - unrecorded
    state = "is as it was" if whole == 1 else "are as they were"
    session.stderr().print(f"{count(whole, 'file')} {state} committed.")
