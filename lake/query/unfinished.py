"""Ingestions that did not end well, and the markets of which they left the beginning open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import polars as pl

from lake.errors import UnknownNameError
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, iso
from lake.store.ledger import Ledger
from lake.store.reader import EVERYTHING
from lake.store.store import Store

Part = tuple[str, str, str]
"""A table, and exchange and symbol of a market."""
_COMMAND = "ingest "
_COLUMNS = ("timestamp", "job_id", "command", "arguments", "status")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An ingestion that left the beginning of a market open, and from when on it was requested."""

    job_id: str
    status: str
    since: datetime

    def describe(self) -> str:
        """Describe it as `lake status` does."""
        text = f"not fetched from {iso(self.since)}: job {self.job_id} is {self.status}"
        return text if self.status == "running" else f"{text}, `lake ingest` continues it"


def find_unfinished(store: Store, known: Mapping[Part, datetime]) -> dict[Part, Unfinished]:
    """Find by table and market the ingestions that were to fetch it from earlier on and did not.

    Rows of a killed run may be stored; without coverage nobody knows which are missing.

    Parameters
    ----------
    known
        From when on something is covered or refused: it goes on from there.
    """

    def is_settled(part: Part, since: datetime) -> bool:
        return part in known and known[part] < since + _find_step(store, part[0])

    failed = _read_ingestions(store, pl.col("status") != "ok")
    wanted = [item for job in failed.iter_rows(named=True) for item in _list_parts(job).items()]
    if all(is_settled(*item) for item in wanted):
        return {}
    since = Selection(start=failed["timestamp"].min())  # type: ignore[arg-type]
    ended_well = _read_ingestions(store, pl.col("status") == "ok", since)
    found: dict[Part, Unfinished] = {}
    for job in pl.concat([failed, ended_well]).sort("timestamp", "job_id").iter_rows(named=True):
        for part, begin in _list_parts(job).items():
            if is_settled(part, begin) or job["status"] == "ok":
                found.pop(part, None)
                continue
            first = min(begin, found[part].since) if part in found else begin
            found[part] = Unfinished(job["job_id"], job["status"], first)
    return found


def _find_step(store: Store, table: str) -> timedelta:
    """Return by how much what is covered may begin later than what was requested."""
    with suppress(UnknownNameError):  # its dataset file is gone
        timeframe = store.catalog.dataset(table).timeframe
        return MICROSECOND if timeframe is None else timeframe.longest
    return MICROSECOND


def _read_ingestions(
    store: Store, condition: pl.Expr, selection: Selection = EVERYTHING
) -> pl.DataFrame:
    """Read the ingestions of a selection that meet a condition, without other columns."""
    parts = [Ledger(store).read_unrecorded_jobs(selection).lazy().select(_COLUMNS)]
    if store.exists("jobs"):
        recorded = store.snapshot(store.catalog.dataset("jobs"))
        parts.insert(0, recorded.scan(selection, columns=_COLUMNS))
    jobs = pl.concat(parts)
    return jobs.filter(condition, pl.col("command").str.starts_with(_COMMAND)).collect()


def _list_parts(job: Mapping[str, Any]) -> dict[Part, datetime]:
    """List what an ingestion with a beginning was for; nothing where that cannot be told."""
    arguments = json.loads(job["arguments"])
    if not arguments.get("since"):
        return {}
    tables = job["command"].removeprefix(_COMMAND).split()
    markets = [market.split(" ", 1) for market in arguments["markets"]]
    if arguments.get("requests") != len(tables) * len(markets):
        return {}  # not each table of each market was requested
    since = datetime.fromisoformat(arguments["since"])
    return {(table, *market): since for table, market in product(tables, map(_pair, markets))}


def _pair(names: list[str]) -> tuple[str, str]:
    exchange, symbol = names
    return exchange, symbol
