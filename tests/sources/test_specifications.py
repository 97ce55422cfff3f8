"""Steps of instruments, depths of order books, closest names."""

from datetime import UTC, datetime
from typing import Any

import pytest
from ccxt.base.decimal_to_precision import DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE
from hypothesis import given
from hypothesis import strategies as st

from lake.model.timeframe import Timeframe
from lake.sources.books import ALLOWED_DEPTHS, build_book_row, choose_depth
from lake.sources.ccxt_rest import nearest_timeframes
from lake.sources.instruments import build_instrument_row, to_step_size
from lake.sources.names import find_closest, simplify

NOW = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("precision", "mode", "step"),
    [
        (0.01, TICK_SIZE, 0.01),
        (5, TICK_SIZE, 5.0),
        (8, DECIMAL_PLACES, 1e-08),
        (0, DECIMAL_PLACES, 1.0),
        (-2, DECIMAL_PLACES, 100.0),
        (5, SIGNIFICANT_DIGITS, None),
        (None, TICK_SIZE, None),
        (None, DECIMAL_PLACES, None),
    ],
)
def test_a_precision_is_a_step_in_every_mode(
    precision: float | None, mode: int, step: float | None
) -> None:
    assert to_step_size(precision, mode) == step


def test_an_instrument_with_few_values() -> None:
    market = {"id": 17, "type": "spot", "base": "A", "quote": "B", "precision": None}
    row = build_instrument_row(market, TICK_SIZE).row(0, named=True)
    assert row["venue_symbol"] == "17"
    assert {row[name] for name in ("settle", "active", "tick_size", "min_cost", "expiry")} == {None}


@given(st.sampled_from(sorted(ALLOWED_DEPTHS)), st.integers(1, 6000))
def test_the_smallest_sufficient_depth_is_requested(exchange_id: str, depth: int) -> None:
    chosen_depth, allowed = choose_depth(exchange_id, depth), ALLOWED_DEPTHS[exchange_id]
    enough = [most for most in allowed if most >= depth]
    assert chosen_depth == (min(enough) if enough else max(allowed))


def test_a_venue_that_accepts_any_depth_gets_the_exact_one() -> None:
    assert choose_depth("kraken", 17) == 17
    assert choose_depth("binance", None) is None


def test_a_book_is_cut_to_the_depth() -> None:
    book = {"bids": [[2.0, 1.0, 9], [1.0, 3.0]], "asks": [[3.0, 4.0]], "timestamp": 0, "nonce": 7}
    row = build_book_row(book, 1, NOW).row(0, named=True)
    assert (row["bid_prices"], row["bid_amounts"]) == ([2.0], [1.0])
    assert (row["ask_prices"], row["ask_amounts"]) == ([3.0], [4.0])
    assert (row["timestamp"], row["sequence"]) == (datetime(1970, 1, 1, tzinfo=UTC), 7)
    untimed = build_book_row({"bids": [], "asks": []}, None, NOW).row(0, named=True)
    assert (untimed["timestamp"], untimed["sequence"]) == (NOW, -1)


def test_a_level_without_an_amount_is_refused() -> None:
    with pytest.raises(ValueError, match="level"):
        build_book_row({"bids": [[1.0, None]], "asks": []}, None, NOW)


MARKETS = {"BTC/USDT": ("BTCUSDT",), "BTC/USD": ("XXBTZUSD",), "ETH/USDT": ("ETHUSDT",)}


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("BTCUSDT", "BTC/USDT"),
        ("btc_usdt", "BTC/USDT"),
        ("ETH/USTD", "ETH/USDT"),
        ("xxbtzusd", "BTC/USD"),
        ("eth/usdt", "ETH/USDT"),
    ],
)
def test_the_closest_name_is_first(name: str, best: str) -> None:
    assert find_closest(name, MARKETS)[0] == best


def test_far_names_are_not_close() -> None:
    assert find_closest("zzz", MARKETS) == []


@given(st.text(max_size=12))
def test_a_plain_name_stays_plain(name: str) -> None:
    assert simplify(simplify(name)) == simplify(name)


def test_timeframes_are_near_by_length() -> None:
    names: dict[str, Any] = dict.fromkeys(("1m", "5m", "1h", "1d", "1M", "tick"))
    assert nearest_timeframes(Timeframe(45, "m"), names) == ["1h", "5m", "1d", "1m", "1M"]


@pytest.mark.parametrize("expiry", ["soon", 10**30, -(10**30), float("nan"), float("inf"), [], {}])
def test_a_bad_value_costs_an_instrument_nothing_else(expiry: Any) -> None:
    market = {
        "id": "X",
        "type": "future",
        "expiry": expiry,
        "contractSize": "ten",
        "precision": {"price": "0.5", "amount": "none"},
        "maker": float("inf"),
    }
    frame = build_instrument_row(market, TICK_SIZE)
    row = frame.drop("expiry").row(0, named=True)
    assert (row["tick_size"], row["lot_size"], row["contract_size"]) == (0.5, None, None)
    assert (row["venue_symbol"], row["maker_fee"]) == ("X", None)
    microseconds = frame["expiry"].to_physical().item()
    assert microseconds is None or abs(microseconds) > 9 * 10**18


def test_a_book_without_a_number_has_none_and_one_beyond_all_times_is_refused() -> None:
    book: dict[str, Any] = {"bids": [], "asks": [], "nonce": "none"}
    assert build_book_row(book, None, NOW)["sequence"].item() == -1
    assert build_book_row({**book, "nonce": 2**70}, None, NOW)["sequence"].item() == -1
    with pytest.raises(ValueError, match="of the time"):
        build_book_row({**book, "timestamp": 10**18}, None, NOW)
