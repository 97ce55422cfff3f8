"""Wide frames for vectorbt, checked by vectorbt."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from lake.adapters.vectorbt import ohlcv, prices
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import UnknownNameError, UsageError
from tests.adapters.conftest import BARS, BTC, ETH, MISSING, SWAP, expected_bars
from tests.conftest import DAY, MINUTE, T0, bars, write

reason = "needs the extra: pip install 'marketlake[vectorbt]'"
pytest.importorskip("pandas", reason=reason)
vectorbt = pytest.importorskip("vectorbt", reason=reason)


def frame_of(bundle: Bundle, *column: str, **more: Any) -> Any:
    return prices(bundle, "bars_1m", *column, **{"exchange": "binance"} | more)


def test_values_and_times_are_those_of_the_bundle(bundle: Bundle) -> None:
    frame = frame_of(bundle)
    assert list(frame.columns) == [BTC, SWAP, ETH]
    assert frame.columns.name == "symbol"
    for symbol in frame.columns:
        expected = expected_bars(bundle, symbol)
        present = frame[symbol].dropna()
        assert present.to_list() == expected["close"].to_list()
        assert [one.to_pydatetime() for one in present.index] == expected["timestamp"].to_list()
    assert str(frame.index.dtype) == "datetime64[ns, UTC]"


def test_a_missing_bar_is_nan_and_the_index_is_regular(bundle: Bundle) -> None:
    frame = frame_of(bundle, "volume")
    assert len(frame) == BARS
    assert frame.index.freqstr == "min"
    assert frame.isna().sum().to_list() == [1, 1, 1]
    assert frame[BTC].isna().iloc[MISSING]


def test_symbols_are_in_the_requested_order(bundle: Bundle) -> None:
    assert list(frame_of(bundle, symbol=[ETH, BTC]).columns) == [ETH, BTC]
    assert list(frame_of(bundle, symbol=ETH).columns) == [ETH]


def test_symbols_that_start_later_begin_with_nan(lake: Lake) -> None:
    write(lake, "bars_1d", bars(4, step=DAY, symbol=ETH))
    write(lake, "bars_1d", bars(2, step=DAY, start=T0 + 2 * DAY))
    frame = prices(lake.bundles.pin("b", table="bars_1d"), "bars_1d", exchange="binance")
    assert frame[BTC].isna().to_list() == [True, True, False, False]
    assert frame[ETH].notna().all()
    assert frame.index.freqstr == "D"


def test_months_are_regular_though_they_differ_in_length(lake: Lake) -> None:
    for month in (1, 2, 4):
        write(lake, "bars_1mo", bars(1, start=T0.replace(month=month)))
    frame = prices(lake.bundles.pin("b", table="bars_1mo"), "bars_1mo", exchange="binance")
    assert frame.index.freqstr == "MS"
    assert frame[BTC].isna().to_list() == [False, False, True, False]


def test_weeks_are_regular(lake: Lake) -> None:
    for week in (0, 2):
        write(lake, "bars_1w", bars(1, start=T0 + 7 * week * DAY))
    frame = prices(lake.bundles.pin("b", table="bars_1w"), "bars_1w", exchange="binance")
    assert frame.index.freqstr == "7D"
    assert frame[BTC].isna().to_list() == [False, True, False]


def test_bars_off_the_grid_are_kept_without_a_frequency(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    write(lake, "bars_1m", bars(3, start=T0 + timedelta(seconds=20), symbol=ETH))
    frame = prices(lake.bundles.pin("b", table="bars_1m"), "bars_1m", exchange="binance")
    assert frame.index.freq is None
    assert frame.notna().sum().to_list() == [3, 3]


def test_all_five_columns_share_index_and_symbols(bundle: Bundle) -> None:
    frames = ohlcv(bundle, "bars_1m", exchange="binance", until=T0 + 20 * MINUTE)
    assert list(frames) == ["open", "high", "low", "close", "volume"]
    for name, frame in frames.items():
        assert frame.index.equals(frames["open"].index)
        assert frame.equals(frame_of(bundle, name, until=T0 + 20 * MINUTE))


def test_vectorbt_reads_frequency_and_symbols_off_the_frame(bundle: Bundle) -> None:
    close = frame_of(bundle, symbol=BTC)
    rising = close.rolling(2).mean() > close.rolling(5).mean()
    portfolio = vectorbt.Portfolio.from_signals(close, rising, ~rising, init_cash=1000.0)
    assert str(portfolio.wrapper.freq) == "0 days 00:01:00"
    orders = portfolio.orders.records_readable
    assert len(orders) > 2
    assert set(orders["Price"]) <= set(expected_bars(bundle)["close"])


@pytest.mark.parametrize(
    ("column", "arguments", "kind", "words"),
    [
        ("close", {"symbol": "XRP/USDT"}, UnknownNameError, "XRP/USDT"),
        ("close", {"exchange": "kraken"}, UnknownNameError, "kraken"),
        ("clothes", {}, UnknownNameError, "clothes"),
        ("closed", {}, UsageError, "closed of bars_1m is not numeric"),
        ("timestamp", {}, UsageError, "timestamp of bars_1m is not numeric"),
    ],
)
def test_a_missing_market_or_column_is_an_error(
    bundle: Bundle, column: str, arguments: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        frame_of(bundle, column, **arguments)


def test_counts_become_floats_with_nan(lake: Lake) -> None:
    counts = pl.Series([1, None, 3], dtype=pl.Int64)
    write(lake, "bars_1m", bars(3, trade_count=counts))
    frame = prices(
        lake.bundles.pin("b", table="bars_1m"), "bars_1m", "trade_count", exchange="binance"
    )
    assert frame[BTC].isna().to_list() == [False, True, False]
    assert frame[BTC].iloc[2] == 3.0
