"""Volumes that are wrong by a factor are found; bursts that something testifies to are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from lake.model.market import Market
from lake.quality.checks.digits import count_digits
from lake.quality.checks.volumes import CHECKS
from tests.quality.slices import outcome, reference_of, slice_of

T0 = datetime(2024, 1, 1, tzinfo=UTC)
PLACE = 700
OTHER = Market("kraken", "BTC/USDT")


def minutes(count: int = 1440, **columns: Any) -> pl.DataFrame:
    """Bars at 100 with volumes of three digits after the point."""
    volumes = np.random.default_rng(1).lognormal(3, 1, count).round(3)
    return pl.DataFrame(
        {
            "timestamp": [T0 + timedelta(minutes=n) for n in range(count)],
            "open": 100.0,
            "high": 101.0,
            "low": 99.0,
            "close": 100.0,
            "volume": volumes,
            "quote_volume": volumes * 100.2,
            **columns,
        }
    )


def at(place: int = PLACE) -> pl.Expr:
    return pl.int_range(pl.len()) == place


def times(factor: float, *names: str) -> pl.DataFrame:
    scaled = [pl.when(at()).then(pl.col(n) * factor).otherwise(n).alias(n) for n in names]
    return minutes().with_columns(scaled)


def run(frame: pl.DataFrame, **more: Any) -> pl.DataFrame:
    return outcome(CHECKS, "volume_spikes", slice_of("bars_1m", frame, **more))


def test_a_volume_in_a_wrong_unit_is_suspect() -> None:
    (finding,) = run(times(1000, "volume", "quote_volume")).rows(named=True)
    assert finding["start"] == T0 + timedelta(minutes=PLACE)
    assert (finding["reason"], finding["severity"]) == ("suspect", "warning")
    assert "there is no reference" in finding["message"]


def test_usual_volumes_and_a_burst_with_all_its_digits_are_fine() -> None:
    assert run(minutes()).is_empty()
    burst = pl.when(at()).then(900.123).otherwise(pl.col("volume"))
    assert run(minutes().with_columns(volume=burst, quote_volume=burst * 100.2)).is_empty()


def test_a_quote_volume_contradicts_a_volume_that_alone_is_wrong() -> None:
    findings = run(times(1000, "volume")).filter(pl.col("reason") == "contradicted")
    assert findings.select("against", "severity").rows() == [("quote_volume", None)]
    expected = minutes()["volume"][PLACE]
    assert findings["expected"].item() == pytest.approx(expected, rel=0.02)


def test_a_burst_that_another_venue_shows_is_real() -> None:
    burst = times(1000, "volume", "quote_volume")
    assert run(burst, others=(reference_of("bars_1m", burst, market=OTHER),)).is_empty()
    quiet = reference_of("bars_1m", minutes(), market=OTHER)
    findings = run(burst, others=(quiet,))
    assert findings.select("reason", "against").rows() == [("contradicted", str(OTHER))]


def test_few_bars_raise_nothing() -> None:
    few = times(1000, "volume", "quote_volume").slice(PLACE - 25, 50)
    assert run(few).is_empty()


def test_decimal_digits_are_counted_through_the_errors_of_doubles() -> None:
    values = [1.25, 1300.0, 0.1 + 0.2, 108148.53839, 108.14853839 * 1000, 7.0, 1 / 3]
    frame = pl.DataFrame({"volume": values})
    counts = frame.select(count_digits(pl.col("volume"))).to_series().to_list()
    assert counts == [2, -2, 1, 5, 5, 0, 9]
