"""Logging belongs to the process: the package configures none, the command line all of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

_RETRY = """
import stamina

def fail_twice():
    for attempt in stamina.retry_context(on=ValueError, wait_initial=0.001, wait_max=0.001):
        with attempt:
            if attempt.num <= 2:
                raise ValueError("busy")
"""


_CONFLICT = """
from lake.retries import retry

def fail_once():
    for attempt in retry(ValueError, attempts=3, wait_initial=0.001, wait_max=0.001):
        with attempt:
            if attempt.num == 1:
                raise ValueError("another writer was faster")
"""


def run(code: str) -> tuple[str, str]:
    """Run Python code in a process of its own; give what it wrote to stdout and stderr."""
    command = [sys.executable, "-W", "error::DeprecationWarning:lake", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_importing_the_package_changes_neither_logging_nor_the_hooks_of_stamina() -> None:
    written = run(
        """
        import logging
        from stamina.instrumentation import get_on_retry_hooks
        root = logging.getLogger()
        def state():
            return get_on_retry_hooks(), root.handlers[:], root.level, root.disabled
        before = state()
        import lake, lake.api, lake.log, lake.sources.registry
        assert state() == before, (state(), before)
        package = logging.getLogger("lake")
        assert [type(handler) for handler in package.handlers] == [logging.NullHandler]
        assert package.propagate and package.level == logging.NOTSET
        lake.log.get_logger("lake.anywhere").error("broken", what="a thing")
        """
    )
    assert written == ("", "")


def test_hooks_of_a_user_stay_and_hear_of_retries() -> None:
    code = """
        from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks
        def count(details):
            print("retry", details.retry_num)
        set_on_retry_hooks([count])
        import lake.api
        assert get_on_retry_hooks() == (count,)
        fail_twice()
    """
    assert run(_RETRY + textwrap.dedent(code)) == ("retry 1\nretry 2\n", "")


def test_the_command_line_logs_retries_to_stderr() -> None:
    code = """
        from lake.log import configure
        configure("info", "text")
        fail_once()
    """
    out, err = run(_CONFLICT + textwrap.dedent(code))
    assert out == ""
    assert [line.split()[0] for line in err.splitlines()] == ["event=tried_again"]
    assert "another writer was faster" in err


def test_an_event_below_the_level_costs_no_import() -> None:
    out, err = run(
        """
        import sys
        from lake.log import configure, get_logger
        configure("warning", "text")
        log = get_logger("lake.anywhere")
        log.debug("tried", rows=1)
        log.info("done", rows=1)
        print("structlog" in sys.modules)
        log.warning("slow", rows=2)
        """
    )
    assert out == "False\n"
    assert err.count("event=slow") == 1
    assert len(err.splitlines()) == 1


def test_a_user_who_configures_logging_gets_each_event_once() -> None:
    _, err = run(
        """
        import logging, lake.log
        logging.basicConfig(level="INFO")
        lake.log.get_logger("lake.anywhere").info("done", rows=3)
        """
    )
    assert err.count("event=done") == err.count("rows=3") == 1


def test_events_that_a_command_shows_itself_are_not_written() -> None:
    out, err = run(
        """
        from lake.log import FINDINGS, configure, get_logger
        configure("info", "json", hidden=(FINDINGS,))
        get_logger(FINDINGS).error("finding")
        get_logger("lake.findings_of_others").info("else")
        """
    )
    assert out == ""
    assert err.count('"event": "else"') == 1
    assert "finding" not in err.replace("findings_of_others", "")


def test_an_alert_into_a_log_that_nobody_writes_is_not_delivered() -> None:
    out, err = run(
        """
        import logging
        from pydantic import SecretStr
        from lake.alerts.channels import Channel, DeliveryError, deliver
        channel = Channel("log", SecretStr("log"))
        try:
            deliver(channel, "title", "body", "error")
        except DeliveryError as error:
            print(error)
        logging.basicConfig()
        deliver(channel, "title", "body", "error")
        """
    )
    assert "logging is not configured" in out
    assert err.count("event=alert") == 1


def test_our_retries_print_nothing_for_a_library_user() -> None:
    assert run(_CONFLICT + "fail_once()") == ("", "")


def test_they_are_logged_where_a_user_configures_logging() -> None:
    out, err = run(_CONFLICT + "import logging; logging.basicConfig(level='INFO'); fail_once()")
    assert out == ""
    assert err.count("event=tried_again") == 1


def test_the_retries_of_others_are_printed_as_before() -> None:
    alone, _ = run(_RETRY + "fail_twice()")
    out, _ = run(_CONFLICT + _RETRY + "fail_once()\nfail_twice()\nfail_once()")
    assert alone.count("stamina.retry_scheduled") == 2
    assert out.count("stamina.retry_scheduled") == 2


def test_hooks_of_a_user_hear_of_our_retries_too() -> None:
    code = """
        from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks
        def count(details):
            print("retry", details.retry_num)
        set_on_retry_hooks([count])
        fail_once()
        assert get_on_retry_hooks() == (count,)
    """
    assert run(_CONFLICT + textwrap.dedent(code)) == ("retry 1\n", "")


def test_a_source_that_is_asked_again_prints_nothing() -> None:
    written = run(
        """
        import asyncio
        from lake.settings import RetrySettings
        from lake.sources.faults import Fault, Retrier
        answers = iter([Fault("busy"), Fault("busy"), None])
        async def ask():
            answer = next(answers)
            if answer is not None:
                raise answer
            return "rows"
        settings = RetrySettings(attempts=5, wait_initial_seconds=0.001, wait_max_seconds=0.002)
        assert asyncio.run(Retrier("binance", settings).run("klines", ask)) == "rows"
        """
    )
    assert written == ("", "")
