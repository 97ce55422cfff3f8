"""Chains: blocks that follow each other, and swaps that fit the state of their pool.

A check looks at what columns a dataset has, by the names of `dex_swaps`, `liquidity_pools` and
`chain_metrics`, and finds nothing where it has none of those. Big integers are decimal strings
(`…_raw`, `sqrt_price_x96`, `liquidity`), compared as doubles: relative differences below 1e-12
cannot be seen. A block is one moment: what is wrong in it is one finding a check.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.quality.asked import loss
from lake.quality.check import FOUND, Builtin, Slice, completed, runs

_Q96 = 2.0**96
_TICK = 1.0001
_TICK_ERROR = 1e-9
"""Of powers of a tick in doubles; a tick is 5e-5 of a root."""
_ROOT_ERROR = 1e-14
"""Of the difference of two roots, as a part of one."""


def block_gaps(rows: Slice) -> pl.LazyFrame:
    """Blocks that are missing between two, in a table with a row a block.

    Of a gap over midnight each day has its part, as if blocks came evenly.
    """
    if not has(rows, "block_number"):
        return _nothing()
    number, time = pl.col("block_number"), rows.time
    frame = ordered(rows).select(
        _from=_before(rows, time), _to=time, _missing=number - _before(rows, number) - 1
    )
    start = pl.max_horizontal("_from", "_day")
    end = pl.min_horizontal("_to", pl.col("_day").dt.offset_by("1d"))

    def until(moment: pl.Expr) -> pl.Expr:
        whole = (pl.col("_to") - pl.col("_from")).dt.total_microseconds()
        part = (moment - pl.col("_from")).dt.total_microseconds() / whole
        return (part.fill_nan(1.0) * pl.col("_missing")).floor().cast(pl.Int64)

    # A gap within one second of the chain, or against it, has no length: it is all at its end.
    pieces = (
        frame.filter((pl.col("_missing") > 0) & (pl.col("_to") > pl.col("_from")))
        .with_columns(
            _day=pl.datetime_ranges(pl.col("_from").dt.truncate("1d"), pl.col("_to"), "1d")
        )
        .explode("_day")
        .select(start=start, end=end, rows=until(end) - until(start))
    )
    moments = frame.filter((pl.col("_missing") > 0) & (pl.col("_to") <= pl.col("_from"))).select(
        start="_to", end=pl.col("_to").dt.offset_by("1us"), rows="_missing"
    )
    return (
        pl.concat([pieces, moments])
        .filter((pl.col("rows") > 0) & (pl.col("end") > pl.col("start")))
        .with_columns(
            measured=pl.col("rows").cast(pl.Float64),
            expected=pl.lit(0.0),
            reason=loss(pl.col("end").dt.offset_by("-1us"), rows.covered),
            message=pl.format("Blocks missing: {}", "rows"),
        )
    )


def block_chain(rows: Slice) -> pl.LazyFrame:
    """Blocks that cannot follow each other; measured is in how many rows.

    `time_backwards`: a later block has an earlier time. `two_hashes`: two rows name one block
    differently. `parent_mismatch`: a block names another parent than the block before.
    """
    if not has(rows, "block_number"):
        return _nothing()
    number = pl.col("block_number")
    previous = _before(rows, number)
    conditions = {"time_backwards": (number >= previous) & (rows.time < _before(rows, rows.time))}
    if has(rows, "block_hash"):
        known = _before(rows, pl.col("block_hash"))
        conditions["two_hashes"] = (number == previous) & (pl.col("block_hash") != known)
        if has(rows, "parent_hash"):
            conditions["parent_mismatch"] = (number == previous + 1) & (
                pl.col("parent_hash") != known
            )
    words = {
        "time_backwards": "The time of block {} is before that of the one before it",
        "two_hashes": "Block {} has two hashes",
        "parent_mismatch": "Block {} names another parent than the block before it",
    }
    return _found(rows, ordered(rows), conditions, words, pl.col("block_number").first())


def swap_amounts(rows: Slice, *, tolerance: float) -> pl.LazyFrame:
    """Swaps in which both tokens go the same way, or nothing goes, or side and price do not fit.

    `same_sign`, `empty`, `side` (a buy takes the base out of the pool), `price` (is not quote by
    base). Measured is how many.

    Parameters
    ----------
    tolerance
        By which part the price may differ.
    """
    if not (_has_number(rows, "amount0") and _has_number(rows, "amount1")):
        return _nothing()
    first, second = _number(rows, "amount0"), _number(rows, "amount1")
    conditions = {
        "same_sign": first.sign() * second.sign() > 0,
        "empty": (first == 0) & (second == 0),
    }
    if has(rows, "side", "base_is_token0"):
        # Where the order of the tokens or the side is not known, nothing is.
        first_is_base = pl.col("base_is_token0")
        base = pl.when(first_is_base).then(first).when(~first_is_base).then(second)
        wanted = pl.col("side").replace_strict({"buy": -1.0, "sell": 1.0}, default=None)
        conditions["side"] = base.sign() * wanted < 0
    if has(rows, "price", "amount_base", "amount_quote"):
        executed = pl.col("amount_quote") / pl.col("amount_base")
        conditions["price"] = (pl.col("amount_base") > 0) & (
            (pl.col("price") / executed - 1).abs() > tolerance
        )
    words = {
        "same_sign": "In block {} both tokens of a swap go the same way",
        "empty": "In block {} a swap moves nothing",
        "side": "In block {} the side of a swap does not fit its amounts",
        "price": "In block {} the price of a swap is not its quote by its base amount",
    }
    return _found(rows, ordered(rows), conditions, words, _block(rows))


def pool_state(rows: Slice, *, tolerance: float) -> pl.LazyFrame:
    """States that no pool can be in after a swap; measured is in how many rows.

    V2: `reserves` (not positive, before or after), `product_falls` (reserves times each other are
    less than before the swap, by more than `tolerance`). V3 and V4: `tick` (the price is not within
    its tick), `liquidity` (none, after a swap). The formulas are those of Uniswap's white papers.
    """
    swaps = _has_number(rows, "amount0") and _has_number(rows, "amount1")
    conditions: dict[str, pl.Expr] = {}
    if _has_number(rows, "reserve0") and _has_number(rows, "reserve1"):
        after = [_number(rows, f"reserve{token}") for token in (0, 1)]
        amounts = [_number(rows, f"amount{token}") if swaps else pl.lit(0.0) for token in (0, 1)]
        before = [left - came for left, came in zip(after, amounts, strict=True)]
        conditions["reserves"] = pl.min_horizontal(*after, *before) <= 0
        growth = (after[0] / before[0]) * (after[1] / before[1])
        conditions["product_falls"] = ~conditions["reserves"] & (growth < 1 - tolerance)
    if has(rows, "sqrt_price_x96", "tick"):
        root, tick = _wide("sqrt_price_x96") / _Q96, pl.col("tick").cast(pl.Float64)
        low, high = ((tick + n).pipe(_root_of_tick) for n in (0, 1))
        # A price that comes from above and ends on a tick belongs to the tick below.
        within = root.is_between(low * (1 - _TICK_ERROR), high * (1 + _TICK_ERROR))
        conditions["tick"] = ~within
    if has(rows, "liquidity"):
        liquidity = _wide("liquidity")
        conditions["liquidity"] = (liquidity <= 0) if swaps else (liquidity < 0)
    words = {
        "reserves": "In block {} the reserves of a pool are not positive",
        "product_falls": "In block {} the product of a pool's reserves falls",
        "tick": "In block {} the price of a pool is not within its tick",
        "liquidity": "In block {} a pool has no liquidity",
    }
    return _found(rows, ordered(rows), conditions, words, _block(rows))


def pool_path(rows: Slice, *, tolerance: float) -> pl.LazyFrame:
    """Swaps of V3 and V4 pools that do not lead from the price before to the price after.

    `direction`: the price moves against the swap. `amount`: where the liquidity is the same as
    before, less leaves the pool than the prices before and after say, or more within one tick, by a
    part of more than `tolerance`. (A swap over a tick may have met more liquidity on its way.)
    Either is a wrong row, or one before it is missing: only swaps move the price.
    """
    if not has(rows, "sqrt_price_x96", "amount0_raw", "amount1_raw", "liquidity", "tick"):
        return _nothing()
    frame = ordered(rows).with_columns(
        _root=_wide("sqrt_price_x96") / _Q96,
        _liquidity=_wide("liquidity"),
        _first=_wide("amount0_raw"),
        _second=_wide("amount1_raw"),
    )
    frame = frame.with_columns(
        _was=_of_pool(rows, pl.col("_root")),
        _had=_of_pool(rows, pl.col("_liquidity")),
        _within=pl.col("tick") == _of_pool(rows, pl.col("tick")),
    )
    root, was, liquidity = pl.col("_root"), pl.col("_was"), pl.col("_liquidity")
    rises = (pl.col("_first") < 0) & (pl.col("_second") > 0)
    falls = (pl.col("_first") > 0) & (pl.col("_second") < 0)
    against = (rises & (root < was)) | (falls & (root > was))
    # The white paper of V3, 6.2.3: token 1 by the root, token 0 by its inverse; the units round.
    paid = pl.when(falls).then(-pl.col("_second")).when(rises).then(-pl.col("_first"))
    said = liquidity * (root - was).abs() / pl.when(rises).then(root * was).otherwise(1.0)
    units = liquidity * pl.when(rises).then(1 / root).otherwise(root)
    allowed = tolerance * paid + _ROOT_ERROR * units + 2
    steady = (liquidity == pl.col("_had")) & (liquidity > 0)
    wrong = (said - paid > allowed) | (pl.col("_within") & (paid - said > allowed))
    conditions = {
        "direction": against,
        "amount": steady & ~against & wrong,
    }
    words = {
        "direction": "In block {} the price of a pool moves against a swap",
        "amount": "In block {} a swap's amounts are not those of its prices before and after",
    }
    return _found(rows, frame, conditions, words, _block(rows))


def _found(
    rows: Slice,
    frame: pl.LazyFrame,
    conditions: Mapping[str, pl.Expr],
    words: Mapping[str, str],
    told: pl.Expr,
) -> pl.LazyFrame:
    """Rows that meet a condition, by its reason: one finding a block and reason."""
    if not conditions:
        return _nothing()
    flags = {f"_{reason}": condition for reason, condition in conditions.items()}
    marked = frame.with_columns(**flags)
    found = [
        completed(
            runs(
                marked,
                pl.col(f"_{reason}"),
                time=rows.dataset.time_column,
                reason=pl.lit(reason),
                measured=pl.len().cast(pl.Float64),
                expected=pl.lit(0.0),
                message=pl.format(words[reason], told),
            )
        )
        for reason in conditions
    ]
    first = [pl.col(n).first() for n in ("expected", "message")]
    return (
        pl.concat(found)
        .group_by("start", "reason", maintain_order=True)
        .agg(pl.col("end").max(), pl.col("rows", "measured").sum(), *first)
    )


def ordered(rows: Slice) -> pl.LazyFrame:
    """Rows in the order of the chain."""
    names = ("chain", "block_number", "log_index")
    return rows.rows.sort([n for n in names if has(rows, n)], maintain_order=True)


def _before(rows: Slice, value: pl.Expr) -> pl.Expr:
    """A value of the row before, on the same chain."""
    return value.shift(1).over("chain") if has(rows, "chain") else value.shift(1)


def _of_pool(rows: Slice, value: pl.Expr) -> pl.Expr:
    """A value of the row before, of the same pool."""
    pool = pool_of(rows)
    return value.shift(1).over(pool) if pool else value.shift(1)


def pool_of(rows: Slice) -> list[str]:
    """The columns that name a pool."""
    pool = next(([n] for n in ("pool_id", "pool_address") if has(rows, n)), [])
    return [*(["chain"] if has(rows, "chain") else []), *pool]


def has(rows: Slice, *names: str) -> bool:
    """Whether the dataset has all of these columns."""
    return all(name in rows.dataset.polars_schema for name in names)


def _has_number(rows: Slice, name: str) -> bool:
    return has(rows, name) or has(rows, f"{name}_raw")


def _number(rows: Slice, name: str) -> pl.Expr:
    """A quantity as a double, in its smallest units where the table has them."""
    return _wide(f"{name}_raw") if has(rows, f"{name}_raw") else pl.col(name)


def _wide(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Float64)


def _root_of_tick(tick: pl.Expr) -> pl.Expr:
    return pl.lit(_TICK).pow(tick / 2)


def _block(rows: Slice) -> pl.Expr:
    return (pl.col("block_number") if has(rows, "block_number") else rows.time).first()


def _nothing() -> pl.LazyFrame:
    return pl.LazyFrame(schema=FOUND)


CHECKS: Mapping[str, Builtin] = {
    "block_gaps": Builtin(block_gaps, "completeness"),
    "block_chain": Builtin(block_chain, "consistency"),
    "swap_amounts": Builtin(swap_amounts, "accuracy"),
    "pool_state": Builtin(pool_state, "accuracy"),
    "pool_path": Builtin(pool_path, "consistency"),
}
