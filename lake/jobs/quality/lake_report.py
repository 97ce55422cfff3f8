"""Build the quality report of a lake from its latest checks."""

from __future__ import annotations

import polars as pl

from lake.jobs.quality.report import ReportData, build_report
from lake.jobs.quality.run import open_inputs
from lake.model.selection import Selection
from lake.quality.report.document import Report
from lake.settings import Settings
from lake.store.chunks import widen_to_days
from lake.store.ledger import Ledger
from lake.store.store import Store


def report_lake(store: Store, settings: Settings, selection: Selection) -> Report:
    """Build the report on the checked rows of a selection.

    Raises
    ------
    QualityError
        No check has run over the selection.
    """
    days = widen_to_days(selection)
    inputs = open_inputs(store, settings, store.now())
    data = ReportData(
        title=f"Lake {store.root.path.name}",
        lake_id=store.root.id,
        made_at=store.now(),
        scores=store.read(store.catalog.dataset("scores"), days),
        findings=store.read(store.catalog.dataset("findings"), days).filter(
            pl.col("status") == "open"
        ),
        repairs=store.read(store.catalog.dataset("repairs"), days),
        jobs=Ledger(store).read_jobs(),
    )
    return build_report(data, inputs, settings.quality)
