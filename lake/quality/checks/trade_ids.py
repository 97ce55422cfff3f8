"""Check the ids of trades: they skip none, follow the time, and name one trade each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import polars as pl

from lake.model.time import MICROSECOND
from lake.quality.check import BuiltinCheck, count_phrase
from lake.quality.checks.misplaced import find_misplaced
from lake.quality.slice import Slice

_SECOND = 1_000_000  # microseconds
_MIN_STEPS = 50  # consecutive ids of a day from which a single hole among them is reported


def ids_skip(data: Slice, *, consecutive_share: float) -> pl.LazyFrame:
    """Report ids that are missing between two trades; `rows` and `measured` are their number.

    Ids of single trades in aggregated trades count, too, if they skip and the ids do not.

    Parameters
    ----------
    consecutive_share
        Share of a day's neighbouring trades with consecutive ids from which the venue is known to
        number its trades consecutively. Fifty consecutive ids with one hole, or nine of ten of all
        ids of the market, show that, too. Holes of other venues are not reported.
    """
    inner = pl.col("first_id") - pl.col("last_id").shift(1)
    steps = _sort_by_id(data).select(
        data.time, "_number", "_step", _before=data.time.shift(1), _inner=inner
    )
    usual = {
        "_step": pl.lit(data.has_consecutive_ids)
        | _is_consecutive(pl.col("_step"), consecutive_share),
        "_inner": _is_consecutive(pl.col("_inner"), consecutive_share),
    }
    day = data.time.dt.date().alias("_day")
    skips = steps.filter((pl.col("_step") > 1) | (pl.col("_inner") > 1)).with_columns(day)
    # Only days with a hole are measured: mostly none.
    of_days = steps.with_columns(day).join(skips.select("_day").unique(), on="_day", how="semi")
    days = of_days.group_by("_day").agg(usual[name].alias(f"{name}_usual") for name in usual)
    skipped = [pl.when(f"{name}_usual", pl.col(name) > 1).then(name) - 1 for name in usual]
    return (
        skips.join(days, on="_day", maintain_order="left")
        .with_columns(_skipped=pl.max_horizontal(skipped))
        .filter(pl.col("_skipped") > 0)
        .select(**_skip_columns(data))
    )


def _skip_columns(data: Slice) -> dict[str, pl.Expr]:
    """Return the columns of findings of skipped ids."""
    skipped = pl.col("_skipped")
    # A hole over midnight is reported for the later day.
    begin = pl.min_horizontal("_before", data.dataset.time_column)
    return {
        "start": pl.max_horizontal(begin, data.time.dt.truncate("1d")),
        "end": data.time.dt.offset_by("1us"),
        "rows": skipped,
        "measured": skipped.cast(pl.Float64),
        "expected": pl.lit(0.0),
        "reason": pl.lit("ids_skip"),
        "message": pl.format(
            "{} missing before trade {}", count_phrase(skipped, "id is", "ids are"), "_number"
        ),
    }


def _is_consecutive(step: pl.Expr, share: float) -> pl.Expr:
    """Whether the ids of a day are consecutive in general, allowing one hole among few trades."""
    follows, holes = (step == 1).sum(), (step > 1).sum()
    few = (holes == 1) & (follows >= _MIN_STEPS)
    return few | ((step == 1).mean() >= share).fill_null(value=False)


def id_order(data: Slice, *, consecutive_share: float, tolerance_ms: float) -> pl.LazyFrame:
    """Report trades whose time does not fit between the times of the ids before and after.

    Of trades in a wrong order, the fewest are reported without which the others are in order: one
    trade at a time an hour off, and not those that it jumped over. `measured` is how much too late
    (negative: too early) it is, in seconds. Only for venues with consecutive ids, as in `ids_skip`.
    Of trades with one id, the first counts.
    """
    first = pl.col("_step").fill_null(1) > 0
    steps = _sort_by_id(data).select(data.time.alias("_time"), "_number", "_step").filter(first)
    usual = pl.lit(data.has_consecutive_ids) | _is_consecutive(pl.col("_step"), consecutive_share)
    schema = steps.collect_schema()
    day = pl.col("_time").dt.date().alias("_day")
    misplaced = steps.map_batches(
        partial(
            _select_misplaced,
            tolerance_us=round(tolerance_ms * 1000),
            around_us=data.dataset.margin // MICROSECOND,
        ),
        schema=pl.Schema({**schema, "_away": pl.Float64()}),
    ).with_columns(day)
    # Only days with a misplaced trade are measured: mostly none.
    of_days = steps.with_columns(day).join(misplaced.select("_day").unique(), on="_day", how="semi")
    away = pl.col("_away")
    return (
        misplaced.join(of_days.group_by("_day").agg(_usual=usual), on="_day", maintain_order="left")
        .filter("_usual")
        .select(
            start="_time",
            measured=away,
            expected=pl.lit(0.0),
            message=pl.format(
                "Trade {} is {} s too {} for its id: the ids before and after it tell",
                "_number",
                away.abs(),
                pl.when(away > 0).then(pl.lit("late")).otherwise(pl.lit("early")),
            ),
        )
    )


def _select_misplaced(steps: pl.DataFrame, tolerance_us: int, around_us: int) -> pl.DataFrame:
    """Select the trades at a wrong time; `_away`: how much too late each is, in seconds."""
    rows = find_misplaced(steps["_time"].dt.timestamp("us").to_numpy(), tolerance_us, around_us)
    return steps[rows[:, 0]].with_columns(_away=pl.Series(rows[:, 1], dtype=pl.Int64) / _SECOND)


def conflicting_ids(data: Slice) -> pl.LazyFrame:
    """Report trades with the id of another trade but different content.

    `other_time`: the times differ. `other_values`: the prices or amounts differ. `overlap`: two
    aggregated trades contain the same trade. Identical rows are reported by `duplicates`.
    """
    again = pl.col("_step") == 0
    overlaps = pl.col("first_id") <= pl.col("last_id").shift(1)
    values = pl.any_horizontal(
        pl.col(name) != pl.col(name).shift(1) for name in ("price", "amount")
    )
    reason = (
        pl.when(again & pl.col("_moved"))
        .then(pl.lit("other_time"))
        .when(again & pl.col("_changed"))
        .then(pl.lit("other_values"))
        .when(~again & pl.col("_overlaps"))
        .then(pl.lit("overlap"))
    )
    texts = {
        "other_time": "appears twice, with different times",
        "other_values": "appears twice, with different prices or amounts",
        "overlap": "overlaps the previous aggregated trade",
    }
    return (
        _sort_by_id(data)
        .with_columns(
            _moved=data.time != data.time.shift(1),
            _changed=values,
            _overlaps=overlaps,
            _before=pl.col("price").shift(1),
        )
        # Hardly any row is left here: reasons are texts, which are dear.
        .filter(again | pl.col("_overlaps"))
        .with_columns(_reason=reason)
        .filter(pl.col("_reason").is_not_null())
        .select(
            start=data.time,
            measured="price",
            expected="_before",
            reason="_reason",
            message=pl.format(
                "Trade {} {}",
                "_number",
                pl.col("_reason").replace_strict(texts, return_dtype=pl.String),
            ),
        )
    )


def _sort_by_id(data: Slice) -> pl.LazyFrame:
    """Sort the trades whose ids are numbers by id, once for all checks; `_step` from id to id."""
    names = (data.dataset.time_column, "price", "amount", "first_id", "last_id")
    number = pl.col("trade_id").cast(pl.Int64, strict=False)
    rows = data.frame.select(*names, _number=number).filter(pl.col("_number").is_not_null())
    step = pl.col("_number") - pl.col("_number").shift(1)
    return data.share(
        "trades by id",
        lambda: rows.map_batches(_sort_by_number, schema=rows.collect_schema()).with_columns(
            _step=step
        ),
    )


def _sort_by_number(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort rows by `_number`, unless they are: mostly ids rise with the time."""
    if rows["_number"].is_sorted():
        return rows
    return rows.sort("_number", maintain_order=True)


CHECKS: Mapping[str, BuiltinCheck] = {
    "ids_skip": BuiltinCheck(ids_skip, "completeness"),
    "id_order": BuiltinCheck(id_order, "consistency"),
    "conflicting_ids": BuiltinCheck(conflicting_ids, "consistency"),
}
