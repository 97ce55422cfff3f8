"""Verification: what a bundle promises against what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lake.errors import LakeError
from lake.read.bundles.manifest import Manifest, Ref
from lake.read.bundles.pin import measured
from lake.store.store import Store


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the manifest says: where, what it says, what is found."""

    place: str
    expected: str
    found: str


def verify(store: Store, manifest: Manifest, bundle_id: str) -> list[Difference]:
    """Everything that differs from the manifest; nothing: the bundle is whole.

    Reads every row of the selection. `bundle_id` is the id by which the manifest was found.
    """
    return list(_differences(store, manifest, bundle_id))


def _differences(store: Store, manifest: Manifest, bundle_id: str) -> Iterator[Difference]:
    facts = {
        "id": (bundle_id, manifest.id),
        "content": (manifest.id, manifest.content_id()),
        "checksum": (manifest.checksum, manifest.document_checksum()),
        "metadata.lake_id": (store.root.id, manifest.metadata.lake_id),
    }
    for place, (expected, found) in facts.items():
        if expected != found:
            yield Difference(place, expected, found)
    for place, ref in manifest.refs():
        yield from _ref_differences(store, place, ref)


def _ref_differences(store: Store, place: str, ref: Ref) -> Iterator[Difference]:
    try:
        snapshot = store.snapshot(store.catalog.dataset(ref.table), version=ref.version)
        if snapshot.table_id != ref.table_id:
            yield Difference(f"{place}.table_id", ref.table_id, snapshot.table_id)
            return
        found = measured(snapshot, ref.selection.selection)
    except LakeError as error:
        yield Difference(place, "readable", error.message)
        return
    expected_values = ref.model_dump(mode="json")
    for key, value in found.model_dump(mode="json").items():
        if value != expected_values[key]:
            yield Difference(f"{place}.{key}", str(expected_values[key]), str(value))
