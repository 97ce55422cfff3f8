"""`lake quality`: check stored rows, list and explain findings, report, repair."""

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
from lake.cli.partial import show_done
from lake.cli.session import Format, Session, command
from lake.errors import QualityError, UsageError
from lake.model.words import count

if TYPE_CHECKING:
    import polars as pl

    from lake.jobs.quality.check import CheckReport
    from lake.quality.report.document import Report

_LISTED = 25
_SHOWN = ("finding_id", "severity", "dataset", "exchange", "symbol", "timestamp", "end", "check")


class Severity(StrEnum):
    """Severity of a finding."""

    info = "info"
    warning = "warning"
    error = "error"
    critical = "critical"


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Check stored rows, report, repair.")
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
        Severity, typer.Option(help="Exit with 3 at a finding of this severity or worse.")
    ] = Severity.error,
) -> None:
    """Check whole UTC days of stored rows; record findings and scores.

    lake quality check bars_1m -e binance --since 7d
    """
    from lake.jobs.quality.check import CheckReport
    from lake.log import FINDINGS

    is_shown = session.stderr().is_terminal and session.format is Format.table
    lake = session.lake(hidden_logs=(FINDINGS,) if is_shown and not session.verbose else ())
    result = show_done(
        lambda: lake.quality.check(
            **which(table, timeframe),
            **where(exchange, symbol, since, until),
            progress=session.progress(),
        ),
        CheckReport,
        lambda report: _show_check(session, report),
    )
    failing = result.worst(fail_on)
    if failing:
        raise QualityError(
            f"{failing} finding{'s have' if failing > 1 else ' has'} severity {fail_on} or worse",
            f"`lake quality show ID{session.lake_option}` explains one, "
            f"`lake quality repair --dry-run{session.lake_option}` shows possible repairs.",
        )


def _show_check(session: Session, report: CheckReport) -> None:
    listed = report.findings
    if session.format is Format.table:
        listed = listed.head(_LISTED)
    if listed.height or session.format is not Format.table:
        show(session, _short(session, listed))
    _summarize(session, report, hidden=report.findings.height - listed.height)


def findings(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
    check: Annotated[
        list[str] | None, typer.Option(help="Check; repeatable; default: all.")
    ] = None,
    severity: Annotated[Severity | None, typer.Option(help="Minimum severity.")] = None,
    closed: Annotated[bool, typer.Option("--all", help="Include closed findings.")] = False,
) -> None:
    """List findings, worst first."""
    rows = session.lake().quality.findings(
        **which(table, timeframe),
        **where(exchange, symbol, since, until),
        check=check or (),
        severity=severity,
        status=None if closed else "open",
    )
    show(session, _short(session, rows))


def show_finding(
    session: Session,
    finding: Annotated[str, typer.Argument(help="Finding ID or prefix.")],
) -> None:
    """Show a finding with the rows around it."""
    import json

    import polars as pl

    record = session.lake().quality.finding(finding)
    context = json.loads(str(record.pop("context")))
    if session.format is not Format.table:
        show_record(session, {**record, "context": context})
        return
    show_record(session, {name: value for name, value in record.items() if name != "date"})
    if context:
        show(session, pl.DataFrame(context, infer_schema_length=None), "Rows around it")


def gaps(
    session: Session,
    table: Annotated[str, typer.Argument(help="Table of bars, such as bars_1m.")],
    timeframe: Timeframe = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """List missing bars with the reason; no_trade and venue_outage are not losses."""
    rows = session.lake().quality.gaps(
        table,
        timeframe=timeframe,
        **where(exchange, symbol, since, until),
    )
    show(session, rows)


def scores(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """List the quality score of each checked market-day, from 0 to 1."""
    import polars as pl

    from lake.quality.score import DELAYS, MEASURES

    rows = session.lake().quality.scores(
        **which(table, timeframe),
        **where(exchange, symbol, since, until),
    )
    if session.format is Format.table:
        rows = rows.drop("timestamp", "job_id", "checked_at", *DELAYS).with_columns(
            pl.col(*MEASURES).round(6)
        )
    show(session, rows)


def report(
    session: Session,
    bundle: Annotated[
        str | None, typer.Option(help="Report of this bundle: NAME, ID or NAME@ID.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML page.")] = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Report on checked rows: scores, gaps with reasons, findings, repairs, provenance.

    lake quality report --html report.html
    """
    if bundle is None:
        shown = session.lake().quality.report(**where(exchange, symbol, since, until))
    elif any((exchange, symbol, since, until)):
        raise UsageError(
            "the report of a bundle covers all that it pins",
            "Leave out the options that select rows.",
        )
    else:
        shown = _bundle_report(session, bundle)
    if html is not None:
        from lake.quality.report.page import render_page as page

        write_text(html, page(shown))
        session.stderr().print(f"Wrote {html}.", soft_wrap=True)
    if html is None or session.format is not Format.table:
        _show_report(session, shown)


def _bundle_report(session: Session, reference: str) -> Report:
    document = session.lake().bundles.open(reference).quality
    if document is None:
        raise QualityError(
            f"bundle {reference} has no report: it was pinned without a check",
            "Pin it again without --no-check.",
        )
    return document


def _show_report(session: Session, document: Report) -> None:
    from lake.jobs.quality.report import build_overview, build_summary
    from lake.quality.score import DIMENSIONS

    if session.format in (Format.json, Format.ndjson):
        import orjson

        from lake.quality.report.document import to_json

        show_record(session, orjson.loads(to_json(document)))
        return
    is_table = session.format is Format.table
    listed = build_overview(document) if is_table else build_summary(document)
    show(session, listed, f"{document.title}: {document.start} to {document.end}")
    totals = document.totals
    parts = [f"{name} {rounded_down(getattr(totals.scores, name))}" for name in DIMENSIONS]
    counts = totals.findings
    session.stderr().print(
        f"Score {rounded_down(totals.scores.score)}: {', '.join(parts)}. "
        f"Real losses: {totals.missing.losses:,}. Open findings: {counts.critical} critical, "
        f"{count(counts.error, 'error')}, {count(counts.warning, 'warning')}.",
    )


def _short(session: Session, rows: pl.DataFrame) -> pl.DataFrame:
    """Keep the columns that fit a terminal."""
    if session.format is not Format.table:
        return rows
    return rows.select(*_SHOWN, "reason", "rows", "message")


def _summarize(session: Session, result: CheckReport, hidden: int) -> None:
    if hidden:
        session.stderr().print(
            f"… and {hidden:,} more: `lake quality findings{session.lake_option}` lists all.",
            soft_wrap=True,
        )
    session.stderr().print(
        f"Rows checked: {result.rows:,}; score: {rounded_down(result.scores['score'])}. "
        f"Open findings: {result.findings.height:,}; new: {result.recorded.opened:,}; "
        f"closed: {result.recorded.closed:,}.",
    )
    owed = result.describe_owed()
    if owed is not None:
        text = f"{owed}; `lake quality findings{session.lake_option}` lists them."
        session.stderr().print(text, soft_wrap=True)
