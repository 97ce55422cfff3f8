"""`lake migrate`: list or make what the tables of a lake need for this version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.output import show
from lake.cli.partial import show_done
from lake.cli.session import Session, command
from lake.model.words import count

if TYPE_CHECKING:
    import polars as pl


def add_to(app: typer.Typer) -> None:
    app.command("migrate")(command(migrate))


def migrate(
    session: Session,
    granularity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE=day|month|year",
            help="Change how the files of a table are kept; otherwise only what a release needs.",
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Make the steps; otherwise only list them.")
    ] = False,
) -> None:
    """List what tables need to be as the dataset files say; make it with --apply.

    Bundles keep the files that they need. Run the command again if it was interrupted.
    """
    import polars as pl

    from lake.model.catalog import parse_granularity

    chosen = dict(parse_granularity(text) for text in granularity or [])
    maintenance, progress = session.lake().maintenance, session.progress()
    show_done(
        lambda: maintenance.migrate(chosen, apply=apply, progress=progress),
        pl.DataFrame,
        lambda steps: _show_steps(session, steps, apply=apply),
    )


def _show_steps(session: Session, steps: pl.DataFrame, *, apply: bool) -> None:
    show(session, steps)
    text = f"Made {count(steps.height, 'step')}."
    if steps.is_empty():
        text = "Nothing to migrate."
    elif not apply:
        text = f"{count(steps.height, 'step')} to make with --apply; nothing was changed."
    session.stderr().print(text)
