"""The functions that all adapters share, without their packages."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from lake.adapters.rows import (
    add_known_times,
    find_bar_timeframe,
    list_receipt_columns,
    read_closed_bars,
    read_rows,
    require_package,
)
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import UnknownNameError, UsageError
from lake.model.selection import Selection
from tests.adapters.conftest import BARS, BTC, ETH, MISSING, SWAP
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, bars, write


def of(*symbols: str, since: datetime | None = None) -> Selection:
    return Selection(("binance",), symbols, since)


def read(bundle: Bundle, table: str, selection: Selection) -> pl.DataFrame:
    if table == "trades":
        return read_rows(bundle, table, ["price"], selection)
    return read_closed_bars(bundle, table, ["close"], selection)


def test_only_closed_bars_are_read(filled: Lake) -> None:
    # A pin omits open bars: the lake itself stands for a bundle that has one.
    opened: Any = SimpleNamespace(scan=filled.scan, id="0" * 64)
    assert opened.scan("bars_1m", symbol=ETH).collect()["closed"].to_list()[-1] is False
    rows = read_closed_bars(opened, "bars_1m", ["close"], of(ETH))
    assert rows.height == BARS - 1
    assert rows["timestamp"].max() == T0 + (BARS - 1) * MINUTE


def test_a_bar_that_is_missing_stays_missing(bundle: Bundle) -> None:
    times = read_closed_bars(bundle, "bars_1m", ["close"], of(BTC))["timestamp"].to_list()
    assert times == [T0 + n * MINUTE for n in range(BARS) if n != MISSING]


@pytest.mark.parametrize(
    ("table", "selection", "words"),
    [
        ("bars_5m", of(BTC), "bars_5m"),
        ("bars_1m", of("XRP/USDT"), "XRP/USDT"),
        ("bars_1m", of(BTC, "XRP/USDT"), "binance XRP/USDT"),
        ("bars_1m", Selection(("kraken",), (BTC,)), "kraken"),
        ("bars_1m", of(BTC, since=T0 + DAY), "range"),
        ("trades", of(BTC, since=T0 + DAY), "BTC/USDT from 2024-01-02T00:00:00Z to any time"),
        ("bars_1m", Selection(("kraken",)), "kraken"),
        ("trades", of(ETH), "ETH/USDT"),
    ],
)
def test_an_error_names_what_the_bundle_lacks(
    bundle: Bundle, table: str, selection: Selection, words: str
) -> None:
    with pytest.raises(UnknownNameError, match=words):
        read(bundle, table, selection)


def test_a_table_without_bars_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="table trades holds no bars"):
        read_closed_bars(bundle, "trades", ["price"], of(BTC))


def test_timeframes_come_from_the_name_of_the_table(lake: Lake) -> None:
    write(lake, "bars_1mo", bars(1, symbol=SWAP))
    assert find_bar_timeframe(lake.bundles.pin("b", table="bars_1mo"), "bars_1mo").unit == "M"


def test_a_package_that_is_absent_is_named_with_its_extra() -> None:
    with pytest.raises(UsageError, match="no_such_package is not installed") as caught:
        require_package("no_such_package.deep", "vectorbt")
    assert "pip install 'marketlake[vectorbt]'" in caught.value.hint


def test_rows_are_known_when_they_were_received_if_that_is_later(lake: Lake) -> None:
    dataset = lake.dataset("bars_1m")
    late = [T0 + 4 * MINUTE, None, T0 + 10 * SECOND]
    write(lake, "bars_1m", bars(3, received_at=pl.Series(late, dtype=TIME)))
    assert list_receipt_columns(dataset) == ["received_at"]
    rows = add_known_times(dataset, lake.scan("bars_1m").collect())
    minutes = [(row["happened_at"], row["available_at"]) for row in rows.iter_rows(named=True)]
    assert minutes == [
        (T0 + 2 * MINUTE, T0 + 2 * MINUTE),
        (T0 + 3 * MINUTE, T0 + 3 * MINUTE),
        (T0 + MINUTE, T0 + 4 * MINUTE),
    ]


def test_rows_of_a_bundle_of_before_are_known_at_their_time(lake_before: Lake) -> None:
    bundle = lake_before.bundles.open("before")
    dataset = bundle.dataset("bars_1h")
    assert list_receipt_columns(dataset) == []
    rows = add_known_times(dataset, bundle.scan("bars_1h").collect())
    assert rows["happened_at"].equals(rows["available_at"])
