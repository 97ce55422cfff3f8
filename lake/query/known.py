"""Read the rows of a table that became available in a range: without looking ahead."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from lake.model.selection import Selection
from lake.model.time import MICROSECOND
from lake.model.visibility import Visibility
from lake.query.lookup import read_row_at
from lake.store.reader import TableReader


def scan_known(
    reader: TableReader,
    markets: Selection,
    since: datetime | None,
    until: datetime | None,
    *,
    witnesses: TableReader | None = None,
) -> pl.LazyFrame:
    """Scan the rows that became available in `[since, until)`, after a column `available_at`.

    They are in the order of their events within each market. What the reader does not hold, such as
    time outside a pin, has no rows.

    Parameters
    ----------
    witnesses
        Gives also, of each market, the newest row that was available before `since`: it shows that
        the market was known then. A `LatestTable` is fast at that.
    """
    visible = Visibility(reader.dataset, since, until)
    rows = reader.scan(visible.select(markets))
    late = visible.select_late(markets)
    if late is not None and since is not None:
        late = reader.find_late(late, since)
    if late is not None:
        # Almost always there are none: read once here, and not in each pass of the caller.
        late_rows = reader.scan(late).filter(visible.is_late()).collect()
        rows = pl.concat([late_rows.lazy(), rows]) if late_rows.height else rows
    known = rows.select(reader.dataset.availability(), pl.all()).filter(visible.includes())
    if witnesses is not None and since is not None:
        earlier = _read_witnesses(witnesses, markets, since - MICROSECOND)
        known = pl.concat([earlier.lazy().select(known.collect_schema().names()), known])
    return known


def _read_witnesses(reader: TableReader, markets: Selection, time: datetime) -> pl.DataFrame:
    """Read the newest row of each market that was available at a time."""
    listed = reader.files(Selection(markets.exchanges, markets.symbols, None, time))
    pairs = listed.select("exchange", "symbol").unique(maintain_order=True)
    rows = [read_row_at(reader, exchange, symbol, time) for exchange, symbol in pairs.iter_rows()]
    witnesses = pl.concat([reader.dataset.empty(), *rows])
    return witnesses.select(reader.dataset.availability(), pl.all())
