"""Times of commits: each commit of the lake is later than the one before, whatever clocks say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lake.log import get_logger
from lake.model.time import MICROSECOND, in_utc, iso
from lake.store.log import CLOCK, CLOCKS_APART, STAMP, CommitTimes

_log = get_logger(__name__)


class CommitClock:
    """Stamps commits, and reports once that the clock of this machine is behind their times.

    Parameters
    ----------
    now
        Returns the present time.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._is_reported = False

    def stamp(self, metadata: Mapping[str, Any], table: Path, after: int = -1) -> dict[str, Any]:
        """Add the time of the commit that follows a version: now, or 1 µs after that version.

        Two writers give increasing times only if each commit fails that would not be the one right
        after `after`: commit with `max_commit_retries=0`, and stamp each attempt anew.

        Parameters
        ----------
        table
            The folder of the table.
        after
            The version that the commit follows; -1: it is the first.
        """
        now = in_utc(self._now())
        if after < 0:
            return {**metadata, STAMP: iso(now)}
        last = CommitTimes(table).at(after)
        stamp = {STAMP: iso(max(now, last + MICROSECOND))}
        behind = last - now
        if behind > CLOCKS_APART:
            self._report(table, last, behind)
            stamp[CLOCK] = iso(now)
        return {**metadata, **stamp}

    def _report(self, table: Path, last: datetime, behind: timedelta) -> None:
        if not self._is_reported:
            _log.warning(
                "the clock of this machine is behind the last commit: new commits follow it by "
                "1 µs each until the clock has passed it; compare the clocks of all writers",
                table=table.name,
                last_commit=iso(last),
                behind=str(behind),
            )
            self._is_reported = True
