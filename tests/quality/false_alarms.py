"""Rows as venues sent them, and clean rows of the sandbox, for the count of false alarms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.market import Market
from lake.quality.run import FOLDED_PATTERN
from lake.quality.slice import Reference, Slice
from tests.paths import SHARED
from tests.quality.checks import recorded_books as books
from tests.quality.defects import sandbox_bars, sandbox_trades
from tests.quality.injection.books import books_slice
from tests.quality.injection.count import find_all
from tests.quality.injection.recordings import recorded_books
from tests.quality.injection.rows import FILES, WITNESSES, bars_slice, clean_bars
from tests.quality.injection.trades import SOURCES, clean_trades, trades_slice
from tests.quality.lean import COLUMNS
from tests.quality.real import DATA
from tests.quality.slices import reference_of, slice_of

LEAN = SHARED / "peers" / "03_lean_levels" / "Data"
START = datetime(2024, 1, 1, tzinfo=UTC)
SANDBOX_DAYS = 21
SANDBOX_MARKETS = (0, 1, 2, 4, 5, 6, 7)  # the other one is not listed then
ROWS_A_WARNING = 10_000
_TABLES = {"minute": "bars_1m", "second": "bars_1s", "hour": "bars_1h", "daily": "bars_1d"}
_FINER = {"bars_1m": "bars_1s", "bars_1h": "bars_1m", "bars_1d": "bars_1m"}
_FIVE_MINUTES = ("ETH-BTC", "ADA-BTC", "XLM-BTC", "TRX-BTC")


@dataclass
class Alarms:
    """Findings of the rows of a source, of warnings and worse.

    Attributes
    ----------
    rows
        Number of rows that were checked.
    missing
        Findings of what is missing: real gaps are no false alarms.
    errors, warnings
        All others.
    """

    rows: int = 0
    missing: int = 0
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, data: Slice) -> None:
        """Check the rows of a slice."""
        findings = find_all(data).filter(pl.col("severity") != "info")
        is_missing = pl.col("dimension") == "completeness"
        self.rows += data.frame.filter(data.is_inside()).select(pl.len()).collect().item()
        self.missing += findings.filter(is_missing).height
        for finding in findings.filter(~is_missing).iter_rows(named=True):
            is_mild = finding["severity"] == "warning"
            (self.warnings if is_mild else self.errors).extend(
                [f"{data.market} {finding['start']} {finding['check']}: {finding['message']}"]
                * _unfold(finding["message"])
            )


def _unfold(message: str) -> int:
    """Return how many findings a finding stands for."""
    folded = pl.Series([message]).str.extract(FOLDED_PATTERN.replace(r"\d+", r"(\d+)")).item()
    return int(folded or 1)


def lean_slices() -> Iterator[Slice]:
    """Bars as LEAN publishes them: one slice of each market and run of days.

    A slice has the finer bars of its market, as in a lake that holds all of them.
    """
    tables = _read_lean_tables()
    for (exchange, table, name), rows in sorted(tables.items()):
        market = Market(exchange, name)
        finer = tables.get((exchange, _FINER.get(table, ""), name))
        more: dict[str, Any] = (
            {} if finer is None else {"finer": (_lean_reference(table, finer, market),)}
        )
        for frame in _join_days(rows):
            yield slice_of(table, frame, market=market, **more)


def _lean_reference(table: str, frame: pl.DataFrame, market: Market) -> Reference:
    return reference_of(_FINER[table], frame.sort("timestamp"), market=market)


def _read_lean_tables() -> dict[tuple[str, str, str], pl.DataFrame]:
    """Read the bars of each exchange, table and market; contracts have their kind in the name."""
    parts: dict[tuple[str, str, str], list[pl.DataFrame]] = {}
    for path in sorted(LEAN.rglob("*trade.zip")):
        kind, exchange, resolution, *_ = path.relative_to(LEAN).parts
        name = path.parent.name if path.name[:8].isdigit() else path.name.partition("_")[0]
        symbol = f"{name.upper()}{':SWAP' if kind == 'cryptofuture' else ''}"
        key = (exchange, _TABLES[resolution], symbol)
        parts.setdefault(key, []).append(_read_lean(path))
    return {key: pl.concat(frames) for key, frames in parts.items()}


def _read_lean(path: Path) -> pl.DataFrame:
    with ZipFile(path) as archive:
        text = archive.read(archive.namelist()[0])
    types = dict.fromkeys(COLUMNS, pl.Float64) | {"timestamp": pl.String}
    frame = pl.read_csv(BytesIO(text), has_header=False, new_columns=COLUMNS, schema=types)
    time = pl.col("timestamp")
    if path.name[:8].isdigit():
        day = datetime.strptime(path.name[:8], "%Y%m%d").replace(tzinfo=UTC)
        opens = pl.lit(day) + pl.duration(milliseconds=time.cast(pl.Int64))
    else:
        opens = time.str.to_datetime("%Y%m%d %H:%M", time_unit="us", time_zone="UTC")
    return frame.with_columns(timestamp=opens.cast(TIMESTAMP))


def _join_days(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Join days that follow each other."""
    apart = pl.col("timestamp").diff() > timedelta(hours=36)
    runs = rows.sort("timestamp").with_columns(_run=apart.fill_null(value=False).cum_sum())
    yield from (run.drop("_run") for run in runs.partition_by("_run", maintain_order=True))


