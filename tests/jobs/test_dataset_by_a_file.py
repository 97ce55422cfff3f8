"""A user's own dataset needs a file and no Python, from its first row to an export."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

import lake as package
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.model.time import MICROSECOND, TimeRange
from lake.replay.events import Trade
from tests.conftest import MINUTE, T0, TIME, NewLake, bars, trades, write
from tests.jobs.conftest import NOW, MakeLake
from tests.model.everything import own_copy

HOUR = timedelta(hours=1)

RATES = """
name = "lending_rates"
title = "Rates of a lending protocol"
description = "One row an hour."
from = "chain"
section = "chain"
rank = 5
margin = "3h"
rows = "revisable"
date = "year"
time_column = "set_at"
available_at = "mined_at"
key = ["set_at"]
keep_when = "t.fill IS NULL AND s.fill IS NOT NULL"

[repair]
interpolate = "linear"
margin = "10m"
join_within = "6h"

[columns]
set_at = { type = "timestamp", unit = "UTC", meaning = "When the rate was set." }
rate = { type = "float64", unit = "fraction a year", meaning = "The rate." }
mined_at = { type = "timestamp", unit = "UTC", nullable = true, meaning = "Time of the block." }
fill = { type = "string", nullable = true, meaning = "How the rate was filled in." }

[rules]
rate_not_negative = "rate >= 0"

[checks.lost_hours]
severity = "error"
dimension = "completeness"
sql = '''
SELECT start, "end" FROM (
    SELECT LAG(set_at) OVER (ORDER BY set_at) + INTERVAL '1 hour' AS start, set_at AS "end"
    FROM rows
) WHERE "end" > start
'''

[checks.too_high]
severity = "warning"
dimension = "accuracy"
sql = "SELECT set_at, rate AS measured FROM rows WHERE rate > 1"
"""

INTEREST = """
name = "open_interest"
title = "Open interest"
description = "One table a timeframe."
rows = "revisable"
date = "by_timeframe"
time_column = "opens"
available_at = "end"
key = ["opens"]

[columns]
opens = { type = "timestamp", unit = "UTC", meaning = "Start." }
contracts = { type = "float64", unit = "contracts", meaning = "Open contracts." }

