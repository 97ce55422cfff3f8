"""`lake init`: create a lake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lake.cli.output import show_record
from lake.cli.session import Session, command


def add_to(app: typer.Typer) -> None:
    app.command("init")(command(init))


def init(
    session: Session,
    uri: Annotated[
        str | None, typer.Argument(help="Folder of the new lake; default: that of --lake.")
    ] = None,
    granularity: Annotated[
        list[str] | None,
        typer.Option(
            "--granularity",
            metavar="TABLE=day|month|year",
            help="Partition a table by day, month or year; overrides the dataset file.",
        ),
    ] = None,
) -> None:
    """Create a lake, and a lake.toml that names it if there is none."""
    from lake.api import Lake
    from lake.model.catalog import parse_granularity
    from lake.settings import FILE_NAME

    settings = session.settings()
    if uri is not None:
        settings = settings.model_copy(update={"uri": uri})
    chosen = dict(parse_granularity(text) for text in granularity or [])
    lake = Lake.create(settings, chosen)
    file = Path(FILE_NAME)
    if uri is not None and not file.exists():
        file.write_text(f'uri = "{uri}"\n', encoding="utf-8")
        session.stderr().print(f"Wrote {FILE_NAME}: commands in this folder use this lake.")
    show_record(session, {"lake": str(lake.root.path), "id": lake.root.id})
