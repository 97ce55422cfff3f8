"""Broken chains, and swaps that no pool makes, are found in datasets of a user's own.

Real data: see `../shared/data/ORIGIN.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.dataset import Dataset
from lake.model.time import TimeRange
from lake.quality.chain import CHECKS
from tests.conftest import DAY, MINUTE, SECOND, T0, trades
from tests.quality.onchain import (
    POOL,
    chain_of,
    declared,
    local_node,
    mainnet,
    needs_data,
    v2_swaps,
    v3_day,
)
from tests.quality.slices import outcome, slice_of

Defect = tuple[str, str]
Spoil = Callable[[pl.DataFrame, int], pl.DataFrame]

SWAP_CHECKS = ("block_chain", "swap_amounts", "pool_state", "pool_path")


@pytest.fixture(scope="module")
def blocks() -> Dataset:
    return declared("user_blocks")


@pytest.fixture(scope="module")
def swaps() -> Dataset:
    return declared("user_swaps")


def at(frame: pl.DataFrame, place: int, **columns: Any) -> pl.DataFrame:
    """The same rows, with other values in one."""
    here = pl.int_range(pl.len()) == place
    return frame.with_columns(
        pl.when(here)
        .then(value if isinstance(value, pl.Expr) else pl.lit(value))
        .otherwise(name)
        .cast(frame.schema[name])
        .alias(name)
        for name, value in columns.items()
    )


COUNT = 120
somewhere = st.integers(1, COUNT - 2)


@given(missing=st.sets(somewhere, min_size=1, max_size=8), hours=st.integers(0, 30))
def test_missing_blocks_are_counted_whatever_day_they_are_in(
    blocks: Dataset, missing: set[int], hours: int
) -> None:
    start = T0 + DAY - timedelta(minutes=15) + hours * timedelta(minutes=1)
    here = pl.int_range(pl.len()).is_in(list(missing))
    rows = slice_of(blocks, chain_of(COUNT, start).filter(~here))
    found = outcome(CHECKS, "block_gaps", rows)
    assert found["rows"].sum() == len(missing)
    assert set(found["reason"]) == {"unknown"}
    last = (found["end"] - timedelta(microseconds=1)).dt.date()
    assert (found["start"].dt.date() == last).all()


def test_missing_blocks_that_were_not_asked_for_are_told_as_such(blocks: Dataset) -> None:
    frame = chain_of(COUNT).filter(~pl.col("block_number").is_between(130, 139))
    covered = (TimeRange(T0, T0 + 5 * MINUTE),)
    found = outcome(CHECKS, "block_gaps", slice_of(blocks, frame, covered=covered))
    assert found.select("rows", "reason").rows() == [(10, "not_fetched")]


BROKEN: dict[str, Spoil] = {
    "parent_mismatch": lambda frame, n: at(frame, n, parent_hash="0xother"),
    "time_backwards": lambda frame, n: at(
        frame, n, timestamp=pl.col("timestamp") - timedelta(seconds=13)
    ),
    "two_hashes": lambda frame, n: pl.concat(
        [frame, frame[n].with_columns(block_hash=pl.lit("0xff"))]
    ),
}


@pytest.mark.parametrize("reason", BROKEN)
@given(place=somewhere)
def test_a_broken_chain_is_found_wherever_it_breaks(
    blocks: Dataset, reason: str, place: int
) -> None:
    rows = slice_of(blocks, BROKEN[reason](chain_of(COUNT), place))
    found = outcome(CHECKS, "block_chain", rows)
    assert reason in found["reason"].to_list()
    assert abs(found["start"][0] - (T0 + 12 * place * SECOND)) < 15 * SECOND
    assert outcome(CHECKS, "block_gaps", rows).is_empty()


@pytest.mark.parametrize("check", ["block_gaps", "block_chain"])
def test_whole_chains_raise_no_alarm(blocks: Dataset, check: str) -> None:
    assert outcome(CHECKS, check, slice_of(blocks, chain_of(COUNT))).is_empty()


@needs_data
@pytest.mark.parametrize("check", ["block_gaps", "block_chain"])
def test_real_chains_raise_no_alarm(blocks: Dataset, check: str) -> None:
    chains = [mainnet()[0], local_node()[0]]
    assert [headers.height for headers in chains] == [2, 222]
    for headers in chains:
        assert outcome(CHECKS, check, slice_of(blocks, headers)).is_empty()


@pytest.mark.parametrize("check", SWAP_CHECKS)
def test_clean_swaps_raise_no_alarm(swaps: Dataset, check: str) -> None:
    assert outcome(CHECKS, check, slice_of(swaps, v2_swaps(COUNT))).is_empty()


@needs_data
@pytest.mark.parametrize("check", SWAP_CHECKS)
def test_real_swaps_raise_no_alarm(swaps: Dataset, check: str) -> None:
    of_mainnet, of_node = mainnet()[1], local_node()[1]
    kinds = [frame.drop_nulls("reserve0_raw").height for frame in (of_mainnet, of_node)]
    assert (v3_day().height, of_mainnet.height, kinds[0]) == (6046, 79, 69)
    assert of_node.height > kinds[1] > 50
    for frame in (v3_day(), of_mainnet, of_node):
        assert outcome(CHECKS, check, slice_of(swaps, frame, market=POOL)).is_empty()


def _turned(name: str) -> pl.Expr:
    """An amount that goes the other way."""
    amount = pl.col(name)
    return (
        pl.when(amount.str.starts_with("-"))
        .then(amount.str.strip_prefix("-"))
        .otherwise(pl.format("-{}", amount))
    )


SPOILT: dict[Defect, Spoil] = {
    ("swap_amounts", "same_sign"): lambda f, n: at(f, n, amount0_raw=_turned("amount0_raw")),
    ("swap_amounts", "empty"): lambda f, n: at(f, n, amount0_raw="0", amount1_raw="0"),
    ("swap_amounts", "price"): lambda f, n: at(f, n, price=pl.col("price") * 1.001),
    ("swap_amounts", "side"): lambda f, n: at(
        f, n, side=pl.col("side").replace({"buy": "sell", "sell": "buy"})
    ),
    ("block_chain", "time_backwards"): lambda f, n: at(
        f,
        n,
        timestamp=pl.col("timestamp") - timedelta(hours=1),
        block_number=pl.col("block_number"),
    ),
}
V2_SPOILT: dict[Defect, Spoil] = {
    ("pool_state", "reserves"): lambda f, n: at(f, n, reserve1_raw="0"),
    # More went out than the fee leaves: half as much again.
    ("pool_state", "product_falls"): lambda f, n: at(
        f,
        n,
        **{
            f"{kind}{token}_raw": pl.when(pl.col(f"amount{token}_raw").str.starts_with("-"))
            .then(
                (
                    pl.col(f"{kind}{token}_raw").cast(pl.Int128)
                    + pl.col(f"amount{token}_raw").cast(pl.Int128) // 2
                ).cast(pl.String)
            )
            .otherwise(f"{kind}{token}_raw")
            for kind in ("amount", "reserve")
            for token in (0, 1)
        },
    ),
}
V3_SPOILT: dict[Defect, Spoil] = {
    ("pool_state", "tick"): lambda f, n: at(f, n, tick=pl.col("tick") - 1 + 2 * (n % 2)),
    ("pool_state", "liquidity"): lambda f, n: at(f, n, liquidity="0"),
    ("pool_path", "direction"): lambda f, n: at(
        f, n, amount0_raw=_turned("amount0_raw"), amount1_raw=_turned("amount1_raw")
    ),
}


@pytest.mark.parametrize("defect", [*SPOILT, *V2_SPOILT])
@settings(max_examples=25)
@given(place=somewhere)
def test_a_spoilt_swap_of_a_v2_pool_is_found(
    swaps: Dataset, defect: tuple[str, str], place: int
) -> None:
    frame = {**SPOILT, **V2_SPOILT}[defect](v2_swaps(COUNT), place)
    found = outcome(CHECKS, defect[0], slice_of(swaps, frame))
    assert found["reason"].to_list() == [defect[1]]
    assert f"{19_000_000 + place}" in found["message"][0]


@needs_data
@pytest.mark.parametrize("defect", [*SPOILT, *V3_SPOILT])
@settings(max_examples=15)
@given(place=st.integers(1, 6044))
def test_a_spoilt_swap_of_a_real_v3_pool_is_found(
    swaps: Dataset, defect: tuple[str, str], place: int
) -> None:
    frame = {**SPOILT, **V3_SPOILT}[defect](v3_day(), place)
    found = outcome(CHECKS, defect[0], slice_of(swaps, frame, market=POOL))
    assert defect[1] in found["reason"].to_list()
    number = str(v3_day()["block_number"][place])
    assert any(number in message for message in found["message"])
    assert found.height <= 2


@needs_data
def test_most_swaps_that_are_lost_are_noticed_at_the_next_one(swaps: Dataset) -> None:
    day = v3_day().sort("block_number", "log_index").with_row_index()
    lost = pl.col("index") % 20 == 0
    after = day.filter(pl.col("index") % 20 == 1)["timestamp"]
    frame = day.filter(~lost).drop("index")
    found = outcome(CHECKS, "pool_path", slice_of(swaps, frame, market=POOL))
    assert found["start"].is_in(after.implode()).all()
    assert found.height > 0.7 * after.len()


def test_datasets_without_these_columns_have_no_findings() -> None:
    rows = slice_of("trades", trades(3))
    for check in ("block_gaps", "block_chain"):
        assert outcome(CHECKS, check, rows).is_empty()
    assert outcome(CHECKS, "swap_amounts", rows, tolerance=1e-6).is_empty()
    assert outcome(CHECKS, "pool_state", rows, tolerance=1e-6).is_empty()
    assert outcome(CHECKS, "pool_path", rows, tolerance=1e-6).is_empty()
