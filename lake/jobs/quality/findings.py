"""Record findings and scores: open, keep and close findings, and log the changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

import polars as pl

from lake.jobs.quality.run import MarketResult
from lake.log import FINDINGS as FINDINGS_LOGGER
from lake.log import get_logger
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.market import DATASET_MARKET, MARKET_COLUMNS, StoredMarket
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, iso
from lake.quality.findings import as_rows
from lake.quality.run import FINDINGS
from lake.store.store import Origin, Store

_log = get_logger(__name__)
_findings_log = get_logger(FINDINGS_LOGGER)
_LOUD_FINDINGS = 5
"""Findings of a market and run that are logged at their own level; the others as info."""
_KEPT = ("job_id", "found_at")
_JOB_COLUMNS = ("job_id", "checked_at")


@dataclass(frozen=True, slots=True)
class FindingCounts:
    """Numbers of findings that are new, still open, or closed."""

    opened: int = 0
    kept: int = 0
    closed: int = 0

    def __add__(self, other: FindingCounts) -> FindingCounts:
        return FindingCounts(
            self.opened + other.opened, self.kept + other.kept, self.closed + other.closed
        )


def record_findings(
    store: Store,
    results: Sequence[MarketResult],
    complete: Sequence[tuple[str, Selection]],
    job_id: str,
    earlier: Sequence[tuple[str, Selection]] = (),
) -> FindingCounts:
    """Record the findings of a check in one commit, and close those that it no longer reports.

    Unchanged findings stay as they are: repeating a check changes nothing.

    Parameters
    ----------
    results
        What the checks found, by market and range.
    complete
        Tables and selections that were checked to their end: findings on days without a result are
        closed, because these days have no rows any more.
    earlier
        Tables and selections of results that were recorded before.
    """
    if not results and not complete:
        return FindingCounts()
    dataset = store.catalog.dataset("findings")
    current = _list_current(store, results, job_id)
    stored = read_open(store, list_judged(results), complete, earlier)
    before = stored.select("finding_id", *(pl.col(name).alias(f"_{name}") for name in _KEPT))
    joined = current.join(before, on="finding_id", how="left", maintain_order="left")
    opened = joined.filter(pl.col("_job_id").is_null()).select(current.columns)
    kept = joined.filter(pl.col("_job_id").is_not_null()).select(
        pl.exclude(*_KEPT, *(f"_{name}" for name in _KEPT)),
        *(pl.col(f"_{name}").alias(name) for name in _KEPT),
    )
    closed = _mark_closed(store, stored.join(current, on="finding_id", how="anti"), job_id)
    # Unchanged findings need not be written.
    updated = kept.join(stored.drop("date"), on=kept.columns, how="anti", nulls_equal=True)
    changed = pl.concat(
        [frame.select(_complete_columns(dataset, frame)) for frame in (opened, updated, closed)]
    )
    if changed.height:
        written = store.write(dataset, changed, Origin(job_id, "lake"))
        if written.rejected:
            _log_rejected(changed.join(written.kept, on=written.kept.columns, how="anti"))
    _log_opened(opened)
    _log_closed(closed)
    return FindingCounts(opened.height, kept.height, closed.height)


def _list_current(store: Store, results: Sequence[MarketResult], job_id: str) -> pl.DataFrame:
    """List what was found as rows of `findings`, each once."""
    found = [as_rows(item.table, item.market, item.findings) for item in results]
    rows = pl.concat([as_rows("", StoredMarket("", ""), pl.DataFrame(schema=FINDINGS)), *found])
    return rows.unique("finding_id", keep="last", maintain_order=True).with_columns(
        status=pl.lit("open"),
        job_id=pl.lit(job_id),
        found_at=pl.lit(store.now(), dtype=TIMESTAMP),
    )


def list_judged(results: Iterable[MarketResult]) -> list[tuple[str, Selection]]:
    """List the tables and selections of some results."""
    return [
        (
            item.table,
            Selection(
                (item.market.exchange,), (item.market.symbol,), item.range.start, item.range.end
            ),
        )
        for item in results
    ]


def read_open(
    store: Store,
    judged: Sequence[tuple[str, Selection]],
    complete: Sequence[tuple[str, Selection]] = (),
    earlier: Sequence[tuple[str, Selection]] = (),
) -> pl.DataFrame:
    """Read the open findings that begin in some selections of tables.

    Parameters
    ----------
    complete
        As `judged`, but without what is in `earlier`.
    """
    dataset = store.catalog.dataset("findings")
    if not judged and not complete:
        return dataset.empty()
    rows = store.read(dataset, _enclose(selection for _, selection in (*judged, *complete)))
    rows = rows.filter(pl.col("status") == "open")
    chosen = []
    for (table, exchange, symbol), own in rows.group_by(DATASET_MARKET, maintain_order=True):
        place = str(table), str(exchange), str(symbol)
        is_judged, is_complete, was_judged = (
            _is_in_any(selections, place) for selections in (judged, complete, earlier)
        )
        chosen.append(own.filter(is_judged | (is_complete & ~was_judged)))
    return pl.concat([rows.clear(), *chosen])


def _is_in_any(selections: Iterable[tuple[str, Selection]], place: tuple[str, str, str]) -> pl.Expr:
    """Whether a finding of a table and market begins in one of some selections."""
    table, exchange, symbol = place
    terms = [
        _is_in_range(selection)
        for name, selection in selections
        if name == table
        and (not selection.exchanges or exchange in selection.exchanges)
        and (not selection.symbols or symbol in selection.symbols)
    ]
    return pl.any_horizontal(pl.lit(value=False), *terms)


def _enclose(selections: Iterable[Selection]) -> Selection:
    """Return a selection that holds several; what one does not limit is not limited."""
    listed = list(selections)
    return Selection(
        _join_names(selection.exchanges for selection in listed),
        _join_names(selection.symbols for selection in listed),
        _pick_bound(min, [selection.start for selection in listed]),
        _pick_bound(max, [selection.end for selection in listed]),
    )


def _pick_bound(
    pick: Callable[[Iterable[datetime]], datetime], times: Sequence[datetime | None]
) -> datetime | None:
    bounds = [time for time in times if time is not None]
    return pick(bounds) if len(bounds) == len(times) else None


def _join_names(listed: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Join names; none mean all."""
    groups = list(listed)
    return tuple(sorted(set(chain.from_iterable(groups)))) if all(groups) else ()


