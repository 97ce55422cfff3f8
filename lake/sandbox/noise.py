"""Random numbers as functions of a key and a counter: equal on every platform, in any order.

Arrays use integer arithmetic and the IEEE operations + - * / only. Their results are exact by the
standard, whereas `exp` and numpy's generators may differ between platforms.
"""

import math
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LEVELS = 22  # the widest knots of `draw_walk` are 2**22 steps apart: 8 years of minutes


def derive_key(seed: int, *labels: object) -> int:
    """Derive a 63-bit key from a seed and labels."""
    text = "/".join(map(str, (seed, *labels))).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1


def draw_words(key: int, counters: Ints) -> Words:
    """Return 64 random bits for each counter: splitmix64 (Steele, Lea, Flood 2014)."""
    z = counters.astype(np.uint64) * _GOLDEN + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draw_uniforms(key: int, counters: Ints) -> Floats:
    """Return a float in [0, 1) for each counter."""
    return (draw_words(key, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_walk(seed: int, start: int, stop: int, sigma: float) -> Floats:
    """Return a random walk at the steps `start` to `stop`, both included.

    Lévy's construction: knots 2**22 steps apart, then midpoints, each displaced by noise with the
    variance of Brownian motion there. A value depends on its step alone, and the cost of a window
    depends on its length, not on its position.

    Parameters
    ----------
    seed : int
        Identifies the walk.
    sigma : float
        Standard deviation of one step.
    """
    low, high = start >> _LEVELS, (stop >> _LEVELS) + 1
    # uniform() has a variance of 1/12; a midpoint of a bridge of length L has sigma^2 * L / 4
    amplitude = sigma * math.sqrt(12 * 2 ** (_LEVELS - 2))
    values = (draw_uniforms(derive_key(seed, _LEVELS), np.arange(low, high + 1)) - 0.5) * amplitude
    for level in reversed(range(_LEVELS)):
        amplitude = sigma * math.sqrt(6 * 2**level)
        odd = np.arange(2 * low + 1, 2 * high, 2)
        finer = np.empty(2 * len(values) - 1)
        finer[::2] = values
        finer[1::2] = (values[:-1] + values[1:]) * 0.5
        finer[1::2] += (draw_uniforms(seed + level, odd) - 0.5) * amplitude
        first = 2 * low
        low, high = start >> level, (stop >> level) + 1
        values = finer[low - first : high - first + 1]
    return values[: stop - start + 1]


def approximate_exp(x: Floats) -> Floats:
    """Approximate e**x by (1 + x/256)**256, eight squarings; the result is positive."""
    y = 1.0 + x / 256.0
    for _ in range(8):
        y = y * y
    return y


def format_decimals(values: Ints, places: int, width: int) -> list[str]:
    """Format integers as decimals: 12345 with 2 `places` is `123.45`, zero-padded to `width`."""
    if width == 0:
        return [str(value) for value in values.tolist()]
    zeros = "0" * (width - places)
    if places == 0:
        return [f"{value}.{zeros}" for value in values.tolist()]
    whole, part = np.divmod(values, 10**places)
    form = f"%d.%0{places}d{zeros}"
    return [form % pair for pair in zip(whole.tolist(), part.tolist(), strict=True)]
