"""The bundles of a lake as a frame."""

from __future__ import annotations

from typing import Any

import polars as pl

from lake.bundles.manifest import Manifest
from lake.bundles.repository import Repository
from lake.errors import LakeError
from lake.model.dataset import TIMESTAMP

_LISTED = {
    "name": pl.String(),
    "id": pl.String(),
    "pinned_at": TIMESTAMP,
    "datasets": pl.String(),
    "exchanges": pl.String(),
    "symbols": pl.String(),
    "first": TIMESTAMP,
    "last": TIMESTAMP,
    "rows": pl.Int64(),
    "bytes": pl.Int64(),
    "score": pl.Float64(),
    "problem": pl.String(),
}


def list_bundles(repository: Repository) -> pl.DataFrame:
    """Return one row per bundle, oldest first.

    Returns
    -------
    DataFrame
        name (null if no name points to it), id, pinned_at, datasets, exchanges, symbols, first,
        last, rows, bytes (of its data files), score (of quality; null if no check was run),
        problem (why it cannot be opened, otherwise null).
    """
    names: dict[str, list[str]] = {}
    for name, bundle_id in repository.read_names().items():
        names.setdefault(bundle_id, []).append(name)
    records = []
    for bundle_id in repository.list_ids():
        record = {"name": ", ".join(names.get(bundle_id, [])) or None, "id": bundle_id}
        try:
            records.append(record | _describe_bundle(repository.open(bundle_id).manifest))
        except LakeError as error:
            records.append(record | {"problem": error.message})
    return pl.DataFrame(records, schema=_LISTED).sort("pinned_at", "id")


def _describe_bundle(manifest: Manifest) -> dict[str, Any]:
    refs = [ref for _, ref in manifest.refs()]
    return {
        "pinned_at": manifest.version,
        "datasets": ", ".join(manifest.metadata.datasets),
        "exchanges": ", ".join(manifest.metadata.exchanges),
        "symbols": ", ".join(manifest.metadata.symbols),
        "first": manifest.metadata.date_range.start,
        "last": manifest.metadata.date_range.end,
        "rows": sum(ref.rows for ref in refs),
        "bytes": sum(ref.bytes for ref in refs),
        "score": manifest.metadata.data_quality_score,
    }