def _is_in_range(selection: Selection) -> pl.Expr:
    time, terms = pl.col("timestamp"), [pl.lit(value=True)]
    if selection.start is not None:
        terms.append(time >= selection.start)
    if selection.end is not None:
        terms.append(time < selection.end)
    return pl.all_horizontal(terms)


def record_scores(store: Store, days: pl.DataFrame, job_id: str) -> None:
    """Record the scores of market-days in one commit, except those that did not change.

    Parameters
    ----------
    days
        Rows of `lake.quality.score.score_days`, with `dataset`, `exchange` and `symbol`.
    """
    if days.is_empty():
        return
    dataset = store.catalog.dataset("scores")
    rows = days.with_columns(job_id=pl.lit(job_id), checked_at=pl.lit(store.now(), dtype=TIMESTAMP))
    times = rows.select(first=pl.col("timestamp").min(), last=pl.col("timestamp").max()).row(0)
    exchanges, symbols = (tuple(rows[name].unique()) for name in ("exchange", "symbol"))
    selection = Selection(exchanges, symbols, times[0], times[1] + MICROSECOND)
    stored = store.read(dataset, selection)
    same = [name for name in rows.columns if name not in _JOB_COLUMNS]
    changed = rows.join(stored, on=same, how="anti", nulls_equal=True)
    if changed.height:
        store.write(dataset, changed, Origin(job_id, "lake"))


def _mark_closed(store: Store, findings: pl.DataFrame, job_id: str) -> pl.DataFrame:
    return findings.with_columns(
        status=pl.lit("closed"),
        closed_by=pl.lit(job_id),
        closed_at=pl.lit(store.now(), dtype=TIMESTAMP),
    )


def _log_rejected(findings: pl.DataFrame) -> None:
    for place, rows in findings.group_by(DATASET_MARKET, maintain_order=True):
        _log.error(
            "findings cannot be recorded, and are in quarantine",
            findings=rows.height,
            start=iso(rows.select(pl.col("timestamp").min()).item()),
            end=iso(rows.select(pl.col("end").max()).item()),
            **dict(zip(("table", *MARKET_COLUMNS), place, strict=True)),
        )


def _log_opened(findings: pl.DataFrame) -> None:
    """Log new findings; of a market and run only the first at their own level."""
    seen: Counter[tuple[object, ...]] = Counter()
    for row in findings.iter_rows(named=True):
        place = tuple(row[name] for name in DATASET_MARKET)
        seen[place] += 1
        _log_finding("finding", row, quietly=seen[place] > _LOUD_FINDINGS)


def _log_closed(findings: pl.DataFrame) -> None:
    for row in findings.iter_rows(named=True):
        _findings_log.info("finding closed", **_build_log_fields(row))


def _complete_columns(dataset: Dataset, frame: pl.DataFrame) -> list[pl.Expr]:
    return [
        pl.col(name) if name in frame.columns else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in dataset.polars_schema.items()
        if name != "date"
    ]


def _log_finding(event: str, row: Mapping[str, object], *, quietly: bool) -> None:
    """Log a finding as one structured line: errors as warnings, critical ones as errors."""
    levels = {} if quietly else {"critical": _findings_log.error, "error": _findings_log.warning}
    levels.get(str(row["severity"]), _findings_log.info)(event, **_build_log_fields(row))


def _build_log_fields(row: Mapping[str, object]) -> dict[str, object]:
    skipped = {"date", "status", "closed_by", "closed_at"}
    # A log line has its own timestamp: when it was written.
    return {
        "start" if name == "timestamp" else name: iso(value)
        if isinstance(value, datetime)
        else value
        for name, value in row.items()
        if name not in skipped and value is not None
    }
