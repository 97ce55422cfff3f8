"""Refuses requests that a web page made: the sandbox serves programs of this machine.

A page that a browser shows can send requests to 127.0.0.1: to this address, or to a name of its own
that now resolves to it (DNS rebinding). Its requests name a foreign host or a foreign origin.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

import orjson
from aiohttp import web

_LOCAL = frozenset({"127.0.0.1", "localhost"})
# https://www.w3.org/TR/fetch-metadata/: `none` is an address that the user typed.
_OWN_SITES = frozenset({"", "none", "same-origin"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def refuse_web_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request only if no foreign web page can have sent it; others get status 403."""
    reason = _find_foreign(request)
    if reason is None:
        return await handler(request)
    body = {"error": f"The sandbox does not serve web pages: {reason}.", "hint": _HINT}
    return web.Response(
        status=HTTPStatus.FORBIDDEN, body=orjson.dumps(body), content_type="application/json"
    )


_HINT = "Address it as http://127.0.0.1:PORT, from a program and not from a page."


def _find_foreign(request: web.Request) -> str | None:
    """Describe what is foreign about a request; None if nothing is."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or _hostname(hosts[0]) not in _LOCAL:
        return f"the host {', '.join(hosts) or '(none)'} is not this machine"
    for origin in request.headers.getall("Origin", []):
        if origin.lower() != f"http://{hosts[0]}".lower():
            return f"the origin {origin} is not the sandbox"
    site = request.headers.get("Sec-Fetch-Site", "").lower()
    return None if site in _OWN_SITES else f"the request is {site}"


def _hostname(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None
