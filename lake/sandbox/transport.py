"""Sends answers over HTTP, intact or with a fault."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from lake.sandbox.binance import render_error
from lake.sandbox.faults import Fault, corrupt_body

_TOO_MANY = -1003
_RESTRICTED = (
    "Service unavailable from a restricted location according to 'b. Eligibility' in "
    "https://www.binance.com/en/terms."
)
_GATEWAY = b"<html><head><title>%d</title></head><body><h1>%d</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer that is ready to be sent."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    content_type: str = "application/json"


async def send(request: web.Request, answer: Answer, kind: str, hang: float) -> web.StreamResponse:
    """Send an answer, or abort the connection as a fault demands.

    Parameters
    ----------
    request : aiohttp.web.Request
        The request to answer.
    answer : Answer
        The answer to send.
    kind : str
        `reset`, `timeout` and `cut` abort the connection; other kinds send the answer.
    hang : float
        Seconds that a `timeout` waits.
    """
    if kind == "cut":
        return await _send_half(request, answer)
    if kind == "timeout":
        await asyncio.sleep(hang)
    if kind in ("reset", "timeout"):
        return _abort(request)
    return web.Response(
        status=answer.status,
        body=answer.body,
        headers=answer.headers,
        content_type=answer.content_type,
    )


def build_refusal(
    status: int, retry_after: float, message: str, headers: Mapping[str, str]
) -> Answer:
    """Build a 429 or 418 answer of Binance, with `Retry-After` in seconds."""
    extra = {"Retry-After": f"{retry_after:g}"}
    return Answer(status, render_error(_TOO_MANY, message), {**headers, **extra})


def apply_fault(answer: Answer, fault: Fault) -> Answer:
    """Return an answer after a fault of its status or contents."""
    if fault.kind in ("429", "418"):
        message = "Too many requests queued."
        return build_refusal(int(fault.kind), fault.retry_after, message, answer.headers)
    if fault.kind == "451":
        return Answer(451, render_error(0, _RESTRICTED), answer.headers)
    if fault.kind in ("403", "500", "502", "503"):
        status = int(fault.kind)
        return Answer(status, _GATEWAY % (status, status), answer.headers, "text/html")
    if fault.kind in ("truncated", "html", "empty", "shuffled"):
        body, content_type = corrupt_body(fault.kind, answer.body)
        status = answer.status if fault.kind == "shuffled" else 200
        return Answer(status, body, answer.headers, content_type)
    return answer


def _abort(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _send_half(request: web.Request, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(headers=dict(answer.headers))
    response.content_type = answer.content_type
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    if request.transport is not None:
        request.transport.close()  # unlike abort(), close() lets the first half arrive
    return response
