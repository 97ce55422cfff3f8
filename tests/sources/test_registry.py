"""The registry: the source of an exchange name, its own name, and its connection."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lake.errors import SourceUnavailableError, UnknownNameError
from lake.sandbox import Sandbox, SyntheticMarkets
from lake.settings import ExchangeSettings, Settings, Url
from lake.sources.registry import connect, is_served, source_name
from tests.jobs.conftest import settings_for

NOW = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC)
ON_CHAIN = "ethereum:uniswap_v3"


def _ask(settings: Settings, exchange_settings: ExchangeSettings | None = None) -> tuple[str, str]:
    """Return the name of binance's source, and the symbol of its answer."""

    async def run() -> tuple[str, str]:
        source = connect(
            "binance", settings=settings, now=lambda: NOW, exchange_settings=exchange_settings
        )
        try:
            return source.name, (await source.market("BTC/USDT")).symbol
        finally:
            await source.close()

    return asyncio.run(run())


def test_the_name_of_a_source_loads_no_client() -> None:
    assert source_name("kraken") == "ccxt:kraken"
    code = (
        "import sys; from lake.sources.registry import source_name; source_name('binance'); "
        "print([name for name in ('ccxt', 'web3', 'aiohttp') if name in sys.modules])"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert completed.stdout.strip() == "[]"


def test_a_source_connects_to_the_url_in_the_settings_or_in_its_argument(tmp_path: Path) -> None:
    with Sandbox(SyntheticMarkets(seed=7), now=lambda: NOW, weight_limit=False) as sandbox:
        settings = settings_for(tmp_path, sandbox.url)
        assert _ask(settings) == (source_name("binance"), "BTC/USDT")
        assert sandbox.log
        with pytest.raises(SourceUnavailableError):
            _ask(settings, ExchangeSettings(url=Url("http://127.0.0.1:9")))


def test_no_source_serves_a_protocol_on_a_chain(tmp_path: Path) -> None:
    assert is_served("binance")
    assert not is_served(ON_CHAIN)
    settings = settings_for(tmp_path, "http://127.0.0.1:9")
    for refuse in (source_name, lambda name: connect(name, settings=settings, now=lambda: NOW)):
        with pytest.raises(UnknownNameError, match=f"no source serves {ON_CHAIN}") as refused:
            refuse(ON_CHAIN)
        assert "Lake.write" in refused.value.hint


def test_a_misspelt_exchange_is_refused_with_the_closest(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(UnknownNameError, match="binanze") as refused:
        connect("binanze", settings=settings, now=lambda: NOW)
    assert "binance" in refused.value.hint
