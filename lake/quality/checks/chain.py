"""Check that blocks follow each other; shared helpers of the checks of on-chain tables.

A check uses the columns that a dataset has, by the names of `dex_swaps`, `liquidity_pools` and
`chain_metrics`, and reports nothing without them. A block is one moment: each check reports at most
one finding per block and reason.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.quality.check import (
    CHECK_COLUMNS,
    BuiltinCheck,
    complete_columns,
    count_phrase,
    group_runs,
)
from lake.quality.checks.completeness import loss_reason
from lake.quality.slice import Slice

_SEVERITIES: Mapping[str, str] = {"no_liquidity": "warning", "ratio": "warning"}
"""Severities of reasons that a correct pool can cause, though rarely."""


def block_gaps(data: Slice) -> pl.LazyFrame:
    """Report blocks that are missing between two others, in a table with one row per block.

    A gap over midnight is divided between the days, as if blocks came evenly.
    """
    if not has(data, "block_number"):
        return no_findings()
    number, time = pl.col("block_number"), data.time
    missing = number - _previous_value(data, number) - 1
    frame = sort_by_block(data).select(
        _from=_previous_value(data, time), _to=time, _missing=missing
    )
    return (
        _split_by_day(frame.filter(pl.col("_missing") > 0))
        .filter((pl.col("rows") > 0) & (pl.col("end") > pl.col("start")))
        .with_columns(
            measured=pl.col("rows").cast(pl.Float64),
            expected=pl.lit(0.0),
            reason=loss_reason(pl.col("end").dt.offset_by("-1us"), data.coverage),
            message=count_phrase(pl.col("rows"), "block is missing", "blocks are missing"),
        )
    )


def _split_by_day(gaps: pl.LazyFrame) -> pl.LazyFrame:
    """Split gaps by day: `start`, `end`, and `rows`, the missing blocks of each day."""
    days = pl.datetime_ranges(pl.col("_from").dt.truncate("1d"), pl.col("_to"), "1d")
    start = pl.max_horizontal("_from", "_day")
    end = pl.min_horizontal("_to", pl.col("_day").dt.offset_by("1d"))

    def count_until(moment: pl.Expr) -> pl.Expr:
        whole = (pl.col("_to") - pl.col("_from")).dt.total_microseconds()
        part = (moment - pl.col("_from")).dt.total_microseconds() / whole
        return (part.fill_nan(1.0) * pl.col("_missing")).floor().cast(pl.Int64)

    # A gap between blocks of the same time, or of falling times, has no length: it is at its end.
    parts = (
        gaps.filter(pl.col("_to") > pl.col("_from"))
        .with_columns(_day=days)
        .explode("_day")
        .select(start=start, end=end, rows=count_until(end) - count_until(start))
    )
    moments = gaps.filter(pl.col("_to") <= pl.col("_from")).select(
        start="_to", end=pl.col("_to").dt.offset_by("1us"), rows="_missing"
    )
    return pl.concat([parts, moments])


def block_chain(data: Slice) -> pl.LazyFrame:
    """Report blocks that cannot follow each other; `measured` is the number of such rows.

    `time_backwards`: a later block has an earlier time. `two_hashes`: two rows of one block have
    different hashes. `parent_mismatch`: the parent hash is not the hash of the previous block.
    """
    if not has(data, "block_number"):
        return no_findings()
    number = pl.col("block_number")
    previous = _previous_value(data, number)
    conditions = {
        "time_backwards": (number >= previous) & (data.time < _previous_value(data, data.time))
    }
    if has(data, "block_hash"):
        previous_hash = _previous_value(data, pl.col("block_hash"))
        conditions["two_hashes"] = (number == previous) & (pl.col("block_hash") != previous_hash)
        if has(data, "parent_hash"):
            conditions["parent_mismatch"] = (number == previous + 1) & (
                pl.col("parent_hash") != previous_hash
            )
    texts = {
        "time_backwards": "Block {} has an earlier time than the previous block",
        "two_hashes": "Block {} has two hashes",
        "parent_mismatch": "The parent hash of block {} is not the hash of the previous block",
    }
    return collect_findings(
        data, sort_by_block(data), conditions, texts, pl.col("block_number").first()
    )


def collect_findings(
    data: Slice,
    frame: pl.LazyFrame,
    conditions: Mapping[str, pl.Expr],
    texts: Mapping[str, str],
    place: pl.Expr,
) -> pl.LazyFrame:
    """Collect the rows that meet a condition: one finding per block and reason."""
    if not conditions:
        return no_findings()
    flags = {f"_{reason}": condition for reason, condition in conditions.items()}
    marked = frame.with_columns(**flags)
    findings = [
        complete_columns(
            group_runs(
                marked,
                pl.col(f"_{reason}"),
                time=data.dataset.time_column,
                reason=pl.lit(reason),
                measured=pl.len().cast(pl.Float64),
                expected=pl.lit(0.0),
                severity=pl.lit(_SEVERITIES.get(reason), dtype=pl.String),
                message=pl.format(texts[reason], place),
            )
        )
        for reason in conditions
    ]
    first = [pl.col(n).first() for n in ("expected", "severity", "message")]
    return (
        pl.concat(findings)
        .group_by("start", "reason", maintain_order=True)
        .agg(pl.col("end").max(), pl.col("rows", "measured").sum(), *first)
    )


def sort_by_block(data: Slice) -> pl.LazyFrame:
    """Sort rows in the order of the chain."""
    names = ("chain", "block_number", "log_index")
    return data.frame.sort([n for n in names if has(data, n)], maintain_order=True)


def _previous_value(data: Slice, value: pl.Expr) -> pl.Expr:
    """Return a value of the previous row on the same chain."""
    return value.shift(1).over("chain") if has(data, "chain") else value.shift(1)


def has(data: Slice, *names: str) -> bool:
    """Whether the dataset has all of these columns."""
    return all(name in data.dataset.polars_schema for name in names)


def no_findings() -> pl.LazyFrame:
    return pl.LazyFrame(schema=CHECK_COLUMNS)


CHECKS: Mapping[str, BuiltinCheck] = {
    "block_gaps": BuiltinCheck(block_gaps, "completeness"),
    "block_chain": BuiltinCheck(block_chain, "consistency"),
}
