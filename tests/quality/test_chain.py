"""Broken chains, swaps that no pool makes, and prices of pools: found in datasets of a user's own.

Real data: see `../shared/data/ORIGIN.md`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.catalog import Catalog
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.quality import chain, dex
from lake.quality.check import Slice
from tests.conftest import DAY, MINUTE, SECOND, T0, trades
from tests.quality.slices import outcome, slice_of, witness_of

DATA = Path(__file__).parents[3] / "shared" / "data" / "chain"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recorded data at {DATA}")
CHECKS = {**chain.CHECKS, **dex.CHECKS}
BINANCE = Market("binance", "WETH/USDC")
POOL = Market("ethereum:uniswap_v3", "WETH/USDC")

Defect = tuple[str, str]
Spoil = Callable[[pl.DataFrame, int], pl.DataFrame]

BLOCKS = """
name = "user_blocks"
title = "Blocks"
description = "One row per block."
rows = "revisable"
date = "day"
time_column = "timestamp"
key = ["chain", "block_number"]
[columns]
timestamp = { type = "timestamp", unit = "UTC", meaning = "Time of the block." }
chain = { type = "string", meaning = "Chain." }
block_number = { type = "int64", meaning = "Number." }
block_hash = { type = "string", meaning = "Hash." }
parent_hash = { type = "string", meaning = "Hash of the block before." }
[checks.block_gaps]
severity = "error"
[checks.block_chain]
severity = "critical"
"""
SWAPS = """
name = "user_swaps"
title = "Swaps"
description = "One row per swap."
rows = "revisable"
date = "day"
time_column = "timestamp"
key = ["chain", "block_number", "log_index"]
[columns]
timestamp = { type = "timestamp", unit = "UTC", meaning = "Time of the block." }
chain = { type = "string", meaning = "Chain." }
block_number = { type = "int64", meaning = "Number of the block." }
block_hash = { type = "string", nullable = true, meaning = "Hash of the block." }
log_index = { type = "int64", meaning = "Place in the block." }
pool_id = { type = "string", meaning = "Pool." }
base_is_token0 = { type = "boolean", nullable = true, meaning = "Order of the tokens." }
side = { type = "string", nullable = true, meaning = "buy or sell." }
price = { type = "float64", nullable = true, meaning = "Executed." }
amount_base = { type = "float64", nullable = true, meaning = "Size." }
amount_quote = { type = "float64", nullable = true, meaning = "Size." }
amount0_raw = { type = "string", meaning = "What the pool received." }
amount1_raw = { type = "string", meaning = "What the pool received." }
reserve0_raw = { type = "string", nullable = true, meaning = "V2: after the swap." }
reserve1_raw = { type = "string", nullable = true, meaning = "V2: after the swap." }
sqrt_price_x96 = { type = "string", nullable = true, meaning = "V3: after the swap." }
liquidity = { type = "string", nullable = true, meaning = "V3: after the swap." }
tick = { type = "int64", nullable = true, meaning = "V3: after the swap." }
pool_price_after = { type = "float64", nullable = true, meaning = "Quote by base." }
[checks.block_chain]
severity = "critical"
[checks.swap_amounts]
severity = "error"
tolerance = 1e-6
[checks.pool_state]
severity = "error"
tolerance = 1e-12
[checks.pool_path]
severity = "error"
tolerance = 1e-6
[checks.dex_price]
severity = "error"
threshold_bps = 100.0
duration = "5m"
factor = 1.5
"""
SWAP_CHECKS = ("block_chain", "swap_amounts", "pool_state", "pool_path")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Datasets that a user declares, with these checks."""
    folder = tmp_path_factory.mktemp("schemas")
    files = {"user_blocks": BLOCKS, "user_swaps": SWAPS}
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return Catalog(folder.glob("*.toml"))


@pytest.fixture(scope="module")
def blocks(datasets: Catalog) -> Dataset:
    return datasets.dataset("user_blocks")


@pytest.fixture(scope="module")
def swaps(datasets: Catalog) -> Dataset:
    return datasets.dataset("user_swaps")


def words(data: str) -> list[int]:
    """The 32-byte words of a log's data, as signed integers."""
    raw = bytes.fromhex(data.removeprefix("0x"))
    return [int.from_bytes(raw[n : n + 32], signed=True) for n in range(0, len(raw), 32)]


