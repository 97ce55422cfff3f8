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
from lake.quality.checks import chain, pools
from tests.conftest import DAY, MINUTE, SECOND, T0, trades
from tests.quality.checks.onchain import (
    POOL,
    V3Pool,
    chain_of,
    declared,
    local_node,
    mainnet,
    needs_data,
    v2_swaps,
    v3_day,
    v3_swaps,
)
from tests.quality.slices import outcome, slice_of

Defect = tuple[str, str]
Spoil = Callable[[pl.DataFrame, int], pl.DataFrame]

CHECKS = {**chain.CHECKS, **pools.CHECKS}
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
    findings = outcome(CHECKS, "block_gaps", rows)
    assert findings["rows"].sum() == len(missing)
    assert set(findings["reason"]) == {"unknown"}
    last = (findings["end"] - timedelta(microseconds=1)).dt.date()
    assert (findings["start"].dt.date() == last).all()


def test_missing_blocks_that_were_never_requested_are_not_fetched(blocks: Dataset) -> None:
    frame = chain_of(COUNT).filter(~pl.col("block_number").is_between(130, 139))
    covered = (TimeRange(T0, T0 + 5 * MINUTE),)
    findings = outcome(CHECKS, "block_gaps", slice_of(blocks, frame, coverage=covered))
    assert findings.select("rows", "reason").rows() == [(10, "not_fetched")]


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
    findings = outcome(CHECKS, "block_chain", rows)
    assert reason in findings["reason"].to_list()
    assert abs(findings["start"][0] - (T0 + 12 * place * SECOND)) < 15 * SECOND
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
    ("pool_state", "liquidity"): lambda f, n: at(f, n, liquidity="-1"),
    ("pool_state", "no_liquidity"): lambda f, n: at(f, n, liquidity="0"),
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
    findings = outcome(CHECKS, defect[0], slice_of(swaps, frame))
    assert findings["reason"].to_list() == [defect[1]]
    assert f"{19_000_000 + place}" in findings["message"][0]


@needs_data
@pytest.mark.parametrize("defect", [*SPOILT, *V3_SPOILT])
@settings(max_examples=15)
@given(place=st.integers(1, 6044))
def test_a_spoilt_swap_of_a_real_v3_pool_is_found(
    swaps: Dataset, defect: tuple[str, str], place: int
) -> None:
    frame = {**SPOILT, **V3_SPOILT}[defect](v3_day(), place)
    findings = outcome(CHECKS, defect[0], slice_of(swaps, frame, market=POOL))
    assert defect[1] in findings["reason"].to_list()
    number = str(v3_day()["block_number"][place])
    assert any(number in message for message in findings["message"])
    assert findings.height <= 2


