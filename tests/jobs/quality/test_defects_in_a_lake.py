"""Known defects in stored rows are all found by a check of the lake, each with its reason.

Rows that the store would reject or merge are written as another engine does: not by the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake

from lake.api import Lake
from lake.model.market import Market
from lake.model.time import TimeRange, from_ms
from lake.sandbox import SyntheticMarkets
from lake.store.clock import CommitClock
from lake.store.coverage import CoveredRange, part_of
from lake.store.delta import create_table
from lake.store.ledger import Ledger
from tests.conftest import DAY, MINUTE, ORIGIN, SECOND, store_of
from tests.quality.checks.recorded_books import row
from tests.quality.defects import Defect, Injected, inject, sandbox_bars, sandbox_trades
from tests.quality.real import PERPETUAL, UNITTEST, XRP, needs_data, recorded_bars, recorded_trades
from tests.quality.slices import BINANCE, rows_of

START = datetime(2024, 1, 1, tzinfo=UTC)
ADA = Market("binance", "ADA/BTC")
RECORDED = (
    *("UNITTEST-BTC_1m", "XRP-ETH_1m"),
    *("ETH-BTC_5m", "ADA-BTC_5m", "XLM-BTC_5m", "TRX-BTC_5m"),
)


@dataclass(frozen=True)
class Sample:
    """Clean rows of a market, of which some of a table become defective."""

    table: str
    bars: pl.DataFrame
    trades: pl.DataFrame | None = None


SAMPLES: dict[str, Callable[[], Sample]] = {
    "sandbox": lambda: Sample("bars_1m", sandbox_bars(0, START, 10)),
    "sandbox and trades": lambda: Sample(
        "bars_1m", sandbox_bars(2, START, 6), sandbox_trades(2, START, 6)
    ),
    "UNITTEST/BTC": lambda: Sample("bars_1m", recorded_bars("binance_UNITTEST-BTC_1m", UNITTEST)),
    "BTC/PERP": lambda: Sample("bars_1m", recorded_bars("ftx_BTC-PERP_1m", PERPETUAL)),
    "ADA/BTC": lambda: Sample("bars_5m", recorded_bars("binance_ADA-BTC_5m", ADA)),
    "XRP/ETH and trades": lambda: Sample(
        "bars_1m", recorded_bars("binance_XRP-ETH_1m", XRP), recorded_trades().drop("cost")
    ),
}
samples = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if "sandbox" in n else [needs_data]) for n in SAMPLES]
)
with_trades = pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if "sandbox" in n else [needs_data])
        for n in SAMPLES
        if "trades" in n
    ],
)


def replaced(lake: Lake, table: str, frame: pl.DataFrame) -> None:
    """Replace a table by any rows."""
    dataset = lake.dataset(table)
    rows = rows_of(dataset, frame).with_columns(dataset.day())
    path = lake.root.path / "tables" / table
    if not path.exists():
        create_table(path, dataset, CommitClock(lambda: START))
    write_deltalake(path, rows, mode="overwrite")


def checked(lake: Lake, sample: Sample, kind: str, **how: float) -> tuple[Injected, pl.DataFrame]:
    """Inject defects into the bars of a sample; return them and the findings that they cause."""
    replaced(lake, sample.table, sample.bars)
    if sample.trades is not None:
        replaced(lake, "trades", sample.trades)
    clean = lake.quality.check(sample.table).findings
    random = np.random.default_rng(20_240_101)
    injected = inject(sample.bars, kind, random, count=20, **how)  # type: ignore[arg-type]
    replaced(lake, sample.table, injected.frame)
    findings = lake.quality.check(sample.table).findings
    return injected, findings.join(clean, on="finding_id", how="anti").sort("timestamp")


def of_truth(defect: Defect, findings: pl.DataFrame) -> pl.DataFrame:
    return findings.filter((pl.col("timestamp") < defect.end) & (pl.col("end") > defect.start))


def rows_at(truth: list[Defect], findings: pl.DataFrame) -> int:
    """Count the rows of findings; require that each is at a defect, and each defect has one."""
    matches = [of_truth(defect, findings) for defect in truth]
    assert all(part.height for part in matches), "a defect was not found"
    assert pl.concat(matches)["finding_id"].n_unique() == findings.height, (
        "something else was found"
    )
    return int(findings["rows"].sum())


def missing(lake: Lake, table: str) -> dict[datetime, str]:
    """Open times of the missing bars, with the reason."""
    timeframe = lake.dataset(table).timeframe
    assert timeframe is not None
    slots: dict[datetime, str] = {}
    for start, end, reason in lake.quality.gaps(table).select("start", "end", "reason").iter_rows():
        time = start
        while time < end:
            slots[time] = reason
            time = timeframe.after(time)
    return slots


@samples
@pytest.mark.parametrize("length", [1, 7])
def test_missing_bars_are_all_found_as_what_is_known_of_them(
    lake: Lake, name: str, length: int
) -> None:
    sample = SAMPLES[name]()
    replaced(lake, sample.table, sample.bars)
    before = set(missing(lake, sample.table))
    injected, findings = checked(lake, sample, "gap", rows=length)
    after = missing(lake, sample.table)
    gone = set(sample.bars["timestamp"]) - set(injected.frame["timestamp"])
    assert len(gone) == 20 * length
    assert set(after) - before == gone
    assert set(findings.filter(pl.col("severity") != "warning")["check"]) == {"gaps"}
    open_gaps = lake.quality.findings(check="gaps", severity="error")
    losses = {time for time, reason in after.items() if reason != "no_trade"}
    assert open_gaps["rows"].sum() == len(losses)
    assert losses >= gone
    if sample.trades is None:
        assert {after[time] for time in gone} == {"unknown"}
    else:
        step = sample.bars["timestamp"].diff().min()
        traded = sample.trades["timestamp"]
        assert isinstance(step, timedelta)
        for time in gone:
            is_traded = traded.is_between(time, time + step, closed="left").any()
            assert after[time] == ("lost" if is_traded else "unknown")


@needs_data
def test_trades_that_come_later_prove_what_was_unknown(lake: Lake) -> None:
    lake.write("bars_1m", recorded_bars("binance_XRP-ETH_1m", XRP))
    before = lake.quality.check("bars_1m")
    gaps = before.findings.filter(check="gaps")
    assert set(gaps["reason"]) == {"unknown"}
    assert gaps["rows"].sum() == 1091
    lake.write("trades", recorded_trades().drop("cost"))
    after = lake.quality.check("bars_1m")
    assert after.recorded.closed == before.findings.height
    assert after.findings.is_empty()
    assert after.scores["completeness"] == 1
    assert set(lake.quality.gaps("bars_1m")["reason"]) == {"no_trade"}
    assert lake.quality.gaps("bars_1m")["slots"].sum() == 1091
    kept = lake.quality.findings("bars_1m", status="closed")
    assert kept["finding_id"].sort().equals(before.findings["finding_id"].sort())


def test_missing_bars_of_time_that_was_never_requested_are_not_fetched(lake: Lake) -> None:
    sample = SAMPLES["sandbox"]()
    requested = TimeRange(START, START + 5 * DAY)
    settled = [CoveredRange(requested, 7200)]
    Ledger(store_of(lake)).record_coverage({part_of("bars_1m", BINANCE): settled}, ORIGIN)
    injected, findings = checked(lake, sample, "gap", rows=3)
    assert rows_at(injected.truth, findings) == 60
    expected = [
        "unknown" if start < requested.end else "not_fetched" for start in findings["timestamp"]
    ]
    assert findings["reason"].to_list() == expected
    assert {"unknown", "not_fetched"} == set(expected)


@samples
@pytest.mark.parametrize("length", [7])
def test_rows_that_another_engine_wrote_twice_are_all_found(
    lake: Lake, name: str, length: int
) -> None:
    injected, findings = checked(lake, SAMPLES[name](), "duplicate", rows=length)
    repeats = findings.filter(pl.col("check") == "duplicates")
    assert rows_at(injected.truth, repeats) == 20 * length
    assert findings.height == repeats.height


@samples
def test_bars_that_contradict_themselves_are_all_found(lake: Lake, name: str) -> None:
    injected, findings = checked(lake, SAMPLES[name](), "ohlc")
    broken = findings.filter(pl.col("check") == "broken_rules")
    assert rows_at(injected.truth, broken) == 20
    assert set(broken["reason"]) <= {"high_is_highest", "low_is_lowest"}
    # Where there are trades, they contradict the prices, too.
    assert set(findings["check"]) <= {"broken_rules", "reconciliation", "spikes"}


@with_trades
def test_bars_that_differ_from_their_trades_are_all_found(lake: Lake, name: str) -> None:
    sample = SAMPLES[name]()
    assert sample.trades is not None
    first, last = sample.trades["timestamp"].min(), sample.trades["timestamp"].max()
    inside = sample.bars.filter(pl.col("timestamp").is_between(first, last))
    injected, findings = checked(
        lake, Sample(sample.table, inside, sample.trades), "level_mismatch"
    )
    assert rows_at(injected.truth, findings) == 20
    assert set(findings["check"]) == {"reconciliation"}
    assert set(findings["against"]) == {"trades"}
    assert set(findings["reason"]) <= {"high", "low", "volume"}


@samples
def test_times_of_a_mistaken_unit_are_all_found(lake: Lake, name: str) -> None:
    injected, findings = checked(lake, SAMPLES[name](), "unit_seconds", rows=3)
    wrong = findings.filter(pl.col("check") == "implausible_time")
    assert wrong["rows"].sum() == 60
    assert set(wrong["reason"]) == {"too_small_unit"}
    assert set(wrong["severity"]) == {"critical"}
    # The bars are missing where they belong.
    assert missing(lake, SAMPLES[name]().table).keys() >= {
        defect.start for defect in injected.truth
    }


@samples
def test_prices_of_a_mistaken_unit_are_all_found(lake: Lake, name: str) -> None:
    injected, findings = checked(lake, SAMPLES[name](), "price_factor", rows=30, size=100.0)
    levels = {"scale", "spikes", "excursions", "jumps"}
    assert set(findings["check"]) <= {*levels, "reconciliation", "volume_spikes"}
    scale = findings.filter(pl.col("check") == "scale")
    assert rows_at(injected.truth, scale) == 20 * 30
    assert scale["measured"].is_between(90, 110).all()


@samples
def test_local_times_are_all_found_ahead_of_the_clock(lake: Lake, name: str) -> None:
    """The last hours of a venue's bars, sent in the time of Singapore."""
    sample = SAMPLES[name]()
    bars = sample.bars.sort("timestamp")
    last = bars["timestamp"][-1]
    local = pl.col("timestamp") > last - timedelta(hours=8)
    moved = pl.when(local).then(pl.col("timestamp") + timedelta(hours=8)).otherwise("timestamp")
    replaced(lake, sample.table, bars.with_columns(timestamp=moved))
    now = last + 5 * MINUTE
    findings = Lake(lake.settings, now=lambda: now).quality.check(sample.table).findings
    ahead = findings.filter(pl.col("check") == "implausible_time")
    expected = bars.filter(pl.col("timestamp") + timedelta(hours=8) > now + MINUTE).height
    assert ahead["rows"].sum() == expected > 0
    assert set(ahead["reason"]) == {"ahead"}


