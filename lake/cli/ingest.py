"""`lake ingest`: fetch data from exchanges and store it."""

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
        help="bars, trades, funding, orderbooks, instruments, or a table such as bars_1h. "
        "Default: continue all covered tables.",
    ),
]
Exchanges = Annotated[
    list[str] | None,
    typer.Option("--exchange", "-e", help="Exchange ID of ccxt; repeatable."),
]
Symbols = Annotated[
    list[str] | None,
    typer.Option("--symbol", "-s", help="BTC/USDT, BTC/USDT:USDT, …; repeatable."),
]
Timeframes = Annotated[
    list[str] | None,
    typer.Option("--timeframe", "-t", help="Timeframe of bars: 1m (default), 1h, …; repeatable."),
]
Since = Annotated[
    str | None,
    typer.Option(
        help="Start, inclusive: 2026-01-01, 2026-01-01T12:00Z, 7d. "
        "Default: continue from the covered range."
    ),
]
Until = Annotated[str | None, typer.Option(help="End, exclusive; default: now.")]
Depth = Annotated[int | None, typer.Option(min=1, help="Levels per side of order books.")]
Refetch = Annotated[
    bool,
    typer.Option(
        "--refetch", help="Fetch covered ranges again, to take over revisions of the venue."
    ),
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
    """Fetch missing rows from exchanges and store them. Run it again to continue.

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
            f"{name}: exchange or symbol is missing",
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
                f"Checked the ingested rows: score {rounded_down(report.score)}, "
                f"findings: {report.findings}{where}.",
                highlight=False,
                soft_wrap=True,
            )
    if session.format is not Format.table:
        show(session, frame)
    elif rows:
        show(session, frame.drop("job"))  # it is named on stderr already
