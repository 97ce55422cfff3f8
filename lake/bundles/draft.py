"""A bundle before it is stored: its manifest without its id, and the lists beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from lake.bundles.manifest import Beside, Manifest
from lake.model.dataset import TIMESTAMP

DAYS = pl.Schema(
    {
        "table": pl.String(),
        "exchange": pl.String(),
        "symbol": pl.String(),
        "date": pl.Date(),
        "rows": pl.Int64(),
        "first": TIMESTAMP,
        "last": TIMESTAMP,
        "min_delay_us": pl.Int64(),
        "max_delay_us": pl.Int64(),
        "digest": pl.String(),
    }
)


@dataclass(frozen=True, slots=True)
class Assessment:
    """The quality of what is pinned: its score (0 to 1), and the report as JSON."""

    score: float | None
    report: bytes


@dataclass(frozen=True)
class Draft:
    """A bundle that is not stored yet.

    Attributes
    ----------
    fields
        The fields of the manifest that do not depend on how it is stored.
    files, days
        The rows of the lists beside the manifest.
    quality
        The quality report as JSON; None if no check was run.
    """

    fields: Mapping[str, Any]
    files: pl.DataFrame
    days: pl.DataFrame
    quality: bytes | None = None

    @property
    def id(self) -> str:
        """The id that the bundle will have."""
        return Manifest.model_construct(**self.fields).compute_id()

    def manifest(self, beside: Beside) -> Manifest:
        """Build the whole manifest for the stored files beside it."""
        sealed = Manifest(id="", beside=beside, **self.fields).seal()
        return sealed.model_copy(update={"access": build_examples(sealed)}).seal()


def build_examples(manifest: Manifest) -> dict[str, str]:
    """Build examples of reading the bundle, ready to paste."""
    short = manifest.id[:12]
    table = next(ref.table for _, ref in manifest.refs())
    return {
        "python": f'import lake\n\nbundle = lake.open_bundle("{short}")\n'
        f'frame = bundle.scan("{table}").collect()',
        "sql": f'lake sql --bundle {short} "SELECT count(*) FROM {table}"',  # noqa: S608 - shown, not run
    }
