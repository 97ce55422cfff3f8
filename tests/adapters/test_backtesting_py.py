"""Frames for backtesting.py, checked by backtesting.py."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from lake.adapters.backtesting_py import ohlcv
from lake.bundles.bundle import Bundle
from lake.errors import UnknownNameError, UsageError
from tests.adapters.conftest import BARS, BTC, MISSING, expected_bars
from tests.conftest import MINUTE, T0

reason = "needs the extra: pip install 'marketlake[backtesting]'"
pandas = pytest.importorskip("pandas", reason=reason)
backtesting = pytest.importorskip("backtesting", reason=reason)


def frame_of(bundle: Bundle, **more: Any) -> Any:
    return ohlcv(bundle, "bars_1m", **{"exchange": "binance", "symbol": BTC} | more)


def test_values_and_times_are_those_of_the_bundle(bundle: Bundle) -> None:
    frame, expected = frame_of(bundle), expected_bars(bundle)
    assert list(frame.columns) == ["Open", "High", "Low", "Close", "Volume"]
    for name in frame.columns:
        assert frame[name].to_list() == expected[name.lower()].to_list()
        assert frame[name].dtype == "float64"
    assert frame.index.dtype == "datetime64[ns]"
    times = [time.replace(tzinfo=None) for time in expected["timestamp"]]
    assert [time.to_pydatetime() for time in frame.index] == times


def test_a_gap_stays_a_gap(bundle: Bundle) -> None:
    index = frame_of(bundle).index
    assert len(index) == BARS - 1
    assert pandas.Timestamp("2024-01-01 00:07") not in index
    assert MISSING == 7


def test_a_range_is_half_open(bundle: Bundle) -> None:
    frame = frame_of(bundle, since=T0 + MINUTE, until=T0 + 3 * MINUTE)
    assert [time.minute for time in frame.index] == [1, 2]
    text = frame_of(bundle, since="2024-01-01T00:01Z", until="2024-01-01T00:03Z")
    assert text.index.equals(frame.index)


def test_backtesting_fills_at_the_open_of_the_bar_after_the_signal(bundle: Bundle) -> None:
    class BuyOnce(backtesting.Strategy):  # type: ignore[misc, name-defined]
        def init(self) -> None:
            pass

        def next(self) -> None:
            if len(self.data) == 3:
                self.buy(size=1)

    test = backtesting.Backtest(frame_of(bundle), BuyOnce, cash=1e6, finalize_trades=True)
    trade = test.run()["_trades"].iloc[0]
    third = expected_bars(bundle).row(3, named=True)
    assert trade["EntryPrice"] == third["open"]
    assert trade["EntryTime"].to_pydatetime() == third["timestamp"].replace(tzinfo=None)


def test_backtesting_takes_the_frame_as_it_is(bundle: Bundle, recwarn: Any) -> None:
    backtesting.Backtest(frame_of(bundle), backtesting.Strategy)
    assert [str(one.message) for one in recwarn if "index" in str(one.message).lower()] == []


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"symbol": "XRP/USDT"}, UnknownNameError),
        ({"since": datetime(2030, 1, 1, tzinfo=T0.tzinfo)}, UnknownNameError),
        ({"since": datetime(2030, 1, 1)}, UsageError),  # noqa: DTZ001 - what is refused
    ],
)
def test_an_empty_selection_is_an_error(
    bundle: Bundle, arguments: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        frame_of(bundle, **arguments)


def test_the_caller_may_change_the_frame(bundle: Bundle) -> None:
    frame = frame_of(bundle)
    frame.loc[frame.index[0], "Close"] = 1.0
    assert frame_of(bundle)["Close"].iloc[0] != 1.0
