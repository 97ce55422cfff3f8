"""`lake ingest`: fetch data from exchanges and store it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.options import where
from lake.cli.output import rounded_down, show
from lake.cli.session import Format, Session, command
from lake.errors import DamagedError, LakeError, SourceError, UsageError

if TYPE_CHECKING:
    import polars as pl

    from lake.api import Lake
    from lake.jobs.ingest.report import Failure, IngestReport, Unanswered

_COUNTS = ("rows", "inserted", "updated", "rejected", "conflicting", "version")


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
        "--refetch",
        help="Fetch covered and refused ranges again, to take over revisions of the venue.",
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

    What cannot be fetched stops nothing else: it is reported at the end, and the exit code is 4. A
    refusal is remembered, and requested again after an hour, then a day, then every week, or by
    --refetch. A damaged table stops no other one: it is reported likewise, and the exit code is 3.

    lake ingest bars -e binance -s BTC/USDT -t 1m --since 30d

    lake ingest trades funding -e binance -s BTC/USDT:USDT --since 2026-01-01 --until 2026-01-08

    lake ingest
    """
    lake = session.lake()
    by_range, present = _choose(lake, table or (), timeframe or (), (since, until))
    for name in present:
        _require_names(name, exchange, symbol)
    outcomes = Outcomes()
    if by_range or not present:
        outcomes.add(
            lambda: lake.ingest(
                by_range,
                **where(exchange, symbol, since, until),
                refetch=refetch,
                progress=session.progress(),
            )
        )
    for name, venue in product(present, exchange or ()):
        outcomes.add(_fetch_present(lake, name, venue, symbol or (), depth), session)
    _show(session, outcomes.reports)
    outcomes.raise_errors()


def _choose(
    lake: Lake,
    names: Sequence[str],
    timeframes: Sequence[str],
    bounds: tuple[str | None, str | None],
) -> tuple[list[str], list[str]]:
    """Return the chosen tables that exchanges give by range, and those of the present.

    Bounds are refused where only tables of the present are chosen.
    """
    from lake.jobs.ingest.request import find_fetchable

    catalog = lake.root.read_catalog()
    chosen = find_fetchable(catalog, names, timeframes, of_present=True)
    present = [dataset.name for dataset in chosen if dataset.is_fetched_as_present]
    by_range = [dataset.name for dataset in chosen if dataset.name not in present]
    if present and not by_range and any(bounds):
        find_fetchable(catalog, present, ())  # raises: they cannot be fetched by range
    return by_range, present


class Outcomes:
    """Reports and errors of several ingestions: the failure of one does not stop the next."""

    def __init__(self) -> None:
        self.reports: list[IngestReport] = []
        self.errors: list[LakeError] = []

    def add(self, ingest: Callable[[], IngestReport], session: Session | None = None) -> None:
        """Run an ingestion, and keep its report; with a session, show its notes."""
        from lake.cli.progress import show_notes
        from lake.jobs.ingest.report import IngestReport

        try:
            report = ingest()
        except (SourceError, DamagedError) as error:
            self.errors.append(error)
            if not isinstance(error.report, IngestReport):
                return
            report = error.report
        self.reports.append(report)
        if session is not None:
            show_notes(session.stderr(), [report])

    def raise_errors(self) -> None:
        """Raise the errors as one, if there are any."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            hints = dict.fromkeys(error.hint for error in self.errors if error.hint)
            message = "; ".join(error.message for error in self.errors)
            damaged = [error for error in self.errors if isinstance(error, DamagedError)]
            raise type([*damaged, *self.errors][0])(message, " ".join(hints))


def _require_names(
    name: str, exchanges: Sequence[str] | None, symbols: Sequence[str] | None
) -> None:
    if not exchanges or (name == "orderbooks" and not symbols):
        raise UsageError(
            f"{name}: exchange or symbol is missing",
            f"Write `lake ingest {name} -e binance -s BTC/USDT`.",
        )


def _fetch_present(
    lake: Lake, name: str, exchange: str, symbols: Sequence[str], depth: int | None
) -> Callable[[], IngestReport]:
    if name == "orderbooks":
        return lambda: lake.order_books(exchange, symbol=symbols, depth=depth)
    return lambda: lake.instruments(exchange, symbol=symbols)


def _show(session: Session, reports: Sequence[IngestReport]) -> None:
    for report in reports:
        if report.score is not None:
            command = f"lake quality findings{session.lake_option}"
            where = f", see `{command}`" if report.findings else ""
            session.stderr().print(
                f"Checked the days of the ingested rows: score {rounded_down(report.score)}, "
                f"findings: {report.findings}{where}.",
                soft_wrap=True,
            )
    rows = [row for report in reports for row in _tabulate(report)]
    if session.format is not Format.table:
        show(session, _to_frame(rows))
        return
    stored = [row for row in rows if row["outcome"] == "stored"]
    if stored:  # all else is named on stderr already
        show(session, _to_frame(stored).select("table", *_COUNTS))


def _tabulate(report: IngestReport) -> Iterator[dict[str, object]]:
    """Yield a row per table with its counts, and one per range that was not fetched."""
    for table in report.tables:
        counts = {name: getattr(table, name) for name in _COUNTS}
        yield {"table": table.table, "outcome": "stored", **counts, "job": report.job_id}
    for failure in report.failures:
        outcome = "failed" if failure.again_at is None else "not_asked"
        facts = {"message": failure.message, "again_at": failure.again_at, "job": report.job_id}
        yield from _tabulate_ranges(outcome, failure, facts)
    for item in report.unrecorded:
        place = {"table": "instruments", "exchange": item.exchange}
        facts = {"message": item.message, "job": report.job_id}
        yield {**place, "outcome": "not_recorded", **facts}
    for left in report.unanswered:
        yield from _tabulate_ranges("unanswered", left, {"job": report.job_id})


def _tabulate_ranges(
    outcome: str, what: Failure | Unanswered, facts: Mapping[str, object]
) -> Iterator[dict[str, object]]:
    place = {"table": what.table, "exchange": what.market.exchange, "symbol": what.market.symbol}
    spans = [{"start": item.start, "end": item.end} for item in what.ranges]
    for span in spans or [{}]:
        yield {**place, "outcome": outcome, **span, "reason": what.reason, **facts}


def _to_frame(rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    import polars as pl

    time = pl.Datetime("us", "UTC")
    schema = {
        **dict.fromkeys(("table", "outcome"), pl.String()),
        **dict.fromkeys(_COUNTS, pl.Int64()),
        **dict.fromkeys(("job", "exchange", "symbol"), pl.String()),
        **dict.fromkeys(("start", "end"), time),
        **dict.fromkeys(("reason", "message"), pl.String()),
        "again_at": time,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
