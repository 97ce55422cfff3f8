"""`lake audit`: who wrote what, when and why, by any choice, without reading more than it must."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from lake.api import Lake
from lake.errors import DamagedError, SchemaError, UnknownNameError, UsageError
from lake.jobs.job import WriteCounts, record_job
from lake.model.time import iso, to_ms
from lake.settings import Settings
from lake.store.ledger import Ledger
from tests.cli.conftest import SINCE, Cli
from tests.conftest import MINUTE, SECOND, T0, NewLake, bars, store_of, trades

HOUR = timedelta(hours=1)
ALL = ("--limit", "10000", "--json")


@pytest.fixture
def told(cli: Cli, filled: Path) -> Callable[..., list[dict[str, Any]]]:
    """Runs `lake audit … --json` over the lake that was filled from the sandbox."""

    def run(*arguments: str) -> list[dict[str, Any]]:
        done = cli("audit", "--lake", str(filled), *arguments, "--json")
        assert done.code == 0, done.err
        rows: list[dict[str, Any]] = done.json
        return rows

    return run


Told = Callable[..., list[dict[str, Any]]]


def column(rows: Iterable[dict[str, Any]], name: str) -> set[Any]:
    return {row[name] for row in rows}


def when(row: dict[str, Any]) -> datetime:
    """The time of a commit; as text, one on the full second comes after those of that second."""
    return datetime.fromisoformat(row["time"])


def test_every_commit_says_who_what_when_why_and_how_many(told: Told) -> None:
    [row] = [row for row in told("trades") if row["version"] == 1]
    assert (row["table"], row["operation"], row["source"]) == ("trades", "MERGE", "ccxt:binance")
    assert row["inserted"] == row["rows"] > 0
    assert row["updated"] == row["deleted"] == row["rejected"] == 0
    [job] = [job for job in told("--jobs") if job["job_id"] == row["job"]]
    started, ended = (datetime.fromisoformat(job[name]) for name in ("timestamp", "finished_at"))
    assert started <= when(row) <= ended
    since = f"since {SINCE:%Y-%m-%d}T00:00:00Z"
    assert row["why"].startswith(
        f"ingest bars_1m trades: markets binance BTC/USDT; requests 2; {since}; until"
    )


def test_what_no_job_did_has_no_reason(told: Told) -> None:
    [made] = told("trades", "--operation", "create table")
    assert (made["version"], made["job"], made["why"], made["inserted"]) == (0, None, None, None)


def test_several_tables_are_shown_together_newest_first(told: Told) -> None:
    rows = told("trades", "bars_1m", "trades")
    # Both tables are written at once: only the order in each is known.
    pairs = {(table, version) for table in ("trades", "bars_1m") for version in range(3)}
    assert {(row["table"], row["version"]) for row in rows} == pairs
    times = [row["time"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert told("trades", "bars_1m", "--limit", "2") == rows[:2]


def test_all_tables_are_shown_by_default(told: Told, filled: Path) -> None:
    rows = told(*ALL)
    tables = Lake(Settings(uri=str(filled))).tables()
    assert dict(tables.select("table", "version").iter_rows()) == {
        name: max(row["version"] for row in rows if row["table"] == name)
        for name in column(rows, "table")
    }
    assert len(rows) == sum(tables["version"]) + tables.height
    times = [when(row) for row in rows]
    assert times == sorted(times, reverse=True)


def test_commits_are_chosen_by_job_source_and_operation(told: Told) -> None:
    rows = told(*ALL)
    jobs = sorted(column(rows, "job") - {None})
    for job in jobs:
        assert told(*ALL, "--job", job) == [row for row in rows if row["job"] == job]
    day = jobs[0][:8]
    assert told(*ALL, "--job", day) == [row for row in rows if (row["job"] or "").startswith(day)]
    for source in ("lake", "ccxt:binance"):
        assert column(told(*ALL, "--source", source), "source") == {source}
    merges = [row for row in rows if row["operation"] == "MERGE"]
    assert told(*ALL, "--operation", "merge") == merges != rows
    assert told("--source", "nobody") == []
    # Ids of one second are in no order.
    ingested = next(job for job in told("--jobs") if job["command"].startswith("ingest"))["job_id"]
    both = told(*ALL, "--job", ingested, "--operation", "merge", "--source", "lake")
    assert column(both, "table") == {"jobs"}


def test_commits_are_chosen_by_the_markets_whose_files_they_touch(told: Told) -> None:
    rows = told("trades", "-s", "ETH/USDT")
    assert [(row["version"], "ETH/USDT" in row["why"]) for row in rows] == [(2, True)]
    assert [row["version"] for row in told("trades", "-s", "ETH/USDT", "-s", "BTC/USDT")] == [2, 1]
    assert [row["version"] for row in told("trades", "-e", "binance")] == [2, 1]
    assert told("trades", "-e", "kraken") == []
    assert told("trades", "-e", "kraken", "-s", "BTC/USDT") == []


def test_commits_are_chosen_by_time(told: Told) -> None:
    rows = told(*ALL)
    middle = rows[len(rows) // 2]
    since = [row for row in rows if when(row) >= when(middle)]
    assert told(*ALL, "--since", middle["time"]) == since
    assert told(*ALL, "--until", middle["time"]) == rows[len(since) :]
    assert told(*ALL, "--since", "7d", "--until", "now") == rows
    assert told("--until", "7d") == []


def test_jobs_are_chosen_by_time_and_id(told: Told) -> None:
    jobs = told("--jobs")
    second = jobs[0]
    assert told("--jobs", "--job", second["job_id"]) == [second]
    assert told("--jobs", "--since", second["timestamp"]) == [second]
    assert told("--jobs", "--until", second["timestamp"]) == jobs[1:]
    assert told("--jobs", "--limit", "1") == [second]


@pytest.mark.parametrize("options", [(), ("--jobs",)])
def test_an_unknown_job_is_refused_with_the_closest(
    cli: Cli, told: Told, filled: Path, options: tuple[str, ...]
) -> None:
    job = told("--jobs", "--limit", "1")[0]["job_id"]
    mistyped = job[:-1] + "x"
    done = cli("audit", "--lake", str(filled), "--job", mistyped, *options, "--json")
    assert done.code == 2
    assert done.error["code"] == "unknown_name"
    assert done.error["message"] == f"no job starts with {mistyped!r}"
    assert job in done.error["hint"]


def test_an_unknown_table_is_refused_with_the_closest(cli: Cli, filled: Path) -> None:
    for name, close in (("trade", "trades"), ("bars_5m", "bars_1m")):
        done = cli("audit", "trades", name, "--lake", str(filled), "--json")
        assert done.code == 2
        assert done.error["code"] == "unknown_name"
        assert name in done.error["message"]
        assert close in done.error["hint"]


@pytest.mark.parametrize(
    "options",
    [
        ("--since", "now", "--until", "1d"),
        ("--since", "yesterday"),
        ("--jobs", "--since", "now", "--until", "1d"),
        ("--jobs", "--source", "lake"),
        ("--jobs", "-s", "BTC/USDT"),
        ("--jobs", "trades"),
    ],
)
def test_choices_that_cannot_be_are_refused(
    cli: Cli, filled: Path, options: tuple[str, ...]
) -> None:
    done = cli("audit", "--lake", str(filled), *options, "--json")
    assert (done.code, done.error["code"]) == (2, "usage")
    assert done.error["hint"]


def test_a_terminal_gets_what_fits_and_every_other_format_all(cli: Cli, filled: Path) -> None:
    at = ("audit", "trades", "--limit", "1", "--lake", str(filled))
    shown = cli(*at).out
    assert "digest" not in shown
    assert "   ingest bars_1m trades: markets binance ETH/…" in shown
    csv = cli(*at, "--csv").out
    [row] = cli(*at, "--json").json
    assert csv.splitlines()[0].split(",") == list(row)
    assert row["why"] in csv
    assert len(row["digest"]) == 64
    assert "arguments" not in cli("audit", "--jobs", "--lake", str(filled)).out


def test_an_empty_lake_has_nothing_to_tell(cli: Cli) -> None:
    cli("init")
    assert cli("audit", "--json").json == []
    assert cli("audit", "--jobs", "--json").json == []
    done = cli("audit", "--job", "2026", "--json")
    assert done.error["hint"] == "`lake audit --jobs` lists jobs."


def test_a_failed_job_explains_its_commits_too(new_lake: NewLake) -> None:
    lake = new_lake()
    with pytest.raises(SchemaError):
        lake.write("trades", trades(1).drop("price"))
    assert lake.jobs()["status"].to_list() == ["failed"]
    assert lake.audit("jobs")["why"].to_list() == ["write trades: source python", None]


def test_the_python_api_takes_the_same_choices(new_lake: NewLake) -> None:
    lake = new_lake()
    lake.write("trades", trades(3), source="one")
    lake.write("trades", trades(3, symbol="ETH/USDT", price=[1.0, -1.0, 2.0]), source="two")
    lake.write("bars_1m", bars(2), source="one")
    found = lake.audit(["trades", "bars_1m"], source="one")
    assert found.select("table", "inserted", "why").rows() == [
        ("bars_1m", 2, "write bars_1m: source one"),
        ("trades", 3, "write trades: source one"),
    ]
    [second] = lake.audit("trades", symbol="ETH/USDT").rows(named=True)
    assert (second["inserted"], second["rejected"]) == (2, 1)
    found = lake.audit(job=second["job"])
    assert found["table"].to_list() == ["jobs", "trades", "quarantine"]
    assert set(found["job"]) == {second["job"]}
    assert lake.audit("trades", since=second["time"])["version"].to_list() == [2]
    with pytest.raises(UsageError, match="no time zone"):
        lake.audit(since=datetime(2026, 1, 1))  # noqa: DTZ001 - the very thing refused
    with pytest.raises(UnknownNameError):
        lake.audit("trades", job="20200101T000000-00000000")


def test_what_an_overwrite_or_a_deletion_says_is_shown_and_the_rest_is_not_made_up(
    new_lake: NewLake,
) -> None:
    lake = new_lake()
    lake.write("trades", trades(4))
    path = str(lake.root.tables / "trades")
    stored = DeltaTable(path).to_pyarrow_table()
    row = stored.slice(0, 1)
    chosen = f"trade_id = '{row['trade_id'][0]}'"
    write_deltalake(path, row, mode="overwrite", predicate=chosen)
    DeltaTable(path).delete("trade_id = '3'")
    columns = ("operation", "inserted", "updated", "deleted")
    assert lake.audit("trades").select(columns).rows() == [
        ("DELETE", None, None, 1),
        ("WRITE", 1, None, None),
        ("MERGE", 4, 0, 0),
        ("CREATE TABLE", None, None, None),
    ]


def handwritten(
    lake: Lake, table: str, seconds: list[int], *, stamped: bool = False, **info: Any
) -> Path:
    """The log of a table with a commit at each of these seconds after T0, and nothing else."""
    log = lake.root.tables / table / "_delta_log"
    log.mkdir(parents=True, exist_ok=True)
    for version, second in enumerate(seconds):
        time = to_ms(T0) + 1000 * second
        stamp = json.dumps({"committed_at": iso(T0 + second * SECOND)})
        own = {"userMetadata": stamp} if stamped else {}
        commit = {"commitInfo": {"timestamp": time, "operation": "MERGE", **own, **info}}
        text = json.dumps(commit, separators=(",", ":"))
        (log / f"{version:020}.json").write_text(text + "\n", encoding="utf-8")
    return log


@pytest.fixture(scope="module")
def by_hand(new_lake: NewLake) -> Callable[[list[int]], Lake]:
    lake = new_lake()

    def make(seconds: list[int]) -> Lake:
        log = lake.root.tables / "trades" / "_delta_log"
        for old in log.glob("*.json"):
            old.unlink()
        handwritten(lake, "trades", seconds)
        return lake

    return make


moments = st.integers(0, 20_000)


@given(
    st.lists(moments, min_size=1, max_size=12).map(sorted),
    st.lists(st.integers(0, 1800), min_size=12, max_size=12),
    st.none() | moments,
    st.none() | moments,
    st.integers(1, 13),
)
def test_times_choose_right_also_where_clocks_of_writers_differ(
    by_hand: Callable[[list[int]], Lake],
    seconds: list[int],
    behind: list[int],
    since: int | None,
    until: int | None,
    limit: int,
) -> None:
    if since is not None and until is not None and since >= until:
        return
    times = [second - late for second, late in zip(seconds, behind, strict=False)]
    first, last = (None if s is None else T0 + timedelta(seconds=s) for s in (since, until))
    found = by_hand(times).audit("trades", since=first, until=last)
    # No commit is earlier than one before it, whatever the clock of its writer showed.
    inside = [
        (second, version)
        for version, second in enumerate(accumulate(times, max))
        if (since is None or second >= since) and (until is None or second < until)
    ]
    wanted = [version for _, version in sorted(inside, reverse=True)]
    assert found["version"].to_list() == wanted
    assert by_hand(times).audit("trades", limit=limit, since=first, until=last).height == min(
        limit, len(wanted)
    )


def test_what_other_engines_say_otherwise_is_found_too(new_lake: NewLake) -> None:
    lake = new_lake()
    lake.write("trades", trades(1))
    now = to_ms(lake.audit("trades")["time"][0])
    removed = {"path": "exchange=binance/symbol=ETH%252FUSDT/date=2024-01-01/gone.parquet"}
    actions = [
        {"commitInfo": {"timestamp": now, "operation": "Streaming Update"}},
        {"remove": {**removed, "dataChange": True, "deletionTimestamp": now}},
    ]
    log = lake.root.tables / "trades" / "_delta_log" / f"{2:020}.json"
    log.write_text("".join(json.dumps(one, separators=(",", ":")) + "\n" for one in actions))
    assert lake.audit("trades", operation="streaming update")["version"].to_list() == [2]
    assert lake.audit("trades", symbol="ETH/USDT")["version"].to_list() == [2]
    assert lake.audit("trades", symbol="BTC/USDT")["version"].to_list() == [1]


def test_a_reason_of_many_parts_is_short(new_lake: NewLake) -> None:
    lake = new_lake()
    group = {"exchange": "a", "table": "bars_1m", "targets": [["id", "missing"]] * 1500}
    with record_job(
        Ledger(store_of(lake)), "quality repair", {"plan": [group, group]}, WriteCounts()
    ):
        pass
    one = "exchange a table bars_1m 1,500 targets"
    assert lake.audit("jobs")["why"][0] == f"quality repair: plan {one}, {one}"


def test_only_as_many_commits_are_read_as_are_shown(new_lake: NewLake) -> None:
    lake = new_lake()
    old = handwritten(lake, "trades", list(range(50)), stamped=True)
    handwritten(lake, "bars_1m", list(range(100, 150)), stamped=True)
    for version in range(40):
        (old / f"{version:020}.json").write_text("damaged", encoding="utf-8")
    found = lake.audit(limit=55)
    assert found["table"].to_list() == ["bars_1m"] * 50 + ["trades"] * 5
    assert lake.audit("trades", limit=3)["version"].to_list() == [49, 48, 47]
    assert lake.audit()["table"].to_list() == ["bars_1m"] * 50 + ["trades"] * 10
    with pytest.raises(DamagedError, match="table trades: commit 39"):
        lake.audit("trades")


def test_a_job_is_looked_for_only_while_it_ran(new_lake: NewLake) -> None:
    lake = new_lake()
    lake.write("trades", trades(1))
    [job] = lake.jobs()["job_id"]
    log = handwritten(lake, "bars_1m", [0] * 64)
    for version in (0, 1, 2, 3):
        (log / f"{version:020}.json").write_text("damaged", encoding="utf-8")
    assert lake.audit(job=job)["table"].to_list() == ["jobs", "trades"]


def test_an_audit_looks_at_times_of_commits_not_of_rows(new_lake: NewLake) -> None:
    lake = new_lake()
    lake.write("bars_1m", bars(1, start=T0))
    assert lake.audit("bars_1m", until=T0 + MINUTE).is_empty()
    assert iso(lake.audit("bars_1m", since=T0)["time"][0]) > iso(T0 + HOUR)
    assert lake.audit("bars_1m")["time"].dtype == pl.Datetime("us", "UTC")
