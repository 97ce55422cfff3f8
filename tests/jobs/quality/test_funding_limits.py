"""Bounds of funding rates by venue and contract, known or set by the user."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from lake.api import Lake
from lake.settings import ExchangeSettings
from tests.conftest import T0, write

PERPETUAL = "BTC/USDT:USDT"


def funding(exchange: str) -> pl.DataFrame:
    times = [T0 + timedelta(hours=n) for n in range(24)]
    rates = [0.0001] * 23 + [0.035]
    return pl.DataFrame({"timestamp": times, "funding_rate": rates}).with_columns(
        exchange=pl.lit(exchange), symbol=pl.lit(PERPETUAL)
    )


@pytest.mark.parametrize(
    ("exchange", "chosen", "found"),
    [
        ("binanceusdm", None, 1),
        ("hyperliquid", None, 0),
        ("hyperliquid", ExchangeSettings(funding_limit=0.01), 1),
        ("binanceusdm", ExchangeSettings(funding_limit=0.05), 0),
        ("binanceusdm", ExchangeSettings(funding_limits={PERPETUAL: 0.05}), 0),
        ("binanceusdm", ExchangeSettings(funding_limits={"ETH/USDT:USDT": 0.05}), 1),
    ],
)
def test_the_bound_of_the_contract_counts(
    lake: Lake, exchange: str, chosen: ExchangeSettings | None, found: int
) -> None:
    exchanges = {} if chosen is None else {exchange: chosen}
    settings = lake.settings.model_copy(update={"exchanges": exchanges})
    write(lake, "funding", funding(exchange))
    findings = Lake(settings).quality.check("funding").findings
    assert findings.filter(check="funding_bounds").height == found
