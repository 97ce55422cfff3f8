"""`lake sandbox`: serve the embedded exchange."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lake.cli.session import Format, Session, command


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Serve an exchange on this machine, for tests.")
    group.command("serve")(command(serve))
    app.add_typer(group, name="sandbox")


def serve(
    session: Session,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free port.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic market.")] = 0,
    recorded: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Serve recorded Parquet files instead of a synthetic market."
        ),
    ] = None,
    weight_limit: Annotated[
        bool, typer.Option(help="Refuse clients above the rate limit, as the venue does.")
    ] = True,
) -> None:
    """Serve the sandbox exchange until interrupted: Binance's dialect, spot and USD-M.

    Point lake at it with LAKE_EXCHANGES__BINANCE__URL=http://127.0.0.1:PORT
    """
    from lake.sandbox import RecordedMarkets, SyntheticMarkets
    from lake.sandbox import serve as run

    def ready(url: str) -> None:
        if session.format is Format.table:
            sys.stdout.write(
                f"Sandbox exchange at {url}\nexport LAKE_EXCHANGES__BINANCE__URL={url}\n"
            )
        else:
            sys.stdout.write(json.dumps({"url": url}) + "\n")
        sys.stdout.flush()

    data = RecordedMarkets(recorded) if recorded is not None else SyntheticMarkets(seed=seed)
    run(data, port=port, weight_limit=weight_limit, on_ready=ready)
