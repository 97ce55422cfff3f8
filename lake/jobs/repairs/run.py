"""One run of repairs, group by group: ask, ask elsewhere, derive, interpolate, mark."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from lake.errors import SourceError, SourceUnavailableError, UsageError
from lake.jobs.ingest.batch import BatchWriter, of_market
from lake.jobs.job import WriteCounts
from lake.jobs.repairs.changes import to_json
from lake.jobs.repairs.fill import FilledRows, Filling, find_superseded
from lake.jobs.repairs.plan import Group, Target
from lake.jobs.repairs.records import Records
from lake.jobs.repairs.refetch import Answer, refetch
from lake.jobs.repairs.report import AppliedRepair, FailedRepair
from lake.jobs.repairs.spans import Moments, read_each
from lake.model.dataset import TIMESTAMP
from lake.model.interpolate import obstacle
from lake.model.time import TimeRange, iso
from lake.settings import ExchangeSettings, Settings
from lake.sources.base import Source, require_ranges
from lake.store.ledger import Job
from lake.store.store import Origin, Store

Connect = Callable[[str, ExchangeSettings | None], Source]
"""Gives the source of an exchange, asked as the settings say."""


class Run:
    """The work of one run, group by group, and what came of it.

    Parameters
    ----------
    interpolate
        Whether to fill in by rule what nobody gives.
    offline
        Whether no source is asked.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        connect: Connect,
        *,
        interpolate: bool,
        offline: bool,
    ) -> None:
        self.tally = WriteCounts()
        self.repairs: list[AppliedRepair] = []
        self.marked: list[AppliedRepair] = []
        self.failed: list[FailedRepair] = []
        self._store = store
        self._settings = settings
        self._connect = connect
        self._interpolate = interpolate
        self._offline = offline
        self._records = Records(store)
        self._sources: dict[tuple[str, bool], Source] = {}
        self._down: dict[tuple[str, bool], SourceUnavailableError] = {}

    @property
    def requests(self) -> int:
        return sum(source.requests for source in self._sources.values())

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(source.close() for source in self._sources.values()))

    async def repair(self, job: Job, group: Group) -> None:
        """All that can be done for a group: ask, ask elsewhere, derive, interpolate, mark.

        Raises
        ------
        SourceUnavailableError
            A source is down, and nobody else gave what is missing: it is left for a later run,
            for what is derived now would not be asked for any more.
        """
        work = _Work(group, Filling(self._store, group))
        if not self._offline:
            work.asked = {t for t in group.targets if is_due(work.filling, work.absent, t)}
        for fallback in (False, True):
            todo = [target for target in work.asked if work.is_open(target, fallback=fallback)]
            if todo:
                await self._ask(job, work, todo, fallback=fallback)
        if work.down and any(work.is_open(target) for target in work.asked):
            raise work.down[0]
        if not work.filling.makes_bars:
            self._drop_superseded(job, work)
        else:
            wanted = [t.span for t in group.targets if t.kind == "missing"]
            for made in work.filling.derive(wanted):
                self._store_filled(job, work, made)
        if self._interpolate:
            self._interpolated(job, work)
        self._mark(job, work)

    async def _ask(self, job: Job, work: _Work, todo: list[Target], *, fallback: bool) -> None:
        group, exchange = work.group, work.group.market.exchange
        windows = windows_of(group, todo)
        since = self._store.version(group.dataset)
        name = exchange
        try:
            source = self._source(exchange, fallback=fallback)
            if source is None:
                return
            name = f"{source.name} (fallback)" if fallback else source.name
            writer = BatchWriter(self._store, Origin(job.id, name), self.tally)
            ranges = require_ranges(source)
            work.answers.append(await refetch(ranges, group, windows, writer, self._settings))
        except SourceUnavailableError as error:
            self._down[exchange, fallback] = error
            work.down.append(error)
        except (SourceError, UsageError) as error:
            work.hindrances.append(f"{name}: {error.message}")
        finally:  # whatever ended it: what was committed is on record
            self._record(job, work, since, {}, windows)

    def _source(self, exchange: str, *, fallback: bool) -> Source | None:
        chosen = self._settings.exchanges.get(exchange)
        if fallback:
            if chosen is None or chosen.fallback_url is None:
                return None
            chosen = chosen.model_copy(update={"url": chosen.fallback_url})
        if (exchange, fallback) in self._down:  # it was given all its retries once
            raise self._down[exchange, fallback]
        if (exchange, fallback) not in self._sources:
            self._sources[exchange, fallback] = self._connect(exchange, chosen)
        return self._sources[exchange, fallback]

    def _drop_superseded(self, job: Job, work: _Work) -> None:
        """Rows that were filled in make room for the venue's own."""
        dataset, market = work.group.dataset, work.group.market
        if "fill" not in dataset.polars_schema:
            return

        def change(rows: pl.DataFrame) -> pl.DataFrame:
            old = pl.col(dataset.time_column).is_in(find_superseded(dataset, rows).implode())
            return rows.filter(~(old & pl.col("fill").is_not_null()))

        columns = [dataset.time_column, "fill"]
        for window, rows in read_each(self._store, dataset, market, work.group.windows, columns):
            if len(find_superseded(dataset, rows)):
                since = self._store.version(dataset)
                origin = Origin(job.id, "superseded")
                self._store.replace(dataset, market, window, change, origin)
                reason = {"reason": "the venue's own row is stored beside what was filled in"}
                self._record(job, work, since, reason)

    def _interpolated(self, job: Job, work: _Work) -> None:
        left = [target for target in work.group.targets if work.is_open(target)]
        quiet = [target for target in left if target.kind == "no_trade"]
        lost = [target for target in left if target.kind == "missing"]
        made = work.filling.interpolate(quiet, lost)
        if made is not None:
            self._store_filled(job, work, made)

    def _store_filled(self, job: Job, work: _Work, made: FilledRows) -> None:
        since = self._store.version(work.group.dataset)
        rows = of_market(made.rows, work.group.market)
        origin = Origin(job.id, made.source)
        written = self._store.write(work.group.dataset, rows, origin)
        self.tally.add(work.group.dataset.name, written)
        self._record(job, work, since, made.evidence)

    def _record(
        self,
        job: Job,
        work: _Work,
        since: int,
        evidence: Mapping[str, Any],
        asked: Sequence[TimeRange] = (),
    ) -> None:
        found = self._records.record_commits(job.id, work.group, since, evidence, asked)
        self.repairs.extend(found.repairs)
        work.note(found.times)

    def _mark(self, job: Job, work: _Work) -> None:
        """Tell what is still open; where a source confirmed it, it is not asked again."""
        marks = []
        left = [target for target in work.group.targets if work.is_open(target)]
        for target, stored in self._stored(work.group, left):
            answer = work.answer(target) if target in work.asked else None
            if answer is not None and target.finding_id:
                marks.append((target, self._said(work, target, answer, stored)))
            if target.kind != "suspect" or answer is None:
                self.failed.append(_fail(work.group, target, self._why(work, target)))
        self.marked.extend(self._records.record_marks(job.id, work.group, marks))

    def _why(self, work: _Work, target: Target) -> str:
        """Why a target stays open."""
        dataset, asked = work.group.dataset, target in work.asked
        if target.kind == "no_trade":
            if dataset.repair.interpolate != "flat":
                return "its dataset file does not allow flat bars"
            return obstacle(dataset) or "no bar is stored before it: the last price is not known"
        if work.hindrances and asked:
            said = "; ".join(work.hindrances)
        elif target.ask and self._offline:
            said = "no source was asked (offline)"
        elif asked and work.answer(target) is None:
            said = "the source has not answered for all of it yet"
        elif target.kind == "suspect":
            return "the source was asked before, and repeated it"
        else:
            said = "the source has nothing there"
        if target.kind == "missing" and dataset.timeframe is not None:
            return f"{said}, nor do finer data give it"
        if target.kind == "missing" and self._interpolate:
            why = obstacle(dataset) or "the rows around it do not tell what is due"
            return f"{said}; not filled in: {why}"
        return said

    def _stored(
        self, group: Group, targets: Sequence[Target]
    ) -> Iterator[tuple[Target, pl.DataFrame]]:
        spans = [target.span for target in targets]
        each = read_each(self._store, group.dataset, group.market, spans)
        for target, (_, rows) in zip(targets, each, strict=True):
            yield target, rows

    def _said(
        self, work: _Work, target: Target, answer: Answer, stored: pl.DataFrame
    ) -> dict[str, Any]:
        """What a source said of a target, as evidence that asking again is of no use."""
        given = answer.select_rows(target)
        facts = {
            "source": " and ".join(one.source for one in work.answers if one.settles(target)),
            "asked_at": iso(self._store.now()),
            "measured": target.measured,
        }
        if given.is_empty():
            return {**facts, "answer": "nothing"}
        common = [name for name in stored.columns if name in given.columns]
        other = given.select(common).join(stored, on=common, how="anti", nulls_equal=True)
        said = "something else, that may not replace what is stored" if other.height else "the same"
        return {**facts, "answer": said, "rows": to_json(given)}


