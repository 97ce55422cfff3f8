"""Assess the quality of the tables of a new bundle, at the pinned versions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from lake.bundles.draft import Assessment
from lake.jobs.quality.report import ReportData, build_report
from lake.jobs.quality.run import MarketResult, check_tables, open_inputs
from lake.model.dataset import TIMESTAMP
from lake.model.progress import Progress
from lake.model.selection import Selection
from lake.quality.findings import as_rows
from lake.quality.report.document import to_json
from lake.quality.score import combine_scores
from lake.settings import Settings
from lake.store.ledger import Ledger
from lake.store.snapshot import Snapshot
from lake.store.store import Store


def assess(
    store: Store,
    settings: Settings,
    title: str,
    snapshots: Sequence[Snapshot],
    selections: Sequence[Selection],
    as_of: datetime | None,
    progress: Progress,
) -> Assessment:
    """Check selections of snapshots, and report on them; nothing is recorded.

    References are the other tables of the lake, as they are now or were at `as_of`.
    """
    tables = {snapshot.dataset.name: snapshot for snapshot in snapshots}
    inputs = open_inputs(store, settings, store.now(), tables, as_of)
    quality = settings.quality
    scores, findings = [], [store.catalog.dataset("findings").empty()]
    for table, selection in zip(tables, selections, strict=True):
        for result in check_tables(inputs, [table], selection, quality, progress, exactly=True):
            scores.append(result.named_scores)
            findings.append(_to_open_findings(result, inputs.now))
    data = ReportData(
        title=title,
        lake_id=store.root.id,
        made_at=store.now(),
        scores=pl.concat(scores),
        findings=pl.concat(findings, how="diagonal"),
        repairs=store.read(store.catalog.dataset("repairs"), as_of=as_of).filter(
            pl.col("dataset").is_in(list(tables))
        ),
        jobs=Ledger(store).read_jobs(),
    )
    return Assessment(
        combine_scores(data.scores)["score"], to_json(build_report(data, inputs, quality))
    )


def _to_open_findings(result: MarketResult, now: datetime) -> pl.DataFrame:
    return as_rows(result.table, result.market, result.findings).with_columns(
        status=pl.lit("open"), job_id=pl.lit("pin"), found_at=pl.lit(now, dtype=TIMESTAMP)
    )
