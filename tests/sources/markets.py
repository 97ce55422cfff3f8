"""Markets of the sandbox, and faults of its exchange."""

from datetime import timedelta

import polars as pl
from polars.testing import assert_frame_equal

DAY, HOUR, MINUTE, SECOND = (
    timedelta(days=1),
    timedelta(hours=1),
    timedelta(minutes=1),
    timedelta(seconds=1),
)
SPOT, QUIET, SWAP = (
    ("binance", "BTC/USDT"),
    ("binance", "XRP/ETH"),
    ("binanceusdm", "BTC/USDT:USDT"),
)

# the fault of an answer, and how often in a row it may occur
KINDS = ("429", "418", "500", "502", "503", "reset", "cut", "truncated", "html", "empty")
LIES = ("duplicate", "shuffled")


def same(left: pl.DataFrame, right: pl.DataFrame, columns: list[str] | None = None) -> None:
    columns = columns or right.columns
    assert_frame_equal(left.select(columns), right.select(columns), check_exact=True)
