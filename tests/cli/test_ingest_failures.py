"""`lake ingest` where something fails: the rest is done, and the exit code says what happened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lake.sandbox import Market, Sandbox, SyntheticMarkets
from tests.cli.conftest import Cli

MARKETS = ("-e", "binance", "-s", "BTC/USDT", "-s", "ETH/USDT", "-t", "1h")


class Listing(SyntheticMarkets):
    """Synthetic markets, without those that are taken off the list."""

    gone: tuple[str, ...] = ()

    @property
    def markets(self) -> list[Market]:
        return [market for market in super().markets if market.symbol not in self.gone]


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listing]:
    """The list of the exchange that commands ask; nobody answers for binanceus."""
    listed = Listing(seed=7)
    with Sandbox(listed, weight_limit=False) as running:
        monkeypatch.setenv("LAKE_EXCHANGES__BINANCE__URL", running.url)
        monkeypatch.setenv("LAKE_EXCHANGES__BINANCEUS__URL", "http://127.0.0.1:9")
        yield listed


def test_a_delisted_market_fails_once_and_stops_no_other(cli: Cli, listing: Listing) -> None:
    cli("init")
    assert cli("ingest", "bars", *MARKETS, "--since", "2d", "--until", "1d").code == 0
    listing.gone = ("ETH/USDT",)
    first = cli("ingest", "--json")
    assert (first.code, first.error["code"]) == (4, "source_refused")
    assert "no longer listed" in first.error["message"]
    rows = {(row["outcome"], row["symbol"]): row for row in first.json}
    assert rows["failed", "ETH/USDT"]["reason"] == "not_listed"
    assert rows["failed", "ETH/USDT"]["start"] is not None
    assert any(row["outcome"] == "stored" and row["inserted"] for row in first.json)
    assert "Not fetched (not_listed): bars_1h of binance ETH/USDT" in first.err

    again = cli("ingest", "--json")
    assert again.code == 0
    [known] = [row for row in again.json if row["outcome"] == "not_asked"]
    assert (known["symbol"], known["reason"]) == ("ETH/USDT", "not_listed")
    assert known["again_at"] is not None
    assert "Not asked again before" in again.err
    states = {row["symbol"]: row["open"] for row in cli("status", "--json").json}
    assert states["BTC/USDT"] is None
    assert states["ETH/USDT"].startswith("not_listed ")


def test_a_dead_exchange_stops_no_other(cli: Cli, listing: Listing) -> None:
    assert listing.gone == ()
    cli("init")
    both = ("-e", "binanceus", *MARKETS, "--since", "1d")
    done = cli("ingest", "bars", *both, "--json")
    assert (done.code, done.error["code"]) == (4, "source_unavailable")
    failed = {row["exchange"] for row in done.json if row["outcome"] == "failed"}
    assert failed == {"binanceus"}
    books = cli("ingest", "orderbooks", *both[:-4], "--json")
    assert books.code == 4
    assert [row["rows"] for row in books.json if row["table"] == "orderbooks"] == [2]


def test_a_symbol_that_was_never_covered_is_an_error_before_anything_is_fetched(
    cli: Cli, listing: Listing
) -> None:
    listing.gone = ("ETH/USDT",)
    cli("init")
    refused = cli("ingest", "bars", *MARKETS, "--since", "1d", "--json")
    assert (refused.code, refused.error["code"]) == (2, "unknown_name")
    assert "ETH/USDT" in refused.error["message"]
    assert cli("tables", "--json").json == []


def test_an_answer_over_the_limit_is_an_error_of_the_source(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("init")
    monkeypatch.setenv("LAKE_HTTP__MAX_ANSWER_BYTES", "1000")
    done = cli("ingest", "bars", *MARKETS, "--since", "1d", "--json")
    assert (done.code, done.error["code"]) == (4, "source_unavailable")
    assert "an answer of more than 1,000 bytes" in done.error["message"]
    assert "/exchangeInfo" in done.error["message"]


@pytest.fixture
def redirecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The hosts that were asked: an exchange redirects all requests to another host, itself."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(str(self.headers["Host"]).partition(":")[0])
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{server.server_port}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write nothing to stderr, which the test reads."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("LAKE_EXCHANGES__BINANCE__URL", f"http://127.0.0.1:{server.server_port}")
        yield asked
        server.shutdown()


def test_a_redirect_to_another_host_is_an_error_of_the_source(
    cli: Cli, redirecting: list[str]
) -> None:
    cli("init")
    done = cli("ingest", "bars", *MARKETS, "--since", "1d", "--json")
    assert (done.code, done.error["code"]) == (4, "source_unavailable")
    assert "a redirect to another host, localhost" in done.error["message"]
    assert set(redirecting) == {"127.0.0.1"}
