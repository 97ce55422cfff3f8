"""A bundle of an earlier version: opened, verified and replayed as it was written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lake import open_bundle
from lake.api import Lake
from lake.bundles.manifest import DatasetPart, compute_checksum_of
from lake.errors import DamagedError
from lake.replay.events import Bar, Funding, Trade
from tests.conftest import MINUTE, SECOND, T0

DIGESTS = {
    "bars.1m": "68e96b0f4e61a995ee1d6964dd00992e26960e7bc914c981d4a085016d11bb3f",
    "bars.1h": "923fd270c4e883bb5e1eaaf036fb7733b2657ff62cbb9e95bd01900dd4ce8ac8",
    "funding": "538da945835fcba4abee46110ef11e9e65439c076e9b3284df7604489c259ba7",
    "trades": "138f4922d0505ff029f25a6ec11028f7e82b693ea9544252ba4556f5aa1ab9e4",
}


def test_the_bundle_is_whole(lake_before: Lake) -> None:
    bundle = lake_before.bundles.open("before")
    assert bundle.verify(deep=True) == []
    assert {place: ref.digest for place, ref in bundle.manifest.refs()} == DIGESTS


def test_its_events_are_those_of_this_version(lake_before: Lake) -> None:
    events: list[Any] = list(lake_before.bundles.open("before").replay())
    assert [(type(event), event.position) for event in events if event.position % 20 == 0] == [
        (type(event), n * 20) for n, event in enumerate(events[::20])
    ]
    assert len(events) == 35 + 30 + 4 + 60
    for event in events:
        match event:
            case Bar() if event.table == "bars_1m":
                assert (event.available_at, event.received_at) == (event.timestamp + MINUTE, None)
            case Bar():
                assert event.available_at == event.timestamp + 60 * MINUTE
            case Funding():
                assert (event.available_at, event.received_at) == (event.timestamp, None)
            case Trade():
                assert event.available_at == max(event.timestamp, event.received_at or T0)
            case _:
                pytest.fail(f"an event of another class: {event!r}")


@pytest.mark.parametrize("seconds", range(0, 60, 7))
def test_no_row_is_lost_where_a_range_begins(lake_before: Lake, seconds: int) -> None:
    """Its list of days has delays of less than zero: receipts before the time of a trade."""
    bundle, since = lake_before.bundles.open("before"), T0 + seconds * SECOND
    events: list[Any] = [e for e in bundle.replay() if e.available_at >= since]
    begun: list[Any] = list(bundle.replay(since=since))
    assert [e._replace(position=0) for e in begun] == [e._replace(position=0) for e in events]
    ended: list[Any] = list(bundle.replay(until=since + SECOND))
    assert len(ended) == sum(e.available_at < since + SECOND for e in bundle.replay())


def test_its_export_opens_in_this_version(lake_before: Lake, tmp_path: Path) -> None:
    bundle = lake_before.bundles.open("before")
    exported = open_bundle(bundle.export(tmp_path / "exported"))
    assert exported.verify(deep=True) == []
    assert list(exported.replay()) == list(bundle.replay())


def test_a_column_of_receipt_that_did_not_count_then_does_not_count_now(lake_before: Lake) -> None:
    """Days of such a bundle do not say how late its rows came."""
    part = lake_before.bundles.open("before").manifest.data_dictionary["trades"]
    assert part.dataset("trades").records_receipt
    values = part.model_dump() | {"available_at": None}
    assert "counts_receipt" not in values
    of_before = DatasetPart.model_validate(values).dataset("trades")
    assert not of_before.records_receipt
    now = DatasetPart.from_dataset(replace(of_before, counts_receipt=True))
    assert now.model_dump()["counts_receipt"]
    assert now.dataset("trades").records_receipt


def test_a_manifest_without_keys_of_this_version_keeps_its_checksum(lake_before: Lake) -> None:
    path = lake_before.root.bundles / lake_before.bundles.open("before").id / "manifest.json"
    values = json.loads(path.read_bytes())
    del values["chain"], values["metadata"]["note"]
    values["checksum"] = compute_checksum_of(json.dumps(values).encode())
    path.write_text(json.dumps(values))
    assert lake_before.bundles.open("before").verify(deep=True) == []
    path.write_text(path.read_text().replace('"rows": 60', '"rows": 61'))
    with pytest.raises(DamagedError, match="checksum is"):
        lake_before.bundles.open("before")
