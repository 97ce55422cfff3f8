"""Pinning: one moment of all tables, past times, requirements on the rows, stable ids."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.bundles.manifest import Manifest
from lake.errors import QualityError, UnknownNameError, UsageError
from lake.model.catalog import builtin_files
from lake.model.market import Market
from lake.model.progress import NoProgress
from lake.model.time import TimeRange, iso
from lake.settings import Settings
from lake.store.coverage import NOT_GIVEN, CoveredRange, part_of
from lake.store.ledger import Ledger
from tests.conftest import (
    DAY,
    MINUTE,
    ORIGIN,
    SECOND,
    T0,
    NewLake,
    bars,
    funding,
    store_of,
    trades,
    write,
)
from tests.model.everything import TEXT, own_copy

BTC = Market("binance", "BTC/USDT")
HOUR = timedelta(hours=1)


def test_the_schema_of_the_manifest_is_the_one_that_is_committed() -> None:
    path = Path(builtin_files()[0]).parent / "manifest.schema.json"
    assert json.loads(path.read_text()) == Manifest.model_json_schema(), "run scripts/schemas"


def cover(lake: Lake, table: str, start: datetime, end: datetime, market: Market = BTC) -> None:
    settled = [CoveredRange(TimeRange(start, end), 1)]
    Ledger(store_of(lake)).record_coverage({part_of(table, market): settled}, ORIGIN)


def test_the_past_is_pinned_as_it_was(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3, volume=[1.0] * 3))
    write(lake, "trades", trades(3))
    then = max(lake.audit()["time"]) + timedelta(milliseconds=1)
    _wait_past(then)
    write(lake, "bars_1m", bars(3, volume=[9.0] * 3))
    write(lake, "trades", trades(9))
    bundle = lake.bundles.pin("past", table=("bars_1m", "trades"), as_of=then)
    assert bundle.scan("trades").collect().height == 3
    assert set(bundle.scan("bars_1m").collect()["volume"]) == {1.0}
    assert bundle.manifest.metadata.as_of == then
    assert bundle.verify(deep=True) == []


def _wait_past(time: datetime) -> None:
    from lake.api import utc_now

    while utc_now() <= time:
        threading.Event().wait(0.001)


def test_a_time_before_the_table_or_after_now_cannot_be_pinned(lake: Lake) -> None:
    write(lake, "trades", trades())
    with pytest.raises(UnknownNameError, match="did not exist at"):
        lake.bundles.pin("b", table="trades", as_of=T0)
    with pytest.raises(UsageError, match="is in the future"):
        lake.bundles.pin("b", table="trades", as_of=T0 + 365 * 200 * DAY)
    assert lake.bundles.ls().is_empty()


def test_a_past_pin_omits_later_instruments_and_coverage(lake: Lake) -> None:
    write(lake, "trades", trades())
    then = max(lake.audit()["time"]) + timedelta(milliseconds=1)
    _wait_past(then)
    cover(lake, "trades", T0, T0 + DAY)
    assert lake.bundles.pin("past", table="trades", as_of=then).coverage().is_empty()
    assert lake.bundles.pin("now", table="trades", until=T0 + DAY).coverage().height == 1


def test_coverage_in_the_bundle_is_clipped_to_its_range(lake: Lake) -> None:
    write(lake, "trades", trades())
    write(lake, "bars_1m", bars())
    cover(lake, "trades", T0 - DAY, T0 + DAY)
    cover(lake, "bars_1m", T0, T0 + DAY)
    covered = lake.bundles.pin("b", table="trades", since=T0, until=T0 + MINUTE).coverage()
    assert covered.rows() == [("trades", "binance", "BTC/USDT", T0, T0 + MINUTE)]


def test_a_complete_selection_may_be_demanded(lake: Lake) -> None:
    write(lake, "trades", trades(3))
    cover(lake, "trades", T0, T0 + DAY)
    lake.bundles.pin("all", table="trades", require_complete=True)
    lake.bundles.pin("range", table="trades", since=T0, until=T0 + DAY, require_complete=True)


@pytest.mark.parametrize(
    ("covered", "bounds", "hole"),
    [
        ([], {}, (T0, T0 + 2 * SECOND + timedelta(microseconds=1))),
        ([(0, 1), (2, 3)], {}, (T0 + DAY, T0 + 2 * DAY)),
        ([(0, 1)], {"until": T0 + 2 * DAY}, (T0 + DAY, T0 + 2 * DAY)),
        ([(0, 1)], {"since": T0 - DAY}, (T0 - DAY, T0)),
    ],
)
def test_an_error_names_what_is_not_complete(
    lake: Lake,
    covered: list[tuple[int, int]],
    bounds: dict[str, datetime],
    hole: tuple[datetime, datetime],
) -> None:
    write(lake, "trades", trades(3))
    for start, end in covered:
        cover(lake, "trades", T0 + start * DAY, T0 + end * DAY)
    with pytest.raises(QualityError) as caught:
        lake.bundles.pin("b", table="trades", require_complete=True, **bounds)  # type: ignore[arg-type]
    where = f"[{iso(hole[0])}, {iso(hole[1])})"
    assert f"trades of binance BTC/USDT: {where}" in caught.value.message
    assert lake.bundles.ls().is_empty()


def test_each_market_and_table_has_to_be_complete(lake: Lake) -> None:
    write(lake, "trades", trades(3))
    write(lake, "trades", trades(3, symbol="ETH/USDT"))
    write(lake, "bars_1m", bars(3))
    cover(lake, "trades", T0, T0 + DAY)
    with pytest.raises(QualityError) as caught:
        lake.bundles.pin("b", table=("trades", "bars_1m"), require_complete=True)
    assert "trades of binance ETH/USDT" in caught.value.message
    assert "bars_1m of binance BTC/USDT" in caught.value.message
    assert "trades of binance BTC/USDT" not in caught.value.message


def test_an_unknown_score_does_not_meet_a_required_score(lake: Lake) -> None:
    write(lake, "trades", trades())
    with pytest.raises(QualityError, match="was not checked"):
        lake.bundles.pin("b", table="trades", min_quality=0.5, check=False)
    assert lake.bundles.ls().is_empty()


def test_tables_are_pinned_at_one_moment_while_others_write(lake: Lake) -> None:
    """The writer commits trade n, then bar n: there are as many trades as bars, or one more."""
    store = store_of(lake)
    write(store, "trades", trades(1))
    write(store, "bars_1m", bars(1))
    done = threading.Event()

    def ingest() -> None:
        for number in range(1, 40):
            write(store, "trades", trades(1, first=number))
            write(store, "bars_1m", bars(1, start=T0 + number * MINUTE))
        done.set()

    writer = threading.Thread(target=ingest)
    writer.start()
    seen = set()
    while not done.is_set():
        bundle = lake.bundles.pin("b", table=("bars_1m", "trades"), move=True, check=False)
        counts = [bundle.scan(table).collect().height for table in ("trades", "bars_1m")]
        assert counts[0] - counts[1] in (0, 1)
        seen.add(tuple(counts))
        assert bundle.verify(deep=True) == []
    writer.join()
    assert len(seen) > 3


def test_a_name_that_is_taken_leaves_no_bundle_behind(lake: Lake) -> None:
    write(lake, "trades", trades(1))
    lake.bundles.pin("b", table="trades")
    write(lake, "trades", trades(2))
    with pytest.raises(UsageError, match="exists already"):
        lake.bundles.pin("b", table="trades")
    assert lake.bundles.ls().height == 1


def test_a_removed_bundle_is_gone_with_its_names_and_cache(lake: Lake) -> None:
    write(lake, "trades", trades())
    bundle = lake.bundles.pin("b", table="trades")
    lake.bundles.pin("c", table="trades")
    bundle.warm()
    assert lake.bundles.rm("b") == (bundle.id, ["b", "c"])
    assert lake.bundles.ls().is_empty()
    for reference in ("b", "c", bundle.id):
        with pytest.raises(UnknownNameError):
            lake.bundles.open(reference)


def _compact(lake: Lake) -> None:
    lake.maintenance.optimize()


def _rewrite(lake: Lake) -> None:
    """Rewrite the table with other files, compression and row order."""
    frame = lake.scan("bars_1m").collect().sample(fraction=1.0, shuffle=True, seed=1)
    folder = lake.root.tables / "bars_1m"
    from deltalake import WriterProperties, write_deltalake

    writer = WriterProperties(compression="SNAPPY", max_row_group_size=7)
    write_deltalake(folder, frame, mode="overwrite", writer_properties=writer)


@pytest.mark.parametrize("change", [_compact, _rewrite])
def test_an_id_does_not_depend_on_how_rows_are_stored(
    lake: Lake, change: Callable[[Lake], None]
) -> None:
    for number in range(4):
        write(lake, "bars_1m", bars(10, start=T0 + number * 10 * MINUTE))
    before = lake.bundles.pin("before", table="bars_1m")
    change(lake)
    after = lake.bundles.pin("after", table="bars_1m")
    [version] = lake.tables().filter(table="bars_1m")["version"]
    assert version > before.manifest.bars["1m"].version
    assert after.id == before.id


def test_the_same_rows_in_a_new_lake_have_the_same_id(new_lake: NewLake) -> None:
    rows = [bars(40), trades(40), funding([T0, T0 + DAY])]
    tables = ("bars_1m", "trades", "funding")
    one, other = new_lake(), new_lake({"funding": "day"})
    for table, frame in zip(tables, rows, strict=True):
        write(one, table, frame)
        for part in (frame.tail(15), frame.head(30)):
            write(other, table, part)
    assert one.bundles.pin("b", table=tables).id == other.bundles.pin("b", table=tables).id
    changed = bars(1, volume=[1.0000000000000002])
    write(other, "bars_1m", changed)
    assert one.bundles.pin("b", table=tables).id != other.bundles.pin("c", table=tables).id


class Counting(NoProgress):
    """Counts the steps of each kind of work."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}

    def begin(self, what: str, total: float) -> None:
        self.totals[what] = total


