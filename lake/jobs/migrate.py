"""Migrate a lake: list, or make, what its tables need to be as the dataset files describe them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from lake.jobs.job import WriteCounts, record_job
from lake.model.dataset import Dataset
from lake.model.partitions import Granularity
from lake.model.progress import NoProgress, Progress
from lake.store.columns import build_missing_fields
from lake.store.damages import Damages
from lake.store.delta import add_missing_columns, write_checkpoint
from lake.store.ledger import Ledger
from lake.store.locks import lock_for_pin
from lake.store.migrate import change_granularity
from lake.store.store import Store, WriteResult

STEPS = pl.Schema(
    {
        "table": pl.String(),
        "step": pl.String(),
        "before": pl.String(),
        "after": pl.String(),
        "rows": pl.Int64(),
        "files": pl.Int64(),
    }
)


@dataclass(frozen=True)
class Step:
    """A step of a migration.

    Attributes
    ----------
    step
        `columns`: add columns that are null in stored rows; no file is rewritten. `granularity`:
        rewrite all files.
    before, after
        The granularities; of columns, none and their names.
    rows, files
        Rows and files that are rewritten.
    """

    dataset: Dataset
    step: Literal["columns", "granularity"]
    before: str
    after: str
    rows: int = 0
    files: int = 0


class Migrator:
    """Plans and makes the steps of a migration.

    Parameters
    ----------
    store
        The lake.
    granularity
        By table, the granularity to change to; others follow `lake.json` and the dataset files.
    """

    def __init__(self, store: Store, granularity: Mapping[str, Granularity]) -> None:
        self._store = store
        named = {store.catalog.dataset(name).name: kind for name, kind in granularity.items()}
        self._granularity = {**store.root.granularity, **named}

    def plan(self, damages: Damages | None = None) -> list[Step]:
        """Plan the steps, table by table; tables that cannot be read are left out."""
        damages = damages or Damages()
        steps: list[Step] = []
        for name in self._store.tables():
            with damages.collect(name):
                steps.extend(self._plan_table(self._store.catalog.dataset(name)))
        return steps

    def migrate(self, progress: Progress | None = None) -> list[Step]:
        """Make all steps, and return those that were made.

        Raises
        ------
        DamagedError, SchemaError, StorageError
            Some tables could not be migrated; they stay as they were, and all others are migrated.
        CommitConflictError
            Another process migrates the same table.
        """
        damages, tally = Damages(), WriteCounts()
        arguments = {"granularity": dict(self._granularity)}
        made: list[Step] = []
        with record_job(Ledger(self._store), "migrate", arguments, tally) as job:
            # Noted first: after a crash, a run without options completes the change.
            if self._granularity != self._store.root.granularity:
                self._store.keep_by(self._granularity)
            for step in self.plan(damages):
                with damages.collect(step.dataset.name):
                    self._make(step, job.id, tally, progress or NoProgress())
                    made.append(step)
            damages.raise_if_any(to_frame(made))
        return made

    def _plan_table(self, dataset: Dataset) -> Iterator[Step]:
        snapshot = self._store.snapshot(dataset)
        missing = build_missing_fields(snapshot.table.schema(), dataset)
        if missing:
            yield Step(dataset, "columns", "", ", ".join(field.name for field in missing))
        wanted = self._granularity.get(dataset.name, dataset.granularity)
        if wanted != snapshot.dataset.granularity:
            files = snapshot.files()
            rows = int(files["rows"].sum())
            target = replace(dataset, granularity=wanted)
            before = snapshot.dataset.granularity
            yield Step(target, "granularity", before, wanted, rows, files.height)

    def _make(self, step: Step, job_id: str, tally: WriteCounts, progress: Progress) -> None:
        table = self._store.open_for_writing(step.dataset)
        if step.step == "columns":
            with table.hold():
                add_missing_columns(table, step.dataset, job_id)
            return
        now = self._store.now()
        with lock_for_pin(self._store.root):  # a vacuum would delete files that no commit names yet
            done = change_granularity(
                table, step.dataset, now=now, job_id=job_id, progress=progress
            )
        # The entry names all files, old and new: without a checkpoint, tables would open slowly.
        write_checkpoint(Path(table.folder), step.dataset, self._store.clock)
        tally.add(step.dataset.name, WriteResult(done.rows, 0, 0, 0, done.version))


def to_frame(steps: list[Step]) -> pl.DataFrame:
    """Return the steps as a frame: `STEPS`."""
    rows = [(s.dataset.name, s.step, s.before, s.after, s.rows, s.files) for s in steps]
    return pl.DataFrame(rows, schema=STEPS, orient="row")
