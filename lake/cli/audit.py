"""`lake audit`: what each commit did, and which jobs ran."""

from __future__ import annotations

from typing import Annotated

import typer

from lake.cli.output import show
from lake.cli.session import Format, Session, command


def add_to(app: typer.Typer) -> None:
    app.command("audit")(command(audit))


def audit(
    session: Session,
    table: Annotated[str | None, typer.Argument(help="Only this table.")] = None,
    jobs: Annotated[bool, typer.Option("--jobs", help="Show jobs instead of commits.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
) -> None:
    """Show who wrote what, when: commits with job, source and counts, newest first."""
    lake = session.lake()
    found = lake.jobs().reverse().head(limit) if jobs else lake.audit(table, limit)
    if session.format is Format.table:
        found = found.drop("exchange", "symbol", "date", "digest", "arguments", strict=False)
    show(session, found)