@with_trades
@pytest.mark.parametrize("hours", [-5, 8])
def test_days_of_a_local_time_are_found_by_the_trades(lake: Lake, name: str, hours: int) -> None:
    sample = SAMPLES[name]()
    assert sample.trades is not None
    replaced(lake, "trades", sample.trades)
    shifted = pl.col("timestamp") + timedelta(hours=hours)
    replaced(lake, sample.table, sample.bars.with_columns(timestamp=shifted))
    findings = lake.quality.check(sample.table).findings.filter(pl.col("check") == "time_shift")
    assert findings.height >= 1
    assert set(findings["reason"]) == {f"{hours:+}h"}
    assert set(findings["against"]) == {"trades"}


def test_crossed_books_are_all_found(lake: Lake) -> None:
    exchange, times = SyntheticMarkets(), [START + n * SECOND for n in range(600)]
    books = []
    for time in times:
        at = exchange.book(exchange.markets[0], int(time.timestamp() * 1000), 10)
        books.append(row(from_ms(int(time.timestamp() * 1000)), at.update_id, at.bids, at.asks))
    places = np.random.default_rng(7).choice(np.arange(1, 599, 3), 40, replace=False).tolist()
    for place in places:
        book = books[place]
        book["bid_prices"], book["ask_prices"] = book["ask_prices"][::-1], book["bid_prices"][::-1]
    frame = pl.DataFrame(books)
    replaced(lake, "orderbooks", frame)
    findings = lake.quality.check("orderbooks").findings
    crossed = findings.filter(pl.col("check") == "crossed")
    assert crossed["timestamp"].sort().to_list() == sorted(times[place] for place in places)


