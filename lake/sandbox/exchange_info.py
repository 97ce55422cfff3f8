"""Builds the answer of `exchangeInfo`: markets with filters, in the formats of spot and futures."""

from collections.abc import Mapping, Sequence

from lake.sandbox.market import Market
from lake.sandbox.venues import Venue

_PERPETUAL_MS = 4133404800000  # Binance's delivery date of a perpetual contract: 2100-12-25


def build_exchange_info(
    venue: Venue, markets: Sequence[Market], now_ms: int
) -> Mapping[str, object]:
    """Build the answer of `exchangeInfo`.

    Parameters
    ----------
    venue : Venue
        The venue that answers.
    markets : sequence of Market
        The markets to describe.
    now_ms : int
        The server's time.
    """
    describe = _describe_contract if venue.futures else _describe_spot
    limit = {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": venue.weight_limit,
    }
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [limit],
        "exchangeFilters": [],
        "symbols": [describe(market) for market in markets],
    }


def _describe_spot(market: Market) -> Mapping[str, object]:
    return {
        "symbol": market.id,
        "status": "TRADING" if market.trading else "BREAK",
        "baseAsset": market.base,
        "baseAssetPrecision": 8,
        "quoteAsset": market.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": market.trading,
        "isMarginTradingAllowed": False,
        "filters": [
            _build_price_filter(market, 8),
            _build_lot_filter(market, "LOT_SIZE", 8),
            {
                "filterType": "NOTIONAL",
                "minNotional": market.min_notional,
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }


def _describe_contract(market: Market) -> Mapping[str, object]:
    return {
        "symbol": market.id,
        "pair": market.id,
        "contractType": "PERPETUAL",
        "deliveryDate": _PERPETUAL_MS,
        "onboardDate": market.since_ms,
        "status": "TRADING" if market.trading else "SETTLING",
        "baseAsset": market.base,
        "quoteAsset": market.quote,
        "marginAsset": market.settle,
        "pricePrecision": market.price_places,
        "quantityPrecision": market.amount_places,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "orderTypes": ["LIMIT", "MARKET", "STOP", "TAKE_PROFIT"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
        "filters": [
            _build_price_filter(market, market.price_places),
            _build_lot_filter(market, "LOT_SIZE", market.amount_places),
            _build_lot_filter(market, "MARKET_LOT_SIZE", market.amount_places),
            {"filterType": "MIN_NOTIONAL", "notional": market.min_notional},
        ],
    }


def _format_step(places: int, width: int) -> str:
    """Format the step of a number of decimal places: 2 places are 0.01, padded to `width`."""
    if width == 0:
        return "1"
    return f"{10**-places:.{width}f}"


def _build_price_filter(market: Market, width: int) -> Mapping[str, object]:
    tick = _format_step(market.price_places, width)
    highest = "1000000.00000000"
    return {
        "filterType": "PRICE_FILTER",
        "minPrice": tick,
        "maxPrice": highest,
        "tickSize": tick,
    }


def _build_lot_filter(market: Market, kind: str, width: int) -> Mapping[str, object]:
    step = _format_step(market.amount_places, width)
    return {"filterType": kind, "minQty": step, "maxQty": "9000000", "stepSize": step}
