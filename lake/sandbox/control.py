"""The control API under `/sandbox/`: faults, revisions and the log, for other processes."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from lake.errors import LakeError, UsageError
from lake.sandbox.exchange import Revision
from lake.sandbox.faults import Fault, FaultPlan, RandomFaults
from lake.sandbox.guard import refuse_web_pages
from lake.sandbox.server import Server

Body = dict[str, Any]


def build_application(server: Server) -> web.Application:
    """Build the web application: the control API, and the exchanges on all other paths.

    - `POST /sandbox/faults` with `{"script": [{kind, match, …}], "random": {rate, kinds, …},
      "down": bool}` replaces all faults; `{}` removes them
    - `POST /sandbox/revise` with `{symbol, interval, timestamp, changes, exchange}`
    - `GET /sandbox/log` returns `{"requests": [{time, path, query, status, fault, headers}, …]}`
    - `POST /sandbox/clear` clears the log

    Requests of web pages are refused; see `refuse_web_pages`.
    """
    app = web.Application(middlewares=[refuse_web_pages])
    app.router.add_post("/sandbox/faults", _handle_post(lambda body: _set_faults(server, body)))
    app.router.add_post("/sandbox/revise", _handle_post(lambda body: _revise(server, body)))
    app.router.add_post("/sandbox/clear", _handle_post(lambda _: server.log.clear()))

    async def log(_: web.Request) -> web.Response:
        return _json_response({"requests": [asdict(entry) for entry in server.log]})

    app.router.add_get("/sandbox/log", log)
    app.router.add_route("*", "/{path:.*}", server.handle)
    return app


def _handle_post(act: Callable[[Body], None]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Build a handler that reads a JSON object, calls `act`, and answers `{}`.

    A body that cannot be used is answered with status 400 and the reason.
    """

    async def handle(request: web.Request) -> web.Response:
        text = await request.read()
        try:
            body = orjson.loads(text) if text else {}
            if not isinstance(body, dict):
                raise UsageError("The body is not a JSON object.")
            act(body)
        except LakeError as error:
            return _json_response({"error": error.message, "hint": error.hint}, status=400)
        except (TypeError, KeyError, ValueError) as error:
            return _json_response(
                {"error": f"The body is malformed: {error!r}", "hint": ""}, status=400
            )
        return _json_response({})

    return handle


def _set_faults(server: Server, body: Body) -> None:
    unknown = body.keys() - {"script", "random", "down"}
    if unknown:
        raise UsageError(
            f"Unknown keys for faults: {', '.join(sorted(unknown))}.",
            "Use script, random and down.",
        )
    random = body.get("random")
    server.faults.set(
        FaultPlan(
            script=tuple(Fault(**fault) for fault in body.get("script", [])),
            random=RandomFaults(**random) if random else None,
            down=bool(body.get("down", False)),
        )
    )


def _revise(server: Server, body: Body) -> None:
    timestamp = datetime.fromisoformat(body["timestamp"])
    server.exchange.revise(
        Revision(
            symbol=body["symbol"],
            interval=body["interval"],
            timestamp=timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC),
            changes=dict(body["changes"]),
            exchange=body.get("exchange"),
        )
    )


def _json_response(answer: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(answer), content_type="application/json")
