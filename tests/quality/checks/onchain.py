"""Chains as a user declares them: dataset files with these checks, real and made-up rows."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest

from lake.model.catalog import Catalog
from lake.model.dataset import Dataset
from lake.model.market import Market
from tests.conftest import SECOND, T0
from tests.paths import SHARED

DATA = SHARED / "chain"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recorded data at {DATA}")
POOL = Market("ethereum:uniswap_v3", "WETH/USDC")

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


@cache
def declared(name: str) -> Dataset:
    """A dataset of a user's own: `user_blocks` or `user_swaps`."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.toml")
        path.write_text({"user_blocks": BLOCKS, "user_swaps": SWAPS}[name], encoding="utf-8")
        return Catalog([path]).dataset(name)


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
            # V4 has the amounts of the swapper, the others those of the pool.
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
            "timestamp": [datetime.fromtimestamp(block["timestamp"], UTC) for block in blocks],
            "chain": "ethereum",
            "block_number": [block["number"] for block in blocks],
            "block_hash": [block["hash"] for block in blocks],
            "parent_hash": [block["parent_hash"] for block in blocks],
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
    blocks = sorted(recorded["blocks"], key=lambda block: int(block["number"], 16))
    headers = pl.DataFrame(
        {
            "timestamp": [datetime.fromtimestamp(int(b["timestamp"], 16), UTC) for b in blocks],
            "chain": "local",
            "block_number": [int(block["number"], 16) for block in blocks],
            "block_hash": [block["hash"] for block in blocks],
            "parent_hash": [block["parentHash"] for block in blocks],
        }
    )
    times = dict(headers.select("block_number", "timestamp").iter_rows())
    logs = []
    for log in recorded["logs"]:
        number = int(log["blockNumber"], 16)
        row = {"block_number": number, "timestamp": times[number]}
        named = {"block_hash": log["blockHash"], "log_index": int(log["logIndex"], 16)}
        logs.append(log | row | named)
    logs.sort(key=lambda log: (log["block_number"], log["log_index"]))
    return headers, decoded(logs)


def v2_swaps(count: int, minted: Mapping[int, int] | None = None) -> pl.DataFrame:
    """Swaps of a V2 pool with a fee of 0.3 %, by the formula of its contract.

    `minted`: to how many millionths of them the reserves change before a swap.
    """
    reserves = [5_000_000 * 10**6, 2_500 * 10**18]
    rows = []
    for n in range(count):
        parts = (minted or {}).get(n, 10**6)
        reserves = [held * parts // 10**6 for held in reserves]
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


@cache
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


Q96 = 2**96


class V3Pool:
    """A pool as its contract computes it, in whole numbers; liquidity differs by range of ticks.

    Parameters
    ----------
    liquidity
        By lower tick of its range, in order; the last range goes on.
    fee
        In millionths.
    """

    def __init__(self, liquidity: dict[int, int], fee: int) -> None:
        self.liquidity, self.fee = liquidity, fee
        self.root = root_at(0)

    def swap(self, amount: int, *, rises: bool) -> dict[str, Any]:
        """The columns of a swap that brings an amount of token 1 (`rises`) or token 0."""
        left, out = amount, 0
        while left > 0:
            edge = self._edge(rises=rises)
            taken, given = self._step(left, edge, rises=rises)
            left, out = left - taken, out + given
        amounts = (-out, amount) if rises else (amount, -out)
        return {
            "amount0_raw": str(amounts[0]),
            "amount1_raw": str(amounts[1]),
            "sqrt_price_x96": str(self.root),
            "liquidity": str(self.liquidity[self._range(rises=True)]),
            "tick": tick_of(self.root),
        }

    def _range(self, *, rises: bool) -> int:
        """The lower tick of the range that a swap goes through next."""
        below = [t for t in self.liquidity if root_at(t) < self.root or rises]
        return max(t for t in below if root_at(t) <= self.root)

    def _edge(self, *, rises: bool) -> int:
        lower = self._range(rises=rises)
        higher = [tick for tick in self.liquidity if tick > lower]
        return root_at(min(higher)) if rises else root_at(lower)

    def _step(self, left: int, edge: int, *, rises: bool) -> tuple[int, int]:
        """The contract's `computeSwapStep`: what is taken, with the fee, and what is given."""
        held, root = self.liquidity[self._range(rises=rises)], self.root
        taxed = left * (10**6 - self.fee) // 10**6
        if taxed >= self._needed(held, root, edge, rises=rises):
            self.root = edge
        elif rises:
            self.root = root + taxed * Q96 // held
        else:
            self.root = -(-(held * Q96 * root) // (held * Q96 + taxed * root))
        given = abs(self.root - root) * held
        given = given * Q96 // (root * self.root) if rises else given // Q96
        if self.root != edge:
            return left, given
        needed = self._needed(held, root, edge, rises=rises)
        return needed - (-needed * self.fee // (10**6 - self.fee)), given

    @staticmethod
    def _needed(held: int, root: int, edge: int, *, rises: bool) -> int:
        apart = abs(edge - root) * held
        return -(-apart // Q96) if rises else -(-(apart * Q96) // (root * edge))


@cache
def root_at(tick: int) -> int:
    """The root of the price of a tick, with 96 binary digits after the point."""
    return round(math.pow(1.0001, tick / 2) * Q96)


def tick_of(root: int) -> int:
    """The tick of a root."""
    guess = math.floor(2 * math.log(root / Q96) / math.log(1.0001))
    return max(tick for tick in (guess - 1, guess, guess + 1) if root_at(tick) <= root)


def v3_swaps(pool: V3Pool, amounts: list[tuple[int, bool]]) -> pl.DataFrame:
    """Swaps of a pool, one a block."""
    rows = [
        {
            "timestamp": T0 + 12 * n * SECOND,
            "chain": "ethereum",
            "block_number": 19_000_000 + n,
            "log_index": 3,
            "pool_id": "0xpool",
            **pool.swap(amount, rises=rises),
        }
        for n, (amount, rises) in enumerate(amounts)
    ]
    return pl.DataFrame(rows)
