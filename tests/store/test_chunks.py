"""Chunks of whole days: no row is lost or read twice, and none holds many more rows than asked."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.api import Lake
from lake.model.selection import Selection
from lake.store import chunks
from lake.store.chunks import chunk_days, chunk_selection
from lake.store.reader import EVERYTHING
from tests.conftest import DAY, MINUTE, T0, store_of, trades, write

HOUR = timedelta(hours=1)
hours = st.integers(0, 9 * 24).map(lambda count: T0 + count * HOUR)


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """Trades of two markets each six hours, for nine days: four rows a day and market."""
    for symbol in ("BTC/USDT", "ETH/USDT"):
        write(lake, "trades", trades(36, step=6 * HOUR, start=T0 + MINUTE, symbol=symbol))
    return lake


@pytest.mark.parametrize("chunk_rows", [1, 7, 12, 10_000])
@pytest.mark.parametrize(
    "selection",
    [
        EVERYTHING,
        Selection(("binance",), ("ETH/USDT",), T0 + 13 * HOUR, T0 + 3 * DAY + HOUR),
        Selection(start=T0 + 2 * DAY, end=T0 + 4 * DAY),
        Selection(end=T0 + HOUR),
    ],
)
def test_each_row_is_in_one_chunk_of_one_market(
    filled: Lake, selection: Selection, chunk_rows: int
) -> None:
    reader = store_of(filled).latest(filled.dataset("trades"))
    parts = list(chunk_selection(reader, reader.files(selection), selection, chunk_rows))
    rows = [reader.collect(part) for part in parts]
    assert pl.concat(rows).equals(reader.collect(selection))
    assert all(frame["symbol"].n_unique() == 1 for frame in rows)
    assert all(frame.height < chunk_rows + 4 for frame in rows)


@given(hours, hours, st.integers(1, 40))
def test_days_are_cut_into_whole_days_that_follow_each_other(
    first: datetime, second: datetime, chunk_rows: int
) -> None:
    start, end = min(first, second), max(first, second) + HOUR
    files = pl.DataFrame(
        [(T0 + n * DAY + HOUR, T0 + n * DAY + 23 * HOUR, 10) for n in range(10)],
        schema=["first", "last", "rows"],
        orient="row",
    )
    selection = Selection(start=start, end=end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_CHECK_ROWS", chunk_rows)
        chunked = list(chunk_days(files, [], [], selection, T0 + 99 * DAY))
    parts = [part for part, _ in chunked]
    assert [rows for _, rows in chunked] == [part.duration // DAY * 11 for part in parts]
    assert parts[0].start <= start < parts[0].start + DAY
    assert parts[-1].end - DAY < end <= parts[-1].end
    assert all(part.end == after.start for part, after in pairwise(parts))
    assert all((part.duration - DAY) / DAY * 10 < chunk_rows for part in parts)
