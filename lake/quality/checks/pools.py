"""Check swaps and the states of pools against each other.

A check uses the columns that a dataset has, by the names of `dex_swaps` and `liquidity_pools`, and
reports nothing without them. Big integers are decimal strings (`…_raw`, `sqrt_price_x96`,
`liquidity`) and are compared as doubles: relative differences below 1e-12 are not seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.quality.check import BuiltinCheck
from lake.quality.checks.chain import collect_findings, has, no_findings, sort_by_block
from lake.quality.slice import Slice

_Q96 = 2.0**96
_TICK = 1.0001
_TICK_ERROR = 1e-9
"""Relative error of powers of a tick in doubles; a tick is 5e-5 of a root."""
_ROOT_ERROR = 1e-14
"""Error of the difference of two roots, relative to a root."""
_PIP = 1e-6
"""Unit of the fees of V3 and V4."""
_SAME_FEE = 0.9
"""Share of a pool's swaps that must pay the same fee; other pools have no usual fee."""
_MIN_SWAPS = 20
_AMOUNTS: Mapping[str, str] = {
    "same_sign": "In block {} both token amounts of a swap have the same sign",
    "empty": "In block {} both amounts of a swap are zero",
    "side": "In block {} the side of a swap contradicts its amounts",
    "price": "In block {} the price of a swap is not its quote amount divided by its base amount",
    "not_a_number": "In block {} an amount of a swap is not a decimal number",
}


def swap_amounts(data: Slice, *, tolerance: float) -> pl.LazyFrame:
    """Report swaps whose amounts contradict each other, or their side, or their price.

    `same_sign`: both tokens go into the pool, or out of it. `empty`: both amounts are zero, though
    the pool has liquidity (without it such swaps move the price). `side`: a buy must take the base
    out of the pool. `price`: it is not quote divided by base. `not_a_number`: an amount is not a
    decimal string. `measured` is the number of such swaps.

    Parameters
    ----------
    tolerance
        Largest relative difference of the price.
    """
    if not (_has_number(data, "amount0") and _has_number(data, "amount1")):
        return no_findings()
    first, second = _number(data, "amount0"), _number(data, "amount1")
    empty = (first == 0) & (second == 0)
    if has(data, "liquidity"):
        empty &= (_to_double("liquidity") != 0).fill_null(value=True)
    conditions = {
        "same_sign": first.sign() * second.sign() > 0,
        "empty": empty,
        **_not_a_number(data, "amount0_raw", "amount1_raw"),
    }
    if has(data, "side", "base_is_token0"):
        # Null if the order of the tokens or the side is unknown.
        first_is_base = pl.col("base_is_token0")
        base = pl.when(first_is_base).then(first).when(~first_is_base).then(second)
        expected_sign = pl.col("side").replace_strict({"buy": -1.0, "sell": 1.0}, default=None)
        conditions["side"] = base.sign() * expected_sign < 0
    if has(data, "price", "amount_base", "amount_quote"):
        executed = pl.col("amount_quote") / pl.col("amount_base")
        conditions["price"] = (pl.col("amount_base") > 0) & (
            (pl.col("price") / executed - 1).abs() > tolerance
        )
    return collect_findings(data, sort_by_block(data), conditions, _AMOUNTS, _block(data))


def pool_state(data: Slice, *, tolerance: float) -> pl.LazyFrame:
    """Report impossible states of a pool after a swap; `measured` is the number of such rows.

    V2: `reserves` (not positive before or after the swap), `product_falls` (the product of the
    reserves falls by more than `tolerance`). V3 and V4: `tick` (the price is not within its tick),
    `liquidity` (negative), `no_liquidity` (warning: a swap can use up all liquidity, but rarely
    does). All versions: `not_a_number` (not a decimal string). The formulas are those of Uniswap's
    white papers.
    """
    has_swaps = _has_number(data, "amount0") and _has_number(data, "amount1")
    conditions = {
        **_not_a_number(data, "reserve0_raw", "reserve1_raw", "sqrt_price_x96", "liquidity"),
        **_reserve_conditions(data, tolerance, has_swaps=has_swaps),
        **_tick_conditions(data, has_swaps=has_swaps),
    }
    texts = {
        "reserves": "In block {} the reserves of a pool are not positive",
        "product_falls": "In block {} the product of the reserves of a pool falls",
        "tick": "In block {} the price of a pool is not within its tick",
        "liquidity": "In block {} the liquidity of a pool is negative",
        "no_liquidity": "In block {} a pool has no liquidity after a swap",
        "not_a_number": "In block {} a state value of a pool is not a decimal number",
    }
    return collect_findings(data, sort_by_block(data), conditions, texts, _block(data))


