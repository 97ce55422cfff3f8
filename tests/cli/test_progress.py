"""Progress on stderr: a bar in a terminal, and in the end what a user should know."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from lake.cli.progress import ProgressBar, notes
from lake.jobs.ingest.report import NOTHING_TO_DO, IngestReport
from lake.jobs.job import TableReport


def console(*, terminal: bool = True, quiet: bool = False) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, quiet=quiet, width=120)


def text_of(shown: Console) -> str:
    assert isinstance(shown.file, StringIO)
    return shown.file.getvalue()


def show(shown: Console, outcome: object | None = None) -> str:
    bar = ProgressBar(shown)
    bar.begin("reading trades", 10)
    bar.advance(4, what="reading [trades]")
    bar.advance()
    bar.end(outcome)
    return text_of(shown)


def test_a_terminal_shows_what_is_done_of_all() -> None:
    text = show(console())
    assert "reading [trades]" in text
    assert "50%" in text
    assert "5/10" in text


def test_rows_are_shown_where_they_are_counted() -> None:
    shown = console()
    bar = ProgressBar(shown)
    bar.begin("ingesting", 60.0)
    bar.advance(30.0, rows=1_500)
    bar.advance(30.0, rows=1_500)
    bar.end()
    assert "3,000 rows" in text_of(shown)


def test_no_terminal_gets_the_summary_alone() -> None:
    report = IngestReport("20260101T000000-00", "failed", (), (), 1, 2, 3.0)
    text = show(console(terminal=False), report)
    assert text == "Job 20260101T000000-00: failed, 0 rows in 3.0 s, 2 requests.\n"


def test_work_that_never_began_can_end() -> None:
    shown = console()
    ProgressBar(shown).end(NOTHING_TO_DO)
    assert "Nothing to do" in text_of(shown)


def test_quiet_shows_nothing() -> None:
    assert show(console(quiet=True), NOTHING_TO_DO) == ""


def test_times_that_became_null_are_told_at_the_end() -> None:
    table = TableReport("instruments", 3, 3, 0, 0, 1, cleared=2)
    report = IngestReport("job", "ok", (table,), (), 1, 1, 0.5)
    assert notes(report)[-1] == "2 times out of range became null: the log names the columns."
    whole = IngestReport("job", "ok", (replace(table, cleared=0),), (), 1, 1, 0.5)
    assert len(notes(whole)) == len(notes(report)) - 1
