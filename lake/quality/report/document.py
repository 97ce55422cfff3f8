"""Define the quality report: plain values that are stored as JSON and shown as a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from typing import Literal

import orjson
from pydantic import TypeAdapter, ValidationError

from lake.errors import DamagedError
from lake.model.dataset import Dimension
from lake.model.severity import Severity
from lake.model.time import DAY

Reason = Literal["no_trade", "venue_outage", "not_given", "not_fetched", "unknown", "lost"]
"""Why slots are missing; see `MissingSlots`."""


@dataclass(frozen=True, slots=True)
class MissingSlots:
    """Missing slots by reason; the last four are losses."""

    no_trade: int = 0
    venue_outage: int = 0
    not_given: int = 0
    not_fetched: int = 0
    unknown: int = 0
    lost: int = 0

    @property
    def losses(self) -> int:
        """Number of slots that should have a row."""
        return self.not_given + self.not_fetched + self.unknown + self.lost


@dataclass(frozen=True, slots=True)
class OpenFindings:
    """Open findings by severity."""

    critical: int = 0
    error: int = 0
    warning: int = 0
    info: int = 0

    @property
    def total(self) -> int:
        """Number of findings of all severities."""
        return self.critical + self.error + self.warning + self.info


@dataclass(frozen=True, slots=True)
class Scores:
    """The score and its dimensions, each from 0 to 1; None if nothing was checked."""

    score: float | None = None
    completeness: float | None = None
    accuracy: float | None = None
    consistency: float | None = None
    timeliness: float | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Figures of the whole range; `expected` is the number of rows and losses."""

    scores: Scores
    rows: int
    expected: int
    missing: MissingSlots
    findings: OpenFindings


@dataclass(frozen=True, slots=True)
class Days:
    """Figures of one market by day of the report's range.

    Attributes
    ----------
    score
        One per day, in ten-thousandths (9987 is 0.9987); None if nothing was checked.
    rows
        One per day.
    missing
        `(day, reason, slots)` for days with missing slots; the first day of the range is 0.
    """

    score: tuple[int | None, ...]
    rows: tuple[int, ...]
    missing: tuple[tuple[int, Reason, int], ...] = ()


@dataclass(frozen=True, slots=True)
class MarketFigures:
    """Figures of one market of one dataset, over the range and by day."""

    dataset: str
    exchange: str
    symbol: str
    scores: Scores
    rows: int
    expected: int
    missing: MissingSlots
    findings: OpenFindings
    days: Days


@dataclass(frozen=True, slots=True)
class Finding:
    """A row of the table `findings`; `context` has the neighbouring rows as JSON values."""

    finding_id: str
    dataset: str
    exchange: str
    symbol: str
    check: str
    against: str
    severity: Severity
    dimension: Dimension
    reason: str | None
    start: datetime
    end: datetime
    rows: int
    measured: float | None
    expected: float | None
    message: str
    job_id: str
    found_at: datetime
    status: Literal["open", "closed"] = "open"
    context: tuple[dict[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """Closes of a reference at the times of a chart: one value, or None, per candle."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Candles around a finding.

    Attributes
    ----------
    finding_id
        The finding that the chart shows.
    kind
        Kind of the finding, such as `gap` or `spike`.
    title
        One line: market and table.
    times
        Start of each slot, in seconds since 1970, ascending. Slots without a bar are absent, or
        have None in the columns. The middle of a long marked interval is absent.
    open, high, low, close, volume
        One value per time.
    mark_start, mark_end
        The shaded interval `[mark_start, mark_end)`, in seconds since 1970.
    second_opinion
        Closes of a reference at the same times.
    """

    finding_id: str
    kind: str
    title: str
    times: tuple[int, ...]
    open: tuple[float | None, ...]
    high: tuple[float | None, ...]
    low: tuple[float | None, ...]
    close: tuple[float | None, ...]
    volume: tuple[float | None, ...]
    mark_start: int
    mark_end: int
    second_opinion: Line | None = None


@dataclass(frozen=True, slots=True)
class Deviation:
    """The price on `first` minus the price on `second`, in basis points, by spans of time.

    Attributes
    ----------
    times
        Start of each span, in seconds since 1970, ascending.
    bps, low, high
        Mean, lowest and highest deviation of each span.
    compared, apart
        Number of bars that both venues have, and of those that differ by more than
        `threshold_bps` in either direction.
    """

    dataset: str
    symbol: str
    first: str
    second: str
    times: tuple[int, ...]
    bps: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    compared: int
    apart: int
    threshold_bps: float


@dataclass(frozen=True, slots=True)
class Repair:
    """A row of the table `repairs`, for the interval `[start, end)`."""

    repair_id: str
    dataset: str
    exchange: str
    symbol: str
    start: datetime
    end: datetime
    method: str
    source: str
    why: str
    inserted: int
    updated: int
    status: Literal["done", "undone"]
    repaired_at: datetime


@dataclass(frozen=True, slots=True)
class Latency:
    """Receive time minus venue time of one market: quantiles in ms, for days with receive times.

    `days` are numbers of days of the range (the first is 0), ascending; quantiles have one value
    per day of `days`.
    """

    dataset: str
    exchange: str
    symbol: str
    days: tuple[int, ...]
    p50_ms: tuple[float | None, ...]
    p90_ms: tuple[float | None, ...]
    p99_ms: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class TableVersion:
    """A table of the report: its Delta id, the version that was read, and its number of rows."""

    table: str
    id: str
    version: int
    rows: int


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job that ran in the lake before the report was made."""

    job_id: str
    command: str
    started_at: datetime
    status: str
    rows: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """The tables and jobs of a report; `jobs` has the latest ones of `jobs_total`."""

    tables: tuple[TableVersion, ...] = ()
    jobs: tuple[JobRecord, ...] = ()
    jobs_total: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """A report on the days `[start, end)` (UTC) of a lake, or of a bundle.

    `findings` has the worst ones of `findings_total`. `made_by` is a program and its version, such
    as `lake 0.1.0`.
    """

    title: str
    made_at: datetime
    made_by: str
    lake_id: str
    start: date
    end: date
    totals: Totals
    markets: tuple[MarketFigures, ...]
    bundle_id: str | None = None
    findings: tuple[Finding, ...] = ()
    findings_total: int = 0
    charts: tuple[Chart, ...] = ()
    deviations: tuple[Deviation, ...] = ()
    repairs: tuple[Repair, ...] = ()
    latency: tuple[Latency, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    format: Literal[1] = 1

    def __repr__(self) -> str:
        return (
            f"<Report {self.title}: {self.start} to {self.end}, score {self.totals.scores.score}>"
        )

    @property
    def days(self) -> int:
        """Length of the range in days."""
        return (self.end - self.start) // DAY


def to_json(report: Report) -> bytes:
    """Convert a report to compact JSON: times are ISO-8601 with `Z`, NaN is null."""
    return orjson.dumps(report, option=orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC)


def from_json(text: bytes) -> Report:
    """Read a report that `to_json` wrote.

    Raises
    ------
    DamagedError
        The text is not JSON, or not a report of this format.
    """
    try:
        return _reader().validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DamagedError(
            f"this is not a quality report: {first['msg']}" + (f" (at {place})" if place else ""),
            "Create it again with `lake quality report`.",
        ) from error


@cache
def _reader() -> TypeAdapter[Report]:
    return TypeAdapter(Report)
