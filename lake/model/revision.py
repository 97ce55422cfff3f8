"""The rule by which rows that may change revise each other. Pure.

Rows are taken in the order in which they come: each revises the row of its key, unless `keep_when`
protects that one. What many rows become is therefore the same however they are cut into batches.

Two different rows of one key in one answer of a source are no revision but a conflict: the source
says two things at once, and one of them is wrong. The last one stays, as if it had come later, and
the others are rejected. Rows that are not final (`closed` is false), and those of which `keep_when`
prefers one, such as the venue's own to a filled one, conflict with nothing. A later answer is later
knowledge: its rows revise those of an earlier one.

Rows of one event (`lake.model.schedule`) are one row. It has the latest of their times: whatever
was said about the event, it had happened by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.frames import find_varying
from lake.model.identity import select_place, settle_times
from lake.model.market import MARKET_COLUMNS
from lake.model.schedule import scheduled_at

CONFLICTS = "contradicts_later_row"
"""The reason of rows in quarantine that contradict a later row of the same answer."""
REVISED_AT = "_revised_at"
"""Column with the time of the stored row that a row revises; null: it is new."""
_ANSWER, _EVENT, _ROW, _TURN = "_answer", "_event", "_row", "_turn"


@dataclass(frozen=True)
class Revised:
    """What becomes of rows that may change, given the stored rows that they may be.

    Attributes
    ----------
    changed
        Rows to be inserted or updated in their final form, each key once, with `REVISED_AT`.
    conflicting
        Rows that contradict a later row of their answer, as they came.
    opposed
        The rows that these contradict, line by line.
    kept
        Market and time of the rows of the table that the others now are, each once.
    """

    changed: pl.DataFrame
    conflicting: pl.DataFrame
    opposed: pl.DataFrame
    kept: pl.DataFrame


def has_repeated_keys(dataset: Dataset, rows: pl.DataFrame) -> bool:
    """Return whether two rows have one key; times that are close count as different."""
    key = find_varying(rows, dataset.full_key) or [dataset.key[0]]
    keys = pl.struct(key) if len(key) > 1 else pl.col(key[0])
    return bool(rows.select(keys.n_unique()).item() < rows.height)


def revise(
    dataset: Dataset, rows: pl.DataFrame, answers: pl.Series, stored: pl.DataFrame
) -> Revised:
    """Find what becomes of rows that may change.

    Parameters
    ----------
    rows
        Rows that the dataset admits, in the order in which they came.
    answers
        The answer of a source that each row is part of, as a number.
    stored
        The stored rows that they may be, with the columns of `rows`.
    """
    key = [*MARKET_COLUMNS, *(n for n in dataset.key if n != dataset.time_column), _EVENT]
    event = scheduled_at(dataset).alias(_EVENT)
    placed = settle_times(dataset, rows, stored).with_columns(event)
    marked = placed.with_columns(answers.alias(_ANSWER)).with_row_index(_ROW)
    conflicts = _find_conflicts(dataset, marked, [_ANSWER, *key])
    rest = placed.filter(~marked[_ROW].is_in(conflicts[_ROW].implode()))
    rest = rest.with_columns(pl.lit(None, TIMESTAMP).alias(REVISED_AT))
    time = pl.col(dataset.time_column)
    # Of several rows of one event, from before there was a schedule, the latest is revised.
    base = (
        stored.with_columns(event, time.alias(REVISED_AT))
        .join(rest.select(key).unique(), on=key, how="semi")
        .sort(dataset.time_column, maintain_order=True)
        .unique(key, keep="last", maintain_order=True)
    )
    final = _fold(dataset, base.select(rest.columns), rest, key)
    final = final.with_columns(dataset.day())  # the latest time may be past midnight
    before = final.select(key).join(base, on=key, how="left", maintain_order="left")
    is_changed = final[REVISED_AT].is_null()
    for name in (*dataset.values, *dataset.fillable, dataset.time_column):
        is_changed |= final[name].ne_missing(before[name])
    return Revised(
        changed=final.filter(is_changed).drop(_EVENT),
        conflicting=rows[conflicts[_ROW]],
        opposed=conflicts.select(rows.columns),
        kept=select_place(dataset, final),
    )


def revise_in_turn(dataset: Dataset, rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Let each row revise the one of its key before it, as a merge lets it revise a stored one."""
    return _fold(dataset, rows.clear(), rows, key)


