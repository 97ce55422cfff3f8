"""`Lake.alerts`: evaluate rules, notify and test channels, list sent alerts."""

from __future__ import annotations

import polars as pl

from lake.api.context import Context
from lake.jobs.alerts import AlertReport, list_alerts, run_alerts, try_channels


class Alerts:
    """Alerts of a lake, by the rules in its settings."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __repr__(self) -> str:
        return f"<Lake.alerts of {self._context.root.path}>"

    def ls(self) -> pl.DataFrame:
        """Return the sent alerts in order of time: rows of the table `alerts`.

        There is one row per rule, channel, table and market, for the time that a condition holds.
        """
        return list_alerts(self._context.store)

    def run(self) -> AlertReport:
        """Evaluate the rules; notify the channels of new and resolved alerts.

        An alert is not sent again before `repeat_seconds` have passed. A channel that fails raises
        no error: see `failed` of the report.

        Raises
        ------
        StorageError, DamagedError, CommitConflictError
            The lake cannot be read or written.
        """
        return run_alerts(self._context.store, self._context.settings)

    def test(self, channel: str | None = None) -> pl.DataFrame:
        """Send a test message to all channels or to one; return channel, outcome and error.

        Raises
        ------
        ConfigError
            A channel needs apprise, which is not installed.
        UnknownNameError
            The channel does not exist.
        """
        return try_channels(self._context.settings, channel)