def _reserve_conditions(data: Slice, tolerance: float, *, has_swaps: bool) -> dict[str, pl.Expr]:
    """Return the impossible states of a pool of V2."""
    if not (_has_number(data, "reserve0") and _has_number(data, "reserve1")):
        return {}
    after = [_number(data, f"reserve{token}") for token in (0, 1)]
    amounts = [_number(data, f"amount{token}") if has_swaps else pl.lit(0.0) for token in (0, 1)]
    before = [reserve - amount for reserve, amount in zip(after, amounts, strict=True)]
    not_positive = pl.min_horizontal(*after, *before) <= 0
    growth = (after[0] / before[0]) * (after[1] / before[1])
    return {"reserves": not_positive, "product_falls": ~not_positive & (growth < 1 - tolerance)}


def _tick_conditions(data: Slice, *, has_swaps: bool) -> dict[str, pl.Expr]:
    """Return the impossible states of a pool of V3 and V4."""
    conditions = {}
    if has(data, "sqrt_price_x96", "tick"):
        root, tick = _to_double("sqrt_price_x96") / _Q96, pl.col("tick").cast(pl.Float64)
        low, high = ((tick + n).pipe(_root_of_tick) for n in (0, 1))
        # A price that comes from above and ends on a tick belongs to the tick below.
        conditions["tick"] = ~root.is_between(low * (1 - _TICK_ERROR), high * (1 + _TICK_ERROR))
    if has(data, "liquidity"):
        liquidity = _to_double("liquidity")
        conditions["liquidity"] = liquidity < 0
        if has_swaps:
            conditions["no_liquidity"] = liquidity == 0
    return conditions


def pool_path(data: Slice, *, tolerance: float) -> pl.LazyFrame:
    """Report swaps that do not lead from the previous state of their pool to the next one.

    Such a row is wrong, or a swap before it is missing: only swaps move the price.

    V3 and V4: `direction` (the price moves against the swap), `amount` (the amounts differ from
    those that follow from the prices before and after by more than the share `tolerance`, with the
    usual fee of the pool, if it has one). V2: `ratio` (warning: the reserves before a swap have a
    different ratio than after the previous swap; adding or removing liquidity keeps the ratio, but
    tokens that change balances by themselves do not).
    """
    if not has(data, "amount0_raw", "amount1_raw"):
        return no_findings()
    frame, conditions = sort_by_block(data), dict[str, pl.Expr]()
    if has(data, "sqrt_price_x96", "liquidity", "tick"):
        frame = _add_path(data, frame)
        against = _moves_against()
        conditions |= {
            "direction": against,
            "amount": ~against & _has_wrong_amount(data, tolerance),
        }
    if has(data, "reserve0_raw", "reserve1_raw"):
        conditions["ratio"] = _has_other_ratio(data, tolerance)
    texts = {
        "direction": "In block {} the price of a pool moves against a swap",
        "amount": "In block {} the amounts of a swap do not fit the prices before and after it",
        "ratio": "In block {} a swap starts from other reserves than the previous swap left",
    }
    return collect_findings(data, frame, conditions, texts, _block(data))


