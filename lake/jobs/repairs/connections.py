"""The sources of one run: one per exchange, and its fallback where the settings name one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from lake.errors import SourceUnavailableError
from lake.settings import ExchangeSettings, Settings
from lake.sources.base import RangeSource, Source, require_ranges

Connect = Callable[[str, ExchangeSettings | None], Source]
"""Connects the source of an exchange; None: with the settings of the lake."""


@dataclass(frozen=True)
class Connection:
    """A source of ranges, and the name under which its rows are stored."""

    source: RangeSource
    name: str


class Connections:
    """Connects each source once, and refuses those that were down in this run."""

    def __init__(self, connect: Connect, settings: Settings) -> None:
        self._connect = connect
        self._settings = settings
        self._sources: dict[tuple[str, bool], Source] = {}
        self._down: dict[tuple[str, bool], SourceUnavailableError] = {}

    @property
    def requests(self) -> int:
        """Count of requests sent, repeats included."""
        return sum(source.requests for source in self._sources.values())

    def get(self, exchange: str, *, fallback: bool) -> Connection | None:
        """Return the source of an exchange, or its fallback; None where there is no fallback.

        Raises
        ------
        SourceUnavailableError
            It was down before in this run, after all its retries.
        UnknownNameError
            No source serves the exchange, or none that gives ranges.
        """
        key = exchange, fallback
        settings = self._settings.exchanges.get(exchange)
        if fallback:
            if settings is None or settings.fallback_url is None:
                return None
            settings = settings.model_copy(update={"url": settings.fallback_url})
        if key in self._down:
            raise self._down[key]
        if key not in self._sources:
            self._sources[key] = self._connect(exchange, settings)
        source = require_ranges(self._sources[key])
        return Connection(source, f"{source.name} (fallback)" if fallback else source.name)

    def set_down(self, exchange: str, error: SourceUnavailableError, *, fallback: bool) -> None:
        """Remember that a source is down."""
        self._down[exchange, fallback] = error

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(source.close() for source in self._sources.values()))
