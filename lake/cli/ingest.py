"""`lake ingest`: bring data in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.options import Where, where
from lake.cli.output import rounded_down, show
from lake.cli.session import Format, Session, command
from lake.errors import UsageError

if TYPE_CHECKING:
    from lake.api import Lake
    from lake.jobs.ingest.report import IngestReport


def add_to(app: typer.Typer) -> None:
    app.command("ingest")(command(ingest))


Tables = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TABLE]...",
        help="bars, trades, funding, orderbooks, instruments, or a table as bars_1h. "
        "Without one: go on with everything that is covered.",
    ),
]
Exchanges = Annotated[
    list[str] | None,
    typer.Option("--exchange", "-e", help="Exchange id as in ccxt; may be repeated."),
]
Symbols = Annotated[
    list[str] | None,
    typer.Option("--symbol", "-s", help="BTC/USDT, BTC/USDT:USDT, …; may be repeated."),
]
Timeframes = Annotated[
    list[str] | None,
    typer.Option("--timeframe", "-t", help="Of bars: 1m (default), 1h, …; may be repeated."),
]
Since = Annotated[
    str | None,
    typer.Option(
        help="Start, inclusive: 2026-01-01, 2026-01-01T12:00Z, 7d. "
        "Without it: go on from what is covered."
    ),
]
Until = Annotated[str | None, typer.Option(help="End, exclusive; now by default.")]
Depth = Annotated[int | None, typer.Option(min=1, help="Of order books: levels a side.")]
Refetch = Annotated[
    bool,
    typer.Option("--refetch", help="Ask again for what is covered: take a venue's revisions."),
]


def ingest(
    session: Session,
    table: Tables = None,
    timeframe: Timeframes = None,
    exchange: Exchanges = None,
    symbol: Symbols = None,
    since: Since = None,
    until: Until = None,
    depth: Depth = None,
    refetch: Refetch = False,
) -> None:
    """Fetch what is missing from exchanges, and store it. Run it again to go on.

    lake ingest bars -e binance -s BTC/USDT -t 1m --since 30d

    lake ingest trades funding -e binance -s BTC/USDT:USDT --since 2026-01-01 --until 2026-01-08

    lake ingest
    """
    from lake.jobs.ingest.request import find_fetchable

    lake = session.lake()
    chosen = find_fetchable(lake.root.read_catalog(), table or (), timeframe or (), of_present=True)
    present = [dataset.name for dataset in chosen if dataset.is_fetched_as_present]
    reports = []
    if not chosen or len(present) < len(chosen):
        report = lake.ingest(
            [dataset.name for dataset in chosen if dataset.name not in present],
            **where(exchange, symbol, since, until),
            refetch=refetch,
            progress=session.progress(),
        )
        reports.append(report)
    for name in present:
        reports += _fetch_present(session, lake, name, where(exchange, symbol), depth)
    _show(session, reports)


def _fetch_present(
    session: Session,
    lake: Lake,
    name: str,
    markets: Where,
    depth: int | None,
) -> list[IngestReport]:
    from lake.cli.progress import show_notes

    exchanges, symbols = markets["exchange"], markets["symbol"]
    if not exchanges or (name == "orderbooks" and not symbols):
        raise UsageError(
            f"{name} of which exchange and symbol?",
            f"Write `lake ingest {name} -e binance -s BTC/USDT`.",
        )
    if name == "orderbooks":
        reports = [
            lake.order_books(exchange, symbol=symbols, depth=depth) for exchange in exchanges
        ]
    else:
        reports = [lake.instruments(exchange, symbol=symbols) for exchange in exchanges]
    show_notes(session.stderr(), reports)
    return reports


def _show(session: Session, reports: list[IngestReport]) -> None:
    import polars as pl

    rows = [
        {
            "table": table.table,
            "rows": table.rows,
            "inserted": table.inserted,
            "updated": table.updated,
            "rejected": table.rejected,
            "version": table.version,
            "job": report.job_id,
        }
        for report in reports
        for table in report.tables
    ]
    counts = ("rows", "inserted", "updated", "rejected", "version")
    schema = {"table": pl.String(), **dict.fromkeys(counts, pl.Int64()), "job": pl.String()}
    frame = pl.DataFrame(rows, schema=schema)
    for report in reports:
        if report.score is not None:
            where = ", see `lake quality findings`" if report.findings else ""
            session.stderr().print(
                f"Checked what it touched: score {rounded_down(report.score)}, "
                f"findings: {report.findings}{where}.",
                highlight=False,
                soft_wrap=True,
            )
    if session.format is not Format.table:
        show(session, frame)
    elif rows:
        show(session, frame.drop("job"))  # it is named on stderr already