def _scaled(frame: pl.DataFrame, column: str, parts: int) -> pl.DataFrame:
    """Every fiftieth row with another big integer: so many millionths of what it was."""
    numbers = [int(text) for text in frame[column]]
    wrong = [n * parts // 10**6 if k % 50 == 25 else n for k, n in enumerate(numbers)]
    return frame.with_columns(pl.Series(column, [str(n) for n in wrong]))


@needs_data
@pytest.mark.parametrize("parts", [500_000, 990_000, 1_010_000, 2_000_000])
@pytest.mark.parametrize("column", ["amount0_raw", "amount1_raw"])
def test_amounts_that_do_not_fit_the_prices_of_a_real_pool_are_all_found(
    swaps: Dataset, column: str, parts: int
) -> None:
    day = v3_day().sort("block_number", "log_index")
    spoilt = day.filter(pl.int_range(pl.len()) % 50 == 25)
    rows = slice_of(swaps, _scaled(day, column, parts), market=POOL)
    findings = outcome(CHECKS, "pool_path", rows)
    assert set(findings["reason"]) == {"amount"}
    assert findings["start"].to_list() == spoilt["timestamp"].to_list()


@needs_data
@pytest.mark.parametrize("parts", [500_000, 1_010_000])
def test_a_wrong_liquidity_of_a_real_pool_is_found_where_no_tick_is_crossed(
    swaps: Dataset, parts: int
) -> None:
    day = v3_day().sort("block_number", "log_index")
    within = pl.col("tick") == pl.col("tick").shift(1)
    spoilt = day.filter((pl.int_range(pl.len()) % 50 == 25) & within)
    rows = slice_of(swaps, _scaled(day, "liquidity", parts), market=POOL)
    findings = outcome(CHECKS, "pool_path", rows)
    assert spoilt.height > 60
    assert set(spoilt["timestamp"]) <= set(findings["start"])
    assert set(findings["reason"]) == {"amount"}


amounts_in = st.lists(st.tuples(st.integers(1000, 10**21), st.booleans()), min_size=30, max_size=60)
ranges = st.dictionaries(st.integers(-3000, 3000), st.integers(10**19, 10**22), min_size=1)


@settings(max_examples=25)
@given(amounts=amounts_in, liquidity=ranges, fee=st.sampled_from([100, 500, 3000, 10_000]))
def test_whatever_a_v3_pool_computes_raises_no_alarm(
    swaps: Dataset, amounts: list[tuple[int, bool]], liquidity: dict[int, int], fee: int
) -> None:
    ends = {-700_000: 10**20, 3001: 10**23, 700_000: 1}
    pool = V3Pool(dict(sorted({**ends, **liquidity}.items())), fee)
    rows = slice_of(swaps, v3_swaps(pool, amounts))
    for check in SWAP_CHECKS:
        assert outcome(CHECKS, check, rows).is_empty()


@given(place=somewhere)
def test_a_lost_swap_of_a_v2_pool_is_noticed_at_the_next_one(swaps: Dataset, place: int) -> None:
    frame = v2_swaps(COUNT)
    left = frame.filter(pl.int_range(pl.len()) != place)
    findings = outcome(CHECKS, "pool_path", slice_of(swaps, left))
    assert findings.select("start", "reason", "severity").rows() == [
        (frame["timestamp"][place + 1], "ratio", "warning")
    ]


@given(minted=st.dictionaries(somewhere, st.integers(100_000, 10**9), max_size=5))
def test_liquidity_added_to_or_taken_from_a_v2_pool_is_no_lost_swap(
    swaps: Dataset, minted: dict[int, int]
) -> None:
    rows = slice_of(swaps, v2_swaps(COUNT, minted))
    assert outcome(CHECKS, "pool_path", rows).is_empty()
    assert outcome(CHECKS, "pool_state", rows).is_empty()


@pytest.mark.parametrize("text", ["", "0x1f", "abc", " 12", "NaN", "inf", "1,000"])
@pytest.mark.parametrize(
    ("check", "column"),
    [
        ("swap_amounts", "amount0_raw"),
        ("swap_amounts", "amount1_raw"),
        ("pool_state", "reserve0_raw"),
        ("pool_state", "liquidity"),
        ("pool_state", "sqrt_price_x96"),
    ],
)
def test_a_text_that_is_no_number_is_found_and_stops_no_check(
    swaps: Dataset, check: str, column: str, text: str
) -> None:
    frame = v2_swaps(COUNT)
    frame = (
        frame
        if column in frame.columns
        else frame.with_columns(pl.lit(None, pl.String).alias(column))
    )
    rows = slice_of(swaps, at(frame, 40, **{column: text}))
    for name in SWAP_CHECKS:
        findings = outcome(CHECKS, name, rows)
        wanted = [(frame["timestamp"][40], "not_a_number")] if name == check else []
        assert findings.select("start", "reason").rows() == wanted


def test_numbers_of_256_bits_are_read(swaps: Dataset) -> None:
    frame = v2_swaps(COUNT)
    largest = {f"reserve{token}_raw": str(2**256 - 1) for token in (0, 1)}
    rows = slice_of(swaps, at(frame[:1], 0, **largest))
    for name in SWAP_CHECKS:
        assert outcome(CHECKS, name, rows).is_empty()


def test_a_price_may_move_where_a_pool_has_no_liquidity(swaps: Dataset) -> None:
    pool = V3Pool({-700_000: 10**20, 700_000: 1}, 3000)
    frame = v3_swaps(pool, [(10**15, n % 2 == 0) for n in range(40)])
    still = {"amount0_raw": "0", "amount1_raw": "0", "liquidity": "0"}
    rows = slice_of(swaps, at(frame, 39, **still))
    assert outcome(CHECKS, "swap_amounts", rows).is_empty()
    findings = outcome(CHECKS, "pool_state", rows)
    assert findings.select("reason", "severity").rows() == [("no_liquidity", "warning")]
    moved = slice_of(swaps, at(frame, 39, **{**still, "liquidity": "5"}))
    assert outcome(CHECKS, "swap_amounts", moved)["reason"].to_list() == ["empty"]


@needs_data
def test_most_swaps_that_are_lost_are_noticed_at_the_next_one(swaps: Dataset) -> None:
    day = v3_day().sort("block_number", "log_index").with_row_index()
    lost = pl.col("index") % 20 == 0
    after = day.filter(pl.col("index") % 20 == 1)["timestamp"]
    frame = day.filter(~lost).drop("index")
    findings = outcome(CHECKS, "pool_path", slice_of(swaps, frame, market=POOL))
    assert findings["start"].is_in(after.implode()).all()
    assert findings.height > 0.7 * after.len()


def test_datasets_without_these_columns_have_no_findings() -> None:
    rows = slice_of("trades", trades(3))
    for check in ("block_gaps", "block_chain"):
        assert outcome(CHECKS, check, rows).is_empty()
    assert outcome(CHECKS, "swap_amounts", rows, tolerance=1e-6).is_empty()
    assert outcome(CHECKS, "pool_state", rows, tolerance=1e-6).is_empty()
    assert outcome(CHECKS, "pool_path", rows, tolerance=1e-6).is_empty()