@cache
def v3_day() -> pl.DataFrame:
    """6,046 swaps of a real pool (USDC and WETH, 0.05 %), as others decoded them."""
    table = pl.read_csv(
        DATA / "uniswap_v3_usdc_weth_005_2024-01-05" / "decoded.csv.gz", infer_schema=False
    ).filter(pl.col("tx_type") == "SWAP")
    usdc = pl.col("amount0").cast(pl.Float64) / 1e6
    weth = pl.col("amount1").cast(pl.Float64) / 1e18
    root = pl.col("sqrtPriceX96").cast(pl.Float64) / 2.0**96
    return table.select(
        timestamp=pl.col("block_timestamp").str.to_datetime(time_unit="us", time_zone="UTC"),
        chain=pl.lit("ethereum"),
        block_number=pl.col("block_number").cast(pl.Int64),
        log_index=pl.col("pool_log_index").cast(pl.Int64),
        pool_id=pl.lit("0x88e6a0c2ddd26feeb64f039a2c41296fcb3f5640"),
        base_is_token0=pl.lit(value=False),
        side=pl.when(weth < 0).then(pl.lit("buy")).otherwise(pl.lit("sell")),
        price=usdc.abs() / weth.abs(),
        amount_base=weth.abs(),
        amount_quote=usdc.abs(),
        amount0_raw="amount0",
        amount1_raw="amount1",
        sqrt_price_x96="sqrtPriceX96",
        liquidity="total_liquidity",
        tick=pl.col("current_tick").cast(pl.Float64).cast(pl.Int64),
        pool_price_after=1e12 / root**2,
    )


SYNC = "0x1c411e9a96e071241c2f21f7726b17ae89e3cab4c78be50e062b03a9fffbbad1"
SWAP_V2 = "0xd78ad95fa46c994b6551d0da85fc275fe613ce37657fb8d5e3d130840159d822"
SWAP_V3 = "0xc42079f94a6350d7e6235f29174924f928cc2ac818eb64fed8004e115fbcca67"
SWAP_V4 = "0x40e9cecb9f5f1f1c5b9c97dec2917b7ee92e57ba5563708daca94dd84ad7112f"


def decoded(logs: list[dict[str, Any]]) -> pl.DataFrame:
    """Swaps of V2, V3 and V4 pools from logs in order; V2 ones with the Sync before them."""
    rows = []
    for before, log in pairwise(logs):
        topic = log["topics"][0] if log["topics"] else ""
        if topic not in (SWAP_V2, SWAP_V3, SWAP_V4):
            continue
        values = words(log["data"])
        row = {name: log[name] for name in ("timestamp", "block_number", "block_hash", "log_index")}
        row |= {"chain": "ethereum", "pool_id": log["address"]}
        if topic == SWAP_V2:
            assert before["topics"][0] == SYNC
            assert before["address"] == log["address"]
            row |= dict(zip(("reserve0_raw", "reserve1_raw"), words(before["data"]), strict=True))
            amounts = [values[0] - values[2], values[1] - values[3]]
        else:
            # V4 tells what the swapper gets, the others what the pool does.
            amounts = [-n if topic == SWAP_V4 else n for n in values[:2]]
            names = ("sqrt_price_x96", "liquidity", "tick")
            row |= dict(zip(names, values[2:5], strict=True))
            row["pool_id"] = log["topics"][1] if topic == SWAP_V4 else log["address"]
        rows.append(row | {"amount0_raw": amounts[0], "amount1_raw": amounts[1]})
    big = ("amount0_raw", "amount1_raw", "reserve0_raw", "reserve1_raw", "sqrt_price_x96")
    texts = [
        {name: str(v) if name in (*big, "liquidity") else v for name, v in row.items()}
        for row in rows
    ]
    return pl.DataFrame(texts, infer_schema_length=None)


