"""List the data files of tables with their times, some of which may be impossible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from lake.model.dataset import Dataset
from lake.model.intervals import RangeSet, intersect
from lake.model.market import MARKET_COLUMNS, Market
from lake.model.selection import Selection
from lake.model.time import DAY, MICROSECOND, TimeRange
from lake.store.chunks import AHEAD, has_possible_times
from lake.store.reader import TIME_STEP, TableReader

_COLUMNS = ("exchange", "symbol", "rows", "bytes", "first", "last")


@dataclass(frozen=True)
class Listing:
    """The data files of tables at one moment; each table is listed once."""

    tables: Mapping[str, TableReader]
    now: datetime
    _files: dict[str, pl.DataFrame] = field(default_factory=dict)
    _valid: dict[str, dict[tuple[object, ...], pl.DataFrame]] = field(default_factory=dict)

    def files(self, table: str) -> pl.DataFrame:
        """List the data files of a table with their times.

        Markets with rows of impossible times, and markets with files that another engine wrote
        without statistics, have one row per day instead, possible and impossible times apart.

        Returns
        -------
        DataFrame
            `exchange`, `symbol`, `rows`, `bytes`, `first`, `last`.
        """
        if table not in self._files:
            files = self.tables[table].files().select(_COLUMNS)
            is_odd = ~has_possible_times(self.now).fill_null(value=False)
            odd = files.filter(is_odd).select("exchange", "symbol").unique()
            if odd.height:
                days = [_list_days(self.tables[table], pair, self.now) for pair in odd.iter_rows()]
                files = pl.concat([files.join(odd, on=odd.columns, how="anti"), *days])
            self._files[table] = files
        return self._files[table]

    def valid_files(self, table: str, market: Market) -> pl.DataFrame:
        """List the files of a market that hold rows of possible times."""
        if table not in self._valid:
            files = self.files(table).filter(has_possible_times(self.now))
            self._valid[table] = files.partition_by(
                MARKET_COLUMNS, as_dict=True, maintain_order=True
            )
        own = self._valid[table].get((market.exchange, market.symbol))
        return self.files(table).clear() if own is None else own

    def span(self, table: str, market: Market) -> TimeRange | None:
        """Return the span from a market's first to its last row, without impossible times."""
        files = self.valid_files(table, market)
        first, last = files["first"].min(), files["last"].max()
        if not isinstance(first, datetime) or not isinstance(last, datetime):
            return None
        return TimeRange(first, last + TIME_STEP)


def measure_row_rate(
    listing: Listing, dataset: Dataset, market: Market, coverage: RangeSet | None
) -> float | None:
    """Measure rows per second, to two digits, so that estimates do not change with each row."""
    span = listing.span(dataset.name, market) if dataset.timeframe is None else None
    if span is None or coverage is None:
        return None
    files = listing.valid_files(dataset.name, market)
    seconds = sum(part.duration.total_seconds() for part in intersect([span], coverage))
    return float(f"{int(files['rows'].sum()) / seconds:.2g}") if seconds else None


def weigh_range(dataset: Dataset, item: TimeRange) -> pl.DataFrame:
    """Return the weight of a range without rows as that of a file: its missing slots are listed."""
    step = dataset.timeframe.seconds if dataset.timeframe else DAY.total_seconds()
    slots = int(item.duration.total_seconds() // step) + 1
    return pl.DataFrame({"first": [item.start], "last": [item.end - MICROSECOND], "rows": [slots]})


def weigh_holes(dataset: Dataset, files: pl.DataFrame) -> pl.DataFrame:
    """Return the weight of holes of a day or more between a market's files, as that of files."""
    reached = files.sort("first").select("first", reached=pl.col("last").cum_max().shift(1))
    holes = reached.filter(pl.col("first") - pl.col("reached") >= DAY)
    weights = [weigh_range(dataset, TimeRange(start, end)) for end, start in holes.iter_rows()]
    return pl.concat([files.select("first", "last", "rows").clear(), *weights])


def matches_market(market: Market) -> pl.Expr:
    """Whether a row or file belongs to a market."""
    return (pl.col("exchange") == market.exchange) & (pl.col("symbol") == market.symbol)


def _list_days(reader: TableReader, market: tuple[str, str], now: datetime) -> pl.DataFrame:
    time, selection = pl.col(reader.dataset.time_column), Selection(market[:1], market[1:])
    step = TIME_STEP // MICROSECOND
    return (
        reader.scan(selection, columns=[reader.dataset.time_column])
        .group_by(time.dt.date().alias("_day"), (time <= now + AHEAD).alias("_possible"))
        .agg(
            exchange=pl.lit(market[0]),
            symbol=pl.lit(market[1]),
            rows=pl.len().cast(pl.Int64),
            bytes=pl.lit(0, dtype=pl.Int64),
            first=time.min().dt.truncate(f"{step}us"),
            last=time.max().dt.truncate(f"{step}us"),
        )
        .select(_COLUMNS)
        .collect()
    )
