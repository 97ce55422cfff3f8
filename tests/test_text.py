"""Text from outside is shown as it is: it cannot steer a terminal, a log or a message."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.cli.console import PlainConsole
from lake.log import get_logger
from lake.text import escape_unseen

EVIL = "\x1b[2J[bold]BTC[/bold]\u202eTDSU\x07[/foo]:smile:"
SHOWN = r"\x1b[2J[bold]BTC[/bold]\u202eTDSU\x07[/foo]:smile:"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (EVIL, SHOWN),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("ÄÖÜ 漢字 ∑ 😀 BTC/USDT:USDT", "ÄÖÜ 漢字 ∑ 😀 BTC/USDT:USDT"),
        ("zero\u200bwidth \ufeff \u2066x\u2069", r"zero\u200bwidth \ufeff \u2066x\u2069"),
        ("x\u3164y\xa0z\u2003", r"x\u3164y\xa0z\u2003"),
        ("\ud800 \U000e0041 \x85", r"\ud800 \ue0041 \x85"),
    ],
)
def test_unseen_characters_are_escaped(text: str, shown: str) -> None:
    assert escape_unseen(text) == shown
    assert escape_unseen(shown) == shown


@given(st.text())
def test_nothing_that_steers_is_left(text: str) -> None:
    shown = escape_unseen(text, keep="\n")
    assert not {unicodedata.category(c) for c in shown if c != "\n"} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {c for c in shown if unicodedata.bidirectional(c) in _STEERING}


_STEERING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_a_console_shows_markup_as_text() -> None:
    from rich.table import Table

    file = io.StringIO()
    console = PlainConsole(file=file, width=100, force_terminal=True)
    console.print(EVIL)
    table = Table("symbol")
    table.add_row(EVIL)
    console.print(table)
    assert file.getvalue().count(SHOWN) == 2
    assert "\x1b[2J" not in file.getvalue()


def test_a_log_line_is_one_line_without_controls(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="lake"):
        get_logger("lake.test").warning("refused", words=f"{EVIL}\nerror: forged")
    (message,) = caplog.messages
    assert escape_unseen(message) == message
