"""No adapter gives rows up to a time that depend on what became known later.

Formats that show each bar at its end lack bars received later; the others say when a row is known.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lake.adapters import backtesting_py, freqtrade, nautilus, vectorbt
from lake.api import Lake
from lake.bundles.bundle import Bundle
from tests.conftest import MINUTE, T0, NewLake
from tests.lookahead.pairs import SPOT, Pair, find_differences, make_pair

SEED = int(os.environ.get("TRIAL_SEED", "20260101"))
TABLES = ("bars_1m", "trades")
MARKET: dict[str, Any] = {"exchange": "binance", "symbol": SPOT}
NONE = timedelta(0)


@pytest.fixture(scope="module", params=range(3))
def pair(request: pytest.FixtureRequest, new_lake: NewLake) -> Pair:
    pair = make_pair(SEED + request.param, new_lake, TABLES)
    for lake in pair.lakes:
        lake.bundles.pin("b", table=TABLES, check=False)
    return pair


def bundle_of(lake: Lake) -> Bundle:
    return lake.bundles.open("b")


@pytest.mark.parametrize("delay", [NONE, None])
def test_freqtrade(pair: Pair, tmp_path: Path, delay: timedelta | None) -> None:
    known = MINUTE + (MINUTE if delay is None else delay)

    def read(lake: Lake, time: datetime) -> dict[str, Any]:
        folder = tmp_path / str(pair.lakes.index(lake))
        [path] = freqtrade.write(bundle_of(lake), folder, "bars_1m", **MARKET, max_delay=delay)
        rows = pl.read_ipc(path)
        assert rows.height > 20
        return {"bars": rows.filter(pl.col("date") + known <= time)}

    assert find_differences(pair, read) == [], f"seed {pair.seed}"


def test_bars_that_came_late_are_in_the_frames_of_nautilus_only(pair: Pair, tmp_path: Path) -> None:
    bundle = bundle_of(pair.lakes[0])
    counts = []
    for delay in (NONE, None, 99 * 1440 * MINUTE):
        [path] = freqtrade.write(bundle, tmp_path, "bars_1m", **MARKET, max_delay=delay)
        counts.append(pl.read_ipc(path).height)
    assert counts[0] < counts[1] < counts[2]
    assert counts[2] == bundle.scan("bars_1m", **MARKET).collect().height


def test_vectorbt(pair: Pair) -> None:
    pytest.importorskip("pandas", reason="needs the extra: pip install 'marketlake[vectorbt]'")

    def read(lake: Lake, time: datetime) -> dict[str, Any]:
        frames = vectorbt.ohlcv(bundle_of(lake), "bars_1m", exchange="binance", max_delay=NONE)
        return {name: show(frame[frame.index + MINUTE <= time]) for name, frame in frames.items()}

    assert find_differences(pair, read) == [], f"seed {pair.seed}"


def test_backtesting_py(pair: Pair) -> None:
    pytest.importorskip("pandas", reason="needs the extra: pip install 'marketlake[backtesting]'")

    def read(lake: Lake, time: datetime) -> dict[str, Any]:
        frame = backtesting_py.ohlcv(bundle_of(lake), "bars_1m", **MARKET, max_delay=NONE)
        return {"bars": show(frame[frame.index + MINUTE <= time.replace(tzinfo=None)])}

    assert find_differences(pair, read) == [], f"seed {pair.seed}"


def test_nautilus(pair: Pair, tmp_path: Path) -> None:
    reason = "needs the extra: pip install 'marketlake[nautilus]'"
    pytest.importorskip("nautilus_trader", reason=reason)

    def read(lake: Lake, time: datetime) -> dict[str, Any]:
        bundle, end = bundle_of(lake), (time - T0) // timedelta(microseconds=1) * 1000
        end += int(T0.timestamp()) * 1_000_000_000
        folder = tmp_path / str(pair.lakes.index(lake))
        catalog = nautilus.write_catalog(bundle, folder, **MARKET)
        parts = {
            "bars": nautilus.bars(bundle, "bars_1m", **MARKET),
            "ticks": nautilus.trade_ticks(bundle, **MARKET),
            "catalog bars": catalog.bars(),
            "catalog ticks": catalog.trade_ticks(),
        }
        assert all(len(part) > 20 for part in parts.values())
        return {
            name: [str(item) + str(item.ts_init) for item in part if item.ts_init <= end]
            for name, part in parts.items()
        }

    assert find_differences(pair, read) == [], f"seed {pair.seed}"


def show(frame: Any) -> str:
    """Return a frame of pandas as text: every value, missing ones too."""
    return str(frame.to_csv())
