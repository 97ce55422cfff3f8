"""Build the charts of the quality report: candles around findings, and deviations of venues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import combinations

import polars as pl

from lake.jobs.quality.slices import CheckInputs
from lake.model.dataset import Dataset
from lake.model.market import DATASET_MARKET, Market, StoredMarket
from lake.model.ohlcv import OHLCV
from lake.model.selection import Selection
from lake.model.severity import severity_rank
from lake.model.time import EPOCH, MICROSECOND
from lake.quality.report.document import Chart, Deviation, Line
from lake.quality.run import FOLDED_PATTERN
from lake.store.damages import Damages

_CHARTS, _PER_CHECK = 24, 8
_AROUND, _LONG, _INSIDE = 40, 180, 45  # slots
_PAIRS, _POINTS = 6, 400
_CHECKS = (
    "gaps", "spikes", "jumps", "stale", "zero_volume", "reconciliation", "broken_rules", "scale",
    "venue_deviation",
)  # fmt: skip
_DEVIATION = "venue_deviation"


def build_charts(
    inputs: CheckInputs, findings: pl.DataFrame, damages: Damages
) -> tuple[Chart, ...]:
    """Build charts of candles around the worst findings of bars, from all checks and markets.

    Those whose rows cannot be read are left out, and `damages` gets the reason.
    """
    bars = [name for name, reader in inputs.tables.items() if reader.dataset.event == "bar"]
    suitable = findings.filter(
        pl.col("dataset").is_in(bars)
        & pl.col("check").is_in(_CHECKS)
        # A finding that stands for many others has wrong rows scattered in its interval.
        & ~pl.col("message").str.contains(FOLDED_PATTERN)
    )
    worst = _select_worst(_join_days(suitable))
    charts = []
    for row in worst.iter_rows(named=True):
        with damages.collect(str(row["dataset"])):
            charts.append(_build_chart(inputs, row))
    return tuple(chart for chart in charts if chart is not None)


def build_deviations(
    inputs: CheckInputs,
    selection: Selection,
    findings: pl.DataFrame,
    threshold_bps: Callable[[Dataset], float],
    damages: Damages,
) -> tuple[Deviation, ...]:
    """Build the deviations of the closes of a symbol on two venues, in the finest bars of both.

    Pairs with findings come first. A long range is reduced to 400 spans with their mean, lowest and
    highest deviation, so that no minute disappears in a mean. Pairs whose rows cannot be read are
    left out, and `damages` gets the reason.
    """
    deviating = findings.filter(pl.col("check") == _DEVIATION)
    names = pl.concat_str("exchange", "symbol", separator=" ")
    with_findings = {frozenset(pair) for pair in deviating.select(names, "against").iter_rows()}

    def order(pair: tuple[Dataset, Market, Market]) -> tuple[bool, int]:
        dataset, *markets = pair
        return frozenset(map(str, markets)) not in with_findings, _step(dataset) // MICROSECOND

    deviations: dict[tuple[Market, Market], Deviation] = {}
    for dataset, *markets in sorted(_pair_venues(inputs, selection, damages), key=order):
        first, second = markets
        if len(deviations) < _PAIRS and (first, second) not in deviations:
            line = None
            with damages.collect(dataset.name):
                line = _build_deviation(
                    inputs, dataset, first, second, selection, threshold_bps(dataset)
                )
            if line is not None:
                deviations[first, second] = line
    return tuple(deviations.values())


def _join_days(findings: pl.DataFrame) -> pl.DataFrame:
    """Join adjacent findings, because checks cut them at midnight."""
    same = (*DATASET_MARKET, "check", "against", "reason")
    begins = (pl.col("timestamp") != pl.col("end").shift(1)).fill_null(value=True)
    runs = findings.sort(*same, "timestamp").with_columns(
        _run=begins.cast(pl.Int64).cum_sum().over(same)
    )
    return runs.group_by(*same, "_run", maintain_order=True).agg(
        pl.col("finding_id", "timestamp", "severity").first(),
        pl.col("end").last(),
        pl.col("rows").sum(),
    )


def _select_worst(findings: pl.DataFrame) -> pl.DataFrame:
    """Select findings of all checks and markets in turn, the worst and longest first."""
    turn = pl.int_range(pl.len())
    rank = severity_rank()
    return (
        findings.with_columns(_rank=rank)
        .sort("_rank", "rows", "timestamp", descending=[True, True, False])
        .with_columns(_turn=turn.over("check", "_rank", *DATASET_MARKET))
        .sort("_rank", "_turn", descending=[True, False], maintain_order=True)
        .with_columns(_place=turn.over("check"))
        .filter(pl.col("_place") < _PER_CHECK)
        .sort("_place", maintain_order=True)
        .head(_CHARTS)
    )


def _pair_venues(
    inputs: CheckInputs, selection: Selection, damages: Damages
) -> Iterator[tuple[Dataset, Market, Market]]:
    for table, rows in inputs.tables.items():
        if rows.dataset.event != "bar":
            continue
        by_symbol: dict[str, list[Market]] = {}
        with damages.collect(table):
            for market in inputs.find_markets(table, selection):
                by_symbol.setdefault(market.symbol, []).append(market)
        for markets in by_symbol.values():
            for first, second in combinations(markets, 2):
                yield rows.dataset, first, second


def _build_chart(inputs: CheckInputs, row: dict[str, object]) -> Chart | None:
    table, market = str(row["dataset"]), StoredMarket(str(row["exchange"]), str(row["symbol"]))
    start, end = row["timestamp"], row["end"]
    dataset = inputs.tables[table].dataset
    if not isinstance(start, datetime) or not isinstance(end, datetime):
        return None
    end = max(end, start + _step(dataset))
    candles = _read_candles(inputs, dataset, market, start, end)
    if candles.is_empty():
        return None
    seconds = candles.select(_to_seconds(dataset.time_column)).to_series()
    against = row["against"]
    line = None
    if isinstance(against, str):
        line = _read_reference(inputs, dataset, market, against, candles[dataset.time_column])
    return Chart(
        finding_id=str(row["finding_id"]),
        kind={"gaps": "gap", "spikes": "spike"}.get(str(row["check"]), str(row["check"])),
        title=f"{market} · {table}",
        times=tuple(seconds.to_list()),
        **{name: tuple(candles[name].to_list()) for name in OHLCV},
        mark_start=_epoch(start),
        mark_end=_epoch(end),
        second_opinion=line,
    )


def _read_candles(
    inputs: CheckInputs, dataset: Dataset, market: Market, start: datetime, end: datetime
) -> pl.DataFrame:
    """Read the candles before, in and after an interval, without the middle of a long one."""
    step = _step(dataset)
    parts = [(start - _AROUND * step, end + _AROUND * step)]
    if end - start > _LONG * step:
        (first, last), inside = parts[0], _INSIDE * step
        parts = [(first, start + inside), (end - inside, last)]
    return pl.concat([_read_columns(inputs, dataset.name, market, *part) for part in parts])


def _read_reference(
    inputs: CheckInputs, dataset: Dataset, market: Market, against: str, times: pl.Series
) -> Line | None:
    """Read closes at the same times, from trades or finer bars of the market, or another market."""
    first, last = times[0], times[-1]
    if against in inputs.tables:
        table, other = against, market
    else:
        exchange, _, symbol = against.partition(" ")
        if not symbol:
            return None
        table, other = dataset.name, StoredMarket(exchange, symbol)
    if inputs.listing.span(table, other) is None or dataset.timeframe is None:
        return None
    reference = inputs.tables[table].dataset
    price = "price" if "price" in reference.polars_schema else "close"
    rows = _read_columns(
        inputs, table, other, first, last + _step(dataset), (reference.time_column, price)
    )
    slot = pl.col(reference.time_column).dt.truncate(dataset.timeframe.table_suffix).alias("slot")
    closes = rows.group_by(slot, maintain_order=True).agg(pl.col(price).last())
    joined = times.alias("slot").to_frame().join(closes, on="slot", how="left")
    return Line(against, tuple(joined[price].to_list()))


def _build_deviation(
    inputs: CheckInputs,
    dataset: Dataset,
    first: Market,
    second: Market,
    selection: Selection,
    threshold_bps: float,
) -> Deviation | None:
    frames = [_read_closes(inputs, dataset, market, selection) for market in (first, second)]
    both = (
        frames[0]
        .join(frames[1], on=dataset.time_column, suffix="_second")
        .with_columns(bps=(pl.col("close") / pl.col("close_second") - 1) * 1e4)
    )
    if both.is_empty():
        return None
    bps = pl.col("bps")
    points = both.group_by(_point_number(both.height), maintain_order=True).agg(
        _to_seconds(dataset.time_column).first().alias("seconds"),
        mean=bps.mean().round(3),
        low=bps.min().round(3),
        high=bps.max().round(3),
    )
    return Deviation(
        dataset=dataset.name,
        symbol=first.symbol,
        first=first.exchange,
        second=second.exchange,
        times=tuple(points["seconds"].to_list()),
        bps=tuple(points["mean"].to_list()),
        low=tuple(points["low"].to_list()),
        high=tuple(points["high"].to_list()),
        compared=both.height,
        apart=both.filter(bps.abs() > threshold_bps).height,
        threshold_bps=threshold_bps,
    )


def _read_closes(
    inputs: CheckInputs, dataset: Dataset, market: Market, selection: Selection
) -> pl.DataFrame:
    """Read the closes of closed bars that the venue sent."""
    columns = (dataset.time_column, "close", "closed", "fill")
    rows = _read_columns(inputs, dataset.name, market, selection.start, selection.end, columns)
    return rows.filter(pl.col("closed") & pl.col("fill").is_null()).drop("closed", "fill")


def _point_number(rows: int) -> pl.Expr:
    return pl.int_range(pl.len()) // max(1, -(-rows // _POINTS))


def _step(dataset: Dataset) -> timedelta:
    seconds = dataset.timeframe.seconds if dataset.timeframe else 0
    return timedelta(seconds=seconds)


def _read_columns(
    inputs: CheckInputs,
    table: str,
    market: Market,
    start: datetime | None,
    end: datetime | None,
    columns: tuple[str, ...] = ("timestamp", *OHLCV),
) -> pl.DataFrame:
    selection = Selection((market.exchange,), (market.symbol,), start, end)
    return inputs.tables[table].collect(selection, columns=columns)


def _to_seconds(column: str) -> pl.Expr:
    return pl.col(column).dt.timestamp("us") // 1_000_000


def _epoch(time: datetime) -> int:
    return int((time - EPOCH).total_seconds())
