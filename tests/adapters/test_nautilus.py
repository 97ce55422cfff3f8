"""Objects and catalogs of NautilusTrader, checked by Nautilus."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.adapters.nautilus import bars, instrument, trade_ticks, write_catalog
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import StorageError, UnknownNameError, UsageError
from tests.adapters.conftest import BTC, ETH, SWAP, expected_bars, specification, varied_bars
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, NewLake, trades, write
from tests.conftest import bars as bar_rows

reason = "needs the extra: pip install 'marketlake[nautilus]'"
pytest.importorskip("nautilus_trader", reason=reason)
instruments = pytest.importorskip("nautilus_trader.model.instruments", reason=reason)
enums = pytest.importorskip("nautilus_trader.model.enums", reason=reason)

SPOT: dict[str, Any] = {"exchange": "binance", "symbol": BTC}
EPOCH = datetime(1970, 1, 1, tzinfo=T0.tzinfo)


def to_nanoseconds(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1) * 1000


def pin(lake: Lake, *tables: str) -> Bundle:
    return lake.bundles.pin("b", table=tables)


def test_a_spot_market_is_a_currency_pair(bundle: Bundle) -> None:
    market = instrument(bundle, "binance", BTC)
    assert isinstance(market, instruments.CurrencyPair)
    assert str(market.id) == "BTCUSDT.BINANCE"
    assert (market.price_precision, market.size_precision) == (2, 5)
    assert (str(market.price_increment), str(market.size_increment)) == ("0.01", "0.00001")
    assert (market.maker_fee, market.taker_fee) == (Decimal("0.001"), Decimal("0.002"))
    assert market.ts_init == to_nanoseconds(T0)


def test_a_swap_is_a_perpetual_of_another_name(bundle: Bundle) -> None:
    market = instrument(bundle, "binance", SWAP)
    assert isinstance(market, instruments.CryptoPerpetual)
    assert str(market.id) == "BTCUSDT-PERP.BINANCE"
    assert str(market.raw_symbol) == "BTCUSDT"
    assert (str(market.settlement_currency), market.is_inverse) == ("USDT", False)


def test_an_inverse_swap_keeps_its_contract_size(lake: Lake) -> None:
    symbol = "BTC/USD:BTC"
    changes = {"quote": "USD", "settle": "BTC", "linear": False, "contract_size": 100.0}
    whole = {"tick_size": 0.5, "lot_size": 10.0}
    write(lake, "instruments", specification(symbol, **changes, **whole))
    write(lake, "bars_1m", bar_rows(1, symbol=symbol))
    market = instrument(pin(lake, "bars_1m"), "binance", symbol)
    assert market.is_inverse
    assert (str(market.multiplier), market.settlement_currency.code) == ("100", "BTC")
    assert (str(market.price_increment), str(market.size_increment)) == ("0.5", "10")


def test_bars_are_known_at_their_end(bundle: Bundle) -> None:
    given_bars, expected = bars(bundle, "bars_1m", **SPOT), expected_bars(bundle)
    ends = [to_nanoseconds(time + MINUTE) for time in expected["timestamp"]]
    assert [bar.ts_event for bar in given_bars] == ends
    assert [bar.ts_init for bar in given_bars] == ends
    assert str(given_bars[0].bar_type) == "BTCUSDT.BINANCE-1-MINUTE-LAST-EXTERNAL"


def test_prices_and_volumes_are_exact(bundle: Bundle) -> None:
    results = [
        tuple(str(getattr(bar, name)) for name in ("open", "high", "low", "close", "volume"))
        for bar in bars(bundle, "bars_1m", **SPOT)
    ]
    columns = expected_bars(bundle).select("open", "high", "low", "close", "volume")
    assert results == [
        (*(f"{price:.2f}" for price in row[:4]), f"{row[4]:.5f}") for row in columns.iter_rows()
    ]


@pytest.mark.parametrize(
    ("table", "end", "name"),
    [
        ("bars_1s", T0 + timedelta(seconds=1), "1-SECOND"),
        ("bars_4h", T0 + timedelta(hours=4), "4-HOUR"),
        ("bars_1d", T0 + DAY, "1-DAY"),
        ("bars_1w", T0 + 7 * DAY, "1-WEEK"),
        ("bars_1mo", T0.replace(month=2), "1-MONTH"),
    ],
)
def test_every_timeframe_ends_where_it_ends(
    lake: Lake, table: str, end: datetime, name: str
) -> None:
    write(lake, "instruments", specification())
    write(lake, table, bar_rows(1))
    (bar,) = bars(pin(lake, table), table, **SPOT)
    assert bar.ts_init == to_nanoseconds(end)
    assert f"-{name}-LAST-EXTERNAL" in str(bar.bar_type)


def test_trades_have_side_id_and_both_times(bundle: Bundle) -> None:
    ticks = trade_ticks(bundle, **SPOT)
    rows = bundle.scan("trades", symbol=BTC).collect()
    by_id = {str(tick.trade_id): tick for tick in ticks}
    side = enums.AggressorSide
    sides = {"buy": side.BUYER, "sell": side.SELLER, None: side.NO_AGGRESSOR}
    for row in rows.iter_rows(named=True):
        tick = by_id[row["trade_id"]]
        assert tick.aggressor_side == sides[row["side"]]
        assert (float(tick.price), float(tick.size)) == (row["price"], row["amount"])
        assert tick.ts_event == to_nanoseconds(row["timestamp"])
        assert tick.ts_init == to_nanoseconds(row["received_at"] or row["timestamp"])


def test_trades_are_in_the_order_in_which_they_were_known(bundle: Bundle) -> None:
    ticks = trade_ticks(bundle, **SPOT)
    assert [tick.ts_init for tick in ticks] == sorted(tick.ts_init for tick in ticks)
    assert [str(tick.trade_id) for tick in ticks[:3]] == ["0", "1", "3"]


def test_a_slow_local_clock_does_not_make_trades_known_before_they_happened(lake: Lake) -> None:
    write(lake, "instruments", specification())
    early = pl.Series([T0 - MINUTE], dtype=TIME)
    write(lake, "trades", trades(1, received_at=early))
    (tick,) = trade_ticks(pin(lake, "trades"), **SPOT)
    assert tick.ts_init == tick.ts_event == to_nanoseconds(T0)


def test_a_bar_that_was_received_late_is_known_then(lake: Lake) -> None:
    write(lake, "instruments", specification())
    late = [T0 + 2 * MINUTE, None, T0 + 150 * SECOND]
    write(lake, "bars_1m", varied_bars(BTC, 3, received_at=pl.Series(late, dtype=TIME)))
    late_bars = bars(lake.bundles.pin("late", table="bars_1m", check=False), "bars_1m", **SPOT)
    minutes = [to_nanoseconds(T0 + n * MINUTE) for n in range(4)]
    assert [(bar.ts_event, bar.ts_init) for bar in late_bars] == [
        (minutes[1], minutes[2]),
        (minutes[2], minutes[2]),
        (minutes[3], minutes[3]),
    ]


def test_long_ids_are_replaced_by_different_ones(lake: Lake) -> None:
    write(lake, "instruments", specification())
    ids = [f"{'1' * 40}:{n}" for n in range(3)]
    write(lake, "trades", trades(3, trade_id=ids))
    results = {str(tick.trade_id) for tick in trade_ticks(pin(lake, "trades"), **SPOT)}
    assert len(results) == 3


@pytest.mark.parametrize(
    ("table", "frame", "words"),
    [
        ("bars_1m", bar_rows(1, low=[99.999]), r"low 99\.999 at 2024-01-01T00:00:00Z .* 2 dec"),
        ("bars_1m", bar_rows(1, volume=[1e-6]), r"volume 1e-06 .* 5 decimal places"),
        ("bars_1m", bar_rows(1, volume=[1e14]), r"volume 1000000+\.0 .* Nautilus is 3\.4"),
        ("trades", trades(1, amount=[0.000004]), r"amount 4e-06"),
    ],
)
def test_values_that_nautilus_would_change_are_refused(
    lake: Lake, table: str, frame: pl.DataFrame, words: str
) -> None:
    write(lake, "instruments", specification())
    write(lake, table, frame)
    bundle = pin(lake, table)
    with pytest.raises(UsageError, match=words):
        trade_ticks(bundle, **SPOT) if table == "trades" else bars(bundle, table, **SPOT)


def test_a_finer_precision_takes_finer_values(lake: Lake) -> None:
    write(lake, "instruments", specification())
    write(lake, "bars_1m", bar_rows(1, low=[99.999], volume=[1e-6]))
    bundle = pin(lake, "bars_1m")
    finer = instrument(bundle, "binance", BTC, price_precision=3, size_precision=6)
    (bar,) = bars(bundle, "bars_1m", **SPOT, specification=finer)
    assert (str(bar.low), str(bar.volume)) == ("99.999", "0.000001")
    assert str(finer.price_increment) == "0.010"


def test_the_noise_of_a_sum_of_decimals_is_no_finer_value(lake: Lake) -> None:
    write(lake, "instruments", specification())
    total = sum([0.1] * 1003)
    assert total != 100.3
    write(lake, "bars_1m", bar_rows(1, volume=[total]))
    (bar,) = bars(pin(lake, "bars_1m"), "bars_1m", **SPOT)
    assert str(bar.volume) == "100.30000"


@settings(max_examples=10)
@given(st.lists(st.integers(1, 10**14), min_size=1, max_size=200))
def test_any_decimal_of_the_precision_comes_through_exactly(
    new_lake: NewLake, units: list[int]
) -> None:
    lake = new_lake()
    exact = [Decimal(one).scaleb(-8) for one in units]
    floats = [float(one) for one in exact]
    prices: dict[str, Any] = dict.fromkeys(("open", "high", "low", "close"), floats)
    write(lake, "instruments", specification(tick_size=1e-8, lot_size=1e-8))
    write(lake, "bars_1m", bar_rows(len(units), **prices, volume=floats))
    results = bars(pin(lake, "bars_1m"), "bars_1m", **SPOT)
    assert [Decimal(str(bar.close)) for bar in results] == exact
    assert [Decimal(str(bar.volume)) for bar in results] == exact


def test_the_catalog_returns_the_written_objects(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    catalog = write_catalog(bundle, path, exchange="binance", symbol=BTC)
    assert catalog.bars() == bars(bundle, "bars_1m", **SPOT)
    assert [tick.to_dict(tick) for tick in catalog.trade_ticks()] == [
        tick.to_dict(tick) for tick in trade_ticks(bundle, **SPOT)
    ]
    (market,) = catalog.instruments()
    assert market.to_dict(market) == market.to_dict(instrument(bundle, "binance", BTC))
    assert [one.name for one in tmp_path.iterdir()] == ["catalog"]


def test_markets_of_one_venue_name_stay_apart(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    catalog = write_catalog(bundle, path, exchange="binance", symbol=[BTC, SWAP], tables="bars_1m")
    perpetual = "BTCUSDT-PERP.BINANCE-1-MINUTE-LAST-EXTERNAL"
    expected = bars(bundle, "bars_1m", exchange="binance", symbol=SWAP)
    assert catalog.bars(bar_types=[perpetual]) == expected
    assert len(catalog.bars()) == 2 * len(expected)


def test_a_catalog_is_written_completely_or_not_at_all(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    with pytest.raises(UnknownNameError, match=r"trades: no rows of .* ETH/USDT"):
        write_catalog(bundle, path, exchange="binance", symbol=[BTC, ETH])
    assert list(tmp_path.iterdir()) == []
    write_catalog(bundle, path, exchange="binance", symbol=ETH, tables="bars_1m")
    with pytest.raises(UsageError, match="already exists"):
        write_catalog(bundle, path, exchange="binance", symbol=BTC)
    with pytest.raises(StorageError, match="cannot be written"):
        write_catalog(bundle, tmp_path / "file" / "x", **file_in_the_way(tmp_path))


def file_in_the_way(folder: Path) -> dict[str, Any]:
    (folder / "file").write_text("")
    return {"exchange": "binance", "symbol": BTC, "tables": "bars_1m"}


def test_the_engine_shows_a_strategy_each_bar_at_its_end(bundle: Bundle) -> None:
    from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
    from nautilus_trader.config import LoggingConfig
    from nautilus_trader.model.currencies import USDT
    from nautilus_trader.model.identifiers import Venue
    from nautilus_trader.model.objects import Money
    from nautilus_trader.trading.strategy import Strategy

    seen: list[tuple[int, str]] = []
    data = bars(bundle, "bars_1m", **SPOT)

    class Watch(Strategy):  # type: ignore[misc]
        def on_start(self) -> None:
            self.subscribe_bars(data[0].bar_type)

        def on_bar(self, bar: Any) -> None:
            seen.append((self.clock.timestamp_ns(), str(bar.close)))

    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(
        venue=Venue("BINANCE"),
        oms_type=enums.OmsType.NETTING,
        account_type=enums.AccountType.CASH,
        starting_balances=[Money(1_000_000, USDT)],
    )
    engine.add_instrument(instrument(bundle, "binance", BTC))
    engine.add_data(data)
    engine.add_strategy(Watch())
    engine.run()
    engine.dispose()
    rows = expected_bars(bundle)
    ends = [to_nanoseconds(time + MINUTE) for time in rows["timestamp"]]
    assert seen == list(zip(ends, [f"{close:.2f}" for close in rows["close"]], strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tick_size": None}, "has no tick_size for binance BTC/USDT"),
        ({"lot_size": 1e-17}, "17 decimal places do not fit"),
        ({"type": "future"}, "is a future"),
    ],
)
def test_a_specification_that_does_not_do_is_refused(lake: Lake, changes: Any, words: str) -> None:
    write(lake, "instruments", specification(**changes))
    write(lake, "bars_1m", varied_bars(BTC))
    with pytest.raises(UsageError, match=words):
        instrument(pin(lake, "bars_1m"), "binance", BTC)


def test_a_precision_coarser_than_the_tick_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="1 decimal places do not fit"):
        instrument(bundle, "binance", BTC, price_precision=1)


def test_a_market_without_specification_or_rows_is_an_error(lake: Lake, bundle: Bundle) -> None:
    write(lake, "bars_1m", varied_bars(BTC))
    with pytest.raises(UnknownNameError, match="no specification of binance BTC/USDT"):
        bars(pin(lake, "bars_1m"), "bars_1m", **SPOT)
    with pytest.raises(UnknownNameError, match="bars_5m"):
        bars(bundle, "bars_5m", **SPOT)
    with pytest.raises(UsageError, match="trades holds no bars"):
        bars(bundle, "trades", **SPOT)
    with pytest.raises(UnknownNameError, match="trades"):
        trade_ticks(pin(lake, "bars_1m"), **SPOT, specification=instrument(bundle, **SPOT))
