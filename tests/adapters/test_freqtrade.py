"""Data folders for freqtrade, read back by its own data handler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyarrow import feather

from lake.adapters.freqtrade import write as write_datadir
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import StorageError, UnknownNameError, UsageError
from tests.adapters.conftest import BARS, BTC, ETH, MISSING, SWAP, expected_bars
from tests.conftest import MINUTE, T0, bars, write

reason = "needs the extra: pip install 'marketlake[freqtrade]'"
handlers = pytest.importorskip("freqtrade.data.history.datahandlers", reason=reason)
enums = pytest.importorskip("freqtrade.enums", reason=reason)


@pytest.fixture
def datadir(tmp_path: Path) -> Path:
    return tmp_path / "data" / "binance"


def load(datadir: Path, symbol: str, kind: str = "", timeframe: str = "1m") -> Any:
    """Load bars with freqtrade's handler, without the bars that it would fill in."""
    handler = handlers.get_datahandler(datadir, "feather")
    return handler.ohlcv_load(
        symbol, timeframe, enums.CandleType.from_string(kind), fill_missing=False
    )


def list_files(datadir: Path) -> list[str]:
    return sorted(str(one.relative_to(datadir)) for one in datadir.rglob("*") if one.is_file())


def test_freqtrade_loads_the_bars_of_the_bundle(bundle: Bundle, datadir: Path) -> None:
    files = write_datadir(bundle, datadir, "bars_1m", exchange="binance")
    names = ["BTC_USDT-1m.feather", "ETH_USDT-1m.feather"]
    assert list_files(datadir) == [*names, "futures/BTC_USDT_USDT-1m-futures.feather"]
    assert sorted(files) == [datadir / name for name in list_files(datadir)]
    for symbol, kind in ((BTC, ""), (ETH, ""), (SWAP, "futures")):
        frame, expected = load(datadir, symbol, kind), expected_bars(bundle, symbol)
        assert [one.to_pydatetime() for one in frame["date"]] == expected["timestamp"].to_list()
        for name in ("open", "high", "low", "close", "volume"):
            assert frame[name].to_list() == expected[name].to_list()


def test_a_gap_is_not_in_the_file(bundle: Bundle, datadir: Path) -> None:
    write_datadir(bundle, datadir, "bars_1m", exchange="binance", symbol=BTC)
    minutes = [one.minute for one in load(datadir, BTC)["date"]]
    assert minutes == [n for n in range(BARS) if n != MISSING]


def test_files_are_as_freqtrade_writes_them(bundle: Bundle, datadir: Path, tmp_path: Path) -> None:
    write_datadir(bundle, datadir, "bars_1m", exchange="binance")
    write_datadir(bundle, datadir, "funding", exchange="binance")
    own = tmp_path / "own" / "binance"
    (own / "futures").mkdir(parents=True)
    handler = handlers.get_datahandler(own, "feather")
    for symbol, kind, timeframe in (
        (BTC, "", "1m"),
        (ETH, "", "1m"),
        (SWAP, "futures", "1m"),
        (SWAP, "funding_rate", "1h"),
    ):
        frame = load(datadir, symbol, kind, timeframe)
        handler.ohlcv_store(symbol, timeframe, frame, enums.CandleType.from_string(kind))
    assert list_files(own) == list_files(datadir)
    for name in list_files(own):
        theirs, ours = feather.read_table(own / name), feather.read_table(datadir / name)
        assert ours.schema.equals(theirs.schema, check_metadata=False)
        if "funding" not in name:  # newer versions of freqtrade truncate these times to seconds
            assert ours.equals(theirs)


def test_freqtrade_finds_the_written_files(bundle: Bundle, datadir: Path) -> None:
    write_datadir(bundle, datadir, "bars_1m", exchange="binance")
    write_datadir(bundle, datadir, "funding", exchange="binance")
    handler = type(handlers.get_datahandler(datadir, "feather"))
    candle, mode = enums.CandleType, enums.TradingMode
    available = handler.ohlcv_get_available_data(datadir, mode.FUTURES)
    assert sorted(available) == [(SWAP, "1h", candle.FUNDING_RATE), (SWAP, "1m", candle.FUTURES)]
    spot = handler.ohlcv_get_available_data(datadir, mode.SPOT)
    assert sorted(spot) == [(BTC, "1m", candle.SPOT), (ETH, "1m", candle.SPOT)]


def test_freqtrade_loads_the_funding_of_the_bundle(bundle: Bundle, datadir: Path) -> None:
    files = write_datadir(bundle, datadir, "funding", exchange="binance", funding_timeframe="8h")
    assert [file.name for file in files] == ["BTC_USDT_USDT-8h-funding_rate.feather"]
    frame = load(datadir, SWAP, "funding_rate", "8h")
    assert frame["funding_rate"].to_list() == [0.0001] * 3
    assert [(one.hour, one.microsecond) for one in frame["date"]] == [(0, 0), (8, 0), (16, 0)]


def test_months_have_freqtrades_name(lake: Lake, datadir: Path) -> None:
    write(lake, "bars_1mo", bars(1))
    files = write_datadir(
        lake.bundles.pin("b", table="bars_1mo"), datadir, "bars_1mo", exchange="binance"
    )
    assert [file.name for file in files] == ["BTC_USDT-1Mo.feather"]
    assert len(load(datadir, BTC, timeframe="1M")) == 1


def test_an_older_file_is_replaced_as_a_whole(bundle: Bundle, datadir: Path) -> None:
    for count in (20, 5):
        until = T0 + count * MINUTE
        write_datadir(bundle, datadir, "bars_1m", exchange="binance", symbol=BTC, until=until)
    assert len(load(datadir, BTC)) == 5
    assert list_files(datadir) == ["BTC_USDT-1m.feather"]


def test_a_write_that_fails_leaves_the_old_files(bundle: Bundle, datadir: Path) -> None:
    write_datadir(bundle, datadir, "bars_1m", exchange="binance", symbol=BTC)
    before = (datadir / "BTC_USDT-1m.feather").read_bytes()
    (datadir / "futures").write_text("in the way of the folder")
    until = T0 + 5 * MINUTE
    with pytest.raises(StorageError, match="binance cannot be written"):
        write_datadir(bundle, datadir, "bars_1m", exchange="binance", until=until)
    assert (datadir / "BTC_USDT-1m.feather").read_bytes() == before
    assert list_files(datadir) == ["BTC_USDT-1m.feather", "futures"]


@pytest.mark.parametrize(
    ("table", "arguments", "kind", "words"),
    [
        ("bars_5m", {}, UnknownNameError, "bars_5m"),
        ("bars_1m", {"symbol": "XRP/USDT"}, UnknownNameError, "XRP/USDT"),
        ("funding", {"symbol": BTC}, UnknownNameError, BTC),
        ("trades", {}, UsageError, "holds no bars"),
        ("funding", {"funding_timeframe": "soon"}, UsageError, "soon"),
    ],
)
def test_a_missing_table_or_market_is_an_error_and_writes_nothing(
    bundle: Bundle, datadir: Path, table: str, arguments: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        write_datadir(bundle, datadir, table, exchange="binance", **arguments)
    assert not datadir.exists()
