"""`lake bundle diff`: differences are the result, so that the exit code is 0."""

from __future__ import annotations

import io
import os
from datetime import timedelta

import polars as pl
import pytest

from lake.settings import Settings
from lake.store.store import Origin
from tests.cli.conftest import Cli
from tests.conftest import DAY, T0, bars, store_of, trades


@pytest.fixture
def pinned(cli: Cli) -> Cli:
    """Bundles `a` and `b`; between them a job revised a bar and added a day of trades."""
    from lake.api import Lake

    cli("init")
    lake = Lake(Settings(uri=os.environ["LAKE_URI"]))
    store = store_of(lake)
    for job in ("first", "second"):
        origin = Origin(job, "ccxt:binance")
        volume = [1.0, 1.0 if job == "first" else 1.5]
        store.write(store.catalog.dataset("bars_1m"), bars(2, volume=volume), origin)
        start = T0 if job == "first" else T0 + DAY
        step = timedelta(milliseconds=1)
        rows = trades(2, first=9 if job == "second" else 0, start=start, step=step)
        store.write(store.catalog.dataset("trades"), rows, origin)
        assert cli("bundle", "pin", job[0], "bars_1m", "trades").code == 0
    return cli


A_AND_B = ("bundle", "diff", "f", "s")


def test_diff_tells_days_jobs_and_sources(pinned: Cli) -> None:
    done = pinned(*A_AND_B, "--json")
    assert done.code == 0
    common = {"exchange": "binance", "symbol": "BTC/USDT"}
    wrote = {"jobs": ["second"], "sources": ["ccxt:binance"]}
    changed = {"change": "changed", "rows_before": 2, "rows_after": 2}
    added = {"change": "added", "rows_before": 0, "rows_after": 2}
    assert done.json == [
        {"table": "bars_1m", **common, "date": "2024-01-01", **changed, **wrote},
        {"table": "trades", **common, "date": "2024-01-02", **added, **wrote},
    ]
    summary = "From f to s, market-days: 1 added, 1 changed; in them 2 rows before, 4 after."
    assert summary in done.err
    shown = pinned(*A_AND_B)
    assert shown.code == 0
    assert "second" in shown.out
    assert "ccxt:binance" in shown.out


def test_diff_of_rows_tells_old_and_new_values(pinned: Cli) -> None:
    done = pinned(*A_AND_B, "--rows", "--json")
    assert done.code == 0
    revised, *new = done.json
    assert revised == {
        "table": "bars_1m",
        "exchange": "binance",
        "symbol": "BTC/USDT",
        "time": "2024-01-01T00:01:00Z",
        "key": None,
        "change": "changed",
        "column": "volume",
        "old": "1.0",
        "new": "1.5",
    }
    assert [(row["change"], row["key"]) for row in new] == [
        ("added", '{"trade_id":"10"}'),
        ("added", '{"trade_id":"9"}'),
    ][::-1]
    shown = pinned(*A_AND_B, "--rows")
    assert "2024-01-01T00:01:00Z" in shown.out
    csv = pl.read_csv(io.StringIO(pinned(*A_AND_B, "--rows", "--csv").out))
    assert csv["column"].to_list() == ["volume", None, None]


def test_diff_of_a_table_and_of_the_first_lines(pinned: Cli) -> None:
    assert [row["table"] for row in pinned(*A_AND_B, "trades", "--json").json] == ["trades"]
    rows = pinned(*A_AND_B, "--rows", "trades", "--json")
    assert [row["table"] for row in rows.json] == ["trades", "trades"]
    assert len(pinned(*A_AND_B, "--limit", "1", "--json").json) == 1
    for limit in (1, 2, 3):
        some = pinned(*A_AND_B, "--rows", "--limit", str(limit), "--json")
        assert (some.code, len(some.json)) == (0, limit)


def test_bundles_with_the_same_rows_are_said_to_be(pinned: Cli) -> None:
    for options in ((), ("--rows",)):
        same = pinned("bundle", "diff", "f", "f", *options)
        assert (same.code, same.out) == (0, "")
        assert "f and f hold the same rows." in same.err
        assert pinned("bundle", "diff", "f", "f", *options, "--json").json == []


def test_references_and_tables_that_mean_nothing_are_usage_errors(pinned: Cli) -> None:
    for arguments in (("f", "nothing"), ("nothing", "f"), ("f", "s", "funding")):
        refused = pinned("bundle", "diff", *arguments, "--json")
        assert (refused.code, refused.error["code"]) == (2, "unknown_name")
        assert refused.out == ""
    assert pinned("bundle", "diff", "f").code == 2
    assert pinned(*A_AND_B, "--limit", "0").code == 2
