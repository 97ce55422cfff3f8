"""Ingestions that did not end well, and the markets that they left without any coverage."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any

from lake.model.time import iso
from lake.store.ledger import Ledger
from lake.store.store import Store

Part = tuple[str, str, str]
"""A table, and exchange and symbol of a market."""
_COMMAND = "ingest "


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An ingestion that left a market without any coverage, and from when on it was requested."""

    job_id: str
    status: str
    since: datetime

    def describe(self) -> str:
        """Describe it as `lake status` does."""
        ended = "runs or was killed" if self.status == "running" else f"is {self.status}"
        return (
            f"not fetched from {iso(self.since)}: job {self.job_id} {ended}, "
            "`lake ingest` continues it"
        )


def find_unfinished(store: Store, known: Collection[Part]) -> dict[Part, Unfinished]:
    """Find by table and market the ingestions that were to fetch it and did not.

    Rows of a killed run may be stored; without coverage nobody knows which are missing.

    Parameters
    ----------
    known
        What is covered or refused: it goes on from there.
    """
    found: dict[Part, Unfinished] = {}
    for job in Ledger(store).read_jobs().iter_rows(named=True):
        for part, since in _list_parts(job["command"], json.loads(job["arguments"])).items():
            if part in known or job["status"] == "ok":
                found.pop(part, None)
                continue
            first = min(since, found[part].since) if part in found else since
            found[part] = Unfinished(job["job_id"], job["status"], first)
    return found


def _list_parts(command: str, arguments: dict[str, Any]) -> dict[Part, datetime]:
    """List what an ingestion with a beginning was for; nothing where that cannot be told."""
    if not (command.startswith(_COMMAND) and arguments.get("since")):
        return {}
    tables = command.removeprefix(_COMMAND).split()
    markets = [market.split(" ", 1) for market in arguments["markets"]]
    if arguments.get("requests") != len(tables) * len(markets):
        return {}  # not each table of each market was requested
    since = datetime.fromisoformat(arguments["since"])
    return {(table, *market): since for table, market in product(tables, map(_pair, markets))}


def _pair(names: list[str]) -> tuple[str, str]:
    exchange, symbol = names
    return exchange, symbol
