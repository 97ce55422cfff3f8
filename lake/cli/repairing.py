"""`lake quality repair`, `repairs` and `undo`: repair findings, list and undo repairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.options import Exchange, Since, Symbol, Tables, Timeframes, Until, where, which
from lake.cli.output import show, show_record
from lake.cli.session import Format, Session, command
from lake.model.words import count

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
        bool, typer.Option("--dry-run", help="Only list the planned repairs; ask no source.")
    ] = False,
    interpolate: Annotated[
        bool,
        typer.Option(
            "--interpolate", help="Interpolate rows that no source has, by the dataset's policy."
        ),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Ask again for rows that the source confirmed before.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no source: only derive and interpolate.")
    ] = False,
) -> None:
    """Repair findings: fetch again, derive from finer data, or interpolate.

    Each repair is recorded with the rows before and after; `lake quality undo ID` restores them.
    Rows that were not observed have a value in `fill`.
    """
    result = session.lake().quality.repair(
        **which(table, timeframe),
        **where(exchange, symbol, since, until),
        dry_run=dry_run,
        interpolate=interpolate,
        again=again,
        offline=offline,
        progress=session.progress(),
    )
    rows = _tabulate(result)
    if rows.height or session.format is not Format.table:
        show(session, rows)
    _summarize(session, result)


def repairs(session: Session) -> None:
    """List repairs, newest first."""
    rows = session.lake().quality.repairs()
    if session.format is Format.table:
        rows = rows.select(
            "repair_id", "status", "dataset", "exchange", "symbol", "timestamp", "end", "method",
            "source", "inserted", "updated", "why",
        )  # fmt: skip
    show(session, rows)


def undo(
    session: Session,
    repair_id: Annotated[str, typer.Argument(help="Repair ID, from `lake quality repairs`.")],
) -> None:
    """Restore the rows that a repair changed; rows changed again since are kept and counted."""
    result = session.lake().quality.undo(repair_id)
    if session.format is not Format.table:
        record = {
            "repair_id": result.repair_id,
            "table": result.table,
            "exchange": result.market.exchange,
            "symbol": result.market.symbol,
            "removed": result.removed,
            "restored": result.restored,
            "kept": result.kept,
            "kept_times": list(result.kept_times),
            "later": list(result.later),
            "version": result.version,
            "job": result.job_id,
        }
        show_record(session, record)
    stays = count(result.kept, "was changed since, and stays", "were changed since, and stay")
    kept = f" {stays}." if result.kept else ""
    if result.later:
        kept += f" Undo the later repairs first: {', '.join(result.later)}."
    outcome = f"{count(result.removed, 'row')} removed, {result.restored:,} restored.{kept}"
    if result.job_id is None:
        outcome = "it was undone before; nothing changed."
    session.stderr().print(
        f"Repair {result.repair_id} of {result.table} {result.market}: {outcome}",
        soft_wrap=True,
    )


def _tabulate(result: RepairReport) -> pl.DataFrame:
    """One row for each repair: its status, and why where it was not applied."""
    import polars as pl

    rows = [_row("planned", step, inserted=step.rows, why=step.why) for step in result.planned]
    for status, repairs in (
        ("recovered", result.recovered),
        ("applied", result.applied),
        ("marked", result.marked),
    ):
        rows += [
            _row(status, item, id=item.repair_id, inserted=item.inserted, updated=item.updated)
            for item in repairs
        ]
    rows += [_row("failed", item, why=item.reason) for item in result.failed]
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


def _summarize(session: Session, result: RepairReport) -> None:
    if result.dry_run:
        summary = f"Planned: {len(result.planned):,}"
    else:
        summary = (
            f"Applied: {len(result.applied):,} (rows inserted: {result.inserted:,}, updated: "
            f"{result.updated:,}); marked: {len(result.marked):,}"
        )
    skipped = f"; skipped (see --again): {len(result.skipped):,}" if result.skipped else ""
    session.stderr().print(
        f"{summary}; failed: {len(result.failed):,}{skipped}.",
        soft_wrap=True,
    )
