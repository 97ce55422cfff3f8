"""`lake quality`: look for defects, list and explain them, and report on what was found."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli import repairing
from lake.cli.options import (
    Exchange,
    Since,
    Symbol,
    Tables,
    Timeframe,
    Timeframes,
    Until,
    where,
    which,
)
from lake.cli.output import rounded_down, show, show_record, write_text
from lake.cli.session import Format, Session, command
from lake.errors import QualityError, UsageError

if TYPE_CHECKING:
    import polars as pl

    from lake.jobs.quality.check import CheckReport
    from lake.quality.report.document import Report

_LISTED = 25
_SHOWN = ("finding_id", "severity", "dataset", "exchange", "symbol", "timestamp", "end", "check")


class Severity(StrEnum):
    """How bad a finding is."""

    info = "info"
    warning = "warning"
    error = "error"
    critical = "critical"


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Find defects in stored rows, and repair them.")
    group.command("check")(command(check))
    group.command("findings")(command(findings))
    group.command("show")(command(show_finding))
    group.command("gaps")(command(gaps))
    group.command("scores")(command(scores))
    group.command("report")(command(report))
    repairing.add_to(group)
    app.add_typer(group, name="quality")


def check(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
    fail_on: Annotated[
        Severity, typer.Option(help="Exit with 3 where a finding is this bad, or worse.")
    ] = Severity.error,
) -> None:
    """Look for defects in whole UTC days of stored rows; findings and scores are recorded.

    lake quality check bars_1m -e binance --since 7d
    """
    from lake.log import FINDINGS

    is_shown = session.stderr().is_terminal and session.format is Format.table
    lake = session.lake(hidden_logs=(FINDINGS,) if is_shown and not session.verbose else ())
    done = lake.quality.check(
        **which(table, timeframe),
        **where(exchange, symbol, since, until),
        progress=session.progress(),
    )
    _show_check(session, done)
    bad = done.worst(fail_on)
    if bad:
        raise QualityError(
            f"{bad} finding{'s are' if bad > 1 else ' is'} of severity {fail_on} or worse",
            "`lake quality show ID` explains one, `lake quality repair --dry-run` says what can "
            "be done.",
        )


def _show_check(session: Session, report: CheckReport) -> None:
    listed = report.findings
    if session.format is Format.table:
        listed = listed.head(_LISTED)
    if listed.height or session.format is not Format.table:
        show(session, _short(session, listed))
    _tell(session, report, hidden=report.findings.height - listed.height)


def findings(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
    check: Annotated[list[str] | None, typer.Option(help="Only of this check.")] = None,
    severity: Annotated[Severity | None, typer.Option(help="At least so bad.")] = None,
    closed: Annotated[bool, typer.Option("--all", help="Also those that are closed.")] = False,
) -> None:
    """List what checks found, worst first."""
    found = session.lake().quality.findings(
        **which(table, timeframe),
        **where(exchange, symbol, since, until),
        check=check or (),
        severity=severity,
        status=None if closed else "open",
    )
    show(session, _short(session, found))


def show_finding(
    session: Session,
    finding: Annotated[str, typer.Argument(help="Its ID, or the beginning of it.")],
) -> None:
    """Show one finding with the rows around it."""
    import json

    import polars as pl

    found = session.lake().quality.finding(finding)
    context = json.loads(str(found.pop("context")))
    if session.format is not Format.table:
        show_record(session, {**found, "context": context})
        return
    show_record(session, {name: value for name, value in found.items() if name != "date"})
    if context:
        show(session, pl.DataFrame(context, infer_schema_length=None), "Rows around it")


def gaps(
    session: Session,
    table: Annotated[str, typer.Argument(help="Bars, as bars_1m.")],
    timeframe: Timeframe = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """List missing bars with the reason, as it is now: no_trade and venue_outage are no losses."""
    found = session.lake().quality.gaps(
        table,
        timeframe=timeframe,
        **where(exchange, symbol, since, until),
    )
    show(session, found)


def scores(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """List the quality of each market-day that was checked, from 0 to 1."""
    import polars as pl

    from lake.quality.score import DELAYS, MEASURES

    found = session.lake().quality.scores(
        **which(table, timeframe),
        **where(exchange, symbol, since, until),
    )
    if session.format is Format.table:
        found = found.drop("timestamp", "job_id", "checked_at", *DELAYS).with_columns(
            pl.col(*MEASURES).round(6)
        )
    show(session, found)


def report(
    session: Session,
    bundle: Annotated[
        str | None, typer.Option(help="Of a bundle, as it was pinned: NAME, ID or NAME@ID.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write one page that opens offline.")] = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Report on what was checked: scores, gaps with reasons, findings, repairs, provenance.

    lake quality report --html report.html
    """
    if bundle is None:
        shown = session.lake().quality.report(**where(exchange, symbol, since, until))
    elif any((exchange, symbol, since, until)):
        raise UsageError(
            "a bundle's report is of all that it pins", "Leave out what selects a part of it."
        )
    else:
        shown = _bundle_report(session, bundle)
    if html is not None:
        from lake.quality.report.page import render_page as page

        write_text(html, page(shown))
        session.stderr().print(f"Wrote {html}.", highlight=False, markup=False, soft_wrap=True)
    if html is None or session.format is not Format.table:
        _show_report(session, shown)


def _bundle_report(session: Session, reference: str) -> Report:
    made = session.lake().bundles.open(reference).quality
    if made is None:
        raise QualityError(
            f"bundle {reference} has no report: it was pinned without a check",
            "Pin it again without --no-check.",
        )
    return made


def _show_report(session: Session, made: Report) -> None:
    from lake.jobs.quality.report import build_overview, build_summary
    from lake.quality.score import DIMENSIONS

    if session.format in (Format.json, Format.ndjson):
        import orjson

        from lake.quality.report.document import to_json

        show_record(session, orjson.loads(to_json(made)))
        return
    listed = build_overview(made) if session.format is Format.table else build_summary(made)
    show(session, listed, f"{made.title}: {made.start} to {made.end}")
    totals = made.totals
    parts = [f"{name} {rounded_down(getattr(totals.scores, name))}" for name in DIMENSIONS]
    found = totals.findings
    session.stderr().print(
        f"Score {rounded_down(totals.scores.score)}: {', '.join(parts)}. "
        f"Real losses: {totals.missing.losses:,}. Open findings: {found.critical} critical, "
        f"{found.error} errors, {found.warning} warnings.",
        highlight=False,
    )


def _short(session: Session, found: pl.DataFrame) -> pl.DataFrame:
    """For a terminal, what tells most."""
    if session.format is not Format.table:
        return found
    return found.select(*_SHOWN, "reason", "rows", "message")


def _tell(session: Session, done: CheckReport, hidden: int) -> None:
    if hidden:
        session.stderr().print(f"… and {hidden:,} more: `lake quality findings` lists all.")
    session.stderr().print(
        f"Rows checked: {done.rows:,}; score: {rounded_down(done.scores['score'])}. "
        f"Open findings: {done.findings.height:,}; new: {done.recorded.opened:,}; "
        f"closed: {done.recorded.closed:,}.",
        highlight=False,
    )
