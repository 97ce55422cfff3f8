"""What changed between two states of a market's rows."""

from __future__ import annotations

from lake.jobs.repairs.changes import compare_rows
from lake.model.catalog import builtin
from lake.store.conform import check_rows
from tests.conftest import MINUTE, T0, trades

TRADES = builtin().dataset("trades")


def test_a_second_trade_of_one_id_is_a_new_row() -> None:
    first, second = (
        check_rows(TRADES, trades(1, start=start, price=[price])).rows
        for start, price in ((T0, 1.0), (T0 + MINUTE, 2.0))
    )
    changes = compare_rows(TRADES, first, first.vstack(second))
    assert changes.written.rows() == second.rows()
    assert changes.before.is_empty()
    assert changes.removed.is_empty()
    undone = compare_rows(TRADES, first.vstack(second), first)
    assert undone.removed.rows() == second.rows()
    assert undone.written.is_empty()
