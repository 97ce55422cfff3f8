"""The data files of tables with their times, some of which may be impossible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, TimeRange
from lake.store.chunks import AHEAD, has_possible_times
from lake.store.reader import TIME_STEP, TableReader

_COLUMNS = ("exchange", "symbol", "rows", "bytes", "first", "last")


@dataclass(frozen=True)
class Listing:
    """What the files of tables hold, at one moment; read once a table."""

    tables: Mapping[str, TableReader]
    now: datetime
    _files: dict[str, pl.DataFrame] = field(default_factory=dict)

    def files(self, table: str) -> pl.DataFrame:
        """The data files of a table, each with its times.

        Of a market with rows of impossible times, or with files that another engine wrote without
        statistics, its days instead: possible and impossible times apart.

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
        """The files of a market that hold rows of possible times."""
        return self.files(table).filter(matches_market(market) & has_possible_times(self.now))

    def span(self, table: str, market: Market) -> TimeRange | None:
        """From a market's first to its last row; rows of impossible times do not count."""
        files = self.valid_files(table, market)
        first, last = files["first"].min(), files["last"].max()
        if not isinstance(first, datetime) or not isinstance(last, datetime):
            return None
        return TimeRange(first, last + TIME_STEP)


def matches_market(market: Market) -> pl.Expr:
    """Whether a row or file is of a market."""
    return (pl.col("exchange") == market.exchange) & (pl.col("symbol") == market.symbol)


def _list_days(rows: TableReader, market: tuple[str, str], now: datetime) -> pl.DataFrame:
    time, selection = pl.col(rows.dataset.time_column), Selection(market[:1], market[1:])
    step = TIME_STEP // MICROSECOND
    return (
        rows.scan(selection, columns=[rows.dataset.time_column])
        .group_by(time.dt.date().alias("_day"), (time <= now + AHEAD).alias("_sound"))
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
