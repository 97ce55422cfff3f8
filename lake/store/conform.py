"""Rows on their way into a table: fitted to the schema, checked, unique; the rest with reasons."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import polars as pl

from lake.errors import SchemaError
from lake.model.dataset import PARTITIONS, TIMESTAMP, Column, Dataset
from lake.model.frames import sorted_by, varying
from lake.model.time import EPOCH, iso

LAST_TIME = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Conformed:
    """Rows that may be stored, and those that may not.

    Attributes
    ----------
    rows
        Fit the dataset's schema, pass its checks, unique on its key, in its sort order.
    rejected
        The other rows, with their columns as they came, and `reason`: the names of the rules that
        they break, comma-separated.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame


def conform(dataset: Dataset, frame: pl.DataFrame) -> Conformed:
    """Fit rows to a dataset.

    Parameters
    ----------
    frame
        Has `exchange`, `symbol` and the dataset's columns with exactly their types; nullable
        columns may be missing; `date` is made anew from the time column.

    Raises
    ------
    SchemaError
        The frame as a whole does not fit: a column is missing, too many, or of another type, or
        a row has no market.
    """
    fitted = _fitted(dataset, frame)
    names = [column for column in fitted.columns if column != "date"]
    broken = _broken_rules(dataset)
    marked = fitted.with_columns(
        pl.any_horizontal(list(broken.values())).fill_null(value=False).alias("_bad")
    )
    good = marked.filter(~pl.col("_bad")).drop("_bad")
    bad = marked.filter("_bad").select(*names, reason=_reason(broken))
    unique, conflicting = _unique(dataset, good)
    rows = unique.with_columns(dataset.partition_date())
    rows = sorted_by(rows, ("exchange", "symbol", *dataset.sort))
    return Conformed(rows, pl.concat([bad, conflicting.select(*names, "reason")]))


def quarantine_rows(
    dataset: Dataset, rejected: pl.DataFrame, job_id: str, now: datetime
) -> pl.DataFrame:
    """Rejected rows as rows of `quarantine`."""
    records = []
    for row in rejected.iter_rows(named=True):
        reason = row.pop("reason")
        text = json.dumps(row, default=_json_value, sort_keys=True)
        time = row[dataset.time_column]
        records.append(
            {
                "exchange": row["exchange"],
                "symbol": row["symbol"],
                "dataset": dataset.name,
                "timestamp": time if time and EPOCH <= time < LAST_TIME else EPOCH,
                "row_digest": hashlib.sha256(text.encode()).hexdigest(),
                "reason": reason,
                "row": text,
                "job_id": job_id,
                "refused_at": now,
            }
        )
    times = {"timestamp": TIMESTAMP, "refused_at": TIMESTAMP}
    return pl.DataFrame(records, schema_overrides=times)


def _fitted(dataset: Dataset, frame: pl.DataFrame) -> pl.DataFrame:
    where = f"rows for {dataset.name}"
    known = {column.name for column in dataset.columns}
    if extra := [name for name in frame.columns if name not in known]:
        raise SchemaError(
            f"{where}: unknown column {', '.join(extra)}",
            f"The dataset has {', '.join(sorted(known))}.",
        )
    fitted = [_fitted_column(where, column, frame) for column in dataset.columns]
    result = frame.select(fitted)
    nameless = (pl.col("exchange", "symbol").fill_null("") == "").any()
    if any(result.select(nameless).row(0)):
        raise SchemaError(f"{where}: a row has no exchange or no symbol")
    return result


def _fitted_column(where: str, column: Column, frame: pl.DataFrame) -> pl.Expr:
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


def _broken_rules(dataset: Dataset) -> dict[str, pl.Expr]:
    """By name, an expression that is true where a row breaks the rule."""
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
            inside = value.is_between(EPOCH, LAST_TIME, closed="left")
            broken[f"{column.name}_out_of_range"] = ~inside
        elif column.type == "string" and column.name in dataset.key:
            broken[f"{column.name}_empty"] = value == ""
    for check in dataset.checks:
        broken[check.name] = ~check.expression
    return broken


def _reason(broken: dict[str, pl.Expr]) -> pl.Expr:
    names = [pl.when(rule).then(pl.lit(name)) for name, rule in broken.items()]
    return pl.concat_str(names, separator=",", ignore_nulls=True)


def _unique(dataset: Dataset, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row a key: the last of revisable rows, the first of immutable ones.

    Immutable rows of one key that say different things are a contradiction: the later ones are
    given back beside, with a reason.
    """
    nothing = rows.clear().with_columns(pl.lit("").alias("reason"))
    key = varying(rows, dataset.full_key) or [dataset.time_column]
    if (
        rows.select(pl.struct(key).n_unique() if len(key) > 1 else pl.col(key).n_unique()).item()
        == rows.height
    ):
        return rows, nothing
    keep: Literal["first", "last"] = "first" if dataset.rows == "immutable" else "last"
    kept = rows.unique(key, keep=keep, maintain_order=True)
    if dataset.rows == "revisable":
        return kept, nothing
    said = [c for c in rows.columns if c not in {*PARTITIONS, "received_at"}]
    versions = rows.unique([*PARTITIONS[:2], *said], keep="first", maintain_order=True)
    later = versions.filter(~pl.struct(key).is_first_distinct())
    return kept, later.with_columns(pl.lit("contradicts_earlier_row").alias("reason"))


def _json_value(value: Any) -> str:
    return iso(value) if isinstance(value, datetime) else str(value)
