"""`lake quality repair`, `repairs` and `undo`: mend what checks found, and take it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.options import Exchange, Since, Symbol, Tables, Timeframes, Until, where, which
from lake.cli.output import show, show_record
from lake.cli.session import Format, Session, command

if TYPE_CHECKING:
    import polars as pl

    from lake.jobs.repairs.repair import RepairReport
    from lake.jobs.repairs.report import AppliedRepair, FailedRepair, PlannedRepair


def add_to(group: typer.Typer) -> None:
    group.command("repair")(command(repair))
    group.command("repairs")(command(repairs))
    group.command("undo")(command(undo))


def repair(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done; nothing is asked.")
    ] = False,
    interpolate: Annotated[
        bool,
        typer.Option("--interpolate", help="Fill in what nobody has, by the dataset's policy."),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Ask also for what the source confirmed before.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no source: only derive, and fill in.")
    ] = False,
) -> None:
    """Repair what checks found: ask the source again, derive from finer data, or fill in.

    Each repair is recorded with what was before, and `lake quality undo ID` takes it back. Rows
    that are not observed say so in `fill`.
    """
    done = session.lake().quality.repair(
        **which(table, timeframe),
        **where(exchange, symbol, since, until),
        dry_run=dry_run,
        interpolate=interpolate,
        again=again,
        offline=offline,
        progress=session.progress(),
    )
    rows = _tabulate(done)
    if rows.height or session.format is not Format.table:
        show(session, rows)
    _summarize(session, done)


def repairs(session: Session) -> None:
    """List the repairs that were made, newest first."""
    found = session.lake().quality.repairs()
    if session.format is Format.table:
        found = found.select(
            "repair_id", "status", "dataset", "exchange", "symbol", "timestamp", "end", "method",
            "source", "inserted", "updated", "why",
        )  # fmt: skip
    show(session, found)


def undo(
    session: Session,
    repair_id: Annotated[str, typer.Argument(help="ID of the repair: `lake quality repairs`.")],
) -> None:
    """Restore the rows that a repair changed; what was changed again since stays, and is told."""
    done = session.lake().quality.undo(repair_id)
    if session.format is not Format.table:
        record = {
            "repair_id": done.repair_id,
            "table": done.table,
            "exchange": done.market.exchange,
            "symbol": done.market.symbol,
            "removed": done.removed,
            "restored": done.restored,
            "kept": done.kept,
            "kept_times": list(done.kept_times),
            "later": list(done.later),
            "version": done.version,
            "job": done.job_id,
        }
        show_record(session, record)
    kept = f" {done.kept:,} were changed since, and stay." if done.kept else ""
    if done.later:
        kept += f" Undo the later repairs first: {', '.join(done.later)}."
    told = f"{done.removed:,} rows removed, {done.restored:,} restored.{kept}"
    if done.job_id is None:
        told = "it was undone before; nothing changed."
    session.stderr().print(
        f"Repair {done.repair_id} of {done.table} {done.market}: {told}",
        highlight=False,
        soft_wrap=True,
    )


def _tabulate(done: RepairReport) -> pl.DataFrame:
    """One row for each repair: its status, and why where it was not applied."""
    import polars as pl

    rows = [_row("planned", step, inserted=step.rows, why=step.why) for step in done.planned]
    for status, repairs in (
        ("recovered", done.recovered),
        ("applied", done.applied),
        ("marked", done.marked),
    ):
        rows += [
            _row(status, item, id=item.repair_id, inserted=item.inserted, updated=item.updated)
            for item in repairs
        ]
    rows += [_row("failed", item, why=item.reason) for item in done.failed]
    return pl.DataFrame(rows, schema=_columns())


def _row(
    status: str, repair: PlannedRepair | AppliedRepair | FailedRepair, **facts: object
) -> dict[str, object]:
    return {
        "status": status,
        "table": repair.table,
        "exchange": repair.market.exchange,
        "symbol": repair.market.symbol,
        "start": repair.window.start,
        "end": repair.window.end,
        "method": getattr(repair, "method", None),
        "source": getattr(repair, "source", None),
        **facts,
    }


def _columns() -> dict[str, pl.DataType]:
    import polars as pl

    text, time, count = pl.String(), pl.Datetime("us", "UTC"), pl.Int64()
    return {
        **dict.fromkeys(("status", "id", "table", "exchange", "symbol"), text),
        **dict.fromkeys(("start", "end"), time),
        **dict.fromkeys(("method", "source"), text),
        **dict.fromkeys(("inserted", "updated"), count),
        "why": text,
    }


def _summarize(session: Session, done: RepairReport) -> None:
    if done.dry_run:
        summary = f"Planned: {len(done.planned):,}"
    else:
        summary = (
            f"Applied: {len(done.applied):,} (rows inserted: {done.inserted:,}, updated: "
            f"{done.updated:,}); marked: {len(done.marked):,}"
        )
    skipped = f"; skipped (see --again): {len(done.skipped):,}" if done.skipped else ""
    session.stderr().print(
        f"{summary}; failed: {len(done.failed):,}{skipped}.",
        highlight=False,
        soft_wrap=True,
    )
