"""Every way of reading a lake or a bundle up to a time: what each shows, by a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

import polars as pl

import lake as api
from lake.align.policies import AsOf, How, Resample
from lake.api import Lake
from lake.bundles.bundle import Bundle
from tests.conftest import DAY, MINUTE
from tests.lookahead.pairs import HOUR, MICROSECOND, TABLES

Reader = Lake | Bundle
Readings = dict[str, Any]
MARKETS = ("exchange", "symbol")
STATES: tuple[How, ...] = (
    AsOf(None),
    AsOf("1h"),
    AsOf("1h", fill="last", limit="1d"),
    AsOf("8h", fill="zero"),
    *(Resample("sum", fill=fill) for fill in ("none", "zero")),
    *(Resample(kind, fill=fill) for kind in ("mean", "last") for fill in ("none", "zero")),
    *(Resample(kind, fill="last", limit="1d") for kind in ("mean", "last")),
)
BARS: tuple[How, ...] = (Resample("ohlcv"), Resample("ohlcv", fill="flat", limit="1d"))
JOIN = """
    SELECT t.exchange, t.symbol, t.timestamp, t.trade_id, t.price, b.timestamp AS open, b.close
    FROM trades t ASOF LEFT JOIN {bars} b
    ON t.exchange = b.exchange AND t.symbol = b.symbol AND t.timestamp >= b.available_at
    WHERE t.available_at <= ? ORDER BY ALL
"""


def read_all(lake: Lake, time: datetime, tables: Sequence[str] = TABLES) -> Readings:
    """Read a lake, a bundle of it from its files, and the same from the cache."""
    bundle = lake.bundles.pin("b", table=tables, check=False)
    bundle.warm()
    cold = lake.bundles.open("b", cache=False)
    readers: dict[str, Reader] = {"lake": lake, "bundle": cold, "cached bundle": bundle}
    rows = {table: lake.available(table).collect() for table in tables}
    readings = {f"rows {table}": _cut(rows[table], time) for table in tables}
    readings |= read_frames(rows, time)
    for name, reader in readers.items():
        for table in tables:
            assert reader.available(table).collect().equals(rows[table])
        parts = [read_rows(reader, time, tables), read_aligned(reader, readings, time, tables)]
        if isinstance(reader, Bundle):
            parts.append(read_stream(reader, time, tables))
        readings |= {f"{name}: {key}": value for part in parts for key, value in part.items()}
    return readings


def read_frames(rows: Mapping[str, pl.DataFrame], time: datetime) -> Readings:
    """Join and align rows in memory by every policy."""
    times = api.grid("7m", since=time - DAY, until=time + MICROSECOND)
    readings: Readings = {}
    for table, frame in rows.items():
        for staleness in (None, HOUR):
            joined = api.as_of_join(times, frame, staleness=staleness)
            readings[f"as_of_join {table} {staleness}"] = joined
        for number, policy in policies_of(table):
            whole = api.align({"x": frame}, **_span(time), how=policy, by=MARKETS).frame
            readings[f"align {table} {number}"] = whole.filter(pl.col("time") <= time)
    return readings


def read_stream(bundle: Bundle, time: datetime, tables: Sequence[str]) -> Readings:
    """Replay up to a time: cut there, or read on beyond it."""
    events = list(bundle.replay(until=time + MICROSECOND))
    beyond = list(takewhile(lambda event: event.available_at <= time, bundle.replay()))
    assert events == beyond
    batches = list(bundle.replay(batch=97))
    frames = {
        f"batches of {table}": _cut(
            pl.concat([batch.frames[table] for batch in batches if table in batch.frames]), time
        )
        for table in tables
    }
    assert len(events) == sum(frame.height for frame in frames.values())
    return {"events": events, **frames}


def read_rows(reader: Reader, time: datetime, tables: Sequence[str]) -> Readings:
    """Read what had become available: by `at`, in SQL, and by joins in SQL."""
    readings: Readings = {}
    for table in tables:
        query = f"SELECT * FROM {table} WHERE available_at <= ? ORDER BY ALL"  # noqa: S608
        readings[f"sql {table}"] = found = reader.sql(query, [time]).pl()
        for exchange, symbol in found.select(MARKETS).unique(maintain_order=True).iter_rows():
            for moment in list_moments(time):
                row = reader.at(table, exchange=exchange, symbol=symbol, time=moment)
                readings[f"at {table} {exchange} {moment}"] = row
        if table.startswith("bars"):
            readings[f"join {table}"] = reader.sql(JOIN.format(bars=table), [time]).pl()
    return readings


def read_aligned(
    reader: Reader, frames: Readings, time: datetime, tables: Sequence[str]
) -> Readings:
    """Align each table by a policy, reading as little as the grid needs: the same as in memory."""
    readings: Readings = {}
    for place, table in enumerate(tables):
        policies = list(policies_of(table))
        number, policy = policies[(len(str(reader)) + time.minute) % len(policies)]
        until = time + (MICROSECOND if (place + time.hour) % 2 else 3 * HOUR)
        span = _span(time) | {"until": until}
        aligned = reader.align({"x": table}, **span, how=policy, by=MARKETS).frame
        readings[f"align {table}"] = known = aligned.filter(pl.col("time") <= time)
        assert known.equals(frames[f"align {table} {number}"])
    return readings


def policies_of(table: str) -> Iterator[tuple[int, How]]:
    """Yield the policies that fit a table, with their numbers."""
    is_bars = table.startswith("bars")
    for number, policy in enumerate((*STATES, *(BARS if is_bars else ()))):
        if table != "orderbooks" or not policy.needs_numbers:
            yield number, policy


def list_moments(time: datetime) -> Sequence[datetime]:
    """List times up to a time, the end of a bar among them."""
    return (time, time.replace(minute=0, second=0, microsecond=0))


def _span(time: datetime) -> dict[str, Any]:
    """Return the step and the range of a grid around a time; every second one meets it exactly."""
    start = time - 6 * HOUR - (time.minute % 2) * 5 * MINUTE
    return {"every": "15m", "since": start, "until": time + 3 * HOUR}


def _cut(rows: pl.DataFrame, time: datetime) -> pl.DataFrame:
    return rows.filter(pl.col("available_at") <= time)