def test_each_pin_hashes_all_its_files(lake: Lake) -> None:
    write(lake, "trades", trades(5))
    first = lake.bundles.pin("first", table="trades")
    write(lake, "trades", trades(5, first=5, start=T0 + DAY))
    progress = Counting()
    second = lake.bundles.pin("second", table="trades", progress=progress)
    assert progress.totals == {"reading trades": 5, "checking trades": 10, "hashing trades": 2}
    old, new = (bundle.contents.files.files("trades") for bundle in (first, second))
    assert new.height == 2
    assert old["sha256"].item() in new["sha256"].to_list()
    assert second.verify(deep=True) == []


def test_a_table_that_was_created_again_is_not_compared_with_earlier_bundles(lake: Lake) -> None:
    write(lake, "trades", trades(5))
    lake.bundles.pin("first", table="trades")
    shutil.rmtree(lake.root.tables / "trades")
    write(lake, "trades", trades(6))
    progress = Counting()
    assert lake.bundles.pin("second", table="trades", progress=progress).verify() == []
    assert progress.totals["hashing trades"] == 1


def test_a_bundle_opens_under_a_lake_that_has_been_moved(lake: Lake, tmp_path: Path) -> None:
    write(lake, "trades", trades(5))
    before = lake.bundles.pin("b", table="trades").scan("trades").collect()
    moved = lake.root.path.rename(tmp_path / "moved")
    bundle = Lake(Settings(uri=str(moved))).bundles.open("b")
    assert_frame_equal(bundle.scan("trades").collect(), before)
    assert bundle.verify(deep=True) == []


