"""Running jobs: one file each in the lake's folder `jobs`, locked by the process that runs it.

The kernel frees the lock when that process ends, however it ends. So a file that nobody locks is of
a job that was killed, or could not record its end: it is interrupted. A job that has ended is in
the table `jobs`, and has no file.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lake.log import get_logger
from lake.model.time import iso
from lake.store.bounds import is_usable
from lake.store.faults import translate_errors
from lake.store.root import sync_folder
from lake.version import VERSION

_log = get_logger(__name__)
FOLDER = "jobs"
TEMPORARY = ".tmp"
# Each is an open file, of which a process may often have 1,024; later jobs record the others.
_MOST_CLAIMS = 256


@dataclass(frozen=True, slots=True)
class StartedJob:
    """A job that has no record of its end.

    Attributes
    ----------
    arguments
        As JSON.
    version
        Version of lake that runs it.
    is_running
        Whether a process still runs it; otherwise it was interrupted.
    """

    id: str
    command: str
    arguments: str
    started_at: datetime
    version: str
    is_running: bool


class Hold:
    """The file of a running job, held by this process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    def remove(self) -> None:
        """Remove the file: the job's end is recorded."""
        try:
            with translate_errors(f"job {self._path.stem}"), suppress(FileNotFoundError):
                self._path.unlink()
        finally:
            self.release()

    def release(self) -> None:
        """Free the lock; a file that is still there is of an interrupted job."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class RunningJobs:
    """Writes, reads and removes the files of running jobs.

    Parameters
    ----------
    root
        The folder of the lake.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER

    def add(
        self, job_id: str, command: str, arguments: Mapping[str, Any], started_at: datetime
    ) -> Hold:
        """Write the file of a job and lock it; it gets its name when both are done.

        Raises
        ------
        StorageError
            The folder cannot be written.
        """
        facts = {
            "job_id": job_id,
            "command": command,
            "arguments": json.dumps(arguments, sort_keys=True),
            "started_at": iso(started_at),
            "version": VERSION,
            "host": socket.gethostname(),
            "process": os.getpid(),
        }
        with translate_errors(f"job {job_id}"):
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"{job_id}.json"
            descriptor = _write_locked(path, json.dumps(facts, indent=2).encode() + b"\n")
        return Hold(path, descriptor)

    def read(self) -> list[StartedJob]:
        """Read the jobs that have a file, oldest first."""
        jobs = (_read(path, is_running=_is_locked(path)) for path in self._paths())
        return [job for job in jobs if job is not None]

    @contextmanager
    def claim_interrupted(self) -> Iterator[tuple[StartedJob, ...]]:
        """Give interrupted jobs to the block, and to nobody else; then remove their files.

        They are the oldest ones, if there are many. If the block raises, or its process dies, their
        files stay.
        """
        holds: list[Hold] = []
        jobs: list[StartedJob] = []  # two files may say the same
        try:
            for path in self._paths():
                if len(holds) == _MOST_CLAIMS:
                    break
                hold = _claim(path)
                job = _read(path, is_running=False) if hold else None
                if hold and job:
                    holds.append(hold)
                    jobs.append(job)
                elif hold:
                    hold.remove()  # it says nothing: `_read` has logged it
            yield tuple(jobs)
            for hold in holds:
                hold.remove()
        finally:
            for hold in holds:
                hold.release()

    def _paths(self) -> list[Path]:
        """List the files of jobs; to open anything else, such as a pipe, might wait for ever."""
        return sorted(path for path in self._folder.glob("[!.]*.json") if path.is_file())


def _write_locked(path: Path, content: bytes) -> int:
    """Write and lock a file aside, then move it into place; return its descriptor."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        os.fsync(descriptor)
        temporary.rename(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        os.close(descriptor)
        raise
    return descriptor


def _read(path: Path, *, is_running: bool) -> StartedJob | None:
    """Read the file of a job; None if it has just been removed, or is damaged."""
    try:
        facts = json.loads(path.read_bytes())
        texts = [str(facts[name]) for name in ("job_id", "command", "arguments", "version")]
        "".join(texts).encode()  # JSON can escape what no table can hold
        started_at = _parse_start(facts["started_at"])
        job_id, command, arguments, version = texts
        return StartedJob(job_id, command, arguments, started_at, version, is_running)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.error("file of a job is damaged", file=str(path), reason=str(error))
        return None


def _parse_start(text: str) -> datetime:
    """Parse when a job began.

    Raises
    ------
    ValueError
        It is no time, has no zone, or a lake cannot hold it.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None or not is_usable(time):
        raise ValueError(f"no job began at {text}")
    return time


def _is_locked(path: Path) -> bool:
    """Whether a process runs the job of a file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _claim(path: Path) -> Hold | None:
    """Lock the file of a job that no process runs; None if one does, or the file is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return Hold(path, descriptor)
    except OSError:  # somebody runs or claims it, or has just removed it
        pass
    os.close(descriptor)
    return None
