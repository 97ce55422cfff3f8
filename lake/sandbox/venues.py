"""Binance's hosts: their paths, limits and request weights, as Binance documents them."""

from collections.abc import Mapping
from dataclasses import dataclass

# (highest limit, weight) in ascending order; the last weight also applies to higher limits
Weights = tuple[tuple[int, int], ...]

_ANY = 1 << 62


def _flat(weight: int) -> Weights:
    return ((_ANY, weight),)


@dataclass(frozen=True, slots=True)
class Venue:
    """One of Binance's hosts.

    Parameters
    ----------
    exchange : str
        ccxt's id of the exchange.
    host, prefix : str
        The parts of its URLs, `https://<host><prefix><endpoint>`.
    weight_limit : int
        Request weight that one IP address may use per minute.
    weights : mapping
        The weights of each endpoint by `limit`.
    max_bars : int
        Most rows in one `klines` answer.
    futures : bool, default False
        Whether the host serves futures. Futures refuse a `limit` that is too high, whereas spot
        lowers it; ignore unknown parameters, whereas spot refuses them; and have funding rates.
    """

    exchange: str
    host: str
    prefix: str
    weight_limit: int
    weights: Mapping[str, Weights]
    max_bars: int
    futures: bool = False

    def weight(self, endpoint: str, limit: int) -> int:
        """Return the request weight of an endpoint for a `limit`."""
        for max_limit, weight in self.weights.get(endpoint, _flat(1)):
            if limit <= max_limit:
                return weight
        return self.weights[endpoint][-1][1]


# https://github.com/binance/binance-spot-api-docs/blob/master/rest-api.md
_SPOT_WEIGHTS = {
    "exchangeInfo": _flat(20),
    "depth": ((100, 5), (500, 25), (1000, 50), (5000, 250)),
    "trades": _flat(25),
    "historicalTrades": _flat(25),
    "aggTrades": _flat(4),
    "klines": _flat(2),
}
# https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data
_FUTURES_WEIGHTS = {
    "depth": ((50, 2), (100, 5), (500, 10), (1000, 20)),
    "trades": _flat(5),
    "historicalTrades": _flat(200),
    "aggTrades": _flat(20),
    "klines": ((99, 1), (499, 2), (1000, 5), (1500, 10)),
}
# https://docs.binance.us
_US_WEIGHTS = {
    "exchangeInfo": _flat(10),
    "depth": ((100, 1), (500, 5), (1000, 10), (5000, 50)),
    "historicalTrades": _flat(5),
}

VENUES = {
    venue.host: venue
    for venue in (
        Venue("binance", "api.binance.com", "/api/v3/", 6000, _SPOT_WEIGHTS, 1000),
        Venue("binanceus", "api.binance.us", "/api/v3/", 1200, _US_WEIGHTS, 1000),
        Venue(
            "binanceusdm",
            "fapi.binance.com",
            "/fapi/v1/",
            2400,
            _FUTURES_WEIGHTS,
            1500,
            futures=True,
        ),
        Venue(
            "binancecoinm",
            "dapi.binance.com",
            "/dapi/v1/",
            2400,
            _FUTURES_WEIGHTS,
            1500,
            futures=True,
        ),
    )
}
