"""A lake and a bundle of an earlier version: opened, verified and replayed as they were written.

`tests/data/lake_before.tar.xz` was written before bars and funding had a column `received_at`.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from lake.api import Lake
from lake.bundles.manifest import compute_checksum_of
from lake.errors import DamagedError
from lake.settings import CacheSettings, Settings
from tests.paths import ROOT

DIGESTS = {
    "bars.1m": "68e96b0f4e61a995ee1d6964dd00992e26960e7bc914c981d4a085016d11bb3f",
    "bars.1h": "923fd270c4e883bb5e1eaaf036fb7733b2657ff62cbb9e95bd01900dd4ce8ac8",
    "funding": "538da945835fcba4abee46110ef11e9e65439c076e9b3284df7604489c259ba7",
    "trades": "138f4922d0505ff029f25a6ec11028f7e82b693ea9544252ba4556f5aa1ab9e4",
}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """The lake of an earlier version; its bundle is called `before`."""
    with tarfile.open(ROOT / "tests" / "data" / "lake_before.tar.xz") as archive:
        archive.extractall(tmp_path / "lake", filter="data")
    return Lake(Settings(uri=str(tmp_path / "lake"), cache=CacheSettings(enabled=False)))


def test_the_bundle_is_whole(lake: Lake) -> None:
    bundle = lake.bundles.open("before")
    assert bundle.verify(deep=True) == []
    assert {place: ref.digest for place, ref in bundle.manifest.refs()} == DIGESTS


def test_a_manifest_without_keys_of_this_version_keeps_its_checksum(lake: Lake) -> None:
    path = lake.root.bundles / lake.bundles.open("before").id / "manifest.json"
    values = json.loads(path.read_bytes())
    del values["chain"], values["metadata"]["note"]
    values["checksum"] = compute_checksum_of(json.dumps(values).encode())
    path.write_text(json.dumps(values))
    assert lake.bundles.open("before").verify(deep=True) == []
    path.write_text(path.read_text().replace('"rows": 60', '"rows": 61'))
    with pytest.raises(DamagedError, match="checksum is"):
        lake.bundles.open("before")
