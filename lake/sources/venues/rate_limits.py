"""The rate limits of venues: ccxt's, and where these differ from the venue's own documents, those.

- https://github.com/binance/binance-spot-api-docs/blob/master/rest-api.md
- https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lake.sources.pacing import Allowance

_MINUTE = 60.0
# Where ccxt does not know the venue's window, requests are spaced evenly
_EVENLY = 1.0


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a venue.

    Attributes
    ----------
    name
        Requests with the same name share it.
    allowance
        What it allows.
    per_cost
        The venue's weight for a cost of 1 in ccxt.
    weights
        Weights by path that ccxt does not know.
    """

    name: str
    allowance: Allowance
    per_cost: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def weigh(self, path: str, cost: float) -> float:
        """Return the weight of a request, by ccxt's cost of it."""
        return self.weights.get(path, cost * self.per_cost)


_SPOT = Limit("spot", Allowance(6000, _MINUTE), per_cost=5.0, weights={"aggTrades": 4.0})
# ccxt shares the limit of spot with futures, which have their own
_USDM = Limit("usdm", Allowance(2400, _MINUTE))
_COINM = Limit("coinm", Allowance(2400, _MINUTE))
# "500/5min/IP", beside the limit of weights
_FUNDING = Limit("funding", Allowance(500, 5 * _MINUTE, burst=100))

_BINANCE = {"public": _SPOT, "fapiPublic": _USDM, "dapiPublic": _COINM}
_OWN = {"binance": _BINANCE, "binanceusdm": _BINANCE, "binancecoinm": _BINANCE}


def find_limit(exchange_id: str, api: str, path: str) -> Limit | None:
    """Return the limit of a request that ccxt does not know; None: ccxt's own is right.

    Parameters
    ----------
    exchange_id
        As ccxt spells it.
    api, path
        ccxt's name for the host, and the path there: `fapiPublic`, `fundingRate`.
    """
    if exchange_id in _OWN and path == "fundingRate":
        return _FUNDING
    return _OWN.get(exchange_id, {}).get(api)


def build_limit(rate_limit_ms: float, window_ms: float) -> Limit:
    """Build a limit from ccxt's: a request of cost 1 each so many milliseconds.

    Parameters
    ----------
    rate_limit_ms
        ccxt's `rateLimit`.
    window_ms
        ccxt's `rollingWindowSize`; 0 if it does not know the venue's window.
    """
    seconds = window_ms / 1000 if window_ms else _EVENLY
    return Limit("", Allowance(seconds * 1000 / rate_limit_ms, seconds))
