"""Conform rows to a dataset before they are stored; the others are rejected with a reason."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from lake.errors import SchemaError
from lake.model.dataset import PARTITIONS, TIMESTAMP, Column, Dataset
from lake.model.frames import find_varying, sort_by
from lake.model.time import EPOCH, iso
from lake.store.bounds import ClearedTimes, clear_times, is_in_range, is_usable

REASON = "_reason"


@dataclass(frozen=True)
class ConformResult:
    """Rows that can be stored, and rows that cannot.

    Attributes
    ----------
    rows
        They fit the dataset's schema, pass its rules, and are unique on its key; in its order.
    rejected
        The other rows, with their columns as they came, and `_reason`: the names of the rules
        that they break, comma-separated.
    cleared
        Times out of range that became null, by column: the rows are stored without them.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    cleared: tuple[ClearedTimes, ...] = ()


def conform(dataset: Dataset, frame: pl.DataFrame) -> ConformResult:
    """Fit rows to a dataset.

    Parameters
    ----------
    frame
        Has `exchange`, `symbol` and the dataset's columns with exactly their types; nullable
        columns may be missing; `date` is computed from the time column.

    Raises
    ------
    SchemaError
        The frame as a whole does not fit: a column is missing, too many, or of another type, or
        a row has no market.
    """
    fitted = _fit_frame(dataset, frame)
    names = [column for column in fitted.columns if column != "date"]
    usable, cleared = clear_times(dataset, fitted)
    broken = _build_rule_checks(dataset)
    is_bad = usable.select(
        pl.any_horizontal(list(broken.values())).fill_null(value=False)
    ).to_series()
    good = usable.filter(~is_bad)
    reasons = usable.filter(is_bad).select(_join_reasons(broken).alias(REASON))
    bad = fitted.filter(is_bad).select(names).hstack(reasons)
    unique, conflicting = _keep_unique(dataset, good)
    rows = unique.with_columns(dataset.partition_date())
    rows = sort_by(rows, ("exchange", "symbol", *dataset.sort))
    return ConformResult(rows, pl.concat([bad, conflicting.select(*names, REASON)]), cleared)


def build_quarantine_rows(
    dataset: Dataset, rejected: pl.DataFrame, job_id: str, now: datetime
) -> pl.DataFrame:
    """Build rows of the table `quarantine` from rejected rows."""
    records = []
    temporal = {name: dtype for name, dtype in rejected.schema.items() if dtype.is_temporal()}
    plain = rejected.with_columns(pl.col(list(temporal)).to_physical())
    for row in plain.iter_rows(named=True):
        row |= {name: _to_time(row[name], dtype) for name, dtype in temporal.items()}
        reason = row.pop(REASON)
        text = json.dumps(row, default=_to_json, sort_keys=True)
        time = row[dataset.time_column]
        records.append(
            {
                "exchange": row["exchange"],
                "symbol": row["symbol"],
                "dataset": dataset.name,
                "timestamp": time if is_usable(time) else EPOCH,
                "row_digest": hashlib.sha256(text.encode()).hexdigest(),
                "reason": reason,
                "row": text,
                "job_id": job_id,
                "refused_at": now,
            }
        )
    times = {"timestamp": TIMESTAMP, "refused_at": TIMESTAMP}
    return pl.DataFrame(records, schema_overrides=times)


def _fit_frame(dataset: Dataset, frame: pl.DataFrame) -> pl.DataFrame:
    where = f"rows for {dataset.name}"
    names = {column.name for column in dataset.columns}
    if extra := [name for name in frame.columns if name not in names]:
        raise SchemaError(
            f"{where}: unknown column {', '.join(extra)}",
            f"The dataset has {', '.join(sorted(names))}.",
        )
    fitted = [_fit_column(where, column, frame) for column in dataset.columns]
    result = frame.select(fitted)
    nameless = (pl.col("exchange", "symbol").fill_null("") == "").any()
    if any(result.select(nameless).row(0)):
        raise SchemaError(f"{where}: a row has no exchange or no symbol")
    return result


