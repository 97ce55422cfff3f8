"""`lake migrate`: list or make what the tables of a lake need for this version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.output import show
from lake.cli.partial import show_done
from lake.cli.session import Session, command
from lake.model.words import count

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    lake, progress = session.lake(), session.progress()
    later = {name: kind for name, kind in chosen.items() if not (lake.root.tables / name).exists()}
    show_done(
        lambda: lake.maintenance.migrate(chosen, apply=apply, progress=progress),
        pl.DataFrame,
        lambda steps: _show_steps(session, steps, later, apply=apply),
    )


def _show_steps(
    session: Session, steps: pl.DataFrame, later: Mapping[str, str], *, apply: bool
) -> None:
    """Show the steps, and how tables will be kept that are not stored yet."""
    show(session, steps)
    made = count(steps.height, "step")
    when = "" if apply else "with --apply, "
    lines = [
        f"{name} is not stored yet: {when}it will be kept by {kind}."
        for name, kind in later.items()
    ]
    if steps.height:
        lines.append(
            f"Made {made}." if apply else f"{made} to make with --apply; nothing was changed."
        )
    session.stderr().print("\n".join(lines) or "Nothing to migrate.", soft_wrap=True)
