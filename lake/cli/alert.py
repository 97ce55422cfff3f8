"""`lake alert`: test channels, evaluate alert rules, list alerts."""

from __future__ import annotations

from typing import Annotated

import typer

from lake.cli.output import show
from lake.cli.session import Format, Session, command
from lake.errors import CommitConflictError
from lake.model.words import count


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Evaluate alert rules and notify channels.")
    group.command("test")(command(try_channels))
    group.command("run")(command(run))
    group.command("ls")(command(ls))
    app.add_typer(group, name="alert")


def try_channels(
    session: Session,
    channel: Annotated[str | None, typer.Argument(help="Channel; default: all.")] = None,
) -> None:
    """Send a test message to every channel; exit with 4 if one fails."""
    from lake.alerts.channels import DeliveryError

    outcomes = session.lake().alerts.test(channel)
    show(session, outcomes)
    failed = outcomes.filter(outcome="failed")["channel"].to_list()
    if failed:
        raise DeliveryError(
            f"{len(failed)} of {count(outcomes.height, 'channel')} did not take the test message: "
            f"{', '.join(failed)}",
            "Correct them under [alerts.channels] in lake.toml, or try again later.",
        )


def run(session: Session) -> None:
    """Evaluate alert rules; notify the channels of new and resolved alerts.

    Run it from cron beside ingestions, for rules about the age of rows.
    """
    from lake.alerts.channels import DeliveryError

    report = session.lake().alerts.run()
    if report.busy:
        raise CommitConflictError(
            "another run of alerts is in progress", "Run the same command again."
        )
    show(session, report.frame())
    session.stderr().print(
        f"Active alerts: {report.conditions:,}; not sent, too soon: {report.held_back:,}.",
    )
    if report.failed:
        raise DeliveryError(
            f"{len(report.failed)} of {count(len(report.outcomes), 'message')} did not arrive",
            "The next run sends them again. `lake alert test` tests the channels.",
        )


def ls(
    session: Session,
    all_: Annotated[bool, typer.Option("--all", help="Include resolved alerts.")] = False,
) -> None:
    """List active alerts and their channels."""
    import polars as pl

    alerts = session.lake().alerts.ls().drop("date")
    if not all_:
        alerts = alerts.filter(
            pl.col("resolved_at").is_null() | pl.col("resolved_sent_at").is_null()
        )
    if session.format is Format.table:
        market = pl.concat_str("exchange", "symbol", separator=" ").alias("market")
        alerts = alerts.select(
            "timestamp", "rule", "channel", "dataset", market, "status", "message", "error"
        )
    show(session, alerts)
