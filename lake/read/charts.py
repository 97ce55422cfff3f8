"""What the report on quality draws: candles around findings, and prices of venues apart."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from lake.model.dataset import Dataset
from lake.model.market import Market, StoredMarket
from lake.model.selection import Selection
from lake.model.time import EPOCH
from lake.quality.report.document import Chart, Deviation, Line
from lake.read.evidence import Evidence

_CHARTS = 24
_A_CHECK = 8  # of each check, so that a thousand gaps do not hide a spike
_BEFORE, _AFTER, _MARKED = 40, 40, 60
_PAIRS, _POINTS = 6, 400
_SHOWN = ("gaps", "spikes", "jumps", "stale", "zero_volume", "levels", "rules")
_PRICES = ("open", "high", "low", "close", "volume")


def charts(known: Evidence, findings: pl.DataFrame) -> tuple[Chart, ...]:
    """Candles around the worst findings of bars, a few of each check."""
    bars = findings.filter(pl.col("dataset").str.starts_with("bars_"))
    shown = bars.filter(pl.col("check").is_in(_SHOWN) & pl.col("dataset").is_in(list(known.tables)))
    chosen = shown.group_by("check", maintain_order=True).head(_A_CHECK).head(_CHARTS)
    drawn = (_chart(known, row) for row in chosen.iter_rows(named=True))
    return tuple(chart for chart in drawn if chart is not None)


def deviations(
    known: Evidence, selection: Selection, threshold_bps: float
) -> tuple[Deviation, ...]:
    """How far the closes of one symbol are apart on two venues: the mean of each of 400 spans."""
    found: list[Deviation] = []
    for table, rows in known.tables.items():
        if rows.dataset.timeframe is None:
            continue
        by_symbol: dict[str, list[Market]] = {}
        for market in known.markets(table, selection):
            by_symbol.setdefault(market.symbol, []).append(market)
        for first, second in (
            pair[:2] for pair in by_symbol.values() if len(pair) > 1 and len(found) < _PAIRS
        ):
            line = _deviation(known, rows.dataset, first, second, selection, threshold_bps)
            if line is not None:
                found.append(line)
    return tuple(found)


def _chart(known: Evidence, row: dict[str, object]) -> Chart | None:
    table, market = str(row["dataset"]), StoredMarket(str(row["exchange"]), str(row["symbol"]))
    start, end = row["timestamp"], row["end"]
    dataset = known.tables[table].dataset
    if not isinstance(start, datetime) or not isinstance(end, datetime) or not dataset.timeframe:
        return None
    step = timedelta(seconds=dataset.timeframe.seconds)
    last = min(end, start + _MARKED * step)
    candles = _closes(known, table, market, start - _BEFORE * step, last + _AFTER * step)
    if candles.is_empty():
        return None
    seconds = candles.select(_seconds(dataset.time_column)).to_series()
    against = row["against"]
    line = None
    if isinstance(against, str):
        line = _second_opinion(known, dataset, market, against, candles[dataset.time_column])
    return Chart(
        finding_id=str(row["finding_id"]),
        kind={"gaps": "gap", "spikes": "spike"}.get(str(row["check"]), str(row["check"])),
        title=f"{table} of {market}",
        times=tuple(seconds.to_list()),
        **{name: tuple(candles[name].to_list()) for name in _PRICES},
        mark_start=_epoch(start),
        mark_end=_epoch(max(last, start + step)),
        second_opinion=line,
    )


def _second_opinion(
    known: Evidence, dataset: Dataset, market: Market, against: str, times: pl.Series
) -> Line | None:
    """Closes at the same times, of the market's trades or finer bars, or of another market."""
    first, last = times[0], times[-1]
    if against in known.tables:
        table, other = against, market
    else:
        exchange, _, symbol = against.partition(" ")
        if not symbol:
            return None
        table, other = dataset.name, StoredMarket(exchange, symbol)
    if known.span(table, other) is None or dataset.timeframe is None:
        return None
    step = timedelta(seconds=dataset.timeframe.seconds)
    witness = known.tables[table].dataset
    price = "price" if "price" in witness.polars_schema else "close"
    rows = _closes(known, table, other, first, last + step, (witness.time_column, price))
    slot = pl.col(witness.time_column).dt.truncate(dataset.timeframe.table_suffix).alias("slot")
    closes = rows.group_by(slot, maintain_order=True).agg(pl.col(price).last())
    joined = times.alias("slot").to_frame().join(closes, on="slot", how="left")
    return Line(against, tuple(joined[price].to_list()))


def _deviation(
    known: Evidence,
    dataset: Dataset,
    first: Market,
    second: Market,
    selection: Selection,
    threshold_bps: float,
) -> Deviation | None:
    columns = (dataset.time_column, "close")
    frames = [
        _closes(known, dataset.name, market, selection.start, selection.end, columns)
        for market in (first, second)
    ]
    both = frames[0].join(frames[1], on=dataset.time_column, suffix="_second")
    if both.is_empty():
        return None
    bps = (pl.col("close") / pl.col("close_second") - 1) * 1e4
    span = max(1, -(-both.height // _POINTS))
    points = (
        both.select(_seconds(dataset.time_column).alias("seconds"), bps.alias("bps"))
        .group_by(pl.int_range(pl.len()) // span, maintain_order=True)
        .agg(pl.col("seconds").first(), pl.col("bps").mean().round(3))
    )
    return Deviation(
        symbol=first.symbol,
        first=first.exchange,
        second=second.exchange,
        times=tuple(points["seconds"].to_list()),
        bps=tuple(points["bps"].to_list()),
        threshold_bps=threshold_bps,
    )


def _closes(
    known: Evidence,
    table: str,
    market: Market,
    start: datetime | None,
    end: datetime | None,
    columns: tuple[str, ...] = ("timestamp", *_PRICES),
) -> pl.DataFrame:
    selection = Selection((market.exchange,), (market.symbol,), start, end)
    return known.tables[table].collect(selection, columns=columns)


def _seconds(column: str) -> pl.Expr:
    return pl.col(column).dt.timestamp("us") // 1_000_000


def _epoch(time: datetime) -> int:
    return int((time - EPOCH).total_seconds())
