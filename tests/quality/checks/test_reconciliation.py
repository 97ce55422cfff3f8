"""Reconciliation of bars with trades and finer bars, made by hand and recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from lake.model.catalog import builtin
from lake.model.time import TimeRange
from lake.quality.checks.reconciliation import CHECKS
from tests.paths import SHARED
from tests.quality.checks.test_bars import MINUTE, T0, at, put, walk
from tests.quality.checks.test_spikes import fine_trades
from tests.quality.slices import collect_findings, reference_of, slice_of

DATA = SHARED / "cex"
THRESHOLDS = {c.name: c.thresholds for c in builtin().dataset("bars_1m").checks}["reconciliation"]
needs_recordings = pytest.mark.skipif(
    not DATA.is_dir(), reason="the recorded data are not beside the project"
)


def run(frame: pl.DataFrame, table: str = "bars_1m", **references: Any) -> pl.DataFrame:
    rows = slice_of(table, frame, **references)
    return collect_findings(CHECKS["reconciliation"].function(rows, **THRESHOLDS))


def coarser(frame: pl.DataFrame, every: str) -> pl.DataFrame:
    return frame.group_by_dynamic("timestamp", every=every).agg(
        open=pl.col("open").first(),
        high=pl.col("high").max(),
        low=pl.col("low").min(),
        close=pl.col("close").last(),
        volume=pl.col("volume").sum(),
    )


@needs_recordings
def test_all_recorded_bars_agree_with_their_trades_and_changed_ones_do_not() -> None:
    frame = pl.read_parquet(DATA / "bars" / "binance_XRP-ETH_1m.parquet")
    trades = pl.read_parquet(DATA / "trades" / "binance_XRP-ETH.parquet")
    days = TimeRange(datetime(2019, 10, 11, tzinfo=UTC), datetime(2019, 10, 14, tzinfo=UTC))
    below = reference_of("trades", trades.rename({"id": "trade_id"}).drop("cost"), coverage=(days,))
    assert run(frame, trades=below).is_empty()
    for name in ("open", "high", "low", "close", "volume"):
        changed = frame.with_columns(pl.col(name) * (1 + 1e-7))
        findings = run(changed, trades=below)
        assert findings["rows"].sum() == 2469
        assert set(findings["reason"]) == {name}


def test_neighbouring_bars_that_differ_are_one_finding_that_names_the_columns() -> None:
    frame = put(walk(), at(50, 2), high=pl.col("high") + 1)
    frame = put(frame, at(51), volume=pl.lit(3.0))
    findings = run(frame, trades=reference_of("trades", fine_trades(walk())))
    assert findings.select("start", "end", "rows", "reason", "against").rows() == [
        (T0 + 50 * MINUTE, T0 + 52 * MINUTE, 2, "high,volume", "trades")
    ]
    assert findings["measured"][0] == pytest.approx(findings["expected"][0] + 1)


@pytest.mark.parametrize(("every", "table"), [("5m", "bars_5m"), ("1h", "bars_1h")])
def test_coarser_bars_agree_with_finer_ones_and_changed_ones_do_not(every: str, table: str) -> None:
    frame, below = coarser(walk(1440), every), reference_of("bars_1m", walk(1440))
    assert run(frame, table, finer=(below,)).is_empty()
    findings = run(put(frame, at(4), close=pl.col("close") * 1.001), table, finer=(below,))
    assert findings.select("reason", "against").rows() == [("close", "bars_1m")]


def test_a_missing_finer_bar_is_not_reported_for_the_coarser_one() -> None:
    frame, finer = coarser(walk(1440), "1h"), walk(1440).filter(~at(130))
    assert run(frame, "bars_1h", finer=(reference_of("bars_1m", finer),)).is_empty()


def test_a_finer_bar_that_had_no_trade_is_not_missing() -> None:
    """The venue omits such bars, and all time is covered: then no bar is missing."""
    finer = walk(1440).filter(~at(130))
    frame = put(coarser(finer, "1h"), at(2), volume=pl.col("volume") + 1)
    day = TimeRange(T0 - timedelta(days=1), T0 + timedelta(days=2))
    below = reference_of("bars_1m", finer, coverage=(day,))
    more: dict[str, Any] = {"finer": (below,), "omits_empty_bars": True}
    assert run(frame, "bars_1h", **more)["reason"].to_list() == ["volume"]
    assert run(frame, "bars_1h", finer=(below,)).is_empty()


def test_prices_of_bars_without_volume_are_not_compared() -> None:
    """Venues send them flat at the last close, though the hour opened at another price."""
    finer = put(walk(1440), at(120, 3), volume=pl.lit(0.0), open=pl.lit(1.0), low=pl.lit(1.0))
    frame = coarser(finer.filter(pl.col("volume") > 0), "1h")
    assert run(frame, "bars_1h", finer=(reference_of("bars_1m", finer),)).is_empty()


@pytest.mark.parametrize(
    "marks", [{"closed": ~at(3)}, {"fill": pl.when(at(3)).then(pl.lit("interpolated:flat"))}]
)
def test_open_and_filled_bars_are_left_out_above_and_below(marks: dict[str, pl.Expr]) -> None:
    wrong = put(walk(1440), at(3), close=pl.lit(1.0)).with_columns(**marks)
    assert run(wrong, trades=reference_of("trades", fine_trades(walk(1440)))).is_empty()
    frame = coarser(walk(1440), "1h")
    assert run(frame, "bars_1h", finer=(reference_of("bars_1m", wrong),)).is_empty()


def test_bars_in_which_trades_are_missing_are_left_out() -> None:
    trades = fine_trades(walk())
    for lost in (401, 403, 404):  # within a bar, its last, and the first of the next
        below = reference_of("trades", trades.filter(~at(lost)))
        assert run(walk(), trades=below).is_empty()


def test_bars_outside_what_is_known_of_the_trades_are_left_out() -> None:
    trades = fine_trades(walk()).filter(~at(0, 401))
    wrong = walk().with_columns(volume=pl.lit(9.0))
    covered = TimeRange(T0 + 200 * MINUTE, T0 + 300 * MINUTE)
    findings = run(wrong, trades=reference_of("trades", trades, coverage=(covered,)))
    assert findings["rows"].sum() == 100
    # The first one is cut off by the beginning of the trades, the last one may be by their end.
    spanned = run(wrong, trades=reference_of("trades", trades))
    assert spanned["start"][0] == T0 + 101 * MINUTE
    assert spanned["rows"].sum() == 1500 - 102


def test_trades_of_one_time_are_in_the_order_of_their_numbers() -> None:
    """As texts 1000 is before 999, and so it is in the table."""
    seconds = (0, 90, 90, 150, 180)
    trades = pl.DataFrame(
        {
            "timestamp": [T0 + second * MINUTE / 60 for second in seconds],
            "trade_id": ["998", "999", "1000", "1001", "1002"],
            "price": [5.0, 7.0, 8.0, 9.0, 9.0],
        }
    )
    bar = {"timestamp": T0 + MINUTE, "open": 7.0, "high": 8.0, "low": 7.0, "close": 8.0}
    frame = pl.DataFrame([bar | {"volume": 2.0}])
    below = reference_of("trades", trades.with_columns(amount=pl.lit(1.0)))
    assert run(frame, trades=below).is_empty()
    for name, other in (("open", 8.0), ("close", 7.0)):
        changed = frame.with_columns(pl.lit(other).alias(name))
        assert run(changed, trades=below)["reason"].to_list() == [name]


def test_ids_that_do_not_follow_each_other_do_not_make_trades_incomplete() -> None:
    random_ids = fine_trades(walk()).with_columns(
        trade_id=pl.int_range(pl.len()).hash().cast(pl.String)
    )
    wrong = put(walk(), at(9), volume=pl.lit(2.0))
    findings = run(wrong, trades=reference_of("trades", random_ids))
    assert findings["reason"].to_list() == ["volume"]


def test_counts_and_sides_are_compared_where_both_have_them() -> None:
    numbers = pl.int_range(pl.len())
    trades = fine_trades(walk()).with_columns(first_id=numbers, last_id=numbers, side=pl.lit("buy"))
    frame = walk().with_columns(trade_count=pl.lit(4), taker_buy_volume=pl.col("volume"))
    assert run(frame, trades=reference_of("trades", trades)).is_empty()
    frame = put(put(frame, at(7), trade_count=pl.lit(3)), at(8), taker_buy_volume=pl.lit(0.5))
    findings = run(frame, trades=reference_of("trades", trades))
    assert findings["reason"].to_list() == ["trade_count,taker_buy_volume"]


def test_a_bar_without_references_is_not_checked() -> None:
    assert run(walk()).is_empty()