def write_change(dataset: Dataset) -> str:
    """Write the condition that a row `s` says something else than the row `t`, in SQL.

    Where a null means that no value was given, it says nothing.
    """
    terms = [
        f'(t."{name}" IS DISTINCT FROM s."{name}"){_write_given(dataset, name)}'
        for name in dataset.values
    ]
    return f"({' OR '.join(f'({term})' for term in terms)})" if terms else "FALSE"


def write_revised(dataset: Dataset, name: str) -> str:
    """Write the value of a column of a row `s` that comes after a row `t`, in SQL."""
    mine, before = f's."{name}"', f't."{name}"'
    if name == dataset.time_column and dataset.schedule is not None:
        own = f'WHEN t."{_FILL}" IS NOT NULL AND s."{_FILL}" IS NULL THEN {mine} '
        return (
            f"CASE {own if _FILL in dataset.polars_schema else ''}"
            f"WHEN {before} > {mine} THEN {before} ELSE {mine} END"
        )
    if name in dataset.kept_values:
        return f"COALESCE({mine}, {before})"
    if name in dataset.fillable:
        later, first = f"COALESCE({mine}, {before})", f"COALESCE({before}, {mine})"
        return f"CASE WHEN {write_change(dataset)} THEN {later} ELSE {first} END"
    return before if name == REVISED_AT else mine


_FILL = "fill"


def _write_given(dataset: Dataset, name: str) -> str:
    return f' AND s."{name}" IS NOT NULL' if name in dataset.kept_values else ""


def _fold(
    dataset: Dataset, start: pl.DataFrame, rows: pl.DataFrame, key: Sequence[str]
) -> pl.DataFrame:
    """Let rows revise those of their key in `start`, and then each other, in their order."""
    turns = rows.with_columns(pl.int_range(pl.len()).over(key).alias(_TURN))
    values = ", ".join(f'{write_revised(dataset, name)} AS "{name}"' for name in rows.columns)
    where = f"WHERE NOT ({dataset.keep_when})" if dataset.keep_when else ""
    revising = f"SELECT {values} FROM s JOIN t ON {_write_same(key)} {where}"  # noqa: S608
    kept = start
    for turn in turns.partition_by(_TURN, include_key=False, maintain_order=True):
        if kept.is_empty():
            kept = turn
            continue
        revised = pl.SQLContext(t=kept, s=turn).execute(revising, eager=True).select(rows.columns)
        new = turn.join(kept, on=key, how="anti", maintain_order="left")
        kept = pl.concat([kept.join(revised, on=key, how="anti"), revised, new])
    return kept


def _find_conflicts(dataset: Dataset, rows: pl.DataFrame, group: list[str]) -> pl.DataFrame:
    """Find rows that contradict the last row of their key and answer: `_row`, and that row."""
    several = rows.filter(pl.struct(group).is_duplicated())
    if several.is_empty():
        return several
    last = revise_in_turn(dataset, several, group)
    is_preferred = f"COALESCE(({dataset.keep_when}), FALSE)" if dataset.keep_when else "FALSE"
    against = _write_contradiction(dataset)
    here = f'SELECT t."{_ROW}" FROM t JOIN s ON {_write_same(group)}'  # noqa: S608
    there = f'SELECT s."{_ROW}" FROM t JOIN s ON {_write_same(group)}'  # noqa: S608
    pairs = pl.SQLContext(t=several, s=last)
    found = pairs.execute(f"{here} WHERE {against} AND NOT {is_preferred}", eager=True)
    swapped = pl.SQLContext(t=last, s=several)
    preferred = swapped.execute(f"{there} WHERE {is_preferred}", eager=True)
    numbers = found.join(preferred, on=_ROW, how="anti").sort(_ROW)
    places = several.select(_ROW, *group).join(numbers, on=_ROW, how="semi", maintain_order="left")
    return places.join(last.drop(_ROW), on=group, how="left", maintain_order="left")


def _write_contradiction(dataset: Dataset) -> str:
    """Write the condition that final rows `t` and `s` cannot both be true, in SQL."""
    terms = []
    for name in dataset.values:
        both = f'AND t."{name}" IS NOT NULL{_write_given(dataset, name)}'
        given = both if name in dataset.kept_values else ""
        terms.append(f'((t."{name}" IS DISTINCT FROM s."{name}") {given})')
    final = " AND t.closed AND s.closed" if dataset.marks_open else ""
    return f"({' OR '.join(terms) or 'FALSE'}){final}"


def _write_same(key: Sequence[str]) -> str:
    return " AND ".join(f't."{name}" = s."{name}"' for name in key)