@cache
def mainnet() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two blocks of Ethereum, and the swaps in them."""
    folder = DATA / "blocks_17173049_17173050"
    blocks, logs = (
        [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        for path in (folder / "expected_blocks.json.gz", folder / "expected_logs.json.gz")
    )
    headers = pl.DataFrame(
        {
            "timestamp": [datetime.fromtimestamp(one["timestamp"], UTC) for one in blocks],
            "chain": "ethereum",
            "block_number": [one["number"] for one in blocks],
            "block_hash": [one["hash"] for one in blocks],
            "parent_hash": [one["parent_hash"] for one in blocks],
        }
    )
    for log in logs:
        log["timestamp"] = datetime.fromtimestamp(log["block_timestamp"], UTC)
    logs.sort(key=lambda log: (log["block_number"], log["log_index"]))
    return headers, decoded(logs)


@cache
def local_node() -> tuple[pl.DataFrame, pl.DataFrame]:
    """222 blocks of a local node, and the swaps of its V2, V3 and V4 pools."""
    recorded = json.loads(gzip.decompress((DATA / "raw_anvil.json.gz").read_bytes()))
    blocks = sorted(recorded["blocks"], key=lambda one: int(one["number"], 16))
    headers = pl.DataFrame(
        {
            "timestamp": [datetime.fromtimestamp(int(b["timestamp"], 16), UTC) for b in blocks],
            "chain": "local",
            "block_number": [int(one["number"], 16) for one in blocks],
            "block_hash": [one["hash"] for one in blocks],
            "parent_hash": [one["parentHash"] for one in blocks],
        }
    )
    times = dict(headers.select("block_number", "timestamp").iter_rows())
    logs = []
    for log in recorded["logs"]:
        number = int(log["blockNumber"], 16)
        known = {"block_number": number, "timestamp": times[number]}
        named = {"block_hash": log["blockHash"], "log_index": int(log["logIndex"], 16)}
        logs.append(log | known | named)
    logs.sort(key=lambda log: (log["block_number"], log["log_index"]))
    return headers, decoded(logs)


def v2_swaps(count: int) -> pl.DataFrame:
    """Swaps of a V2 pool with a fee of 0.3 %, by the formula of its contract."""
    reserves = [5_000_000 * 10**6, 2_500 * 10**18]
    rows = []
    for n in range(count):
        into = n % 2
        amount = reserves[into] // (400 + 7 * n % 300)
        taxed = amount * 997
        out = taxed * reserves[1 - into] // (reserves[into] * 1000 + taxed)
        amounts = [0, 0]
        amounts[into], amounts[1 - into] = amount, -out
        reserves = [held + came for held, came in zip(reserves, amounts, strict=True)]
        rows.append(
            {
                "timestamp": T0 + 12 * n * SECOND,
                "chain": "ethereum",
                "block_number": 19_000_000 + n,
                "block_hash": f"0x{n:064x}",
                "log_index": 3,
                "pool_id": "0xpool",
                "base_is_token0": False,
                "side": "sell" if into else "buy",
                "amount0_raw": str(amounts[0]),
                "amount1_raw": str(amounts[1]),
                "reserve0_raw": str(reserves[0]),
                "reserve1_raw": str(reserves[1]),
                "price": abs(amounts[0] / 1e6) / abs(amounts[1] / 1e18),
                "amount_base": abs(amounts[1] / 1e18),
                "amount_quote": abs(amounts[0] / 1e6),
                "pool_price_after": (reserves[0] / 1e6) / (reserves[1] / 1e18),
            }
        )
    return pl.DataFrame(rows)


def chain_of(count: int, start: datetime = T0) -> pl.DataFrame:
    """Blocks of 12 seconds."""
    return pl.DataFrame(
        {
            "timestamp": [start + 12 * n * SECOND for n in range(count)],
            "chain": "ethereum",
            "block_number": range(100, 100 + count),
            "block_hash": [f"0x{n:064x}" for n in range(count)],
            "parent_hash": [f"0x{n - 1:064x}" if n else "0x" for n in range(count)],
        }
    )


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
    if DATA.is_dir():
        for headers, _ in (mainnet(), local_node()):
            assert headers.height in (2, 222)
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


def bars_of(swaps: pl.DataFrame, by: float = 1.0) -> pl.DataFrame:
    """Bars of an exchange where the price is that of the pool."""
    price = pl.col("pool_price_after") * by
    return (
        swaps.sort("timestamp")
        .group_by_dynamic("timestamp", every="1m")
        .agg(
            open=price.first(),
            high=price.max(),
            low=price.min(),
            close=price.last(),
            volume=pl.lit(1.0),
        )
    )


def beside(dataset: Dataset, frame: pl.DataFrame, bars: pl.DataFrame) -> Slice:
    return slice_of(
        dataset, frame, market=POOL, others=(witness_of("bars_1m", bars, market=BINANCE),)
    )


@needs_data
def test_a_real_pool_beside_an_exchange_of_its_prices_raises_no_alarm(swaps: Dataset) -> None:
    rows = beside(swaps, v3_day(), bars_of(v3_day()))
    assert outcome(CHECKS, "dex_price", rows).is_empty()


@needs_data
@settings(max_examples=15)
@given(hour=st.integers(0, 22), up=st.booleans())
def test_prices_of_a_pool_that_part_from_an_exchange_are_found(
    swaps: Dataset, hour: int, up: bool
) -> None:
    start, end = v3_day()["timestamp"].dt.truncate("1d")[0], timedelta(hours=hour, minutes=30)
    away = pl.col("timestamp").is_between(start + timedelta(hours=hour), start + end)
    by = 1.03 if up else 0.97
    price = pl.when(away).then(pl.col("pool_price_after") * by).otherwise("pool_price_after")
    frame = v3_day().with_columns(pool_price_after=price)
    found = outcome(CHECKS, "dex_price", beside(swaps, frame, bars_of(v3_day())))
    assert found["rows"].sum() == frame.filter(away).height
    assert set(found["reason"]) == {"arbitrage"}
    assert set(found["against"]) == {"binance WETH/USDC"}
    assert found["measured"].max() == pytest.approx(300, rel=0.2)


def quoted(minute_prices: list[float]) -> pl.DataFrame:
    """A swap in the middle of each minute."""
    count = len(minute_prices)
    swaps = v2_swaps(count).with_columns(pool_price_after=pl.Series(minute_prices))
    times = [T0 + n * MINUTE + 30 * SECOND for n in range(count)]
    return swaps.with_columns(timestamp=pl.Series(times, dtype=TIMESTAMP))


def test_a_block_may_be_a_bar_late(swaps: Dataset) -> None:
    steps = [2000.0 * 1.02**n for n in range(30)]
    late = quoted([steps[max(0, n - 1)] for n in range(30)])
    rows = beside(swaps, late, bars_of(quoted(steps)))
    assert outcome(CHECKS, "dex_price", rows).is_empty()
    later = quoted([steps[max(0, n - 2)] for n in range(30)])
    rows = beside(swaps, later, bars_of(quoted(steps)))
    assert outcome(CHECKS, "dex_price", rows)["rows"].to_list() == [28]


def test_a_price_apart_counts_only_when_it_lasts(swaps: Dataset) -> None:
    for minutes, count in [(5, 0), (6, 1)]:
        prices = [2100.0 if 10 <= n < 10 + minutes else 2000.0 for n in range(30)]
        rows = beside(swaps, quoted(prices), bars_of(quoted([2000.0] * 30)))
        assert outcome(CHECKS, "dex_price", rows).height == count


@needs_data
@pytest.mark.parametrize("kind", ["factor", "inverse"])
def test_wrong_decimals_and_mixed_up_tokens_are_bad_data(swaps: Dataset, kind: str) -> None:
    price = pl.col("pool_price_after")
    frame = v3_day().with_columns(pool_price_after=price * 1e12 if kind == "factor" else 1 / price)
    found = outcome(CHECKS, "dex_price", beside(swaps, frame, bars_of(v3_day())))
    assert found["reason"].to_list() == ["bad_data"]
    assert found["rows"].to_list() == [6046]
    assert kind in found["message"][0]


def test_datasets_without_these_columns_have_no_findings() -> None:
    rows = slice_of("trades", trades(3))
    for check in ("block_gaps", "block_chain"):
        assert outcome(CHECKS, check, rows).is_empty()
    assert outcome(CHECKS, "swap_amounts", rows, tolerance=1e-6).is_empty()
    assert outcome(CHECKS, "pool_state", rows, tolerance=1e-6).is_empty()
    assert outcome(CHECKS, "pool_path", rows, tolerance=1e-6).is_empty()
