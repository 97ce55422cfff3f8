"""Files are kept by day, month or year, and `date` is the day of a row for every reader."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.dataset
import pyarrow.parquet
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.model.dataset import TIMESTAMP
from lake.model.digest import compute_digest
from lake.model.market import Market
from lake.model.partitions import PARTITIONINGS, Granularity, parse_partition
from lake.model.time import TimeRange
from tests.conftest import ORIGIN, NewLake, funding, store_of, write

KINDS: tuple[Granularity, ...] = ("day", "month", "year")
SYMBOL = "BTC/USDT:USDT"
FIRST = datetime(2023, 11, 20, tzinfo=UTC)
TIMES = [FIRST + timedelta(hours=8) * number for number in range(3 * 60)]
SINCE = date(2023, 12, 28)
LATE = [time for time in TIMES if time.date() >= SINCE]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Granularity:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def kept(new_lake: NewLake, kind: Granularity) -> Lake:
    """Funding over a month's and a year's end, in files by the granularity."""
    lake = new_lake({"funding": kind})
    for start in range(0, len(TIMES), 30):
        write(lake, "funding", funding(TIMES[start : start + 30]))
    return lake


def folder(lake: Lake) -> Path:
    return lake.root.tables / "funding"


def stored(lake: Lake) -> pl.DataFrame:
    return lake.scan("funding").collect()


def _read_by_duckdb(path: Path) -> pl.DataFrame:
    rows = duckdb.connect().sql(
        "SELECT timestamp, CAST(date AS DATE) AS date FROM read_parquet("  # noqa: S608
        f"'{path}/**/*.parquet', hive_partitioning = true) WHERE date >= '{SINCE}'"
    )
    assert rows is not None
    return pl.DataFrame(rows.pl())


def test_foreign_readers_that_filter_by_date_get_the_right_rows(
    kept: Lake, kind: Granularity
) -> None:
    table = DeltaTable(str(folder(kept)))
    found = {
        "polars": pl.scan_delta(str(folder(kept))).filter(pl.col("date") >= SINCE).collect(),
        "pyarrow": pl.DataFrame(
            table.to_pyarrow_table(filters=[("date", ">=", SINCE)]).select(["timestamp", "date"])
        ),
        "duckdb": _read_by_duckdb(folder(kept)),
    }
    for reader, rows in found.items():
        times = rows["timestamp"].cast(TIMESTAMP).sort().to_list()
        assert times == LATE, reader
        assert (rows["date"] == rows["timestamp"].dt.date()).all(), reader
    columns = [field.name for field in table.schema().fields]
    assert (
        columns[: 3 + (kind != "day")]
        == ["exchange", "symbol", "date", kind][: 3 + (kind != "day")]
    )


def test_the_log_has_bounds_of_date_for_readers_that_skip_files(
    kept: Lake, kind: Granularity
) -> None:
    actions = pl.DataFrame(DeltaTable(str(folder(kept))).get_add_actions(flatten=True))
    column = "partition.date" if kind == "day" else "max.date"
    assert actions[column].null_count() == 0
    assert actions[column].max() == TIMES[-1].date()
    store = store_of(kept)
    assert store.catalog.dataset("funding").partitions[-1] == PARTITIONINGS[kind].column


def test_lake_hides_the_column_by_which_files_are_kept(kept: Lake) -> None:
    names = list(kept.dataset("funding").polars_schema)
    assert stored(kept).columns == names
    assert kept.sql("SELECT * FROM funding").pl().columns == [*names, "available_at"]
    bundle = kept.bundles.pin("all", table="funding")
    assert bundle.scan("funding").collect().columns == names
    assert bundle.sql("SELECT * FROM funding").pl().columns == [*names, "available_at"]


def test_a_range_opens_only_the_files_that_may_hold_it(kept: Lake) -> None:
    store = store_of(kept)
    selected = kept.scan("funding", since=LATE[0])
    wanted = {time.date() for time in LATE}
    snapshot = store.snapshot(store.catalog.dataset("funding"))
    for path, last in snapshot.files().select("path", "last").iter_rows():
        if last < LATE[0]:
            Path(snapshot.uri, path).write_bytes(b"ruined" * 1000)
    rows = selected.collect()
    assert (rows["timestamp"].to_list(), set(rows["date"])) == (LATE, wanted)
    filtered = kept.scan("funding").filter(pl.col("date") >= SINCE).collect()
    assert filtered["timestamp"].to_list() == LATE


def test_rows_are_the_same_and_have_the_same_digest_however_files_are_kept(
    new_lake: NewLake,
) -> None:
    lakes = [new_lake({"funding": kind}) for kind in KINDS]
    for lake in lakes:
        write(lake, "funding", funding(TIMES))
    first, *others = map(stored, lakes)
    for rows in others:
        assert_frame_equal(rows, first)
    ids = {lake.bundles.pin("all", table="funding").id for lake in lakes}
    assert len(ids) == 1
    assert len({compute_digest(lake.dataset("funding"), stored(lake)) for lake in lakes}) == 1


def test_a_revision_close_to_the_end_of_a_year_finds_the_row_on_the_other_side(
    kept: Lake,
) -> None:
    late = datetime(2024, 1, 1, tzinfo=UTC)
    before = late - timedelta(milliseconds=400)
    assert late in TIMES
    written = write(kept, "funding", funding([before]).with_columns(funding_rate=pl.lit(0.5)))
    rows = stored(kept).filter(pl.col("timestamp").is_between(before, late))
    assert (written.inserted, rows["timestamp"].to_list()) == (0, [late])
    assert rows["funding_rate"].to_list() == [0.5]


def test_rows_are_replaced_in_their_partitions_only(kept: Lake) -> None:
    store = store_of(kept)
    dataset = store.catalog.dataset("funding")
    window = TimeRange(LATE[0], LATE[0] + timedelta(days=1))
    before = stored(kept)
    done = store.replace(
        dataset, Market("binance", SYMBOL), window, lambda rows: rows.head(1), ORIGIN
    )
    assert (done.before.height, done.after.height) == (3, 1)
    kept_rows = before.filter(~pl.col("timestamp").is_in(LATE[1:3]))
    assert_frame_equal(stored(kept), kept_rows)


def test_compaction_makes_one_file_a_partition_with_its_date(kept: Lake, kind: Granularity) -> None:
    rows, bundle = stored(kept), kept.bundles.pin("before", table="funding")
    kept.maintenance.optimize(table="funding", before=TIMES[-1] + timedelta(days=400))
    assert_frame_equal(stored(kept), rows)
    store = store_of(kept)
    files = store.snapshot(store.catalog.dataset("funding")).files()
    starts = {PARTITIONINGS[kind].start_of(time) for time in TIMES}
    assert sorted(files["date"]) == sorted(starts)
    names = pyarrow.parquet.read_schema(folder(kept) / files["path"][0]).names
    assert ("date" in names) == (kind != "day")
    kept.maintenance.vacuum(keep=timedelta(hours=1))
    assert bundle.verify() == []
    assert kept.bundles.verify("before") == []


def test_partition_values_of_the_log_say_their_market_and_range() -> None:
    market = {"exchange": "a", "symbol": "B/C"}
    year = parse_partition({**market, "year": "2024"})
    assert year == ("a", "B/C", _days(date(2024, 1, 1), 366))
    assert parse_partition({**market, "month": "2025-12"})[2] == _days(date(2025, 12, 1), 31)
    assert parse_partition({**market, "date": "2024-02-29"})[2] == _days(date(2024, 2, 29), 1)
    with pytest.raises(KeyError):
        parse_partition(market)


def _days(first: date, count: int) -> TimeRange:
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    return TimeRange(start, start + timedelta(days=count))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("day", [date(2024, 2, 29), date(2025, 12, 31), date(1970, 1, 1)])
def test_partitions_hold_each_day_once(kind: Granularity, day: date) -> None:
    partitioning = PARTITIONINGS[kind]
    start = partitioning.start_of(day)
    whole = partitioning.range_of(start)
    assert whole.start.date() <= day < whole.end.date()
    assert partitioning.start_of(whole.end) == whole.end.date()
    frame = pl.DataFrame({"date": [day]})
    value = frame.select(partitioning.value(pl.col("date"))).item()
    assert value == partitioning.value_of(day)
    back = frame.select(partitioning.value(pl.col("date"))).select(
        partitioning.to_start(pl.col(partitioning.column))
    )
    assert back.item() == start
    assert frame.select(partitioning.start(pl.col("date").cast(pl.Datetime))).item() == start