def _add_path(data: Slice, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Add the amounts in and out of swaps of V3 and V4, and the prices before and after them.

    `_best` and `_last` are the values of one unit of the input token at these prices, without fee.
    """
    first, second = _to_double("amount0_raw"), _to_double("amount1_raw")
    rises, falls = (first < 0) & (second > 0), (first > 0) & (second < 0)
    frame = frame.with_columns(
        _rises=rises,
        _in=pl.when(falls).then(first).when(rises).then(second),
        _out=pl.when(falls).then(-second).when(rises).then(-first),
        _root=_to_double("sqrt_price_x96") / _Q96,
        _liquidity=_to_double("liquidity"),
    )
    frame = frame.with_columns(
        _was=_previous_of_pool(data, pl.col("_root")),
        _had=_previous_of_pool(data, pl.col("_liquidity")),
        _within=pl.col("tick") == _previous_of_pool(data, pl.col("tick")),
    )
    worth = {"_best": pl.col("_was") ** 2, "_last": pl.col("_root") ** 2}
    return frame.with_columns(
        pl.when("_rises").then(1 / value).otherwise(value).alias(name)
        for name, value in worth.items()
    )


def _moves_against() -> pl.Expr:
    """Whether the input token is worth more after the swap than before."""
    return pl.col("_in").is_not_null() & (pl.col("_last") > pl.col("_best"))


def _has_wrong_amount(data: Slice, tolerance: float) -> pl.Expr:
    """Whether the output of a swap contradicts the prices or the liquidity of its pool."""
    paid, out, best, last = (pl.col(name) for name in ("_in", "_out", "_best", "_last"))
    # The price of a swap is between the price before it and the price after it.
    units = 2 + 2 * best
    most = paid * best * (1 + tolerance) + units
    least = paid * (1 - _usual_fee(data)) * last * (1 - tolerance) - units
    # White paper of V3, 6.2.3: token 1 by the root, token 0 by its inverse; `units` is rounding.
    # Within a tick, liquidity is that after the swap. Over several ticks it may have been more.
    root, was, liquidity = pl.col("_root"), pl.col("_was"), pl.col("_liquidity")
    due = liquidity * (root - was).abs() / pl.when("_rises").then(root * was).otherwise(1.0)
    whole = liquidity * pl.when("_rises").then(1 / root).otherwise(root)
    allowed = tolerance * out + _ROOT_ERROR * whole + 2
    steady = pl.col("_within") | (liquidity == pl.col("_had"))
    by_liquidity = (steady & (due - out > allowed)) | (pl.col("_within") & (out - due > allowed))
    unpriced = (out > most) | (out < least).fill_null(value=False)
    return unpriced | ((liquidity > 0) & by_liquidity).fill_null(value=False)


def _usual_fee(data: Slice) -> pl.Expr:
    """Return the fee that nearly all swaps of a pool paid; null if there is none."""
    paid = 1 - pl.col("_out") / (pl.col("_in") * (pl.col("_best") * pl.col("_last")).sqrt())
    usual = (_over_pool(data, paid.median()) / _PIP).round() * _PIP
    same = (paid - usual).abs() < _PIP
    share, count = _over_pool(data, same.mean()), _over_pool(data, same.count())
    return pl.when((share >= _SAME_FEE) & (count >= _MIN_SWAPS)).then(usual)


def _has_other_ratio(data: Slice, tolerance: float) -> pl.Expr:
    """Whether the reserves before a swap of V2 have another ratio than after the previous swap."""
    after = [_to_double(f"reserve{token}_raw") for token in (0, 1)]
    left = [_previous_of_pool(data, value) for value in after]
    before = [value - _to_double(f"amount{token}_raw") for token, value in enumerate(after)]
    rounding = 2 / pl.min_horizontal(*left, *before)
    ratio = (before[0] / left[0]) / (before[1] / left[1])
    return (rounding > 0) & ((ratio - 1).abs() > tolerance + rounding)


def pool_of(data: Slice) -> list[str]:
    """Return the columns that identify a pool."""
    pool = next(([n] for n in ("pool_id", "pool_address") if has(data, n)), [])
    return [*(["chain"] if has(data, "chain") else []), *pool]


def _previous_of_pool(data: Slice, value: pl.Expr) -> pl.Expr:
    """Return a value of the previous row of the same pool."""
    return _over_pool(data, value.shift(1))


def _over_pool(data: Slice, value: pl.Expr) -> pl.Expr:
    """Evaluate an expression over the rows of each pool."""
    pool = pool_of(data)
    return value.over(pool) if pool else value


def _has_number(data: Slice, name: str) -> bool:
    return has(data, name) or has(data, f"{name}_raw")


def _number(data: Slice, name: str) -> pl.Expr:
    """Return a quantity as a double, in its smallest units if the table has them."""
    return _to_double(f"{name}_raw") if has(data, f"{name}_raw") else pl.col(name)


def _to_double(name: str) -> pl.Expr:
    """Convert a big integer to a double; null if it is not a number."""
    value = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def _not_a_number(data: Slice, *names: str) -> dict[str, pl.Expr]:
    """Return the condition `not_a_number`: a big integer is not null but cannot be parsed."""
    wrong = [pl.col(n).is_not_null() & _to_double(n).is_null() for n in names if has(data, n)]
    return {"not_a_number": pl.any_horizontal(wrong)} if wrong else {}


def _root_of_tick(tick: pl.Expr) -> pl.Expr:
    return pl.lit(_TICK).pow(tick / 2)


def _block(data: Slice) -> pl.Expr:
    return (pl.col("block_number") if has(data, "block_number") else data.time).first()


CHECKS: Mapping[str, BuiltinCheck] = {
    "swap_amounts": BuiltinCheck(swap_amounts, "accuracy"),
    "pool_state": BuiltinCheck(pool_state, "accuracy"),
    "pool_path": BuiltinCheck(pool_path, "consistency"),
}
