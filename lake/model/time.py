"""Times and half-open ranges: always UTC, always microseconds, `[start, end)`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import overload

from lake.errors import UsageError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MILLISECOND = timedelta(milliseconds=1)
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)
FIRST_TIME = datetime(2009, 1, 3, tzinfo=UTC)
"""Time of the first Bitcoin block; no crypto trade is older."""

Time = datetime | str
"""A time as users give it: a datetime with a zone, or text that `parse_time` accepts."""
_DURATION = re.compile(r"(\d{1,6})(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True, order=True)
class TimeRange:
    """The half-open range `[start, end)` of UTC times; never empty."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() != timedelta(0) or self.end.utcoffset() != timedelta(0):
            raise UsageError(
                f"range {self.start} to {self.end} is not in UTC",
                "Give times with tzinfo=datetime.UTC.",
            )
        if self.start >= self.end:
            raise UsageError(
                f"range is empty or reversed: {iso(self.start)} is not before {iso(self.end)}",
                "A range is [since, until): since must be earlier than until.",
            )

    @property
    def duration(self) -> timedelta:
        """Length of the range."""
        return self.end - self.start

    def __str__(self) -> str:
        return f"[{iso(self.start)}, {iso(self.end)})"


def in_utc(time: datetime) -> datetime:
    """Convert a time to UTC.

    Raises
    ------
    UsageError
        The time has no zone.
    """
    if time.tzinfo is None:
        raise UsageError(f"{time} has no time zone", "Give times with tzinfo=datetime.UTC.")
    return time.astimezone(UTC)


def from_ms(milliseconds: int) -> datetime:
    """Return the UTC time of a Unix time in milliseconds."""
    return EPOCH + timedelta(milliseconds=milliseconds)


def to_ms(time: datetime) -> int:
    """Return the Unix time in milliseconds, rounded down."""
    return (time - EPOCH) // MILLISECOND


def to_ms_ceiling(time: datetime) -> int:
    """Return the Unix time in milliseconds, rounded up."""
    return -((EPOCH - time) // MILLISECOND)


def iso(time: datetime) -> str:
    """Format a time as ISO-8601 with `Z`, as short as is exact: `2026-01-01T00:00:00Z`."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


@overload
def resolve_time(time: Time, now: datetime) -> datetime: ...


@overload
def resolve_time(time: Time | None, now: datetime) -> datetime | None: ...


def resolve_time(time: Time | None, now: datetime) -> datetime | None:
    """Return the UTC time of a user's datetime or text; None, for no bound, stays None.

    Parameters
    ----------
    now
        The present, for text such as `7d`; pass the same for both bounds of a range.

    Raises
    ------
    UsageError
        The value is not a time, or has no zone.
    """
    if isinstance(time, str):
        return parse_time(time, now)
    if time is not None and not isinstance(time, datetime):
        raise UsageError(
            f"{time!r} is not a time",
            "Give a datetime with tzinfo=datetime.UTC, or text such as 7d.",
        )
    return None if time is None else in_utc(time)


def require_passed(time: datetime, now: datetime) -> datetime:
    """Return the time of a past state; the state at a time to come is not known yet.

    Raises
    ------
    UsageError
        The time is in the future.
    """
    if in_utc(time) > now:
        raise UsageError(
            f"{iso(time)} is in the future: it is {iso(now)}", "Give a time that has passed."
        )
    return time


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `90s`, `30m`, `12h`, `7d` or `2w`.

    Raises
    ------
    UsageError
        The text is not a duration.
    """
    parts = _DURATION.fullmatch(text.strip())
    if parts is None:
        raise UsageError(f"{text!r} is not a duration", "Write 7d, 24h or 2w (s m h d w).")
    return timedelta(**{_UNITS[parts[2]]: int(parts[1])})


def parse_time(text: str, now: datetime) -> datetime:
    """Read a time from text.

    Parameters
    ----------
    text
        `2026-01-01`, `2026-01-01T12:00Z` (any ISO-8601; UTC if it has no zone), `now`, or a
        duration before now: `90s`, `30m`, `12h`, `7d`, `2w`.
    now
        The present, for `now` and durations before it.

    Raises
    ------
    UsageError
        The text is not a time.
    """
    text = text.strip()
    if text == "now":
        return now
    try:
        if _DURATION.fullmatch(text):
            return now - parse_duration(text)
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is not a time",
            "Write 2026-01-01, 2026-01-01T12:00Z, 7d (seven days ago; s m h d w), or now.",
        ) from None
