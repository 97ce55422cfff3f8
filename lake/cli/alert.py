"""`lake alert`: tell people of what goes wrong in a lake."""

from __future__ import annotations

from typing import Annotated

import typer

from lake.cli.output import show
from lake.cli.session import Format, Session, command
from lake.errors import CommitConflictError


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Tell people of what goes wrong.")
    group.command("test")(command(try_channels))
    group.command("run")(command(run))
    group.command("ls")(command(ls))
    app.add_typer(group, name="alert")


def try_channels(
    session: Session,
    channel: Annotated[str | None, typer.Argument(help="Only this channel.")] = None,
) -> None:
    """Send a test message to every channel; exit code 4 if one fails."""
    from lake.alerts.channels import DeliveryError

    outcomes = session.lake().alerts.test(channel)
    show(session, outcomes)
    failed = outcomes.filter(outcome="failed")["channel"].to_list()
    if failed:
        raise DeliveryError(
            f"{len(failed)} of {outcomes.height} channels took no test message: "
            f"{', '.join(failed)}",
            "Correct them under [alerts.channels] in lake.toml, or try later.",
        )


def run(session: Session) -> None:
    """Look which rules hold now, and tell the channels what is new and what is over.

    For cron, beside ingestions: rules of freshness need somebody who looks.
    """
    from lake.alerts.channels import DeliveryError

    report = session.lake().alerts.run()
    if report.busy:
        raise CommitConflictError(
            "another run of alerts is under way, and goes on", "Run the same command again."
        )
    show(session, report.frame())
    session.stderr().print(
        f"Conditions that hold: {report.conditions:,}; held back: {report.held_back:,}.",
        highlight=False,
        markup=False,
    )
    if report.failed:
        raise DeliveryError(
            f"{len(report.failed)} of {len(report.outcomes)} messages were not delivered",
            "The next run sends them again. `lake alert test` tests the channels.",
        )


def ls(
    session: Session,
    all_: Annotated[bool, typer.Option("--all", help="Also what is over and told.")] = False,
) -> None:
    """Show what holds, or is still to be told, and to whom."""
    import polars as pl

    found = session.lake().alerts.ls().drop("date")
    if not all_:
        found = found.filter(pl.col("resolved_at").is_null() | pl.col("resolved_sent_at").is_null())
    if session.format is Format.table:
        market = pl.concat_str("exchange", "symbol", separator=" ").alias("market")
        found = found.select(
            "timestamp", "rule", "channel", "dataset", market, "status", "message", "error"
        )
    show(session, found)
