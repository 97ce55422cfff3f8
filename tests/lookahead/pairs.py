"""Pairs of lakes that differ only in rows that became known after a time T.

Everything follows from one seed. The two lakes of a pair have the same rows up to T; after it they
have other rows, other values, other delays, and late rows of before T in other places.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lake.api import Lake
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, NewLake, write

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
SPOT, SWAP = "BTC/USDT", "BTC/USDT:USDT"
VENUES = ("binance", "kraken")
LENGTHS = {
    "bars_1m": MINUTE,
    "bars_15m": 15 * MINUTE,
    "bars_1h": HOUR,
    "bars_1d": DAY,
    "bars_1w": 7 * DAY,
}
MONTHS = [datetime(2023 + n // 12, n % 12 + 1, 1, tzinfo=T0.tzinfo) for n in range(16)]
ANNOUNCED = """name = "NAME"
title = "Rates that are announced"
description = "What applies at a time, known from its announcement on."
rows = "revisable"
date = "year"
time_column = "timestamp"
available_at = "announced_at"
key = ["timestamp"]

[columns]
timestamp = { type = "timestamp", unit = "UTC", meaning = "When it applies." }
announced_at = { type = "timestamp", unit = "UTC", nullable = true, meaning = "When announced." }
rate = { type = "float64", unit = "fraction", meaning = "The rate." }