def test_a_dataset_file_that_changed_since_does_not_change_the_bundle(new_lake: NewLake) -> None:
    lake = new_lake(schemas={"rates": own_copy("funding", "rates")})
    write(lake, "rates", funding([T0, T0 + DAY]))
    before = lake.bundles.pin("b", table="rates").scan("rates").collect()
    (lake.root.path / "schemas" / "rates.toml").unlink()
    bundle = Lake(lake.settings).bundles.open("b")
    assert_frame_equal(bundle.scan("rates").collect(), before)
    assert bundle.sql("SELECT count(*) FROM rates").fetchall() == [(2,)]
    assert pl.Series(bundle.dataset("rates").key).to_list() == ["timestamp"]


def test_the_id_does_not_depend_on_the_section_of_a_table(new_lake: NewLake) -> None:
    rows = trades(3).select("exchange", "symbol", "timestamp", id=pl.col("trade_id").cast(pl.Int64))
    pinned = {}
    for section in ("other", "chain"):
        text = TEXT.replace("[columns]", f'section = "{section}"\n\n[columns]')
        lake = new_lake(schemas={"everything": text})
        write(lake, "everything", rows)
        write(lake, "trades", trades(2))
        pinned[section] = lake.bundles.pin("b", table=("everything", "trades"))
        place = f"{section}.everything"
        assert {place, "trades"} == {place for place, _ in pinned[section].manifest.refs()}
    assert pinned["chain"].manifest.chain["everything"].rows == 3
    assert pinned["chain"].id == pinned["other"].id


def test_the_id_is_computed_over_tables_by_name(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    write(lake, "trades", trades(3))
    manifest = lake.bundles.pin("b", table=("trades", "bars_1m")).manifest
    fields = ("table", "selection", "rows", "schema_fingerprint", "digest")
    refs = [manifest.bars["1m"], manifest.trades]
    content = [
        {name: json.loads(ref.model_dump_json())[name] for name in fields} for ref in refs if ref
    ]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert manifest.id == hashlib.sha256(text.encode()).hexdigest()


def test_what_the_source_no_longer_serves_is_not_complete(lake: Lake) -> None:
    write(lake, "trades", trades(2, start=T0 + HOUR))
    given = TimeRange(T0 + HOUR, T0 + DAY)
    answers = [CoveredRange(TimeRange(T0, T0 + HOUR), 0, NOT_GIVEN), CoveredRange(given, 2)]
    Ledger(store_of(lake)).record_coverage({part_of("trades", BTC): answers}, ORIGIN)
    for since, until in ((T0, T0 + DAY), (None, None)):
        with pytest.raises(QualityError, match="no longer serves it") as refused:
            lake.bundles.pin(
                "whole", table="trades", require_complete=True, since=since, until=until
            )
        assert "2024-01-01T00:00:00Z, 2024-01-01T01:00:00Z" in refused.value.message
    bundle = lake.bundles.pin("rest", table="trades", since=T0 + HOUR, until=T0 + DAY)
    assert bundle.coverage().select("start", "end").rows() == [(given.start, given.end)]
    assert lake.bundles.pin(
        "rest-whole", table="trades", since=T0 + HOUR, until=T0 + DAY, require_complete=True
    )
