"""Records of an answer as rows: one bad record does not make the others unusable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from lake.model.words import count
from lake.sources.base import Refused
from lake.sources.faults import Fault


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one answer.

    Attributes
    ----------
    frame
        Those that can become rows.
    refused
        The others.
    """

    frame: pl.DataFrame
    refused: tuple[Refused, ...] = ()

    @property
    def anomaly(self) -> str | None:
        """What is odd about the answer; None if all of its records can become rows."""
        if not self.refused:
            return None
        first = self.refused[0]
        return f"{len(self.refused)} unusable records, the first {first.reason}: {first.raw[:100]}"


def parse_records(
    answer: Any, parse: Callable[[Any], pl.DataFrame], required: Iterable[str] = ("timestamp",)
) -> Records:
    """Parse an answer as a whole; if that fails, set aside the records that cannot be parsed.

    Parameters
    ----------
    answer
        A list of records.
    parse
        Parses a list of records into a frame with a row each.
    required
        Columns without which a record cannot be placed, such as its time.

    Raises
    ------
    Fault
        The answer is no list, or no record of it can be parsed.
    """
    names = tuple(required)
    try:
        frame = parse(answer)
    except Fault:
        if not isinstance(answer, list):
            raise
    else:
        if not any(frame[name].null_count() for name in names):
            return Records(frame)
    reasons = [_find_reason(record, parse, names) for record in answer]
    good = [record for record, reason in zip(answer, reasons, strict=True) if reason is None]
    if not good:
        raise Fault(f"{count(len(answer), 'record')}, of which none can be read: {reasons[0]}")
    return Records(parse(good), tuple(_refuse(answer, reasons)))


def _find_reason(
    record: Any, parse: Callable[[Any], pl.DataFrame], names: Sequence[str]
) -> str | None:
    try:
        row = parse([record])
    except Fault:
        return "unreadable"
    return next((f"{name}_missing" for name in names if row[name].null_count()), None)


def _refuse(answer: Sequence[Any], reasons: Sequence[str | None]) -> Iterable[Refused]:
    for record, reason in zip(answer, reasons, strict=True):
        if reason is not None:
            yield Refused(reason, orjson.dumps(record, default=str).decode())


def join_anomalies(*anomalies: str | None) -> str | None:
    """Join what is odd about an answer; None if nothing is."""
    return "; ".join(anomaly for anomaly in anomalies if anomaly) or None
