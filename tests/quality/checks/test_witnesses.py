"""Books and trades are compared with what testifies: trades, books beside them, venues, bars."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from lake.model.market import Market
from lake.quality.checks import book_levels, book_sides, trade_amounts
from tests.conftest import SECOND, T0
from tests.quality.slices import outcome, reference_of, slice_of

CHECKS = {**book_levels.CHECKS, **book_sides.CHECKS, **trade_amounts.CHECKS}
OTHER = Market("kraken", "BTC/USDT")
PLACE = 60


def books(count: int = 120) -> pl.DataFrame:
    """A book a second around 1000, with amounts of four digits after the point."""
    rows = range(count)
    return pl.DataFrame(
        {
            "timestamp": [T0 + n * SECOND for n in rows],
            "sequence": [10 * n for n in rows],
            "bid_prices": [[999.5, 999.0, 998.0]] * count,
            "bid_amounts": [[1.2345 + n % 7, 2.3456, 3.4567] for n in rows],
            "ask_prices": [[1000.5, 1001.0, 1002.0]] * count,
            "ask_amounts": [[1.1234, 2.1357, 3.1579 + n % 5] for n in rows],
        }
    )


def put(frame: pl.DataFrame, name: str, value: pl.Expr, place: int = PLACE) -> pl.DataFrame:
    is_there = pl.int_range(pl.len()) == place
    return frame.with_columns(pl.when(is_there).then(value).otherwise(name).alias(name))


def trades(count: int = 120, **columns: Any) -> pl.DataFrame:
    """A trade a second, at bid and ask in turn."""
    rows = range(count)
    return pl.DataFrame(
        {
            "timestamp": [T0 + n * SECOND for n in rows],
            "trade_id": [str(n) for n in rows],
            "price": [999.5 + n % 2 for n in rows],
            "amount": [0.5 + n % 3 for n in rows],
            "side": ["sell", "buy"] * (count // 2),
            **columns,
        }
    )


def bars() -> pl.DataFrame:
    price, amount = pl.col("price"), pl.col("amount")
    prices = {"open": price.first(), "high": price.max(), "low": price.min()}
    slots = trades().group_by(pl.col("timestamp").dt.truncate("1m"), maintain_order=True)
    return slots.agg(**prices, close=price.last(), volume=amount.sum())


def run(check: str, table: str, frame: pl.DataFrame, **more: Any) -> list[dict[str, Any]]:
    return outcome(CHECKS, check, slice_of(table, frame, **more)).rows(named=True)


WITNESSES: dict[str, dict[str, Any]] = {
    "trades": {"trades": reference_of("trades", trades())},
    str(OTHER): {"others": (reference_of("orderbooks", books(), market=OTHER),)},
}


@pytest.mark.parametrize("witness", WITNESSES)
@pytest.mark.parametrize(("side", "factor"), [("bid", 0.99), ("ask", 1.01), ("ask", 10.0)])
def test_a_side_far_from_a_witness_is_named(witness: str, side: str, factor: float) -> None:
    name = f"{side}_prices"
    wrong = put(books(), name, pl.col(name) * factor)
    (finding,) = run("side_off", "orderbooks", wrong, **WITNESSES[witness])
    assert finding["start"] == T0 + PLACE * SECOND
    assert (finding["reason"], finding["against"]) == (f"{side}_off", witness)
    assert finding["severity"] is None


@pytest.mark.parametrize("witness", WITNESSES)
def test_books_that_agree_with_a_witness_are_fine(witness: str) -> None:
    assert run("side_off", "orderbooks", books(), **WITNESSES[witness]) == []


def test_a_side_without_a_witness_is_not_judged() -> None:
    wrong = put(books(), "bid_prices", pl.col("bid_prices") * 0.99)
    assert run("side_off", "orderbooks", wrong) == []


@pytest.mark.parametrize("level", [0, 1])
def test_an_amount_of_one_book_alone_that_a_power_of_ten_explains_is_named(level: int) -> None:
    scaled = pl.concat_list(
        pl.col("ask_amounts").list.get(n) * (1000 if n == level else 1) for n in range(3)
    )
    (finding,) = run("level_spikes", "orderbooks", put(books(), "ask_amounts", scaled))
    assert finding["start"] == T0 + PLACE * SECOND
    assert (finding["reason"], finding["against"]) == ("factor", "ask")
    assert finding["expected"] == books()["ask_amounts"][PLACE][level]


def test_a_large_order_that_stays_is_real() -> None:
    large = pl.concat_list(pl.lit(5000.0), pl.col("ask_amounts").list.slice(1))
    stays = put(put(books(), "ask_amounts", large), "ask_amounts", large, PLACE + 1)
    assert run("level_spikes", "orderbooks", stays) == []
    assert run("level_spikes", "orderbooks", books()) == []


def test_a_trade_larger_than_its_bar_is_named() -> None:
    witness = reference_of("bars_1m", bars())
    assert run("contradicted_trades", "trades", trades(), bars=witness) == []
    wrong = put(trades(), "amount", pl.col("amount") * 1000, 5)
    (finding,) = run("contradicted_trades", "trades", wrong, bars=witness)
    assert finding["start"] == T0 + 5 * SECOND
    assert (finding["reason"], finding["against"]) == ("amount", "bars_1m")
    assert finding["expected"] == pytest.approx(trades()["amount"][5])


def test_a_trade_outside_of_its_bar_is_named() -> None:
    wrong = put(trades(), "price", pl.col("price") * 1.001, 5)
    witness = reference_of("bars_1m", bars())
    (finding,) = run("contradicted_trades", "trades", wrong, bars=witness)
    assert (finding["start"], finding["reason"]) == (T0 + 5 * SECOND, "price")


def test_trades_of_bars_in_another_unit_are_not_judged() -> None:
    smaller = bars().with_columns(pl.col("volume") / 100)
    assert (
        run("contradicted_trades", "trades", trades(), bars=reference_of("bars_1m", smaller)) == []
    )
