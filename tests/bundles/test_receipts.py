"""Bundles of the same rows that were available at other times: they have one id."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import UsageError
from tests.conftest import DAY, SECOND, T0, TIME, NewLake, trades, write

ZERO = timedelta()


def _write(lake: Lake, delays: Sequence[timedelta | None]) -> None:
    received: list[datetime | None] = [
        None if delay is None else T0 + at * SECOND + delay for at, delay in enumerate(delays)
    ]
    rows = trades(len(delays), received_at=pl.Series(received, dtype=TIME))
    write(lake, "trades", rows)


def _pin(lake: Lake, name: str) -> Bundle:
    return lake.bundles.pin(name, table="trades", check=False)


def _known(bundle: Bundle) -> int:
    return bundle.at("trades", exchange="binance", symbol="BTC/USDT", time=T0 + DAY / 2).height


def test_a_pin_of_rows_whose_receipt_was_filled_in_since_is_refused(lake: Lake) -> None:
    _write(lake, [None] * 2)
    first = _pin(lake, "first")
    assert _pin(lake, "again").id == first.id
    _write(lake, [DAY] * 2)
    before = sorted(path.name for path in lake.root.bundles.rglob("*"))
    with pytest.raises(UsageError, match="other times of receipt: trades of binance") as caught:
        _pin(lake, "second")
    assert f"bundle {first.id[:12]} (again, first, {first.contents.folder})" in caught.value.message
    assert "0 to 0 seconds after its time there, and 86400 to 86400 seconds here" in str(
        caught.value
    )
    assert f"lake bundle rm {first.id[:12]} --yes" in str(caught.value.hint)
    assert sorted(path.name for path in lake.root.bundles.rglob("*")) == before
    lake.bundles.rm("first")
    assert (_known(_pin(lake, "second")), _known(lake.bundles.open("second"))) == (0, 0)


def test_times_of_receipt_between_the_first_and_the_last_count_too(lake: Lake) -> None:
    _write(lake, [ZERO, None, DAY])
    _pin(lake, "first")
    _write(lake, [ZERO, 2 * SECOND, DAY])
    with pytest.raises(UsageError, match="is available at 2024-01-01T00:00:01Z there"):
        _pin(lake, "second")


def test_a_pin_of_rows_of_equal_availability_is_the_same_bundle(lake: Lake) -> None:
    _write(lake, [ZERO, None, DAY])
    first = _pin(lake, "first")
    _write(lake, [ZERO, ZERO, DAY])  # received at its time: available then before, too
    assert _pin(lake, "second").id == first.id


@pytest.mark.parametrize("delays", [[2 * DAY] * 3, [ZERO, 2 * SECOND, DAY]])
def test_an_import_of_rows_of_other_availability_is_refused(
    lake: Lake, new_lake: NewLake, tmp_path: Path, delays: list[timedelta]
) -> None:
    _write(lake, [ZERO, None, DAY])
    first = _pin(lake, "first")
    other = new_lake()
    _write(other, delays)
    exported = _pin(other, "x").export(tmp_path / "x.tar.zst")
    with pytest.raises(UsageError, match="other times of receipt") as caught:
        lake.bundles.import_(exported, name="x")
    assert str(exported) in caught.value.message
    assert "then import again" in str(caught.value.hint)
    assert lake.bundles.ls()["name"].to_list() == ["first"]
    assert not first.contents.owns_data
    lake.bundles.rm("first")
    assert _known(lake.bundles.import_(exported, name="x")) == any(d < DAY / 2 for d in delays)
