"""The steps that repair one group: ask, ask the fallback, drop, derive, interpolate, mark."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from lake.errors import SourceError, SourceUnavailableError, UsageError
from lake.jobs.ingest.batch import BatchWriter, add_market
from lake.jobs.job import WriteCounts
from lake.jobs.repairs.connections import Connections
from lake.jobs.repairs.explain import describe_answer, explain_failure
from lake.jobs.repairs.fill import FilledRows, Filling, find_superseded
from lake.jobs.repairs.plan import Group, Target
from lake.jobs.repairs.records import RecordedRepairs, Records
from lake.jobs.repairs.refetch import Answer, refetch
from lake.jobs.repairs.report import FailedRepair
from lake.jobs.repairs.spans import read_each
from lake.jobs.repairs.state import NOTHING, GroupState, Outcome
from lake.model.time import TimeRange
from lake.settings import Settings
from lake.store.store import Origin, Store


@dataclass(frozen=True)
class Options:
    """What a run may do: `interpolate` fills in by rule, `offline` asks no source."""

    interpolate: bool
    offline: bool


@dataclass(frozen=True)
class Bench:
    """What the steps work with.

    Attributes
    ----------
    filling
        Makes rows for the group.
    counts
        Adds up what became of the rows that are written.
    """

    store: Store
    settings: Settings
    connections: Connections
    filling: Filling
    counts: WriteCounts
    job_id: str
    options: Options

    def record(
        self,
        group: Group,
        since: int,
        evidence: Mapping[str, Any],
        windows: Sequence[TimeRange] = (),
    ) -> RecordedRepairs:
        """Record what the job has committed to the group's table after a version."""
        records = Records(self.store)
        return records.record_commits(self.job_id, group, since, evidence, windows)


async def ask(bench: Bench, state: GroupState) -> Outcome:
    """Fetch again what is due."""
    return await _ask(bench, state.group, state.due, fallback=False)


async def ask_fallback(bench: Bench, state: GroupState) -> Outcome:
    """Fetch from the fallback of the exchange what is still open."""
    targets = [target for target in state.due if state.is_open(target)]
    return await _ask(bench, state.group, targets, fallback=True)


async def _ask(
    bench: Bench, group: Group, targets: Collection[Target], *, fallback: bool
) -> Outcome:
    if not targets:
        return NOTHING
    exchange, name = group.market.exchange, group.market.exchange
    windows = group.select(targets).windows
    since = bench.store.version(group.dataset)
    outcome = NOTHING
    try:
        connection = bench.connections.get(exchange, fallback=fallback)
        if connection is not None:
            name = connection.name
            writer = BatchWriter(bench.store, Origin(bench.job_id, name), bench.counts)
            answer = await refetch(connection.source, group, windows, writer, bench.settings)
            outcome = _judge(answer)
            for error in () if answer.is_begun else outcome.down:
                bench.connections.set_down(exchange, error, fallback=fallback)
    except SourceUnavailableError as error:
        bench.connections.set_down(exchange, error, fallback=fallback)
        outcome = Outcome(down=(error,))
    except (SourceError, UsageError) as error:
        outcome = Outcome(refusals=(f"{name}: {error.message}",))
    finally:  # whatever ended it: what was committed is on record
        recorded = bench.record(group, since, {}, windows)
    return replace(outcome, recorded=(recorded,))


def _judge(answer: Answer) -> Outcome:
    """Return what a source gave, with the reasons of what it did not give."""
    down = [error for error in answer.errors if isinstance(error, SourceUnavailableError)]
    refusals = [error for error in answer.errors if not isinstance(error, SourceUnavailableError)]
    return Outcome(
        answers=(answer,),
        refusals=tuple(f"{answer.source}: {error.message}" for error in refusals),
        down=tuple(down[:1]),
    )


def drop_superseded(bench: Bench, state: GroupState) -> Outcome:
    """Drop rows that were filled in, or stamped otherwise, where the venue's own are stored now."""
    dataset, market = state.group.dataset, state.group.market
    if dataset.timeframe is not None or "fill" not in dataset.polars_schema:
        return NOTHING

    def drop(rows: pl.DataFrame) -> pl.DataFrame:
        old = find_superseded(dataset, rows)
        return rows.filter(~pl.col(dataset.time_column).is_in(old.implode()))

    recorded = []
    columns, origin = [dataset.time_column, "fill"], Origin(bench.job_id, "superseded")
    evidence = {"reason": "the venue's own row of the same event is stored"}
    for window, rows in read_each(bench.store, dataset, market, state.group.windows, columns):
        if len(find_superseded(dataset, rows)):
            since = bench.store.version(dataset)
            bench.store.replace(dataset, market, window, drop, origin)
            recorded.append(bench.record(state.group, since, evidence))
    return Outcome(recorded=tuple(recorded))


def derive(bench: Bench, state: GroupState) -> Outcome:
    """Derive missing bars from finer data of the lake."""
    if not bench.filling.makes_bars:
        return NOTHING
    spans = [target.span for target in state.group.of_kind("missing")]
    stored = [_store_filled(bench, state.group, rows) for rows in bench.filling.derive(spans)]
    return Outcome(recorded=tuple(stored))


def interpolate(bench: Bench, state: GroupState) -> Outcome:
    """Fill in by the policy of the dataset what is still open, if the run may."""
    if not bench.options.interpolate:
        return NOTHING
    targets = state.open_targets()
    quiet = [target for target in targets if target.kind == "no_trade"]
    lost = [target for target in targets if target.kind == "missing"]
    rows = bench.filling.interpolate(quiet, lost)
    return Outcome(recorded=(_store_filled(bench, state.group, rows),)) if rows else NOTHING


def _store_filled(bench: Bench, group: Group, filled: FilledRows) -> RecordedRepairs:
    since = bench.store.version(group.dataset)
    rows = add_market(filled.rows, group.market)
    written = bench.store.write(group.dataset, rows, Origin(bench.job_id, filled.source))
    bench.counts.add(group.dataset.name, written)
    return bench.record(group, since, filled.evidence)


def mark(bench: Bench, state: GroupState) -> Outcome:
    """Mark what a source confirmed, so that it is not asked again; say what else stays open."""
    marks, failed = [], []
    now, options = bench.store.now(), bench.options
    for target, stored in _read_targets(bench.store, state):
        answer = state.answer_for(target)
        if answer is not None and target.finding_id:
            marks.append((target, describe_answer(state, target, answer, stored, now)))
        if target.kind != "suspect" or answer is None:
            reason = explain_failure(
                state, target, offline=options.offline, interpolate=options.interpolate
            )
            failed.append(_fail(state.group, target, reason))
    marked = Records(bench.store).record_marks(bench.job_id, state.group, marks)
    return Outcome(marked=marked, failed=tuple(failed))


def _read_targets(store: Store, state: GroupState) -> Iterator[tuple[Target, pl.DataFrame]]:
    """The targets that are open, each with the rows that are stored in its span."""
    targets, group = state.open_targets(), state.group
    spans = [target.span for target in targets]
    each = read_each(store, group.dataset, group.market, spans)
    for target, (_, rows) in zip(targets, each, strict=True):
        yield target, rows


def _fail(group: Group, target: Target, reason: str) -> FailedRepair:
    ids = (target.finding_id,) if target.finding_id else ()
    return FailedRepair(group.dataset.name, group.market, target.span, ids, reason)
