"""Recorded bars, trades and funding from a folder of Parquet files, as a `MarketData`.

The folder has `bars/`, `trades/` and `funding/`; files are named `EXCHANGE_BASE-QUOTE[-SETTLE]`,
bars with `_TIMEFRAME` after it, and `.parquet`. Files with other names are ignored. Perpetuals are
served as Binance's USD-M futures, other markets as Binance spot, whatever exchange they are of.

A number is written as the shortest plain decimal that parses back to the same float. What was
not recorded is not made up. Quote volume, number of trades and taker volumes of a bar are those
of its recorded trades if they add up to the bar, and else "0" and 0, which no bar with a volume
has. An interval of which no bars were recorded is made from the trades, or has no bars. Mark
prices are empty, as in Binance's own old rows, and so is the order book.
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
    """The shortest decimal without an exponent that parses back to the same number."""
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
    """Markets recorded in a folder of Parquet files, as a `MarketData`.

    Parameters
    ----------
    folder : path
        Where `bars/`, `trades/` and `funding/` are.

    Raises
    ------
    ConfigError
        The folder is missing or has no markets, or a file cannot be used.
    """

    def __init__(self, folder: str | Path) -> None:
        self._recordings = read_recordings(Path(folder))

    @property
    def markets(self) -> list[Market]:
        """All markets, in order of exchange and symbol."""
        return sorted(self._recordings, key=lambda market: (market.exchange, market.symbol))

    def position_at(self, market: Market, time_ms: int) -> int:
        """Position of the first trade at or after a time."""
        table = self._recordings[market].trades
        return 0 if table is None else int(np.searchsorted(table.times_ms, time_ms))

    def position_of(self, market: Market, trade_id: int) -> int:
        """Position of the first trade with this id or a greater one."""
        table = self._recordings[market].trades
        return 0 if table is None else bisect_left(table.columns["id"], trade_id)

    def trades(self, market: Market, start: int, stop: int) -> Trades:
        """The trades at positions `[start, stop)`."""
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
        """Recorded bars, or those of the recorded trades where this interval was not recorded.

        A bar that is still open at `end_ms` is always made from the trades before it.
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
        """Bars of the recorded trades."""
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
        """An empty book: none was recorded."""
        return Book(time_ms, 0, [], [])

    def funding(self, market: Market, start_ms: int, end_ms: int) -> Funding:
        """Recorded settlements; without mark prices."""
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
    """The bar made from trades if it says the same as the recorded one, which says less."""
    if from_trades is not None and all(
        float(getattr(recorded, name)) == float(getattr(from_trades, name)) for name in _PRICES
    ):
        return from_trades
    return recorded


def _to_bars(rows: list[_Row]) -> Bars:
    return Bars(*([getattr(row, column.name) for row in rows] for column in fields(Bars)))