@needs_data
def test_clean_rows_raise_no_error_and_at_most_one_warning_in_ten_thousand(lake: Lake) -> None:
    """All checks over eight markets of the sandbox and all recorded bars; gaps are really there."""
    parts: dict[str, list[pl.DataFrame]] = {"bars_1m": [], "bars_5m": []}
    for number in range(8):
        frame = sandbox_bars(number, START, 8)
        parts["bars_1m"].append(of_market(frame, Market("sandbox", f"M{number}/USDT")))
    for name in RECORDED:
        symbol, _, timeframe = name.rpartition("_")
        market = Market("binance", symbol.replace("-", "/"))
        parts[f"bars_{timeframe}"].append(recorded_bars(f"binance_{name}", market))
    parts["bars_1m"].append(recorded_bars("ftx_BTC-PERP_1m", PERPETUAL))
    for table, frames in parts.items():
        dataset = lake.dataset(table)
        replaced(lake, table, pl.concat([rows_of(dataset, frame) for frame in frames]))
    ticks = rows_of(lake.dataset("trades"), recorded_trades().drop("cost"))
    replaced(lake, "trades", ticks)
    done = lake.quality.check()
    alarms = lake.quality.findings(severity="warning").filter(pl.col("check") != "gaps")
    assert done.rows > 100_000
    told = alarms.select("check", "symbol", "message").rows()
    assert alarms.filter(pl.col("severity") != "warning").is_empty(), told
    assert alarms.height <= done.rows / 10_000, told


def of_market(frame: pl.DataFrame, market: Market) -> pl.DataFrame:
    return frame.with_columns(exchange=pl.lit(market.exchange), symbol=pl.lit(market.symbol))
