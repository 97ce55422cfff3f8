"""The file index: what it selects, and that no damage to it goes unnoticed."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.errors import DamagedError
from lake.model.selection import Selection
from lake.store import index
from lake.store.index import SCHEMA, FileIndex
from lake.store.reader import may_hold_rows
from tests.conftest import DAY, T0

DAYS = 20


def listing(markets: int, days: int = DAYS) -> pl.DataFrame:
    """A file a market-day of two tables; one file says nothing of its times."""
    records = [
        {
            "table": table,
            "path": f"{table}/{number}/{day}.parquet",
            "exchange": f"venue{number % 3}",
            "symbol": f"S{number}/USDT",
            "date": date(2024, 1, 1) + timedelta(days=day),
            "rows": 1440,
            "bytes": 40_000 + day,
            "first": None if (number, day) == (1, 3) else T0 + day * DAY,
            "last": None if (number, day) == (1, 3) else T0 + (day + 1) * DAY,
            "sha256": f"{number:032x}{day:032x}",
        }
        for table in ("bars_1m", "trades")
        for number in range(markets)
        for day in range(days)
    ]
    return FileIndex.sort_rows(pl.DataFrame(records, schema=SCHEMA))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[FileIndex, pl.DataFrame]:
    """An index of several row groups, and the list that it holds."""
    frame = listing(600)
    path = tmp_path_factory.mktemp("index") / "files.parquet"
    return FileIndex(path, index.write_sealed(path, frame)), frame


times = st.none() | st.integers(-DAY.days, DAYS + 2).map(lambda day: T0 + day * DAY / 2)


@given(
    table=st.sampled_from(["bars_1m", "trades", "none"]),
    exchanges=st.lists(st.sampled_from(["venue0", "venue2", "nowhere"]), max_size=2),
    symbols=st.lists(st.integers(0, 601).map(lambda number: f"S{number}/USDT"), max_size=3),
    start=times,
    length=st.integers(1, 9) | st.none(),
)
def test_a_selection_is_what_a_filter_of_the_whole_list_gives(
    large: tuple[FileIndex, pl.DataFrame],
    table: str,
    exchanges: list[str],
    symbols: list[str],
    start: datetime | None,
    length: int | None,
) -> None:
    files, everything = large
    end = None if length is None else (start or T0) + length * DAY
    selection = Selection(tuple(exchanges), tuple(symbols), start, end)
    expected = everything.filter(pl.col("table") == table, may_hold_rows(selection)).drop("table")
    assert_frame_equal(files.files(table, selection), expected)


def test_an_index_that_was_moved_or_reopened_is_the_same(
    large: tuple[FileIndex, pl.DataFrame],
) -> None:
    files, everything = large
    assert_frame_equal(FileIndex(files.path, files.sealed).read_all(), everything)


def test_no_flipped_bit_gives_another_list(tmp_path: Path) -> None:
    frame = listing(3)
    path = tmp_path / "files.parquet"
    sealed = index.write_sealed(path, frame)
    content = path.read_bytes()
    dice = random.Random(7)
    tried = range(0, len(content), 3)
    same = 0
    for position in tried:
        changed = bytearray(content)
        changed[position] ^= 1 << dice.randrange(8)
        path.write_bytes(changed)
        with suppress(DamagedError):
            assert_frame_equal(FileIndex(path, sealed).read_all(), frame)
            same += 1  # the bit was of no meaning
    assert same < len(tried) / 5


@pytest.mark.parametrize("length", [0, 4, 11, 500, -1])
def test_a_list_cut_short_is_damaged(tmp_path: Path, length: int) -> None:
    path = tmp_path / "files.parquet"
    sealed = index.write_sealed(path, listing(3))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedError, match="is damaged"):
        FileIndex(path, sealed).read_all()


def test_threads_may_share_it(large: tuple[FileIndex, pl.DataFrame]) -> None:
    files = FileIndex(large[0].path, large[0].sealed)
    counts: list[int] = []

    def look() -> None:
        names = [f"S{number}/USDT" for number in range(40)]
        counts.extend(files.files("trades", Selection((), (name,))).height for name in names)

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [DAYS] * 240