class _Work:
    """What is known of a group while it is repaired."""

    def __init__(self, group: Group, filling: Filling) -> None:
        self.group = group
        self.filling = filling
        self.absent = filling.find_absent()
        self.asked: set[Target] = set()
        self.answers: list[Answer] = []
        self.hindrances: list[str] = []
        self.down: list[SourceUnavailableError] = []
        self._changed = Moments(pl.Series(dtype=TIMESTAMP))

    def note(self, times: pl.Series) -> None:
        """Take in the times of rows that were changed, and look what is missing now."""
        self._changed = Moments(pl.concat([self._changed.times, times.rename("")]))
        self.absent = self.filling.find_absent()

    def is_open(self, target: Target, *, fallback: bool = True) -> bool:
        """Whether a target is not repaired yet; a witness is only asked, and only once."""
        if target.kind == "witness":
            return not fallback
        if target.kind == "no_trade" or self._is_bars_gap(target):
            return self.absent.has_within(target.span)
        return not self._changed.has_within(target.span)

    def _is_bars_gap(self, target: Target) -> bool:
        return target.kind == "missing" and self.group.dataset.timeframe is not None

    def answer(self, target: Target) -> Answer | None:
        """The last answer that told everything of a target."""
        return next((one for one in self.answers[::-1] if one.settles(target)), None)


def is_due(filling: Filling, absent: Moments, target: Target) -> bool:
    """Whether a source is to be asked for a target.

    Parameters
    ----------
    absent
        Open times of bars that are not there.
    """
    if not target.ask or target.kind == "no_trade":
        return False
    gap = target.kind == "missing" and filling.makes_bars
    return not gap or absent.has_within(target.span)


def windows_of(group: Group, targets: Iterable[Target]) -> tuple[TimeRange, ...]:
    """The windows that hold some of a group's targets."""
    return Group.of(group.dataset, group.market, list(targets)).windows


def _fail(group: Group, target: Target, reason: str) -> FailedRepair:
    ids = (target.finding_id,) if target.finding_id else ()
    return FailedRepair(group.dataset.name, group.market, target.span, ids, reason)
