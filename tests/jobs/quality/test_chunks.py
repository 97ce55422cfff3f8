"""A large market is checked in chunks, which does not change findings and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.jobs.quality.slices import CheckInputs
from lake.model.catalog import builtin
from lake.model.derive import BARS
from lake.model.intervals import split
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from lake.quality.configure import configure
from lake.quality.run import FINDINGS, run_checks
from lake.quality.score import score_days
from lake.store import chunks
from tests.conftest import DAY, T0
from tests.jobs.quality.reader_in_memory import ReaderInMemory
from tests.quality.slices import rows_of

LEFT = ("wide_spread", "stale_book", "foreign_trades")
"""Checks that compare rows of any distance: their findings may depend on how days are cut."""
EDGES = [-700, -500, -251, -250, -31, -2, -1, 0, 1, 2, 30, 59, 250, 499, 501, 700]
"""Slots from a midnight, where cuts are."""


def walk(random: np.random.Generator, timeframe: Timeframe, count: int) -> pl.DataFrame:
    """Bars of a random walk, each with a volume."""
    opens = [timeframe.ceiling(T0)]
    while len(opens) < count:
        opens.append(timeframe.after(opens[-1]))
    closes = 100 * np.exp(np.cumsum(random.normal(0, 5e-4, count)))
    first = np.concatenate(([100.0], closes[:-1])) * np.exp(random.normal(0, 5e-5, count))
    return pl.DataFrame(
        {
            "timestamp": opens,
            "open": first,
            "high": np.maximum(first, closes) * 1.0001,
            "low": np.minimum(first, closes) * 0.9999,
            "close": closes,
            "volume": random.integers(1, 9, count).astype(float),
        },
        schema_overrides={"timestamp": BARS["timestamp"]},
    ).with_columns(
        exchange=pl.lit("binance"),
        symbol=pl.lit("BTC/USDT"),
        fill=pl.lit(None, dtype=pl.String),
    )


def ticks(bars: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    """Four trades a bar: open, high, low, close."""
    quarter = timeframe.seconds // 4
    parts = [
        bars.select(
            pl.col("timestamp").dt.offset_by(f"{n * quarter}s"),
            trade_id=(pl.int_range(pl.len()) * 4 + n).cast(pl.String),
            price=name,
            amount=pl.col("volume") / 4,
        )
        for n, name in enumerate(("open", "high", "low", "close"))
    ]
    return pl.concat(parts).sort("timestamp")


Damage = tuple[str, int, int]
"""What is done, from which row on, and to how many."""


def damaged(frame: pl.DataFrame, damages: Sequence[Damage]) -> pl.DataFrame:
    for kind, first, count in damages:
        inside = pl.int_range(pl.len()).is_between(first, first + count - 1)
        if kind == "gone":
            frame = frame.filter(~inside)
        elif kind == "thin":
            frame = frame.filter(~inside | (pl.int_range(pl.len()) % 41 == 0))
        elif kind == "twice":
            frame = pl.concat([frame, frame.filter(inside)]).sort("timestamp")
        else:
            values = {
                name: pl.when(inside).then(value).otherwise(name) for name, value in _TO[kind]
            }
            frame = frame.with_columns(**values)
    return frame


def _times(factor: float, *names: str) -> list[tuple[str, pl.Expr]]:
    return [(name, pl.col(name) * factor) for name in names]


_LOST = ("gone", "thin")
_PRICES = ("open", "high", "low", "close")
_TO: Mapping[str, list[tuple[str, pl.Expr]]] = {
    "spike": _times(1.05, *_PRICES),
    "wick": _times(1.5, "high"),
    "dip": _times(0.95, "close", "low"),
    "factor": _times(100.0, *_PRICES),
    "broken": _times(0.5, "high"),
    "late": [("timestamp", pl.col("timestamp").dt.offset_by("7s"))],
    "silent": [("volume", pl.lit(0.0))],
    "frozen": [(name, pl.lit(100.0)) for name in _PRICES],
    "filled": [("fill", pl.lit("interpolated:flat"))],
}


def placed(height: int, slots_a_day: int) -> st.SearchStrategy[int]:
    """A row: any, or one near a midnight."""
    near = st.tuples(st.integers(1, max(height // slots_a_day, 1)), st.sampled_from(EDGES)).map(
        lambda pair: pair[0] * slots_a_day + pair[1]
    )
    return st.one_of(near, st.integers(0, height - 1)).map(lambda at: min(max(at, 0), height - 1))


def damages(height: int, slots_a_day: int, *only: str) -> st.SearchStrategy[list[Damage]]:
    kinds = st.sampled_from(only or sorted({*_TO, *_LOST, "twice"}))
    counts = st.sampled_from([1, 1, 2, 20, 40, 61, 300, 600, slots_a_day, 2 * slots_a_day])
    return st.lists(st.tuples(kinds, placed(height, slots_a_day), counts), min_size=1, max_size=6)


def inputs_of(tables: Mapping[str, pl.DataFrame]) -> CheckInputs:
    """Inputs with these tables, without coverage."""
    coverage = pl.DataFrame(schema={name: pl.String() for name in ("table", "exchange", "symbol")})
    times = dict.fromkeys(("start", "end"), BARS["timestamp"])
    quarantine = builtin().dataset("quarantine").empty().drop("row")
    held = {
        name: ReaderInMemory(builtin().dataset(name), rows_of(builtin().dataset(name), frame))
        for name, frame in tables.items()
    }
    return CheckInputs(
        tables=held,
        coverage=coverage.with_columns(pl.lit(None, dtype=t).alias(n) for n, t in times.items()),
        quarantine=quarantine,
        now=datetime(2100, 1, 1, tzinfo=UTC),
        omits_empty_bars=lambda _: False,
    )


def check_ranges(tables: Mapping[str, pl.DataFrame], table: str, ranges: Any) -> Any:
    """Findings and scores of a table, range after range."""
    evidence, findings, scored = inputs_of(tables), [pl.DataFrame(schema=FINDINGS)], []
    checks = [check for check in configure(builtin().dataset(table)) if check.name not in LEFT]
    for item in ranges:
        selection = Selection(("binance",), start=item and item.start, end=item and item.end)
        for rows in evidence.cut_slices(table, selection):
            seen = run_checks(rows, checks)
            findings.append(seen.findings)
            scored.append(score_days(seen.days, seen.findings))
    order = ["start", "check", "reason", "against", "end"]
    return pl.concat(findings).sort(order, maintain_order=True), pl.concat(scored).sort("timestamp")


def assert_cuts_change_nothing(
    tables: Mapping[str, pl.DataFrame], table: str, length: timedelta
) -> None:
    """At once, in parts of a length, and in pieces, as they are cut where a piece holds little."""
    assume(not tables[table].is_empty())
    at_once = check_ranges(tables, table, [None])
    times = tables[table]["timestamp"]
    first, last = times.min(), times.max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    whole = TimeRange(first, last + timedelta(microseconds=1))
    in_parts = check_ranges(tables, table, split(whole, length))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_CHECK_ROWS", sum(frame.height for frame in tables.values()) // 4)
        in_pieces = check_ranges(tables, table, [None])
    for cut in (in_parts, in_pieces):
        for chunk, other in zip(cut, at_once, strict=True):
            assert_frame_equal(chunk, other, check_exact=True)


MINUTES, COUNT = Timeframe(1, "m"), 4 * 1440


@settings(max_examples=15)
@given(st.integers(0, 99), damages(COUNT, 1440), damages(COUNT, 1440), st.booleans(), st.booleans())
def test_minutes_are_checked_the_same_however_they_are_cut(
    seed: int, of_bars: list[Damage], of_trades: list[Damage], traded: bool, elsewhere: bool
) -> None:
    clean = walk(np.random.default_rng(seed), MINUTES, COUNT)
    tables = {"bars_1m": damaged(clean, of_bars)}
    if elsewhere:
        tables["bars_1m"] = pl.concat([tables["bars_1m"], on_kraken(clean)])
    if traded:
        lost = [row for row in of_trades if row[0] in _LOST]
        tables["trades"] = damaged(ticks(clean, MINUTES), lost)
    assert_cuts_change_nothing(tables, "bars_1m", DAY)


def on_kraken(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(exchange=pl.lit("kraken"))


LONGER = {"1h": ("15m", 480, 24, 4), "1d": ("1h", 60, 1, 14), "1w": ("1d", 30, 1, 35)}


@settings(max_examples=10)
@given(st.sampled_from(sorted(LONGER)), st.integers(0, 99), st.booleans(), st.data())
def test_longer_bars_are_checked_the_same_however_they_are_cut(
    name: str, seed: int, traded: bool, data: st.DataObject
) -> None:
    below, count, a_day, days_a_part = LONGER[name]
    coarse, fine = Timeframe.parse(name), Timeframe.parse(below)
    finer = walk(np.random.default_rng(seed), fine, count * coarse.seconds // fine.seconds)
    bars = data.draw(damages(count, a_day))
    tables = {f"bars_{name}": damaged(merged(finer, coarse), bars)}
    if traded:
        tables["trades"] = damaged(ticks(finer, fine), data.draw(damages(count, a_day, *_LOST)))
    else:
        tables[f"bars_{below}"] = damaged(finer, data.draw(damages(finer.height, a_day)))
    assert_cuts_change_nothing(tables, f"bars_{name}", days_a_part * DAY)


def merged(finer: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    """Longer bars of finer ones."""
    return finer.group_by_dynamic("timestamp", every=str(timeframe)).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
        pl.col("exchange", "symbol", "fill").first(),
    )