[checks.gaps]
severity = "error"
"""


def rates(*values: float) -> pl.DataFrame:
    """Rates of successive hours, each mined a minute after it was set."""
    times = [T0 + number * HOUR for number in range(len(values))]
    frame = pl.DataFrame({"set_at": times, "rate": values}, schema_overrides={"set_at": TIME})
    return frame.with_columns(
        mined_at=pl.col("set_at") + MINUTE, exchange=pl.lit("ethereum:aave"), symbol=pl.lit("USDC")
    )


def open_findings(lake: Lake) -> dict[str, list[datetime]]:
    """Times of the open findings by check."""
    found = lake.quality.findings()
    return {
        check: found.filter(check=check)["timestamp"].sort().to_list()
        for check in found["check"].unique().sort()
    }


def with_rates(new_lake: NewLake) -> Lake:
    """A lake with rates of which one is lost, one too high and one refused, and with bars."""
    lake = new_lake(schemas={"lending_rates": RATES})
    told = rates(0.1, 0.2, 0.3, 0.4, 0.5, 7.0, 0.7, 0.8, -1.0)
    written = lake.write("lending_rates", told.filter(pl.col("set_at") != T0 + 3 * HOUR))
    assert (written.inserted, written.rejected) == (7, 1)
    write(lake, "bars_1h", bars(8, step=HOUR))
    return lake


def test_checks_and_repairs_follow_the_file(new_lake: NewLake) -> None:
    lake = with_rates(new_lake)
    lake.quality.check("lending_rates")
    assert open_findings(lake) == {"lost_hours": [T0 + 3 * HOUR], "too_high": [T0 + 5 * HOUR]}

    report = lake.quality.repair("lending_rates", interpolate=True, offline=True)
    [done] = report.applied
    assert (done.method, done.source) == ("interpolate", "interpolated:linear")
    # Both findings are close enough for one window, with the margin of repairs around them.
    assert done.window == TimeRange(T0 + 170 * MINUTE, T0 + 310 * MINUTE + MICROSECOND)
    assert open_findings(lake) == {"too_high": [T0 + 5 * HOUR]}
    filled = lake.scan("lending_rates").filter(pl.col("fill").is_not_null()).collect()
    [row] = filled.select("set_at", pl.col("rate").round(9)).rows()
    assert row == (T0 + 3 * HOUR, 0.4)

    # What was observed replaces what was filled in.
    lake.write("lending_rates", rates(0.1, 0.2, 0.3, 0.9))
    assert lake.scan("lending_rates").collect()["rate"].to_list()[3] == 0.9
    assert lake.scan("lending_rates").collect()["fill"].null_count() == 8


def test_pin_replay_and_export_follow_the_file(new_lake: NewLake, tmp_path: Path) -> None:
    lake = with_rates(new_lake)
    bundle = lake.bundles.pin("b", table=("bars_1h", "lending_rates"))
    assert bundle.manifest.chain["lending_rates"].rows == 7
    assert set(bundle.manifest.bars) == {"1h"}

    # A rate of 02:00 is known at 02:01, and a bar at its end.
    stream = [(event.table, event.available_at) for event in bundle.replay()]
    known = [T0 + n * HOUR + MINUTE for n in (0, 1, 2, 4, 5, 6, 7)]
    assert [time for table, time in stream if table == "lending_rates"] == known
    assert stream == sorted(stream, key=lambda item: item[1])
    assert ranked(bundle) == RANKED

    path = bundle.export(tmp_path / "b.tar.zst")
    lake.root.path.rename(tmp_path / "gone")
    opened = package.open_bundle(path)
    assert opened.id == bundle.id
    assert [(event.table, event.available_at) for event in opened.replay()] == stream
    assert ranked(opened) == RANKED
    assert opened.dataset("lending_rates").columns[3].meaning == "When the rate was set."
    assert opened.verify(deep=True) == []


PAIR = ["lending_rates", "bars_1h"]
RANKED = [*PAIR, *PAIR, "bars_1h", *PAIR * 4]


def ranked(bundle: Bundle) -> list[str]:
    """The tables of a replay in order of time, where rates and bars share all their times."""
    return [event.table for event in bundle.replay(by="timestamp", since=T0 + HOUR)]


def test_rows_by_timeframe_without_event_are_not_filled_as_bars(new_lake: NewLake) -> None:
    lake = new_lake(schemas={"open_interest": INTEREST})
    rows = bars(6).select("exchange", "symbol", opens="timestamp", contracts="volume")
    lake.write("open_interest_1m", rows.filter(pl.col("opens") != T0 + 2 * MINUTE))
    write(lake, "trades", trades(400, side=["buy"] * 400))
    lake.quality.check("open_interest_1m")
    assert open_findings(lake) == {"gaps": [T0 + 2 * MINUTE]}
    report = lake.quality.repair("open_interest_1m", interpolate=True, offline=True)
    assert not report.applied
    assert lake.scan("open_interest_1m").collect().height == 5
    bundle = lake.bundles.pin("b", table="open_interest_1m")
    assert bundle.manifest.other["open_interest_1m"].rows == 5
    assert next(event.available_at for event in bundle.replay()) == T0 + MINUTE


def test_exchange_trades_are_fetched_into_a_users_own_table(make_lake: MakeLake) -> None:
    lake = make_lake()
    text = own_copy("trades", "fills").replace(
        "[columns]",
        'from = "exchange"\nevent = "trade"\n\n'
        '[fetch]\nmethod = "fetchTrades"\nwindow = "2m"\n\n[columns]',
    )
    (lake.root.path / "schemas" / "fills.toml").write_text(text, encoding="utf-8")
    lake = Lake(lake.settings, now=lambda: NOW)
    since, until = NOW - 10 * MINUTE, NOW - 4 * MINUTE
    for table in ("trades", "fills"):
        lake.ingest(table, exchange="binance", symbol="BTC/USDT", since=since, until=until)
    fills, truth = (lake.scan(table).collect() for table in ("fills", "trades"))
    assert fills.height > 0
    assert_frame_equal(fills, truth)
    bundle = lake.bundles.pin("b", table="fills")
    assert bundle.manifest.other["fills"].rows == fills.height
    assert all(isinstance(event, Trade) for event in bundle.replay())