def _fit_column(where: str, column: Column, frame: pl.DataFrame) -> pl.Expr:
    empty = pl.lit(None, dtype=column.dtype).alias(column.name)
    if column.name == "date":
        return empty
    if column.name not in frame.columns:
        if column.nullable:
            return empty
        raise SchemaError(f"{where}: column {column.name!r} is missing")
    dtype = frame.schema[column.name]
    if dtype == pl.Null:
        return empty
    if dtype != column.dtype:
        raise SchemaError(
            f"{where}: column {column.name!r} is {dtype}, not {column.dtype}",
            "Cast it yourself: a silent cast could lose digits or a time zone.",
        )
    return pl.col(column.name)


def _build_rule_checks(dataset: Dataset) -> dict[str, pl.Expr]:
    """Build one expression per rule, by its name: true where a row breaks the rule."""
    broken: dict[str, pl.Expr] = {}
    for column in dataset.columns:
        if column.name in PARTITIONS:
            continue
        value = pl.col(column.name)
        if not column.nullable:
            broken[f"{column.name}_null"] = value.is_null()
        if column.type == "float64":
            broken[f"{column.name}_not_finite"] = ~value.is_finite()
        elif column.type == "list<float64>":
            finite = pl.element().is_finite() & pl.element().is_not_null()
            broken[f"{column.name}_not_finite"] = ~value.list.eval(finite).list.all()
        elif column.type == "timestamp":
            broken[f"{column.name}_out_of_range"] = ~is_in_range(value)
        elif column.type == "string" and column.name in dataset.key:
            broken[f"{column.name}_empty"] = value == ""
    for rule in dataset.rules:
        broken[rule.name] = ~rule.expression
    return broken


def _join_reasons(broken: dict[str, pl.Expr]) -> pl.Expr:
    names = [pl.when(rule).then(pl.lit(name)) for name, rule in broken.items()]
    return pl.concat_str(names, separator=",", ignore_nulls=True)


def _keep_unique(dataset: Dataset, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Keep one row per key: the last of revisable rows, the first of immutable ones.

    Immutable rows with one key and different values are a contradiction: the later ones are
    returned as the second frame, with a reason.
    """
    nothing = rows.clear().with_columns(pl.lit("").alias(REASON))
    key = find_varying(rows, dataset.full_key) or [dataset.key[0]]
    if (
        rows.select(pl.struct(key).n_unique() if len(key) > 1 else pl.col(key).n_unique()).item()
        == rows.height
    ):
        return rows, nothing
    if dataset.rows == "revisable":
        return _keep_latest(dataset, rows, key), nothing
    kept = rows.unique(key, keep="first", maintain_order=True)
    content = [c for c in rows.columns if c not in {*PARTITIONS, "received_at"}]
    versions = rows.unique([*PARTITIONS[:2], *content], keep="first", maintain_order=True)
    later = versions.filter(~pl.struct(key).is_first_distinct())
    return kept, later.with_columns(pl.lit("contradicts_earlier_row").alias(REASON))


def _keep_latest(dataset: Dataset, rows: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Keep the last row of each key, or an earlier one that `keep_when` protects from it."""
    if dataset.keep_when is None:
        return rows.unique(key, keep="last", maintain_order=True)
    turns = rows.with_columns(pl.int_range(pl.len()).over(key).alias("_turn"))
    kept, *later = turns.partition_by("_turn", include_key=False, maintain_order=True)
    same = " AND ".join(f't."{name}" = s."{name}"' for name in key)
    replacing = f"SELECT s.* FROM s JOIN t ON {same} WHERE NOT ({dataset.keep_when})"  # noqa: S608
    for turn in later:
        new = pl.SQLContext(t=kept, s=turn).execute(replacing, eager=True)
        kept = pl.concat([kept.join(new, on=key, how="anti"), new.select(kept.columns)])
    return kept


def _to_time(value: int | None, dtype: pl.DataType) -> datetime | date | int | None:
    """Convert a stored time to a Python object; a number after the year 9999 stays a number."""
    if value is None:
        return None
    try:
        if dtype == pl.Date:
            return EPOCH.date() + timedelta(days=value)
        return EPOCH + timedelta(microseconds=value)
    except OverflowError:
        return value


def _to_json(value: Any) -> str:
    return iso(value) if isinstance(value, datetime) else str(value)
