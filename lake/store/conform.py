"""Conform rows to a dataset before they are stored; the others are rejected with a reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from lake.errors import SchemaError
from lake.model.dataset import TIMESTAMP, Column, Dataset
from lake.model.frames import find_varying, sort_by
from lake.model.identity import CONTRADICTS, resolve, settle_times
from lake.model.json_text import write_json
from lake.model.market import MARKET_COLUMNS, is_storable, make_storable
from lake.model.partitions import MARKET_DAY
from lake.model.revision import revise_in_turn
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
    numbers
        The places that `rows` had in the frame, where they are in its order.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    cleared: tuple[ClearedTimes, ...] = ()
    numbers: pl.Series = field(default_factory=pl.Series)


def check_rows(dataset: Dataset, frame: pl.DataFrame) -> ConformResult:
    """Check rows against the schema and the rules of a dataset; the same key may come again.

    Parameters
    ----------
    frame
        Has `exchange`, `symbol` and the dataset's columns with exactly their types; nullable
        columns may be missing; `date` is computed from the time column.

    Returns
    -------
    ConformResult
        `rows` in the order in which they came.

    Raises
    ------
    SchemaError
        The frame as a whole does not fit: a column is missing, too many, or of another type, or
        a row has no market.
    """
    fitted = _fit_frame(dataset, frame)
    names = [column for column in fitted.columns if column != "date"]
    usable, cleared = clear_times(dataset, fitted)
    broken = {**_check_names(usable), **_build_rule_checks(dataset)}
    is_bad = usable.select(
        pl.any_horizontal(list(broken.values())).fill_null(value=False)
    ).to_series()
    good = usable.filter(~is_bad)
    reasons = usable.filter(is_bad).select(_join_reasons(broken).alias(REASON))
    bad = fitted.filter(is_bad).select(names).hstack(reasons)
    return ConformResult(good.with_columns(dataset.day()), bad, cleared, (~is_bad).arg_true())


def conform(dataset: Dataset, frame: pl.DataFrame) -> ConformResult:
    """Fit rows to a dataset: check them, keep one row of each key, and sort them.

    Parameters, errors: as of `check_rows`.
    """
    checked = check_rows(dataset, frame)
    if dataset.rows == "revisable":
        return replace(checked, rows=keep_latest(dataset, checked.rows))
    nothing = checked.rows.clear()
    outcome = resolve(dataset, checked.rows, nothing, lambda _, names: nothing.select(names))
    rejected = pl.concat([checked.rejected, mark_conflicting(outcome.conflicting)])
    return replace(checked, rows=sort_rows(dataset, outcome.new), rejected=rejected)


def mark_conflicting(rows: pl.DataFrame, reason: str = CONTRADICTS) -> pl.DataFrame:
    """Return rows that contradict other ones as rejected rows."""
    return rows.drop("date").with_columns(pl.lit(reason).alias(REASON))


def sort_rows(dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
    """Compute the day of rows, and sort them by market and in the order of the dataset."""
    dated = rows.with_columns(dataset.day())
    return sort_by(dated, ("exchange", "symbol", *dataset.sort))


def build_quarantine_rows(
    dataset: Dataset,
    rejected: pl.DataFrame,
    job_id: str,
    now: datetime,
    opposed: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Build rows of the table `quarantine` from rejected rows.

    Rows that differ only in what is not their content, such as when they were received, are one.

    Parameters
    ----------
    opposed
        The stored rows that the rejected ones contradict, line by line.
    """
    records = []
    unsealed = dict.fromkeys(column.name for column in dataset.columns if not column.digest)
    stored = None if opposed is None else list(map(_to_text, _to_records(opposed.drop("date"))))
    for number, row in enumerate(_to_records(rejected)):
        reason = row.pop(REASON)
        content = _to_content(row | {name: None for name in unsealed if name in row})
        time = row[dataset.time_column]
        records.append(
            {
                **{name: make_storable(row[name]) for name in MARKET_COLUMNS},
                "dataset": dataset.name,
                "timestamp": time if is_usable(time) else EPOCH,
                "row_digest": hashlib.sha256(content.encode()).hexdigest(),
                "reason": reason,
                "row": _to_text(row),
                "stored": stored[number] if stored else None,
                "job_id": job_id,
                "refused_at": now,
            }
        )
    kinds = {"timestamp": TIMESTAMP, "refused_at": TIMESTAMP, "stored": pl.String()}
    place = ["exchange", "symbol", "timestamp", "row_digest"]
    rows = pl.DataFrame(records, schema_overrides=kinds)
    return rows.unique(place, keep="first", maintain_order=True)


