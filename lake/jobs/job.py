"""A job's entry in the ledger: running, then how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lake.errors import LakeError
from lake.jobs.ingest.report import Status, WriteCounts
from lake.log import get_logger
from lake.store.ledger import Job, Ledger

_log = get_logger(__name__)


@contextmanager
def record_job(
    ledger: Ledger, command: str, arguments: Mapping[str, Any], tally: WriteCounts
) -> Iterator[Job]:
    """Record the block as a job; what it raises is recorded and goes on."""
    job = ledger.start(command, arguments)
    try:
        yield job
    except BaseException as error:  # a kill by Ctrl-C too: recorded, and raised again
        stopped = isinstance(error, (KeyboardInterrupt, asyncio.CancelledError))
        status: Status = "interrupted" if stopped else "failed"
        try:
            ledger.finish(job, status, tally.counts(), str(error) or type(error).__name__)
        except LakeError as also:
            # The first error tells more than that its record could not be written either.
            _log.error("job not recorded", job=job.id, reason=also.message)
        raise
    ledger.finish(job, "ok", tally.counts())
