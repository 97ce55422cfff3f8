"""Refusals of a venue: its words, the reason, and how long a ban lasts. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from lake.sources.faults import find_header, parse_http_date, parse_retry_after

# Statuses with which a venue refuses the client, whatever the body is.
FORBIDDEN_STATUSES = frozenset({401, 403, 451})
# Statuses of an address that does not exist, where a page and not the venue answers.
GONE_STATUSES = frozenset({404, 405, 410})

_HIDDEN = re.compile(r"(?is)<(script|style|svg)\b.*?</\1>|<!--.*?-->|<[^>]*>")
# Bybit and KuCoin answer 403 to a client that is merely too fast.
_TOO_FAST = re.compile(r"(?i)too (many|fast|frequent)|too\s+often|rate.?limit|frequen(t|cy)")
_TOO_LONG_AGO = re.compile(
    r"(?i)too (long ago|old|early|far (back|in the past))|(older|earlier) than"
    r"|(only|maximum|at most|last|recent|within)\b.{0,40}"
    r"\b(points|candles|bars|days|months|years)\b.{0,20}(recent|allow|ago|support|available)"
    r"|limited to data within the last|within the last \w+ (days|months|years)"
)
_EPOCH = re.compile(r"(?i)\buntil\D{0,20}(\d{13}|\d{10})(?!\d)")
_DATE = re.compile(r"(?i)\buntil\D{0,20}(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?)")
_SPAN = re.compile(
    r"(?i)\b(?:again|retry|wait|banned|blocked|locked|lockout|suspended)\b[^.;0-9]{0,40}"
    r"(\d+(?:\.\d+)?)\s*(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)\b"
)
_SECONDS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# When a limit of requests resets: Unix time or remaining time, and its unit in seconds.
# https://bybit-exchange.github.io/docs/v5/rate-limit, https://www.gate.com/docs/developers/apiv4,
# https://www.kucoin.com/docs/basic-info/request-rate-limit, https://www.bitmex.com/app/restAPI
_RESETS: Mapping[str, float] = {
    "x-bapi-limit-reset-timestamp": 0.001,
    "x-gate-ratelimit-reset-timestamp": 1.0,
    "gw-ratelimit-reset": 0.001,
    "x-ratelimit-reset": 1.0,
    "ratelimit-reset": 1.0,
}
_UNIX_TIMES_FROM_SECONDS = 1e9


def extract_words(body: str) -> str:
    """Return the words of an answer: a page of HTML without its markup, other bodies unchanged."""
    if "<" not in body:
        return body
    return " ".join(html.unescape(_HIDDEN.sub(" ", body)).split())


def is_too_fast(words: str) -> bool:
    """Return whether a refusal says that the client sends too many requests."""
    return _TOO_FAST.search(words) is not None


def is_too_long_ago(words: str) -> bool:
    """Return whether a refusal says that the requested range is older than the venue serves."""
    return _TOO_LONG_AGO.search(words) is not None


def find_pause(headers: Mapping[str, str], words: str, now: datetime) -> float | None:
    """Find how long a venue demands to wait, in seconds; None if it does not say.

    `Retry-After` precedes the words. Headers with the reset of a limit count only if the words
    say that the client was too fast: venues send them with every answer. Times are compared with
    the venue's own clock, its `Date`, if there is one, and are UTC.

    Parameters
    ----------
    words
        The text of the refusal: `IP banned until 1700000000000`, `try again in 5 minutes`.
    now
        The local time.
    """
    pause = parse_retry_after(headers, now)
    if pause is not None:
        return pause
    venue_now = parse_http_date(headers, "date") or now
    for find in (_find_until, _find_span):
        if (pause := find(words, venue_now)) is not None:
            return pause
    return _find_reset(headers, venue_now) if is_too_fast(words) else None


def _find_until(words: str, now: datetime) -> float | None:
    match = _EPOCH.search(words)
    if match:
        digits = match[1]
        until = int(digits) / (1000 if len(digits) > len("1700000000") else 1)
        return max(0.0, until - now.timestamp())
    match = _DATE.search(words)
    if match is None:
        return None
    until_time = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    return max(0.0, (until_time - now).total_seconds())


def _find_span(words: str, _: datetime) -> float | None:
    match = _SPAN.search(words)
    if match is None:
        return None
    unit = next(unit for unit in _SECONDS if match[2].lower().startswith(unit))
    return float(match[1]) * _SECONDS[unit]


def _find_reset(headers: Mapping[str, str], now: datetime) -> float | None:
    for name, unit in _RESETS.items():
        text = (find_header(headers, name) or "").strip()
        if re.fullmatch(r"\d+(\.\d*)?", text):
            seconds = float(text) * unit
            if seconds >= _UNIX_TIMES_FROM_SECONDS:
                return max(0.0, seconds - now.timestamp())
            return seconds
    return None
