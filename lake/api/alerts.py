"""`Lake.alerts`: notify channels of what goes wrong, test them, list what was sent."""

from __future__ import annotations

import polars as pl

from lake.api.context import Context
from lake.jobs.alerts import AlertReport, list_alerts, run_alerts, try_channels


class Alerts:
    """Alerts of a lake, by the rules of its settings."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __repr__(self) -> str:
        return f"<Lake.alerts of {self._context.root.path}>"

    def ls(self) -> pl.DataFrame:
        """What was sent to whom, in order of time: rows of the table `alerts`.

        One row a rule, channel, table and market, from when a condition held until it held no more.
        """
        return list_alerts(self._context.store)

    def run(self) -> AlertReport:
        """Evaluate the rules; notify the channels of new and resolved alerts.

        What was sent is not sent again by the next run, before `repeat_seconds` have passed. A
        channel that fails raises nothing: see `failed` of the report.

        Raises
        ------
        StorageError, DamagedError, CommitConflictError
            The lake cannot be read or written.
        """
        return run_alerts(self._context.store, self._context.settings)

    def test(self, channel: str | None = None) -> pl.DataFrame:
        """Send a test message to all channels or to one: channel, outcome, error.

        Raises
        ------
        ConfigError
            apprise is needed, and not installed.
        UnknownNameError
            There is no such channel.
        """
        return try_channels(self._context.settings, channel)
