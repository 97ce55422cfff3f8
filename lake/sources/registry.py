"""Decide which source serves an exchange, name the source, connect it: only here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from lake.errors import UnknownNameError
from lake.settings import ExchangeSettings, Settings
from lake.sources.base import Source


def is_served(exchange: str) -> bool:
    """Whether some source serves the kind of exchange that a name denotes.

    ccxt serves exchanges such as `binance`. No source serves protocols on chains, such as
    `ethereum:uniswap_v3`. Whether ccxt has an exchange of the name is checked by `connect`.
    """
    return ":" not in exchange


def source_name(exchange: str) -> str:
    """Return the name that is recorded as the source of an exchange's rows: `ccxt:binance`.

    It loads no library and connects to nothing.

    Raises
    ------
    UnknownNameError
        No source serves this kind of name.
    """
    if not is_served(exchange):
        raise UnknownNameError(
            f"no source serves {exchange}: protocols on chains cannot be fetched",
            "Exchanges are called as in ccxt: binance, kraken, okx. Write rows of your own with "
            "Lake.write.",
        )
    return f"ccxt:{exchange}"


def connect(
    exchange: str,
    *,
    settings: Settings,
    now: Callable[[], datetime],
    exchange_settings: ExchangeSettings | None = None,
) -> Source:
    """Connect the source of an exchange; no request is sent yet.

    Parameters
    ----------
    settings
        Settings of the lake: `http` and `retry`.
    now
        The local clock, in UTC.
    exchange_settings
        URL and credentials; by default those of `settings.exchanges`.

    Raises
    ------
    UnknownNameError
        No source serves it; the error names the closest exchanges.
    """
    name = source_name(exchange)
    from lake.sources.ccxt_rest import CcxtSource  # loads ccxt, which takes seconds

    return CcxtSource(
        exchange,
        name=name,
        now=now,
        http=settings.http,
        retry=settings.retry,
        exchange=exchange_settings or settings.exchanges.get(exchange),
    )
