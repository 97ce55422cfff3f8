"""A web page in a browser reaches neither the control API nor the exchanges."""

import socket
from http.client import HTTPConnection
from typing import Any

import orjson
import pytest

from lake.sandbox import Sandbox

FAULTS, LOG = ("POST", "/sandbox/faults"), ("GET", "/sandbox/log")
CLEAR, PING = ("POST", "/sandbox/clear"), ("GET", "/api.binance.com/api/v3/ping")
ADDRESSES = [FAULTS, LOG, CLEAR, PING]


def send(sandbox: Sandbox, address: tuple[str, str], headers: dict[str, str]) -> tuple[int, Any]:
    """Send a request as a browser does, to the port of the sandbox, with headers of a page."""
    method, path = address
    body = orjson.dumps({"down": True}) if method == "POST" else None
    connection = HTTPConnection("127.0.0.1", sandbox.port, timeout=5)
    try:
        connection.request(method, path, body, {"Content-Type": "text/plain", **headers})
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: address[1])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:{port}"},  # its name was made to resolve to 127.0.0.1
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": "evil@127.0.0.1:{port}"},
        {"Host": "127.0.0.1:{port}/evil.example"},
        {"Host": ""},
        {"Host": "[::"},
        {"Origin": "https://evil.example"},  # a page posts a form, or text without preflight
        {"Origin": "http://127.0.0.1:1"},  # another server of this machine
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "null"},  # a page in a sandboxed frame, or a local file
        {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"},
        {"Sec-Fetch-Site": "cross-site"},  # an image or a script: without Origin
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_a_web_page_is_refused(
    quiet: Sandbox, address: tuple[str, str], headers: dict[str, str]
) -> None:
    quiet.recover()
    sent = {name: value.format(port=quiet.port) for name, value in headers.items()}
    status, answer = send(quiet, address, sent)
    assert status == 403
    assert "does not serve web pages" in answer["error"]
    assert "127.0.0.1" in answer["hint"]
    assert send(quiet, PING, {}) == (200, {})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:{port}"},
        {"Host": "127.0.0.1"},  # through a tunnel with another port
        {"Origin": "http://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "none"},  # a user who types the address
    ],
    ids=str,
)
def test_programs_of_this_machine_are_served(quiet: Sandbox, headers: dict[str, str]) -> None:
    sent = {name: value.format(port=quiet.port) for name, value in headers.items()}
    assert send(quiet, PING, sent) == (200, {})
    status, answer = send(quiet, LOG, sent)
    assert status == 200
    assert answer["requests"]


def test_a_request_with_two_hosts_or_none_is_refused(quiet: Sandbox) -> None:
    for hosts in ("", f"Host: 127.0.0.1:{quiet.port}\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", quiet.port), timeout=5) as connection:
            connection.sendall(f"GET /sandbox/log HTTP/1.0\r\n{hosts}\r\n".encode())
            assert connection.makefile("rb").readline().split()[1] in (b"400", b"403")