[columns.received_at]
type = "timestamp"
unit = "UTC"
nullable = true
digest = false
meaning = "When this machine received it."
"""
SCHEMAS = {"announced": ANNOUNCED.replace("NAME", "announced")}
TABLES = (*LENGTHS, "bars_1mo", "trades", "orderbooks", "funding", "announced")

Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """Two lakes that agree on what was known at a time, and the seed that made them."""

    seed: int
    time: datetime
    lakes: tuple[Lake, Lake]
    pasts: Mapping[str, Sequence[Row]] = field(repr=False)


def make_pair(seed: int, new_lake: NewLake, tables: Sequence[str] = TABLES) -> Pair:
    """Make a pair of lakes; T is a whole minute in every second pair."""
    dice = random.Random(seed)
    time = T0 + 2 * DAY + dice.randrange(2880) * MINUTE
    if seed % 2:
        time += dice.randrange(60_000_000) * MICROSECOND
    pasts: dict[str, list[Row]] = {}
    futures: dict[str, list[Row]] = {}
    for table in tables:
        rows = [row for venue in VENUES for row in draw_rows(dice, table, venue, time)]
        pasts[table] = [row for row in rows if known_at(table, row) <= time]
        futures[table] = [row for row in rows if known_at(table, row) > time]
    lakes = []
    for number in range(2):
        own = random.Random(2 * seed + number + 1_000_000)
        lake = new_lake(schemas=SCHEMAS)
        write(lake, "instruments", build_specifications())
        for table in tables:
            future = [vary(own, table, row, time) for row in futures[table] if own.random() < 0.7]
            store(own, lake, table, [*pasts[table], *future])
        if number and seed % 3 == 0:
            lake.maintenance.optimize()
        lakes.append(lake)
    return Pair(seed, time, (lakes[0], lakes[1]), pasts)


def known_at(table: str, row: Row) -> datetime:
    """Return when a row may first be seen, from the documentation alone."""
    happened: datetime = row.get("announced_at") or end_of(table, row["timestamp"])
    return max(happened, row["received_at"] or happened)


def end_of(table: str, time: datetime) -> datetime:
    """Return when what a row tells of was over."""
    if table == "bars_1mo":
        return (time + 32 * DAY).replace(day=1)
    return time + LENGTHS.get(table, timedelta(0))


def draw_rows(dice: random.Random, table: str, venue: str, time: datetime) -> list[Row]:
    """Draw rows of one market before and after a time, in order."""
    symbol = SWAP if table in ("funding", "announced") else SPOT
    rows = []
    for number, happens in enumerate(draw_times(dice, table, time)):
        row = {"exchange": venue, "symbol": symbol, "timestamp": happens}
        if table == "announced":
            ahead = dice.choice([-40, -3, -0.25, 0, 0.01, 2, 11])
            row["announced_at"] = dice.choice([None, happens + ahead * DAY])
        row["received_at"] = draw_receipt(dice, table, row, time)
        if table == "trades":
            row["trade_id"] = str(10_000 + number)
        if table == "orderbooks":
            row["sequence"] = number
        rows.append(row | draw_values(dice, table))
    return rows


def draw_times(dice: random.Random, table: str, time: datetime) -> list[datetime]:
    """Draw times of rows around a time; some bars and trades are missing."""
    if table == "bars_1mo":
        return MONTHS
    if table in LENGTHS:
        step = LENGTHS[table]
        origin = datetime(2023, 12, 4, tzinfo=T0.tzinfo) if table == "bars_1w" else T0 - 9 * DAY
        nearest = origin + (time - origin) // step * step
        counts = {"bars_1m": (90, 40), "bars_1w": (4, 4), "bars_1d": (11, 5)}
        before, after = counts.get(table, (40, 20))
        slots = [nearest + n * step for n in range(-before, after)]
        return [slot for slot in slots if dice.random() < 0.93]
    if table in ("funding", "announced"):
        nearest = T0 + (time - T0) // (8 * HOUR) * (8 * HOUR)
        return [nearest + n * 8 * HOUR + 3 * MICROSECOND for n in range(-12, 8)]
    step = MINUTE if table == "trades" else 4 * MINUTE
    times = [time + (n + dice.random()) * step for n in range(-70, 30)]
    return sorted([*times, *times[60:90:5]] if table == "trades" else times)


def draw_receipt(dice: random.Random, table: str, row: Row, time: datetime) -> datetime | None:
    """Draw when a row was received: never recorded, at once, early by a wrong clock, or late."""
    happened = end_of(table, row["timestamp"])
    kind = dice.random()
    if kind < 0.5 and table != "orderbooks":
        return None
    if kind < 0.8:
        return happened + dice.random() * 90 * SECOND
    if kind < 0.88:
        return happened - dice.random() * 5 * MINUTE
    if kind < 0.94 or happened > time:
        return happened + dice.random() * 3 * DAY
    return dice.choice([time, time + MICROSECOND, time + dice.random() * DAY])


def draw_values(dice: random.Random, table: str) -> Row:
    """Draw the values of a row that follow no time."""
    price = round(40_000 + dice.random() * 1000, 2)
    amount = round(0.001 + dice.random() * 5, 5)
    if table.startswith("bars"):
        prices = {"open": price, "close": round(price + dice.randrange(-500, 500) / 100, 2)}
        high, low = max(prices.values()) + 1, min(prices.values()) - 1
        volumes = {"volume": amount, "trade_count": dice.choice([None, dice.randrange(1, 99)])}
        return {**prices, "high": round(high, 2), "low": round(low, 2), **volumes, "closed": True}
    if table == "trades":
        return {"price": price, "amount": amount, "side": dice.choice(["buy", "sell", None])}
    if table == "orderbooks":
        sides = {"bid_prices": [price], "ask_prices": [round(price + 1, 2)]}
        return {**sides, "bid_amounts": [amount], "ask_amounts": [amount]}
    return {"funding_rate" if table == "funding" else "rate": dice.randrange(-99, 99) / 1e6}


def vary(dice: random.Random, table: str, row: Row, time: datetime) -> Row:
    """Change what became known after a time: values, and when it was received, after that time."""
    changed = row | draw_values(dice, table)
    if table == "announced" and row["announced_at"] is not None:
        changed["announced_at"] = max(row["announced_at"], time + MICROSECOND) + dice.random() * DAY
    changed["received_at"] = draw_receipt(dice, table, row, time)
    if known_at(table, changed) <= time:
        changed["received_at"] = time + MICROSECOND + dice.choice([0, 1]) * dice.random() * DAY
    return changed


def store(dice: random.Random, lake: Lake, table: str, rows: Sequence[Row]) -> None:
    """Store rows in one or two commits, cut anywhere."""
    schema = lake.dataset(table).polars_schema
    shuffled = dice.sample(rows, len(rows))
    cut = dice.choice([0, dice.randrange(len(rows))])
    for part in (shuffled[:cut], shuffled[cut:]):
        if part:
            kinds = {name: kind for name, kind in schema.items() if name in part[0]}
            written = write(lake, table, pl.DataFrame(part, schema=kinds))
            assert (written.inserted, written.rejected) == (len(part), 0)


def build_specifications() -> pl.DataFrame:
    """Build the specification of each spot market."""
    facts = {"type": "spot", "base": "BTC", "quote": "USDT", "venue_symbol": "BTCUSDT"}
    sizes = {"active": True, "tick_size": 0.01, "lot_size": 0.00001}
    rows = [
        {"exchange": venue, "symbol": SPOT, "valid_from": T0 - 90 * DAY, **facts, **sizes}
        for venue in VENUES
    ]
    return pl.DataFrame(rows, schema_overrides={"valid_from": TIME})


def find_differences(pair: Pair, read: Callable[[Lake, datetime], Mapping[str, Any]]) -> list[str]:
    """Return the names of the readings that differ between the lakes of a pair."""
    first, second = (read(lake, pair.time) for lake in pair.lakes)
    assert first.keys() == second.keys()
    return [name for name in first if not is_same(first[name], second[name])]


def is_same(first: Any, second: Any) -> bool:
    """Whether two readings are equal, nulls and order included."""
    if isinstance(first, pl.DataFrame):
        return first.equals(second) and first.schema == second.schema
    return bool(first == second)
