"""A lake that needs a later version may be read, and is written to by none that is older."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lake.api import Lake
from lake.errors import ConfigError
from lake.store.root import MIN_WRITER
from tests.conftest import T0, bars, funding, write

SENTENCE = "may read it, and not write to it"


def change_marker(lake: Lake, **values: Any) -> None:
    path = Path(lake.root.path, "lake.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_new_lake_says_who_may_write_to_it(lake: Lake) -> None:
    marker = json.loads(Path(lake.root.path, "lake.json").read_text())
    assert (marker["format"], marker["features"]) == (2, [])
    assert marker["min_writer"] == MIN_WRITER


@pytest.mark.parametrize(
    "needs", [{"features": ["ledger-3"]}, {"min_writer": "0.1.1"}, {"min_writer": "1.0"}]
)
@pytest.mark.parametrize(
    "act",
    [
        lambda lake: write(lake, "funding", funding([T0 + timedelta(days=1)])),
        lambda lake: write(lake, "bars_1h", bars(1)),
        lambda lake: lake.bundles.pin("later", table="funding", check=False),
        lambda lake: lake.quality.check(),
        lambda lake: lake.quality.repair(),
        lambda lake: lake.maintenance.optimize(),
        lambda lake: lake.maintenance.vacuum(),
        lambda lake: lake.maintenance.checkpoint(),
        lambda lake: lake.maintenance.gc(),
        lambda lake: lake.ingest("bars", exchange="binance", symbol="BTC/USDT", since=T0),
    ],
)
def test_what_a_later_version_needs_is_read_and_not_written(
    lake: Lake, needs: dict[str, Any], act: Callable[[Lake], Any]
) -> None:
    write(lake, "funding", funding([T0]))
    lake.bundles.pin("before", table="funding", check=False)
    change_marker(lake, **needs)
    files = sorted(Path(lake.root.path).rglob("*"))
    for other in (lake, Lake(lake.settings)):
        with pytest.raises(ConfigError, match=SENTENCE) as caught:
            act(other)
        assert "newer version" in caught.value.hint
        assert other.scan("funding").collect().height == 1
        assert other.sql("SELECT count(*) FROM funding").fetchall() == [(1,)]
        assert other.bundles.open("before").verify(deep=True) == []
    assert sorted(Path(lake.root.path).rglob("*")) == files


@pytest.mark.parametrize("text", ["0.1.0", "0.0.9", "0.1", "0.1.0.dev3"])
def test_an_older_or_equal_version_does_not_matter(lake: Lake, text: str) -> None:
    change_marker(lake, min_writer=text)
    assert write(lake, "funding", funding([T0])).inserted == 1
