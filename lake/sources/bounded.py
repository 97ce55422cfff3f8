"""An HTTP session that reads answers of limited size, and follows no redirect to another host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp


class UnboundedAnswerError(aiohttp.ClientError):
    """An answer is too large, or redirects to another host."""


def create_session(connector: aiohttp.TCPConnector, max_bytes: int, **options: Any) -> Any:
    """Create a session of aiohttp for the requests of an exchange.

    Parameters
    ----------
    connector
        The connections that it uses.
    max_bytes
        The largest body of an answer, after decompression.
    options
        Other options of `aiohttp.ClientSession`.
    """
    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(_require_same_host)

    class Answer(_BoundedAnswer):
        limit = max_bytes

    return aiohttp.ClientSession(
        connector=connector, response_class=Answer, trace_configs=[tracing], **options
    )


class _BoundedAnswer(aiohttp.ClientResponse):
    limit: int

    async def read(self) -> bytes:
        """Read the whole body, piece by piece: a small one can expand to gigabytes."""
        if self._body is None:
            try:
                self._body = await self._read_pieces()
            except BaseException:
                self.close()
                raise
        return self._body

    async def _read_pieces(self) -> bytes:
        body = bytearray()
        async for piece in self.content.iter_any():
            body += piece
            if len(body) > self.limit:
                raise UnboundedAnswerError(f"an answer of more than {self.limit:,} bytes")
        return bytes(body)


async def _require_same_host(
    _: aiohttp.ClientSession, __: SimpleNamespace, redirect: aiohttp.TraceRequestRedirectParams
) -> None:
    target = urljoin(str(redirect.url), redirect.response.headers.get("Location", ""))
    if urlsplit(target).hostname != redirect.url.host:
        raise UnboundedAnswerError(f"a redirect to another host, {urlsplit(target).hostname}")
