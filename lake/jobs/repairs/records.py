"""The table `repairs`: built from the commits themselves, so that a kill loses no record.

The record of a job says what it is about to repair, and its commits name the job. The record of
each repair follows from both, and is written by the job, or by the next one if it was killed in
between. The ID of a repair is a hash of its content, so that it is stored once even if written
twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from lake.jobs.repairs.changes import Changes, compare_rows, to_json
from lake.jobs.repairs.plan import Attempts, Group, Target
from lake.jobs.repairs.report import AppliedRepair, Method
from lake.jobs.repairs.spans import Moments, select_starting
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.derive import INTERPOLATED
from lake.model.json_text import write_json
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import TimeRange, iso
from lake.store.faults import translate_errors
from lake.store.ledger import Job, Ledger
from lake.store.snapshot import Snapshot
from lake.store.store import Origin, Store

COMMAND = "quality repair"


@dataclass(frozen=True)
class RecordedRepairs:
    """Recorded repairs, and the times of the rows that they changed."""

    repairs: tuple[AppliedRepair, ...]
    times: pl.Series


class Records:
    """Reads and writes `repairs`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ledger = Ledger(store)
        self._dataset = store.catalog.dataset("repairs")

    def rows(self) -> pl.DataFrame:
        """Return all rows of `repairs`."""
        return self._store.read(self._dataset)

    def attempts(self) -> Attempts:
        """Return the repairs that were not undone, by finding."""
        done = self.rows().filter(pl.col("status") == "done")
        each = done.select("method", "repaired_at", "findings").explode("findings")
        each = each.drop_nulls("findings")
        marks = each.filter(pl.col("method") == "mark")["findings"]
        rest = each.filter(pl.col("method") != "mark").group_by("findings")
        last = rest.agg(pl.col("repaired_at").max())
        return Attempts(frozenset(marks), dict(last.iter_rows()))

    def record_commits(
        self,
        job_id: str,
        group: Group,
        since: int,
        evidence: Mapping[str, Any],
        requested: Sequence[TimeRange] = (),
    ) -> RecordedRepairs:
        """Record what a job has committed to a table after a version, by windows of a group.

        Parameters
        ----------
        evidence
            What all of it relies on.
        requested
            Ranges that a source was asked for, in order: each record names those of its window.
        """
        table = group.dataset.name
        new = self._store.version(group.dataset) - since
        rows, repairs = [], []
        times = [pl.Series(group.dataset.time_column, [], dtype=TIMESTAMP)]
        for commit in self._ledger.read_commits(table, limit=new)[::-1] if new > 0 else ():
            if commit["job"] != job_id:
                continue
            facts = {**evidence, "commit": commit["version"], "digest": commit["digest"]}
            for window, changes in find_changes(self._store, group, commit["version"]):
                row = self._build_row(group, window, commit, changes)
                own = [str(span) for span in select_starting(requested, window)]
                row_evidence = {**facts, "asked": own} if requested else facts
                rows.append({**row, "evidence": write_json(row_evidence)})
                repairs.append(read_repair(row))
                times.append(changes.times(group.dataset))
        self._write(rows, Origin(job_id, "lake"))
        return RecordedRepairs(tuple(repairs), pl.concat(times))

    def _build_row(
        self, group: Group, window: TimeRange, commit: Mapping[str, Any], changes: Changes
    ) -> dict[str, Any]:
        """Build the row of what one commit changed in a window."""
        dataset, inside = group.dataset, group.in_window(window)
        changed = Moments(changes.times(dataset))
        concerned = [target for target in inside if changed.has_within(target.span)] or inside
        return {
            **_describe_place(group, window),
            "repair_id": _make_id(commit["job"], group, window, commit["version"]),
            "method": _classify(commit["source"]),
            "source": commit["source"],
            **_describe_reasons(concerned),
            "inserted": changes.inserted.height,
            "updated": changes.replaced.height,
            "before": to_json(changes.replaced.sort(*dataset.sort)),
            "after": to_json(changes.written.sort(*dataset.sort)),
            "version_before": commit["version"] - 1,
            "version_after": commit["version"],
            "status": "done",
            "job_id": commit["job"],
            "repaired_at": self._store.now(),
        }

    def record_marks(
        self, job_id: str, group: Group, evidence: Iterable[tuple[Target, Mapping[str, Any]]]
    ) -> tuple[AppliedRepair, ...]:
        """Record findings that the source confirmed."""
        version, now = self._store.version(group.dataset), self._store.now()
        rows = []
        for target, facts in evidence:
            name = f"mark {target.finding_id}"
            rows.append(
                {
                    **_describe_place(group, target.span),
                    "repair_id": _make_id(job_id, group, target.span, name),
                    "method": "mark",
                    "source": facts["source"],
                    **_describe_reasons([target]),
                    "evidence": write_json(facts),
                    "inserted": 0,
                    "updated": 0,
                    "before": "[]",
                    "after": "[]",
                    "version_before": version,
                    "version_after": version,
                    "status": "done",
                    "job_id": job_id,
                    "repaired_at": now,
                }
            )
        self._write(rows, Origin(job_id, "lake"))
        return tuple(map(read_repair, rows))

    def record_undo(self, row: Mapping[str, Any], job_id: str) -> None:
        """Record that a repair was undone."""
        changed = {"status": "undone", "undone_by": job_id, "undone_at": self._store.now()}
        kept = {name: value for name, value in row.items() if name != "date"}
        self._write([{**kept, **changed}], Origin(job_id, "lake"))

    def _write(self, rows: Sequence[Mapping[str, Any]], origin: Origin) -> None:
        if rows:
            types = {
                name: dtype
                for name, dtype in self._dataset.polars_schema.items()
                if name in rows[0]
            }
            frame = pl.DataFrame(rows, schema=types, orient="row")
            self._store.write(self._dataset, frame, origin)


