"""Raw records that a source refused, as rows of the table `quarantine`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.json_text import parse_json
from lake.model.time import EPOCH
from lake.sources.base import FetchRequest, Refused
from lake.store.bounds import is_usable


def quarantine_rows(
    request: FetchRequest, records: Sequence[Refused], job_id: str, now: datetime
) -> pl.DataFrame:
    """Build rows of `quarantine`, one a record: its raw form as JSON, with the reason.

    Text that is not JSON is stored as a JSON string. The same record gives the same row, so that
    what is fetched twice is stored once.
    """
    rows = []
    for record in records:
        text = _as_json(record.raw)
        rows.append(
            {
                "exchange": request.market.exchange,
                "symbol": request.market.symbol,
                "dataset": request.dataset.name,
                "timestamp": record.time if is_usable(record.time) else EPOCH,
                "row_digest": hashlib.sha256(text.encode()).hexdigest(),
                "reason": record.reason,
                "row": text,
                "job_id": job_id,
                "refused_at": now,
            }
        )
    times = {"timestamp": TIMESTAMP, "refused_at": TIMESTAMP}
    return pl.DataFrame(rows, schema_overrides=times)


def _as_json(raw: str) -> str:
    try:
        parse_json(raw)
    except ValueError:
        return json.dumps(raw)
    return raw
