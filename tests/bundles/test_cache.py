"""The cache of mapped rows: the same rows, a size limit, and modified files are ignored."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.bundles.cache import Cache, CacheKey
from lake.errors import StorageError
from lake.settings import CacheSettings, Settings
from lake.store.hashing import hash_file
from tests import processes
from tests.conftest import DAY, MINUTE, T0, TIME, NewLake, bars, trades, write

ENTRY = CacheKey("b" * 64, "c" * 64, "bars_1m", "binance", "BTC/USDT:USDT")
SYMBOLS = ("BTC/USDT", "ETH/USDT", "ADA/ÜSD 1%")


def cache_in(folder: Path, max_bytes: int = 10**9) -> Cache:
    return Cache(folder, max_bytes, max_bytes)


@pytest.fixture
def lake(new_lake: NewLake, tmp_path: Path) -> Lake:
    """A bundle of three days of bars of three symbols, with a separate cache."""
    uri = str(new_lake().root.path)
    lake = Lake(Settings(uri=uri, cache=CacheSettings(folder=tmp_path / "cache")))
    for symbol in SYMBOLS:
        write(lake, "bars_1m", bars(3000, symbol=symbol))
    write(lake, "trades", trades(30))
    return lake


def arrow_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.arrow"))


def test_a_second_read_comes_from_the_cache_and_is_the_same(lake: Lake, tmp_path: Path) -> None:
    bundle = lake.bundles.pin("b", table=("bars_1m", "trades"))
    cold = lake.bundles.open("b", cache=False).scan("bars_1m").collect()
    assert_frame_equal(bundle.scan("bars_1m").collect(), cold)
    bundle.finish()
    assert len(arrow_files(tmp_path / "cache")) == 3
    (lake.root.tables / "bars_1m").rename(lake.root.tables / "away")
    warm = lake.bundles.open("b")
    assert_frame_equal(warm.scan("bars_1m").collect(), cold)
    narrowed = warm.scan("bars_1m", symbol=SYMBOLS[2], since=T0 + DAY, until=T0 + DAY + MINUTE * 7)
    expected = cold.filter(
        pl.col("symbol") == SYMBOLS[2],
        pl.col("timestamp").is_between(T0 + DAY, T0 + DAY + MINUTE * 7, closed="left"),
    )
    assert_frame_equal(narrowed.collect(), expected)
    only = warm.scan("bars_1m", columns=["close", "symbol"]).filter(pl.col("symbol") != SYMBOLS[0])
    assert only.collect().height == 6000
    assert warm.scan("bars_1m").head(5).collect().height == 5


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/St_Johns"])
def test_times_of_any_zone_are_the_same_times(lake: Lake, zone: str) -> None:
    since, until = ((T0 + n * MINUTE).astimezone(ZoneInfo(zone)) for n in (100, 107))
    bundle = lake.bundles.pin("b", table=("bars_1m", "trades"))
    bundle.warm()
    for reader in (bundle, lake.bundles.open("b", cache=False), lake):
        found = reader.scan("bars_1m", symbol=SYMBOLS[0], since=since, until=until).collect()
        assert (found["timestamp"][0], found.height) == (T0 + 100 * MINUTE, 7)
        row = reader.at("bars_1m", exchange="binance", symbol=SYMBOLS[0], time=since)
        assert row["timestamp"].item() == T0 + 99 * MINUTE
    events = bundle.replay("bars_1m", symbol=SYMBOLS[0], since=since, until=until)
    assert next(event.available_at for event in events) == since
    assert (
        lake.bundles.pin("c", table="bars_1m", since=since, until=until)
        .scan("bars_1m")
        .collect()
        .height
        == 21
    )


def test_warming_fills_it_at_once(lake: Lake, tmp_path: Path) -> None:
    bundle = lake.bundles.pin("b", table=("bars_1m", "trades"))
    size = bundle.warm()
    files = arrow_files(tmp_path / "cache")
    assert len(files) == 4
    assert size == sum(file.stat().st_size for file in files)
    assert bundle.warm() == 0
    assert lake.bundles.open("b", cache=False).warm() == 0


def test_a_modified_file_is_ignored(lake: Lake, tmp_path: Path) -> None:
    bundle = lake.bundles.pin("b", table="trades")
    expected = bundle.scan("trades").collect()
    bundle.warm()
    (path,) = arrow_files(tmp_path / "cache")
    content = path.read_bytes()
    middle = content.index(expected["price"].to_numpy().tobytes())
    for changed in (content[:middle] + b"\x01" + content[middle + 1 :], content[:99], b""):
        path.write_bytes(changed)
        fresh = lake.bundles.open("b")
        assert_frame_equal(fresh.scan("trades").collect(), expected)
        fresh.finish()
        assert path.read_bytes() == content, "it was made anew"


def _flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("kind", ["a price", "the first byte", "cut in half", "empty", "another"])
def test_other_bytes_with_the_times_of_before_are_not_served(
    lake: Lake, tmp_path: Path, kind: str
) -> None:
    """A disk error leaves the times of a file alone, and so does a restored backup."""
    bundle = lake.bundles.pin("b", table=("trades", "bars_1m"))
    expected = bundle.scan("trades").collect()
    bundle.warm()
    [path] = arrow_files(tmp_path / "cache" / f"{bundle.id}.{bundle.manifest.checksum[:16]}/trades")
    other = next(file for file in arrow_files(tmp_path / "cache") if "bars_1m" in file.parts)
    content, times = path.read_bytes(), path.stat()
    changed = {
        "a price": _flip(content, content.index(expected["price"].to_numpy().tobytes())),
        "the first byte": _flip(content, 0),
        "cut in half": content[: len(content) // 2],
        "empty": b"",
        "another": other.read_bytes(),
    }
    assert_frame_equal(lake.bundles.open("b").scan("trades").collect(), expected)
    path.write_bytes(changed[kind])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    fresh = lake.bundles.open("b")
    assert_frame_equal(fresh.scan("trades").collect(), expected)
    fresh.finish()
    assert path.read_bytes() == content, "it was filled again"


def test_a_file_of_another_market_with_its_digest_is_not_served(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    other = replace(ENTRY, symbol="ETH/USDT:USDT")
    cache.put(ENTRY, [bars(10)])
    cache.put(other, [bars(10, symbol="ETH/USDT:USDT")])
    for suffix in ("", ".sha256"):
        source, target = (tmp_path / f"{key.path}{suffix}" for key in (other, ENTRY))
        target.write_bytes(source.read_bytes())
    assert cache.get(ENTRY) is None
    assert not (tmp_path / ENTRY.path).exists()
    assert cache.get(other) is not None


def test_a_file_without_a_digest_is_filled_again(tmp_path: Path) -> None:
    cache, frame = cache_in(tmp_path), bars(10)
    cache.put(ENTRY, [frame])
    (tmp_path / f"{ENTRY.path}.sha256").unlink()
    assert cache.get(ENTRY) is None
    cache.put(ENTRY, [frame])
    found = cache.get(ENTRY)
    assert found is not None
    assert_frame_equal(found, frame)


def test_a_file_is_hashed_once_a_process_however_often_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def count(path: str | Path) -> str:
        hashed.append(path)
        return hash_file(path)

    cache = cache_in(tmp_path)
    cache.put(ENTRY, [bars(10)])
    monkeypatch.setattr("lake.store.hashing.hash_file", count)
    for _ in range(5):
        assert cache.get(ENTRY) is not None
        assert cache_in(tmp_path).get(ENTRY, ["close"]) is not None
    assert len(hashed) == 1


def test_reads_of_a_large_market_do_not_fill_it(new_lake: NewLake, tmp_path: Path) -> None:
    settings = CacheSettings(folder=tmp_path, fill_bytes=100_000)
    lake = Lake(Settings(uri=str(new_lake().root.path), cache=settings))
    write(lake, "bars_1m", bars(2000))
    bundle = lake.bundles.pin("b", table="bars_1m")
    bundle.scan("bars_1m").collect()
    bundle.finish()
    assert arrow_files(tmp_path) == []
    assert bundle.warm() > 100_000


def test_a_cache_can_be_switched_off(new_lake: NewLake, tmp_path: Path) -> None:
    settings = CacheSettings(folder=tmp_path, enabled=False)
    lake = Lake(Settings(uri=str(new_lake().root.path), cache=settings))
    write(lake, "trades", trades())
    bundle = lake.bundles.pin("b", table="trades")
    bundle.scan("trades").collect()
    bundle.finish()
    assert arrow_files(tmp_path) == []


def test_the_least_recently_used_file_is_evicted_first(tmp_path: Path) -> None:
    clock = iter(range(1, 1000))
    frame = bars(1000)
    probe = Cache(tmp_path / "probe", 10**9, 10**9).put(ENTRY, [frame])
    cache = Cache(tmp_path / "cache", probe * 3 + 10, 0, clock_ns=lambda: next(clock) * 10**9)
    entries = [CacheKey("a" * 64, "c" * 64, "bars_1m", "binance", name) for name in "1234"]
    for entry in entries[:3]:
        cache.put(entry, [frame])
    assert cache.get(entries[0]) is not None
    cache.put(entries[3], [frame])
    cached = [entry.symbol for entry in entries if cache.get(entry) is not None]
    assert cached == ["1", "3", "4"]
    assert cache.bytes() <= cache.max_bytes


def test_an_evicted_file_stays_readable_while_mapped(tmp_path: Path) -> None:
    frame = bars(1000)
    cache = cache_in(tmp_path)
    cache.put(ENTRY, [frame])
    mapped = cache.get(ENTRY)
    assert mapped is not None
    cache.remove(ENTRY.bundle_id)
    assert cache.get(ENTRY) is None
    assert_frame_equal(mapped, frame)


def test_more_than_the_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, max_bytes=5000)
    with pytest.raises(StorageError, match="needs more than the limit of 5,000 bytes"):
        cache.put(ENTRY, [bars(1000)])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_rows_in_parts_are_joined_in_order(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    frame = bars(100)
    cache.put(ENTRY, (frame.slice(start, 7) for start in range(0, 100, 7)))
    mapped = cache.get(ENTRY)
    assert mapped is not None
    assert_frame_equal(mapped, frame)
    assert mapped["close"].n_chunks() == 1


def _fill_and_read(folder: Path, rounds: int) -> None:
    cache = cache_in(folder)
    frame = bars(500)
    for _ in range(rounds):
        cache.put(ENTRY, [frame])
        found = cache.get(ENTRY)
        assert found is not None
        assert found.equals(frame)


def test_processes_may_fill_the_same_entry_at_once(tmp_path: Path) -> None:
    children = [processes.start(_fill_and_read, tmp_path, 40) for _ in range(3)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == [ENTRY.path.name, f"{ENTRY.path.name}.sha256"]


def test_a_cache_in_the_place_of_a_file_does_not_stop_a_read(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    bundle = lake.bundles.pin("b", table="trades")
    assert bundle.scan("trades").collect().height == 30
    bundle.finish()
    with pytest.raises(StorageError):
        bundle.warm()


def test_bundles_with_one_id_and_other_times_of_receipt_do_not_share_rows(
    new_lake: NewLake, tmp_path: Path
) -> None:
    cached = CacheSettings(folder=tmp_path / "cache")
    received: list[list[datetime | None]] = [[None] * 3, [T0 + n * MINUTE for n in range(3)]]
    ids, columns = set(), []
    for times in received:
        lake = new_lake()
        write(lake, "trades", trades(3, received_at=pl.Series(times, dtype=TIME)))
        lake.bundles.pin("b", table="trades", check=False)
        settings = lake.settings.model_copy(update={"cache": cached})
        bundle = Lake(settings).bundles.open("b")
        bundle.warm()
        ids.add(bundle.id)
        columns.append(bundle.scan("trades").collect()["received_at"].to_list())
    assert len(ids) == 1
    assert columns == received