def describe_plan(groups: Iterable[Group], versions: Mapping[str, int]) -> dict[str, Any]:
    """Return the arguments of a job: enough to complete its record if it is killed."""
    return {
        "plan": [
            {
                "table": group.dataset.name,
                "since": versions[group.dataset.name],
                "exchange": group.market.exchange,
                "symbol": group.market.symbol,
                "targets": [
                    [t.finding_id, t.kind, iso(t.span.start), iso(t.span.end), t.why]
                    for t in group.targets
                ],
            }
            for group in groups
        ]
    }


def recover(store: Store) -> tuple[AppliedRepair, ...]:
    """Complete the records of jobs that were killed, from what they had committed."""
    ledger, records = Ledger(store), Records(store)
    ledger.record_interrupted()
    # Where the end of a job is unknown, it was killed, and this is still to be done.
    killed = (pl.col("command") == COMMAND) & pl.col("finished_at").is_null()
    jobs = ledger.read_jobs().filter(killed, pl.col("status") == "interrupted")
    recovered: list[AppliedRepair] = []
    for row in jobs.iter_rows(named=True):
        arguments = json.loads(row["arguments"])
        repairs: list[AppliedRepair] = []
        for part in arguments["plan"]:
            group = _read_group(store, part)
            repairs += records.record_commits(
                row["job_id"], group, part["since"], {"recorded": "after the job was killed"}
            ).repairs
        job = Job(row["job_id"], row["command"], arguments, row["timestamp"])
        counts = {name: sum(getattr(r, name) for r in repairs) for name in ("inserted", "updated")}
        ledger.finish_job(
            job, "interrupted", counts, "killed; what it had changed was recorded later"
        )
        recovered += repairs
    return tuple(recovered)


def read_rows(
    store: Store, dataset: Dataset, market: Market, window: TimeRange, version: int | None = None
) -> pl.DataFrame:
    """Read the rows of a market in a range, at a version or now, in order."""
    return store.snapshot(dataset, version=version).collect(build_selection(market, window))


def read_repair(row: Mapping[str, Any]) -> AppliedRepair:
    """Read a row of `repairs` as reports show it."""
    return AppliedRepair(
        row["repair_id"],
        row["dataset"],
        Market(row["exchange"], row["symbol"]),
        TimeRange(row["timestamp"], row["end"]),
        row["method"],
        row["source"],
        tuple(row["findings"]),
        row["inserted"],
        row["updated"],
    )


def build_selection(market: Market, window: TimeRange) -> Selection:
    """Select the rows of a market in a range."""
    return Selection((market.exchange,), (market.symbol,), window.start, window.end)


def find_changes(store: Store, group: Group, version: int) -> Iterator[tuple[TimeRange, Changes]]:
    """Yield what a commit changed in each window of a group; unchanged windows are left out.

    Only the files that it removed or added are read, those of a date at a time.
    """
    dataset = group.dataset
    states = [store.snapshot(dataset, version=number) for number in (version - 1, version)]
    market = Selection((group.market.exchange,), (group.market.symbol,))
    old, new = (state.files(market) for state in states)
    files = [old.join(new, on="path", how="anti"), new.join(old, on="path", how="anti")]
    by_day = [Changes.empty(dataset)]
    for day in pl.concat(files)["date"].unique().sort():
        before, after = (
            _read_files(state, listed.filter(date=day), market)
            for state, listed in zip(states, files, strict=True)
        )
        by_day.append(compare_rows(dataset, before, after))
    yield from Changes.concat(by_day).split_by_window(dataset, group.windows)


def _read_files(state: Snapshot, files: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Read the rows in some files of a market."""
    names = list(state.dataset.polars_schema)
    with translate_errors(f"table {state.dataset.name}"):
        return state.sort_rows(state.scan_files(files, selection), selection, names)


def _read_group(store: Store, part: Mapping[str, Any]) -> Group:
    targets = [
        Target(
            finding_id,
            kind,
            TimeRange(datetime.fromisoformat(start), datetime.fromisoformat(end)),
            why,
        )
        for finding_id, kind, start, end, why in part["targets"]
    ]
    market = Market(part["exchange"], part["symbol"])
    return Group.of(store.catalog.dataset(part["table"]), market, targets)


def _describe_place(group: Group, window: TimeRange) -> dict[str, Any]:
    return {
        "exchange": group.market.exchange,
        "symbol": group.market.symbol,
        "dataset": group.dataset.name,
        "timestamp": window.start,
        "end": window.end,
    }


def _describe_reasons(targets: Iterable[Target]) -> dict[str, Any]:
    targets = list(targets)
    return {
        "findings": [target.finding_id for target in targets if target.finding_id],
        "why": "; ".join(dict.fromkeys(target.why for target in targets)),
    }


def _make_id(job_id: str, group: Group, window: TimeRange, what: object) -> str:
    time = job_id.partition("-")[0]
    name = "\t".join(map(str, (job_id, group.dataset.name, group.market, window, what)))
    return f"{time}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _classify(source: str) -> Method:
    if source.startswith("derived:"):
        return "derive"
    return "interpolate" if source.startswith(INTERPOLATED) else "refetch"