def _to_records(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Convert rows to records of Python's types."""
    temporal = {name: dtype for name, dtype in rows.schema.items() if dtype.is_temporal()}
    for row in rows.with_columns(pl.col(list(temporal)).to_physical()).iter_rows(named=True):
        yield row | {name: _to_time(row[name], dtype) for name, dtype in temporal.items()}


def _to_content(row: dict[str, Any]) -> str:
    """Write what is hashed: the same for ever, so that a row that comes again is stored once."""
    return json.dumps(row, default=_to_json, sort_keys=True)


def _to_text(row: dict[str, Any]) -> str:
    return write_json(row, default=_to_json, sort_keys=True)


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
        raise SchemaError(
            f"{where}: column {column.name!r} is missing",
            f"`lake describe {where.rpartition(' ')[2]}` lists the columns; add a constant one by "
            f"`rows.with_columns({column.name}=pl.lit(…))`.",
        )
    dtype = frame.schema[column.name]
    if dtype == pl.Null:
        return empty
    if dtype != column.dtype:
        raise SchemaError(
            f"{where}: column {column.name!r} is {dtype}, not {column.dtype}",
            _advise_to_cast(column, dtype),
        )
    return pl.col(column.name)


def _advise_to_cast(column: Column, dtype: pl.DataType) -> str:
    if column.type == "timestamp" and dtype.is_integer():
        return (
            "If they are milliseconds since 1970: "
            f'pl.from_epoch("{column.name}", "ms").dt.replace_time_zone("UTC"). Nothing here says '
            "in which unit they are."
        )
    return "Cast it yourself: a silent cast could lose digits or a time zone."


def _check_names(frame: pl.DataFrame) -> dict[str, pl.Expr]:
    """Build the rules that names of markets break which cannot be stored."""
    broken = {}
    for column in MARKET_COLUMNS:
        unstorable = [name for name in frame[column].unique() if not is_storable(name)]
        if unstorable:
            broken[f"{column}_unstorable"] = pl.col(column).is_in(unstorable)
    return broken


def _build_rule_checks(dataset: Dataset) -> dict[str, pl.Expr]:
    """Build one expression per rule, by its name: true where a row breaks the rule."""
    broken: dict[str, pl.Expr] = {}
    for column in dataset.columns:
        if column.name in MARKET_DAY:
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


def keep_latest(
    dataset: Dataset, rows: pl.DataFrame, places: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Keep the last row of each key, or an earlier one that `keep_when` protects from it; sort.

    Parameters
    ----------
    rows
        Rows that the dataset admits, in the order in which they came.
    places
        Market, key and time of the stored rows that they may be.
    """
    placed = settle_times(dataset, rows, rows.clear() if places is None else places)
    key = find_varying(placed, dataset.identity) or [dataset.key[0]]
    keys = pl.struct(key) if len(key) > 1 else pl.col(key[0])
    if placed.select(keys.n_unique()).item() == placed.height:
        return sort_rows(dataset, placed)
    if dataset.keep_when is None and not (dataset.fillable or dataset.kept_values):
        return sort_rows(dataset, placed.unique(key, keep="last", maintain_order=True))
    return sort_rows(dataset, revise_in_turn(dataset, placed, key))


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
