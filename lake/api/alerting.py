"""Alerts of a lake: tell, test, and show what was told."""

from __future__ import annotations

import polars as pl

from lake.api.opened import Opened
from lake.jobs.alerts import AlertReport, run_alerts, try_channels


class Alerting(Opened):
    """What tells people of what goes wrong in a lake."""

    def alerts(self) -> pl.DataFrame:
        """What was told to whom, in order of time: rows of the table `alerts`.

        One row a rule, channel, table and market, from when a condition held until it held no more.
        """
        return self._store.read(self.dataset("alerts")).sort("timestamp", maintain_order=True)

    def run_alerts(self) -> AlertReport:
        """Tell the channels which rules of the settings hold now, and which do not any more.

        What was told is not told again by the next run, before `repeat_seconds` have passed. A
        channel that fails raises nothing: see `failed` of the report.

        Raises
        ------
        StorageError, DamagedError, CommitConflictError
            The lake cannot be read or written.
        """
        return run_alerts(self._store, self.settings)

    def test_alerts(self, channel: str | None = None) -> pl.DataFrame:
        """Send a test message to all channels or to one: channel, outcome, error.

        Raises
        ------
        ConfigError
            apprise is needed, and not installed.
        UnknownNameError
            There is no such channel.
        """
        return try_channels(self.settings, channel)
