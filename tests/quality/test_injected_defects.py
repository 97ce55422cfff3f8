"""Injected defects at random places: how many are found, with which reason, and what else.

Gaps, duplicates and times are tested in `test_times.py` and `test_completeness.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from lake.model.catalog import builtin
from lake.model.market import Market
from lake.quality.checks import (
    bars,
    frozen,
    levels,
    reconciliation,
    spikes,
    trade_ids,
    trades,
)
from lake.quality.slice import Slice
from tests.paths import SHARED
from tests.quality.defects import (
    SPIKES,
    Injected,
    inject,
    sandbox_bars,
    sandbox_trades,
)
from tests.quality.slices import collect_findings, reference_of, slice_of

DATA = SHARED / "cex"
START = datetime(2024, 1, 1, tzinfo=UTC)
TRADE_CHECKS = {**trade_ids.CHECKS, **trades.CHECKS}
BARS = {
    **bars.CHECKS,
    **frozen.CHECKS,
    **levels.CHECKS,
    **spikes.CHECKS,
    **reconciliation.CHECKS,
}
CHECKS = {**BARS, **TRADE_CHECKS}
REAL = (
    "binance_UNITTEST-BTC_1m",
    "binance_XRP-ETH_1m",
    "ftx_BTC-PERP_1m",
    "binance_ETH-BTC_5m",
    "binance_ADA-BTC_5m",
    "binance_XLM-BTC_5m",
    "binance_TRX-BTC_5m",
)
needs_recordings = pytest.mark.skipif(
    not DATA.is_dir(), reason="the recorded data are not beside the project"
)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20_240_101)


def run(check: str, rows: Slice) -> pl.DataFrame:
    """Findings of a check with the thresholds of its dataset."""
    declared = {item.name: item for item in rows.dataset.checks}[check]
    return collect_findings(CHECKS[check].function(rows, **declared.thresholds))


def hits(injected: Injected, findings: pl.DataFrame) -> int:
    """Count the defects that a finding overlaps."""
    spans = findings.select("start", "end").rows()
    return sum(any(s < d.end and e > d.start for s, e in spans) for d in injected.truth)


def strays(injected: Injected, findings: pl.DataFrame, *, beside: bool = False) -> int:
    """Count the findings that overlap no defect; with `beside`, that also touch none."""
    truth = injected.truth
    return sum(
        not any(
            (s < d.end and e > d.start) or (beside and d.start <= e and s <= d.end) for d in truth
        )
        for s, e in findings.select("start", "end").rows()
    )


def real(name: str) -> pl.DataFrame:
    return pl.read_parquet(DATA / "bars" / f"{name}.parquet").sort("timestamp")


def table(name: str) -> str:
    return "bars_" + name.rpartition("_")[2]


def bar_checks(rows: Slice, *except_for: str) -> dict[str, int]:
    return {name: run(name, rows).height for name in BARS if name not in except_for}


@pytest.mark.parametrize("market", range(8))
def test_clean_bars_of_the_sandbox_raise_no_alarm(market: int) -> None:
    start = START if market != 3 else datetime(2022, 1, 1, tzinfo=UTC)
    rows = slice_of("bars_1m", sandbox_bars(market, start, 40))
    assert not any(bar_checks(rows, "repeated").values())
    # Equal trades in neighbouring bars of a thin market are rare, but real.
    repeats = run("repeated", rows)
    assert repeats.height <= 1
    assert repeats["severity"].to_list() in ([], ["warning"])


@pytest.mark.parametrize(("market", "others"), [(0, [6]), (6, [0]), (7, [1])])
def test_clean_bars_beside_their_trades_and_another_venue_raise_no_alarm(
    market: int, others: list[int]
) -> None:
    rows = slice_of(
        "bars_1m",
        sandbox_bars(market, START, 20),
        trades=reference_of("trades", sandbox_trades(market, START, 20)),
        others=tuple(reference_of("bars_1m", sandbox_bars(n, START, 20)) for n in others),
    )
    assert not any(bar_checks(rows).values())


@needs_recordings
@pytest.mark.parametrize("name", [*REAL, "binanceusdm_XRP-USDT-USDT_mark-8h"])
def test_recorded_bars_raise_no_alarm(name: str) -> None:
    rows = slice_of("bars_8h" if "8h" in name else table(name), real(name))
    assert not any(bar_checks(rows, "repeated").values())


@needs_recordings
def test_recorded_bars_that_repeat_by_chance_are_few_and_never_errors() -> None:
    repeats = [run("repeated", slice_of(table(name), real(name))) for name in REAL]
    assert sum(frame.height for frame in repeats) == 3
    assert all((frame["severity"] == "warning").all() for frame in repeats)
    xrp = slice_of("bars_1m", real("binance_XRP-ETH_1m"), trades=recorded_trades())
    assert run("repeated", xrp).is_empty()


@pytest.mark.parametrize("shape", ["whole", "close", "open"])
@pytest.mark.parametrize("market", [0, 2, 4, 6])
def test_spikes_of_ten_deviations_are_found_in_the_sandbox_without_a_reference(
    random: np.random.Generator, market: int, shape: str
) -> None:
    clean = sandbox_bars(market, START, 30)
    injected = inject(clean, shape, random, count=120)
    findings = run("spikes", slice_of("bars_1m", injected.frame))
    assert hits(injected, findings) >= 0.99 * 120
    assert strays(injected, findings) == 0
    assert findings["reason"].unique().to_list() == ["suspect"]


@pytest.mark.parametrize("shape", SPIKES)
@pytest.mark.parametrize("market", [0, 2, 6])
def test_spikes_of_ten_bare_median_returns_are_contradicted_by_trades(
    random: np.random.Generator, market: int, shape: str
) -> None:
    clean, ticks = sandbox_bars(market, START, 20), sandbox_trades(market, START, 20)
    injected = inject(clean, shape, random, count=60, pure=True)
    rows = slice_of("bars_1m", injected.frame, trades=reference_of("trades", ticks))
    findings = run("spikes", rows)
    assert hits(injected, findings) >= 0.99 * 60
    assert strays(injected, findings) == 0
    assert findings["reason"].unique().to_list() == ["contradicted"]
    assert findings["against"].unique().to_list() == ["trades"]


@pytest.mark.parametrize("shape", ["whole", "close", "open"])
def test_spikes_of_ten_deviations_are_contradicted_by_another_venue(
    random: np.random.Generator, shape: str
) -> None:
    injected = inject(sandbox_bars(0, START, 20), shape, random, count=60)
    other = reference_of("bars_1m", sandbox_bars(4, START, 20))
    findings = run("spikes", slice_of("bars_1m", injected.frame, others=(other,)))
    assert hits(injected, findings) >= 0.99 * 60
    assert strays(injected, findings) == 0
    assert findings["reason"].unique().to_list() == ["contradicted"]


@needs_recordings
@pytest.mark.parametrize("shape", ["whole", "close", "open"])
@pytest.mark.parametrize(("size", "witness"), [(50.0, False), (10.0, True)])
def test_spikes_are_found_in_recorded_bars(
    random: np.random.Generator, shape: str, size: float, witness: bool
) -> None:
    """Spikes of ten deviations with a witness; alone, those that are no wicks of the market."""
    defects = detected = wrong = misplaced = 0
    for name in REAL:
        clean = real(name)
        other = reference_of(table(name), clean, market=Market("kraken", "BTC/USD"))
        injected = inject(clean, shape, random, count=clean.height // 120, size=size)
        rows = slice_of(table(name), injected.frame, others=(other,) if witness else ())
        findings = run("spikes", rows)
        defects += len(injected.truth)
        detected += hits(injected, findings)
        wrong += strays(injected, findings, beside=True)
        misplaced += strays(injected, findings)
    assert defects > 600
    assert detected >= 0.99 * defects
    assert wrong == 0
    # Of a jump between two bars either may be the wrong one, if one moves by as much itself.
    assert misplaced <= 0.005 * defects


@needs_recordings
@pytest.mark.parametrize("shape", SPIKES)
def test_spikes_in_recorded_bars_are_contradicted_by_their_trades(
    random: np.random.Generator, shape: str
) -> None:
    injected = inject(real("binance_XRP-ETH_1m"), shape, random, count=40, pure=True)
    findings = run("spikes", slice_of("bars_1m", injected.frame, trades=recorded_trades()))
    assert hits(injected, findings) >= 0.99 * 40
    assert strays(injected, findings) == 0
    assert findings["reason"].unique().to_list() == ["contradicted"]


def recorded_trades() -> Any:
    ticks = pl.read_parquet(DATA / "trades" / "binance_XRP-ETH.parquet")
    return reference_of("trades", ticks.rename({"id": "trade_id"}).drop("cost"))


STRUCTURAL = (
    ("ohlc", "broken_rules", 1, 10.0, 100),
    ("price_factor", "scale", 1, 100.0, 20),
    ("price_factor", "scale", 50, 0.01, 20),
    ("frozen", "stale", 45, 0.0, 20),
    ("zero_volume", "zero_volume", 90, 0.0, 20),
)


@pytest.mark.parametrize(("kind", "check", "rows", "size", "count"), STRUCTURAL)
def test_structural_defects_of_the_sandbox_are_all_found(
    random: np.random.Generator, kind: str, check: str, rows: int, size: float, count: int
) -> None:
    clean = sandbox_bars(0, START, 20)
    injected = inject(clean, kind, random, count=count, rows=rows, size=size)
    findings = run(check, slice_of("bars_1m", injected.frame))
    assert hits(injected, findings) == count
    assert strays(injected, findings) == 0


@needs_recordings
@pytest.mark.parametrize(("kind", "check", "rows", "size", "count"), STRUCTURAL)
@pytest.mark.parametrize("name", REAL)
def test_structural_defects_of_recorded_bars_are_all_found(
    random: np.random.Generator,
    name: str,
    kind: str,
    check: str,
    rows: int,
    size: float,
    count: int,
) -> None:
    injected = inject(real(name), kind, random, count=count // 10, rows=rows, size=size)
    findings = run(check, slice_of(table(name), injected.frame))
    assert hits(injected, findings) == count // 10
    assert strays(injected, findings) == 0


def test_days_that_are_stitched_together_wrongly_are_found(random: np.random.Generator) -> None:
    injected = inject(sandbox_bars(0, START, 40), "day_jump", random, count=10, size=15.0)
    findings = run("jumps", slice_of("bars_1m", injected.frame))
    assert hits(injected, findings) == 10
    assert strays(injected, findings) == 0


@pytest.mark.parametrize("market", [0, 2])
def test_bars_that_differ_from_their_trades_are_all_found(
    random: np.random.Generator, market: int
) -> None:
    clean, ticks = sandbox_bars(market, START, 10), sandbox_trades(market, START, 10)
    injected = inject(clean, "level_mismatch", random, count=80)
    rows = slice_of("bars_1m", injected.frame, trades=reference_of("trades", ticks))
    findings = run("reconciliation", rows)
    assert hits(injected, findings) == 80
    assert strays(injected, findings) == 0


def test_bars_that_differ_from_finer_bars_are_all_found(random: np.random.Generator) -> None:
    injected = inject(sandbox_bars(0, START, 20, "1h"), "level_mismatch", random, count=20)
    fine = reference_of("bars_1m", sandbox_bars(0, START, 20))
    findings = run("reconciliation", slice_of("bars_1h", injected.frame, finer=(fine,)))
    assert hits(injected, findings) == 20
    assert strays(injected, findings) == 0


@needs_recordings
def test_recorded_bars_that_differ_from_their_trades_are_all_found(
    random: np.random.Generator,
) -> None:
    injected = inject(real("binance_XRP-ETH_1m"), "level_mismatch", random, count=60)
    rows = slice_of("bars_1m", injected.frame, trades=recorded_trades())
    findings = run("reconciliation", rows)
    assert hits(injected, findings) == 60
    assert strays(injected, findings) == 0


TRADE_KINDS = (
    ("id_skip", "ids_skip", 5, 0.0),
    ("id_conflict", "conflicting_ids", 1, 0.0),
    ("trade_spike", "trade_spikes", 1, 10.0),
)


@pytest.mark.parametrize(("kind", "check", "rows", "size"), TRADE_KINDS)
def test_defects_of_trades_are_all_found(
    random: np.random.Generator, kind: str, check: str, rows: int, size: float
) -> None:
    injected = inject(sandbox_trades(0, START, 20), kind, random, count=50, rows=rows, size=size)
    findings = run(check, slice_of("trades", injected.frame))
    assert findings.height == 50
    if kind == "id_skip":
        assert findings["rows"].to_list() == [5] * 50
        assert hits(injected, findings) == 50


def test_clean_trades_raise_no_alarm() -> None:
    for market in range(8):
        rows = slice_of("trades", sandbox_trades(market, datetime(2022, 1, 1, tzinfo=UTC), 20))
        assert [run(name, rows).height for name in TRADE_CHECKS] == [0] * len(TRADE_CHECKS)


def test_every_check_of_this_file_is_declared_with_its_thresholds() -> None:
    declared = {c.name for name in ("bars_1m", "trades") for c in builtin().dataset(name).checks}
    assert set(CHECKS) <= declared
