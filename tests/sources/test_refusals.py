"""Words, reasons and pauses of refusals: `lake.sources.refusals`."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.sources.refusals import extract_words, find_pause, is_too_fast, is_too_long_ago

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        (f"Way too much request weight used; IP banned until {MS + 90_000}. Please use", 90.0),
        (f"Way too many requests; IP(1.2.3.4) banned until {MS - 5}.", 0.0),
        (f"blocked until: {MS // 1000 + 60}", 60.0),
        ("Your IP is banned until 2024-03-01T12:05:00Z", 300.0),
        ("locked until 2024-03-01 12:00:30.123 UTC", 30.0),
        ("Too many requests. Please try again in 30 seconds.", 30.0),
        ("rate limit exceeded, retry after 1.5s", 1.5),
        ("Your IP has been banned for 2 minutes", 120.0),
        ("please wait 250 milliseconds", 0.25),
        ("please wait 250 ms", 0.25),
        ("temporary lockout: try again in 1 hour", 3600.0),
        ("suspended for 2 days", 172_800.0),
        ("Too many requests queued.", None),
        ("limit is 6000 request weight per 1 MINUTE", None),
        ("More than 24 hours between startTime and endTime", None),
        ("", None),
    ],
)
def test_the_end_of_a_ban_is_read_from_its_words(words: str, seconds: float | None) -> None:
    assert find_pause({}, words, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7", "x-ratelimit-reset": "99"}, 7.0),
        ({"X-Bapi-Limit-Reset-Timestamp": str(MS + 1500)}, 1.5),
        ({"X-Gate-Ratelimit-Reset-Timestamp": str(MS // 1000 + 4)}, 4.0),
        ({"gw-ratelimit-reset": "2500"}, 2.5),
        ({"x-ratelimit-reset": str(MS // 1000 + 9)}, 9.0),
        ({"ratelimit-reset": "3"}, 3.0),
        ({"x-ratelimit-reset": "soon"}, None),
    ],
)
def test_a_reset_counts_if_the_client_was_too_fast(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert find_pause(headers, "Too many visits!", NOW) == seconds
    expected = seconds if "Retry-After" in headers else None
    assert find_pause(headers, "your country is not served", NOW) == expected


@given(st.integers(0, 10**6), st.integers(-(10**6), 10**6))
def test_the_end_of_a_ban_is_compared_with_the_venues_clock(seconds: int, ahead: int) -> None:
    venue = NOW + timedelta(seconds=ahead)
    headers = {"Date": format_datetime(venue, usegmt=True)}
    until = int(venue.timestamp() * 1000) + seconds * 1000
    assert find_pause(headers, f"IP banned until {until}", NOW) == seconds


@pytest.mark.parametrize(
    "words",
    [
        "Candlestick too long ago. Maximum 10000 points ago are allowed",
        "Candlestick too long ago. Maximum 10000 points recently are allowed",
        "The start time cannot be earlier than 90 days",
        "startTime must be within the last 30 days",
        "The search is limited to data within the last one month",
        "Only data of the last 3 months is available",
        "from is too old",
    ],
)
def test_refusals_of_the_past_are_recognised(words: str) -> None:
    assert is_too_long_ago(words)


@pytest.mark.parametrize(
    "words",
    [
        "Invalid symbol.",
        "More than 24 hours between startTime and endTime.",
        "Time range must be within 7 days",
        "Service unavailable from a restricted location",
        "Too many requests",
        "Illegal characters found in parameter 'startTime'",
    ],
)
def test_other_refusals_are_not_about_the_past(words: str) -> None:
    assert not is_too_long_ago(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("access too frequent", True),
        ("Too many visits!", True),
        ("Rate limit reached", True),
        ("There might be too much traffic or a configuration error.", False),
        ("block access from your country", False),
    ],
)
def test_a_client_that_is_too_fast_is_told_from_one_that_is_refused(
    words: str, *, expected: bool
) -> None:
    assert is_too_fast(words) == expected


def test_words_of_a_page_come_without_its_markup() -> None:
    page = "<html><style>a{}</style><h1>403 &amp; out</h1>\n<!-- x --><p>No\tentry</p></html>"
    assert extract_words(page) == "403 & out No entry"
    assert extract_words('{"msg": "a  b"}') == '{"msg": "a  b"}'
