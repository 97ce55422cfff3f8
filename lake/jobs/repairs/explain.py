"""Why a target stays open, and what a source answered, in words. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl

from lake.jobs.repairs.changes import to_json
from lake.jobs.repairs.plan import Target
from lake.jobs.repairs.refetch import Answer
from lake.jobs.repairs.state import GroupState
from lake.model.dataset import Dataset
from lake.model.interpolate import find_obstacle
from lake.model.time import iso


def explain_failure(state: GroupState, target: Target, *, offline: bool, interpolate: bool) -> str:
    """Say why a target stays open.

    Parameters
    ----------
    offline
        No source was asked.
    interpolate
        Rows were to be interpolated.
    """
    if target.kind == "no_trade":
        return _explain_no_trade(state.group.dataset)
    return _explain_source(state, target, offline=offline) + _explain_filling(
        state.group.dataset, target, interpolate=interpolate
    )


def _explain_no_trade(dataset: Dataset) -> str:
    if dataset.repair.interpolate != "flat":
        return "its dataset file does not allow flat bars"
    return find_obstacle(dataset) or "no bar is stored before it: the last price is not known"


def _explain_source(state: GroupState, target: Target, *, offline: bool) -> str:
    is_due = target in state.due
    if state.refusals and is_due and state.answer_for(target) is None:
        return "; ".join(state.refusals)
    if target.ask and offline:
        return "no source was asked (offline)"
    if is_due and state.answer_for(target) is None:
        return "the source has not answered for all of it yet"
    if target.kind == "suspect":
        return "the source was asked before, and repeated it"
    if not target.is_given:
        return "the source no longer serves this time; --again asks it once more"
    return "the source has nothing there"


def _explain_filling(dataset: Dataset, target: Target, *, interpolate: bool) -> str:
    if target.kind != "missing":
        return ""
    if dataset.timeframe is not None:
        return ", nor do finer data give it"
    if interpolate:
        reason = find_obstacle(dataset) or "the rows around it do not tell what is due"
        return f"; not filled in: {reason}"
    return ""


def describe_answer(
    state: GroupState, target: Target, answer: Answer, stored: pl.DataFrame, now: datetime
) -> dict[str, Any]:
    """Describe what a source answered: evidence that asking again is of no use.

    Parameters
    ----------
    answer
        The last answer for the target.
    stored
        The rows that are stored in the target's span.
    """
    rows = answer.select_rows(target)
    facts = {
        "source": " and ".join(item.source for item in state.answers if item.settles(target)),
        "asked_at": iso(now),
        "measured": target.measured,
    }
    if rows.is_empty():
        return {**facts, "answer": "nothing"}
    common = [name for name in stored.columns if name in rows.columns]
    other = rows.select(common).join(stored, on=common, how="anti", nulls_equal=True)
    kind = "something else, that may not replace what is stored" if other.height else "the same"
    return {**facts, "answer": kind, "rows": to_json(rows)}
