"""Serves recorded bars, trades and funding from a folder of Parquet files as a `MarketData`.

The folder has `bars/`, `trades/` and `funding/`. Files are named
`EXCHANGE_BASE-QUOTE[-SETTLE].parquet`, files of bars
`EXCHANGE_BASE-QUOTE[-SETTLE]_TIMEFRAME.parquet`. Files with other names are ignored. Perpetuals
are served as Binance's USD-M futures, other markets as Binance spot, on any exchange.

A number is written as the shortest plain decimal that parses back to the same float. Values that
were not recorded are not invented. Quote volume, number of trades and taker volumes of a bar are
those of its recorded trades if the trades add up to the bar; otherwise they are "0" and 0, which no
real bar with a volume has. Bars of an interval without recorded bars are aggregated from the
trades. Mark prices are empty, as in old rows of Binance, and so is the order book.
"""

from bisect import bisect_left
from dataclasses import dataclass, fields
from decimal import Decimal
from itertools import groupby
from pathlib import Path

import numpy as np

from lake.sandbox.intervals import Interval
from lake.sandbox.market import Bars, Book, Funding, Market, Trades
from lake.sandbox.recordings import Table, read_recordings

_PRICES = ("open", "high", "low", "close", "volume")


def format_number(number: float | Decimal) -> str:
    """Return the shortest decimal without an exponent that parses back to the same number."""
    return format(Decimal(str(number)).normalize(), "f")


@dataclass(frozen=True, slots=True)
class _Row:
    """One bar, in the order of the columns of `Bars`."""

    open_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str = "0"
    trades: int = 0
    taker_volume: str = "0"
    taker_quote_volume: str = "0"


class RecordedMarkets:
    """Markets recorded in a folder of Parquet files; implements `MarketData`.

    Parameters
    ----------
    folder : path
        The folder that holds `bars/`, `trades/` and `funding/`.

    Raises
    ------
    ConfigError
        The folder does not exist or has no markets, or a file cannot be used.
    """

    def __init__(self, folder: str | Path) -> None:
        self._recordings = read_recordings(Path(folder))

    @property
    def markets(self) -> list[Market]:
        """All markets, sorted by exchange and symbol."""
        return sorted(self._recordings, key=lambda market: (market.exchange, market.symbol))

    def position_at(self, market: Market, time_ms: int) -> int:
        """Return the position of the first trade at or after a time."""
        table = self._recordings[market].trades
        return 0 if table is None else int(np.searchsorted(table.times_ms, time_ms))

    def position_of(self, market: Market, trade_id: int) -> int:
        """Return the position of the first trade with this id or a greater one."""
        table = self._recordings[market].trades
        return 0 if table is None else bisect_left(table.columns["id"], trade_id)

    def trades(self, market: Market, start: int, stop: int) -> Trades:
        """Return the trades at positions `[start, stop)`."""
        table = self._recordings[market].trades
        if table is None:
            return Trades([], [], [], [], [])
        columns = table.columns
        return Trades(
            ids=columns["id"][start:stop],
            times_ms=table.times_ms[start:stop].tolist(),
            prices=[format_number(price) for price in columns["price"][start:stop]],
            amounts=[format_number(amount) for amount in columns["amount"][start:stop]],
            sells=[side == "sell" for side in columns["side"][start:stop]],
        )

    def bars(self, market: Market, interval: Interval, start_ms: int, end_ms: int) -> Bars:
        """Return recorded bars, or bars of the recorded trades if the interval was not recorded.

        A bar that is still open at `end_ms` is always aggregated from the trades before `end_ms`.
        """
        from_trades = {
            row.open_ms: row for row in self._aggregate_trades(market, interval, start_ms, end_ms)
        }
        table = self._recordings[market].bars.get(interval.name)
        if table is None:
            return _to_bars(list(from_trades.values()))
        present = interval.floor(end_ms)
        rows = _read_rows(table, start_ms, present)
        exact = [_prefer_exact(row, from_trades.get(row.open_ms)) for row in rows]
        return _to_bars([*exact, *(row for row in from_trades.values() if row.open_ms >= present)])

    def _aggregate_trades(
        self, market: Market, interval: Interval, start_ms: int, end_ms: int
    ) -> list[_Row]:
        """Aggregate the recorded trades into bars."""
        first, stop = self.position_at(market, start_ms), self.position_at(market, end_ms)
        trades = self.trades(market, first, stop)
        prices, amounts = map(Decimal, trades.prices), map(Decimal, trades.amounts)
        numbers = list(zip(trades.times_ms, prices, amounts, trades.sells, strict=True))
        rows = []
        for index, group in groupby(numbers, key=lambda trade: interval.index(trade[0])):
            _, paid, sizes, sells = zip(*group, strict=True)
            costs = [price * size for price, size in zip(paid, sizes, strict=True)]
            rows.append(
                _Row(
                    interval.opens(index),
                    format_number(paid[0]),
                    format_number(max(paid)),
                    format_number(min(paid)),
                    format_number(paid[-1]),
                    format_number(sum(sizes)),
                    format_number(sum(costs)),
                    len(sizes),
                    format_number(
                        sum(size for size, sell in zip(sizes, sells, strict=True) if not sell)
                    ),
                    format_number(
                        sum(cost for cost, sell in zip(costs, sells, strict=True) if not sell)
                    ),
                )
            )
        return rows

    def book(self, market: Market, time_ms: int, levels: int) -> Book:  # noqa: ARG002
        """Return an empty book: books were not recorded."""
        return Book(time_ms, 0, [], [])

    def funding(self, market: Market, start_ms: int, end_ms: int) -> Funding:
        """Return recorded settlements, without mark prices."""
        table = self._recordings[market].funding
        if table is None:
            return Funding([], [], [])
        first, last = np.searchsorted(table.times_ms, (start_ms, end_ms)).tolist()
        rates = table.columns["funding_rate"][first:last]
        times = table.times_ms[first:last].tolist()
        return Funding(times, [format_number(rate) for rate in rates], [""] * len(times))


def _read_rows(table: Table, start_ms: int, end_ms: int) -> list[_Row]:
    first, last = np.searchsorted(table.times_ms, (start_ms, end_ms)).tolist()
    texts = (
        [format_number(value) for value in table.columns[name][first:last]] for name in _PRICES
    )
    times = table.times_ms[first:last].tolist()
    return [_Row(*row) for row in zip(times, *texts, strict=True)]


def _prefer_exact(recorded: _Row, from_trades: _Row | None) -> _Row:
    """Return the bar aggregated from trades, which has more columns, if both bars agree."""
    if from_trades is not None and all(
        float(getattr(recorded, name)) == float(getattr(from_trades, name)) for name in _PRICES
    ):
        return from_trades
    return recorded


def _to_bars(rows: list[_Row]) -> Bars:
    return Bars(*([getattr(row, column.name) for row in rows] for column in fields(Bars)))