def recorded_bar_slices() -> Iterator[Slice]:
    """Bars of the recorded files, of one minute alone and with each witness."""
    for name in FILES:
        for witness in WITNESSES:
            yield bars_slice(name, clean_bars(name), witness)
    for name in _FIVE_MINUTES:
        frame = pl.read_parquet(DATA / "bars" / f"binance_{name}_5m.parquet").sort("timestamp")
        yield slice_of("bars_5m", frame, market=Market("binance", name.replace("-", "/")))
    frame = pl.read_parquet(DATA / "bars" / "binanceusdm_XRP-USDT-USDT_mark-8h.parquet")
    yield slice_of("bars_8h", frame, market=Market("binanceusdm", "XRP/USDT:USDT"))


def recorded_funding_slices() -> Iterator[Slice]:
    """Funding rates of the recorded file."""
    frame = pl.read_parquet(DATA / "funding" / "binanceusdm_XRP-USDT-USDT.parquet")
    yield slice_of("funding", frame, market=Market("binanceusdm", "XRP/USDT:USDT"))


def recorded_trade_slices() -> Iterator[Slice]:
    """Trades of the recordings, alone and with the market's bars."""
    for name in SOURCES:
        for witness in ("alone", "bars"):
            yield trades_slice(name, clean_trades(name), witness)


def recorded_book_slices() -> Iterator[Slice]:
    """Order books of the recordings, those with trades and another market with each witness."""
    for name in ("spot", "usdm"):
        for witness in WITNESSES:
            yield books_slice(name, recorded_books(name), witness)
    venues = {
        "binance": books.binance(),
        "binanceusdm": books.binance("BINANCE_FUTURES"),
        "bybit": {"XRPUSDT": books.bybit()},
        "coinbase": books.coinbase(),
        "krakenfutures": books.kraken_futures(),
        "okx": books.okx(),
    }
    for exchange, markets in venues.items():
        for symbol, rows in markets.items():
            frame = pl.DataFrame(rows).unique(
                ["timestamp", "sequence"], keep="last", maintain_order=True
            )
            yield slice_of("orderbooks", frame, market=Market(exchange, symbol))


def sandbox_slices() -> Iterator[Slice]:
    """A million rows of the sandbox: bars alone and with trades, and trades."""
    for number in SANDBOX_MARKETS:
        bars = sandbox_bars(number, START, SANDBOX_DAYS)
        market = Market("sandbox", f"COIN{number}/USDT")
        yield slice_of("bars_1m", bars, market=market)
        trades = sandbox_trades(number, START, SANDBOX_DAYS)
        yield slice_of("trades", trades, market=market)
        reference = reference_of("trades", trades, market=market)
        yield slice_of("bars_1m", bars, market=market, trades=reference)


def real_bar_slices() -> Iterator[Slice]:
    """All bars of venues that were recorded or published."""
    yield from lean_slices()
    yield from recorded_bar_slices()


SOURCES_OF_ROWS = {
    "bars of venues": real_bar_slices,
    "recorded funding": recorded_funding_slices,
    "recorded trades": recorded_trade_slices,
    "recorded books": recorded_book_slices,
    "sandbox": sandbox_slices,
}


def run_all(slices: Iterator[Slice]) -> Alarms:
    """Check all slices of a source."""
    alarms = Alarms()
    for data in slices:
        alarms.add(data)
    return alarms


def require_few(alarms: Alarms) -> None:
    """Require no error, and at most one warning in so many rows."""
    assert alarms.rows > 0
    assert alarms.errors == []
    assert len(alarms.warnings) <= alarms.rows / ROWS_A_WARNING, "\n".join(alarms.warnings)
