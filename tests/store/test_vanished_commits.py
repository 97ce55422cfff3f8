"""A commit that vanished from the end of a log: found, and its number is not used again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lake.api import Lake
from lake.errors import DamagedError
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.checksums import FOLDER, join_records, list_records
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
from lake.store.log import locate_log_file
from tests.conftest import DAY, ORIGIN, T0, store_of, trades, write

WORDS = "version 3 was committed and is not in the log"


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """Trades in three commits."""
    for number in range(3):
        write(lake, "trades", trades(5, first=number * 5))
    return lake


def take(lake: Lake, *versions: int, table: str = "trades") -> list[Path]:
    files = [locate_log_file(lake.root.tables / table, version) for version in versions]
    for file in files:
        file.rename(file.with_suffix(".away"))
    return files


@pytest.mark.parametrize("versions", [(3,), (2, 3), (2,)])
def test_verify_finds_it(filled: Lake, versions: tuple[int, ...]) -> None:
    files = take(filled, *versions)
    result = Lake(filled.settings).maintenance.verify("trades")
    assert not result.is_intact
    rows = result.problems.select("path", "kind", "found").rows()
    assert rows == [
        (
            f"_delta_log/{file.name}",
            "missing",
            f"version {version} was committed and is not in the log",
        )
        for version, file in zip(versions, files, strict=True)
    ]


def test_it_is_found_where_records_were_joined(filled: Lake) -> None:
    folder = filled.root.tables / "trades"
    join_records(folder, 99)
    take(filled, 3)
    assert not Lake(filled.settings).maintenance.verify("trades").is_intact
    with pytest.raises(DamagedError, match=WORDS) as caught:
        write(Lake(filled.settings), "trades", trades(20))
    assert list_records(folder)[-1].path.name in caught.value.hint


def test_every_writer_refuses_to_use_its_number(filled: Lake) -> None:
    [file] = take(filled, 3)
    before = sorted(path for path in filled.root.tables.joinpath("trades").rglob("*"))
    later = Lake(filled.settings)
    for attempt in (
        lambda: write(later, "trades", trades(20)),
        lambda: later.maintenance.optimize("trades"),
        lambda: later.maintenance.checkpoint("trades"),
        lambda: later.maintenance.vacuum("trades"),
    ):
        with pytest.raises(DamagedError, match=WORDS) as caught:
            attempt()
        assert f"{FOLDER}/{file.stem}.sha256" in caught.value.hint
        assert "lake verify table trades" in caught.value.hint
    assert later.scan("trades").collect().height == 10
    assert before == sorted(path for path in filled.root.tables.joinpath("trades").rglob("*"))


def test_a_lost_log_is_not_begun_anew(filled: Lake) -> None:
    log = filled.root.tables / "trades" / "_delta_log"
    log.rename(log.with_name("_away"))
    with pytest.raises(DamagedError, match=WORDS):
        write(Lake(filled.settings), "trades", trades(1))


def test_what_the_hint_says_brings_the_table_back(filled: Lake) -> None:
    [file] = take(filled, 3)
    record = file.parents[1] / FOLDER / f"{file.stem}.sha256"
    record.rename(filled.root.path / record.name)
    later = Lake(filled.settings)
    assert write(later, "trades", trades(15)).inserted == 5
    assert later.maintenance.verify("trades").is_intact


def optimize(lake: Lake) -> None:
    lake.maintenance.optimize("trades")


def replace(lake: Lake) -> None:
    store, market = store_of(lake), Market("binance", "BTC/USDT")
    window = TimeRange(T0, T0 + DAY)
    store.replace(lake.dataset("trades"), market, window, lambda rows: rows.head(3), ORIGIN)


def write_again(lake: Lake) -> None:
    assert write(lake, "trades", trades(15)).inserted == 5


@pytest.mark.parametrize("checkpoint", [False, True], ids=["", "checkpoint"])
@pytest.mark.parametrize("joined", [False, True], ids=["", "joined"])
@pytest.mark.parametrize("change", [optimize, replace, write_again])
def test_the_hint_of_a_damaged_commit_leads_to_a_whole_table(
    filled: Lake, change: Callable[[Lake], None], joined: bool, checkpoint: bool
) -> None:
    """The user moves what the messages name, and nothing else."""
    folder = filled.root.tables / "trades"
    if checkpoint:
        filled.maintenance.checkpoint("trades")
    if joined:
        join_records(folder, 99)
    file = locate_log_file(folder, 3)
    file.write_bytes(b"")
    with pytest.raises(DamagedError, match="commit 3 is empty") as caught:
        change(Lake(filled.settings))
    assert "lake status" in caught.value.hint
    move_what_is_named(folder, caught.value)
    with pytest.raises(DamagedError, match=WORDS) as refused:
        change(Lake(filled.settings))
    assert move_what_is_named(folder, refused.value)
    change(Lake(filled.settings))
    later = Lake(filled.settings)
    assert later.maintenance.verify("trades").is_intact
    write(later, "trades", trades(15))
    assert later.scan("trades").collect()["trade_id"].sort().equals(trades(15)["trade_id"].sort())
    assert later.status()["rows"].to_list() == [15]
    assert later.versions("trades")["version"].to_list()[-1] == 0


def move_what_is_named(table: Path, error: DamagedError) -> bool:
    """Move away the files that an error names; return whether there were any."""
    words = (word.strip(",:;.") for word in f"{error.message} {error.hint}".split())
    files = [table / word for word in words if (table / word).is_file()]
    for file in files:
        file.rename(table.parent.parent / file.name)
    return bool(files)


def test_so_does_a_backup(filled: Lake) -> None:
    [file] = take(filled, 3)
    file.with_suffix(".away").rename(file)
    assert write(Lake(filled.settings), "trades", trades(20)).inserted == 5


def test_coverage_goes_on_without_it(filled: Lake, caplog: pytest.LogCaptureFixture) -> None:
    market = Market("binance", "BTC/USDT")
    days = [TimeRange(T0 + n * DAY, T0 + (n + 1) * DAY) for n in range(0, 4, 2)]
    for day in days:
        answers = {part_of("trades", market): [CoveredRange(day, 5)]}
        Ledger(store_of(filled)).record_coverage(answers, ORIGIN)
    take(filled, 2, table="coverage")
    later = store_of(Lake(filled.settings))
    Ledger(later).record_coverage({part_of("trades", market): [CoveredRange(days[1], 5)]}, ORIGIN)
    assert "commits vanished" in caplog.text
    assert Ledger(later).read_covered("trades", market) == tuple(days)
    assert Lake(filled.settings).maintenance.verify("coverage").is_intact
