"""`lake replay`: print the rows of a bundle in the order in which they became known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.bundle import Reference
from lake.cli.options import Exchange, Since, Symbol, Tables, Timeframes, Until, where, which
from lake.cli.output import show_stream
from lake.cli.session import Session, command

if TYPE_CHECKING:
    import polars as pl

    from lake.replay.merge import Batch

_BATCH_ROWS = 50_000


class By(StrEnum):
    """The time that orders a replay."""

    available_at = "available_at"
    timestamp = "timestamp"


def add_to(app: typer.Typer) -> None:
    app.command("replay")(command(replay))


def replay(
    session: Session,
    reference: Reference,
    table: Tables = None,
    timeframe: Timeframes = None,
    exchange: Exchange = None,
    symbol: Symbol = None,
    since: Since = None,
    until: Until = None,
    by: Annotated[By, typer.Option(help="Time that orders the rows.")] = By.available_at,
    limit: Annotated[int | None, typer.Option(help="Maximum number of rows.", min=1)] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Read the files, without the cache.")
    ] = False,
) -> None:
    """Print a bundle's rows as a backtest sees them: one stream over all tables and markets.

    lake replay research-1 trades bars_1m --since 2026-01-01 --limit 20
    """
    bundle = session.lake().bundles.open(reference, cache=not no_cache)
    batches = bundle.replay(
        **which(table, timeframe),
        **where(exchange, symbol, since, until),
        by=by.value,
        batch=min(limit or _BATCH_ROWS, _BATCH_ROWS),
    )
    show_stream(session, _limit(batches, limit))


def _limit(batches: Iterable[Batch], limit: int | None) -> Iterator[pl.DataFrame]:
    """Yield frames of the stream, at least one, until the limit is reached."""
    import polars as pl

    yield pl.DataFrame(schema=_schema())
    for batch in batches:
        left = batch.rows if limit is None else limit - batch.first
        if left <= 0:
            return
        yield _sort_batch(batch).head(left)


def _sort_batch(batch: Batch) -> pl.DataFrame:
    """Sort the rows of all tables by position; other columns become JSON in `values`."""
    import polars as pl

    frames = []
    for table, frame in batch.frames.items():
        time = batch.datasets[table].time_column
        shown = ("position", "available_at", "exchange", "symbol", "date", time)
        values = pl.struct(pl.exclude(shown)).struct.json_encode()
        frames.append(
            frame.select(
                "position",
                "available_at",
                pl.lit(table).alias("table"),
                "exchange",
                "symbol",
                pl.col(time).alias("timestamp"),
                values.alias("values"),
            )
        )
    return pl.concat(frames).sort("position")


def _schema() -> dict[str, pl.DataType]:
    import polars as pl

    from lake.model.dataset import TIMESTAMP

    return {
        "position": pl.Int64(),
        "available_at": TIMESTAMP,
        "table": pl.String(),
        "exchange": pl.String(),
        "symbol": pl.String(),
        "timestamp": TIMESTAMP,
        "values": pl.String(),
    }
