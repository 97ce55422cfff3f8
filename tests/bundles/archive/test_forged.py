"""A bundle's id proves its rows: a forgery is refused in whatever link of the chain it breaks."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import lake as api
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.bundles.chain import compare_days
from lake.bundles.contents import Contents
from lake.bundles.draft import DAYS
from lake.bundles.manifest import ListPart, Manifest
from lake.bundles.measure import measure_days
from lake.bundles.table import PinnedTable
from lake.errors import DamagedError
from lake.model.digest import combine_digests
from lake.model.progress import NoProgress
from lake.store import index
from tests.bundles.archive.conftest import compress, content, frames, left
from tests.conftest import MINUTE, T0, NewLake


@dataclass
class Forgery:
    """An exported folder that is changed, and sealed again as far as a test wants."""

    folder: Path

    @property
    def contents(self) -> Contents:
        return Contents.open(self.folder)

    @property
    def manifest(self) -> Manifest:
        return self.contents.manifest

    def double_prices(self) -> None:
        """Change the rows, and the hashes of their files in the list."""
        files = self.contents.files.read_all()
        rows = []
        for row in files.iter_rows(named=True):
            path = self.folder / "data" / row["table"] / row["path"]
            frame = pl.read_parquet(path, hive_partitioning=False)
            frame.with_columns(pl.col("price") * 2).write_parquet(path)
            text = path.read_bytes()
            digest = hashlib.sha256(text).hexdigest()
            rows.append({**row, "bytes": len(text), "sha256": digest})
        self.seal_list("files", pl.DataFrame(rows, schema=files.schema))
        self.edit_ref(bytes=sum(row["bytes"] for row in rows))

    def seal_days(self) -> None:
        """Compute the list of market-days from the rows as they are now."""
        contents = self.contents
        table = PinnedTable.open(contents, "trades")
        self.seal_list("days", measure_days(table, table.pinned, NoProgress()))

    def seal_digest(self) -> None:
        """Compute the digest of the table from the list of market-days."""
        self.edit_ref(digest=combine_digests(self.contents.days))

    def seal_list(self, name: str, frame: pl.DataFrame) -> None:
        """Write a list anew, and seal the manifest with it."""
        path, manifest = self.folder / f"{name}.parquet", self.manifest
        path.unlink()
        part = ListPart(**asdict(index.write_sealed(path, frame)))
        self.seal(
            manifest.model_copy(update={"beside": manifest.beside.model_copy(update={name: part})})
        )

    def edit_list(self, name: str, *columns: pl.Expr) -> None:
        contents = self.contents
        frame = contents.days if name == "days" else contents.files.read_all()
        self.seal_list(name, frame.with_columns(*columns))

    def edit_ref(self, **values: Any) -> None:
        """Change the ref of the table; keep the id."""
        manifest = self.manifest
        assert manifest.trades is not None
        self.seal(manifest.model_copy(update={"trades": manifest.trades.model_copy(update=values)}))

    def seal(self, manifest: Manifest) -> None:
        """Seal a manifest under the id that it has."""
        sealed = manifest.model_copy(update={"checksum": manifest.compute_checksum()})
        (self.folder / "manifest.json").write_bytes(sealed.to_json())

    def name_anew(self) -> None:
        path = self.folder / "manifest.json"
        manifest = Manifest.model_validate_json(path.read_bytes())
        path.write_bytes(manifest.seal().to_json())


def double_and_seal_files(forgery: Forgery) -> None:
    forgery.double_prices()


def double_and_seal_days(forgery: Forgery) -> None:
    forgery.double_prices()
    forgery.seal_days()


def double_and_seal_digest(forgery: Forgery) -> None:
    """Everything but the id."""
    forgery.double_prices()
    forgery.seal_days()
    forgery.seal_digest()


FORGERIES: dict[str, Callable[[Forgery], object]] = {
    "prices doubled, days kept": double_and_seal_files,
    "prices doubled, digest kept": double_and_seal_days,
    "prices doubled, id kept": double_and_seal_digest,
    "fewer rows in a day": lambda f: f.edit_list("days", pl.col("rows") - 1),
    "another first time": lambda f: f.edit_list("days", pl.col("first") - MINUTE),
    "another last time": lambda f: f.edit_list("days", pl.col("last") + MINUTE),
    "rows available later": lambda f: f.edit_list("days", pl.col("min_delay_us") + 1),
    "a day of another table": lambda f: f.edit_list("days", pl.lit("bars_1m").alias("table")),
    "a day of another market": lambda f: f.edit_list("days", pl.lit("X/USDT").alias("symbol")),
    "a day listed twice": lambda f: f.seal_list("days", pl.concat([f.contents.days] * 2)),
    "a day left out": lambda f: f.seal_list("days", f.contents.days[1:]),
    "files that begin later": lambda f: f.edit_list("files", pl.col("first") + MINUTE),
    "files that end earlier": lambda f: f.edit_list("files", pl.col("last") - MINUTE),
    "files with fewer rows": lambda f: f.edit_list("files", pl.col("rows") - 1),
    "files of another market": lambda f: f.edit_list("files", pl.lit("X/USDT").alias("symbol")),
    "other sum of rows": lambda f: f.edit_ref(rows=3),
    "other number of files": lambda f: f.edit_ref(files=3),
    "another range of times": lambda f: f.edit_ref(first=f.contents.ref("trades").first - MINUTE),
    "other columns": lambda f: f.edit_ref(schema_fingerprint="0" * 64),
}  # fmt: skip
# What only the rows tell.
DEEP = {
    "prices doubled, days kept",
    "rows available later",
    "files that begin later",
    "files that end earlier",
    "files with fewer rows",
    "files of another market",
}
# The id is compared when a bundle is opened.
NOT_OPENED = {"prices doubled, id kept", "other sum of rows", "other columns"}


@pytest.fixture
def forged(small: Bundle, tmp_path: Path) -> Forgery:
    return Forgery(small.export(tmp_path / "forged"))


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused_in_every_link(
    small: Bundle, forged: Forgery, new_lake: NewLake, tmp_path: Path, own_cache: Path, name: str
) -> None:
    FORGERIES[name](forged)
    other = new_lake()
    for source in (forged.folder, pack(forged.folder, tmp_path / "forged.tar.zst", small.id)):
        with pytest.raises(DamagedError) as caught:
            other.bundles.import_(source, name="paper")
        assert str(source) in caught.value.message
        assert left(other) == []
    with pytest.raises(DamagedError):
        api.open_bundle(tmp_path / "forged.tar.zst")
    assert list(own_cache.glob("*")) == []


@pytest.mark.parametrize("name", FORGERIES)
def test_so_does_verify(small: Bundle, forged: Forgery, name: str) -> None:
    FORGERIES[name](forged)
    if name in NOT_OPENED:
        with pytest.raises(DamagedError, match="id is"):
            api.open_bundle(forged.folder, cache=False)
        return
    bundle = api.open_bundle(forged.folder, cache=False)
    assert bundle.id == small.id
    assert bundle.verify(deep=True) != []
    assert (bundle.verify() == []) == (name in DEEP)
    assert {problem.kind for problem in bundle.verify(deep=True)} == {"differs"}


@pytest.mark.parametrize(
    ("pinned", "measured", "is_valid"),
    [
        ((0, 5), (0, 5), True),
        ((0, 5), (1, 4), True),
        ((0, 4), (0, 5), False),
        ((1, 5), (0, 5), False),
        ((-5, -1), (0, 0), True),  # of an earlier version: a clock was behind
        ((-5, 3), (0, 3), True),
        ((-5, 3), (0, 4), False),
    ],
)
def test_days_hold_the_delays_of_their_rows(
    pinned: tuple[int, int], measured: tuple[int, int], is_valid: bool
) -> None:
    common = {"table": "trades", "exchange": "e", "symbol": "s", "date": T0.date(), "rows": 1}
    common |= {"first": T0, "last": T0, "digest": "d"}
    days = [
        pl.DataFrame([{**common, "min_delay_us": low, "max_delay_us": high}], schema=DAYS)
        for low, high in (pinned, measured)
    ]
    assert (list(compare_days(*days)) == []) == is_valid


def test_a_forgery_that_is_sealed_to_its_end_is_another_bundle(
    small: Bundle, forged: Forgery, new_lake: NewLake
) -> None:
    double_and_seal_digest(forged)
    forged.name_anew()
    other = new_lake()
    imported = other.bundles.import_(forged.folder)
    assert imported.id != small.id
    assert imported.verify(deep=True) == []


def test_other_content_under_the_id_is_an_error_that_keeps_both(
    small: Bundle, forged: Forgery, new_lake: NewLake, tmp_path: Path
) -> None:
    """As an earlier version imported it: such a lake may exist."""
    true = small.export(tmp_path / "true.tar.zst")
    double_and_seal_files(forged)
    other = new_lake()
    place = other.root.bundles / small.id
    shutil.copytree(forged.folder, place)
    before = content(place)
    with pytest.raises(DamagedError) as caught:
        other.bundles.import_(true, name="paper")
    assert str(place) in caught.value.message
    assert str(true) in caught.value.message
    assert "lake bundle rm" in caught.value.hint
    assert content(place) == before
    assert true.exists()
    other.bundles.rm(small.id)
    imported = other.bundles.import_(true, name="paper")
    assert frames(imported)["trades"].equals(frames(small)["trades"])


def test_a_forgery_does_not_replace_the_true_bundle(
    lake: Lake, small: Bundle, forged: Forgery
) -> None:
    expected = frames(small)["trades"]
    double_and_seal_files(forged)
    with pytest.raises(DamagedError, match="its rows are not those of bundle"):
        lake.bundles.import_(forged.folder, name="paper")
    assert frames(lake.bundles.open("small"))["trades"].equals(expected)
    assert lake.bundles.open("small").verify(deep=True) == []


def pack(folder: Path, path: Path, bundle_id: str) -> Path:
    """Pack a folder as the archive of a bundle, whatever is in it."""
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    names = ["manifest.json", *manifest.beside.list_parts()]
    files = pl.read_parquet(folder / "files.parquet").select("table", "path").rows()
    names += [f"data/{table}/{name}" for table, name in files]
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            text = (folder / name).read_bytes()
            member = tarfile.TarInfo(f"{bundle_id}/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    path.write_bytes(compress(target.getvalue()))
    return path
