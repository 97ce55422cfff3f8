"""The rule by which rows that may change revise each other. Pure."""

from __future__ import annotations

import polars as pl

from lake.model.dataset import Dataset


def revise_in_turn(dataset: Dataset, rows: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Let each row revise the one before it, as a merge lets it revise a stored one."""
    turns = rows.with_columns(pl.int_range(pl.len()).over(key).alias("_turn"))
    kept, *later = turns.partition_by("_turn", include_key=False, maintain_order=True)
    same = " AND ".join(f't."{name}" = s."{name}"' for name in key)
    values = ", ".join(_write_revised(dataset, name) for name in rows.columns)
    where = f"WHERE NOT ({dataset.keep_when})" if dataset.keep_when else ""
    revising = f"SELECT {values} FROM s JOIN t ON {same} {where}"  # noqa: S608
    for turn in later:
        new = pl.SQLContext(t=kept, s=turn).execute(revising, eager=True)
        kept = pl.concat([kept.join(new, on=key, how="anti"), new.select(kept.columns)])
    return kept


def _write_revised(dataset: Dataset, name: str) -> str:
    """Write the value of a column of a row `s` that comes after a row `t`, in SQL."""
    if name not in dataset.fillable:
        return f's."{name}"'
    terms = [f'(t."{value}" IS DISTINCT FROM s."{value}")' for value in dataset.values]
    differs = " OR ".join(terms) or "FALSE"
    revised, same = f'COALESCE(s."{name}", t."{name}")', f'COALESCE(t."{name}", s."{name}")'
    return f'CASE WHEN {differs} THEN {revised} ELSE {same} END AS "{name}"'
