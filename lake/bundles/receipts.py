"""Times of receipt are in no digest: tell bundles of one id apart by when rows were available."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from lake.bundles.contents import Contents
from lake.bundles.table import PinnedTable
from lake.errors import UsageError
from lake.model.market import MARKET_COLUMNS
from lake.model.time import iso

_DAY = ("table", *MARKET_COLUMNS, "date")
_FILE = ("table", *MARKET_COLUMNS, "sha256")
_DELAYS = ("min_delay_us", "max_delay_us")


def require_equal_availability(stored: Contents, names: str, new: Contents, task: str) -> None:
    """Refuse a bundle that has the rows of a stored one, but available at other times.

    The rows are read only where neither the delays of the market-days nor the files decide.

    Parameters
    ----------
    names
        The names of the stored bundle.
    task
        What would store the new one: `pin`, or `import` with its source.

    Raises
    ------
    UsageError
        A row was available at another time.
    """
    difference = _find_difference(stored, new)
    if difference is None:
        return
    short = stored.id[:12]
    versions = ", ".join(f"{ref.table} at version {ref.version}" for _, ref in new.manifest.refs())
    raise UsageError(
        f"bundle {short} ({names or 'without a name'}, {stored.folder}) has the same rows as the "
        f"{task} ({versions}) and so the same id {short}, but other times of receipt: "
        f"{difference}. Nothing was changed.",
        f"A lake holds one of them. `lake bundle rm {short} --yes` removes the older bundle and "
        f"its names; then {task.split(maxsplit=1)[0]} again. Export it before to keep both.",
    )


def _find_difference(stored: Contents, new: Contents) -> str | None:
    """Describe the first market-day whose rows were available at other times; None if none."""
    columns = (*_DAY, *_DELAYS)
    days = stored.days.select(columns).join(new.days.select(columns), on=_DAY, suffix="_new")
    other = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_new")) for name in _DELAYS)
    changed = days.filter(other)
    if changed.height:
        row = changed.row(0, named=True)
        there, here = (
            " to ".join(f"{row[f'{name}{end}'] / 1e6:g}" for name in _DELAYS)
            for end in ("", "_new")
        )
        return (
            f"{row['table']} of {row['exchange']} {row['symbol']} on {row['date']} is available "
            f"{there} seconds after its time there, and {here} seconds here"
        )
    return next(_compare_rows(stored, new), None)


def _compare_rows(stored: Contents, new: Contents) -> Iterator[str]:
    """Compare the rows of markets whose files differ, as after a compaction."""
    lists = [contents.files.read_all().select(_FILE) for contents in (stored, new)]
    different = pl.concat(
        [
            lists[0].join(lists[1], on=_FILE, how="anti"),
            lists[1].join(lists[0], on=_FILE, how="anti"),
        ]
    )
    for table, exchange, symbol in different.select(_FILE[:-1]).unique().sort(_FILE[:-1]).rows():
        pinned = [PinnedTable.open(contents, table) for contents in (stored, new)]
        if not any(side.dataset.records_receipt for side in pinned):
            continue
        there, here = (_read_times(side, (exchange, symbol)) for side in pinned)
        changed = there.with_columns(here["available_at"].alias("here")).filter(
            pl.col("available_at") != pl.col("here")
        )
        if changed.height:
            time, first, second = changed.row(0)
            yield (
                f"{table} of {exchange} {symbol} at {iso(time)} is available at {iso(first)} "
                f"there, and at {iso(second)} here"
            )


def _read_times(pinned: PinnedTable, market: tuple[str, str]) -> pl.DataFrame:
    """Read time and availability of the rows of a market, in the order of their keys."""
    dataset = pinned.dataset
    parts = [
        piece.select(*dataset.row_key, dataset.availability())
        for piece in pinned.read_pieces(market)
    ]
    rows = pl.concat(parts).sort(dataset.row_key)
    return rows.select(dataset.time_column, "available_at")
