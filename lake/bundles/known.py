"""What the bundles of a lake list, by table: hashes of files, and what was measured of market-days.

A pin needs both, and its cost must not grow with the number of bundles. So `bundles/known` has two
sealed lists for each table, and `known.json` names them, and the bundles whose lists they join. It
is an index: bundles that it lacks are added before each use, and where it is damaged, or names
bundles that are gone, it is made again from the bundles. What it says is taken only for files whose
SHA-256, computed from their bytes, it names.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from lake.bundles.contents import Contents
from lake.bundles.day_keys import KEY, list_day_keys, spread_files
from lake.bundles.draft import DAYS
from lake.bundles.manifest import Ref
from lake.bundles.repository import Repository
from lake.errors import DamagedError, LakeError
from lake.log import get_logger
from lake.model.market import MARKET_COLUMNS
from lake.store.faults import translate_errors
from lake.store.index import FileSeal, read_checked, write_sealed
from lake.store.locks import lock_file
from lake.store.root import replace_file

_log = get_logger(__name__)
FOLDER = "known"
_STATE, _LOCK = "known.json", ".known.lock"
_FORMAT = 1
_FILE = ["table_id", "path", "bytes"]
FILE_HASHES = pl.Schema(
    {
        "table_id": pl.String(),
        "path": pl.String(),
        "bytes": pl.Int64(),
        "sha256": pl.String(),
        "bundle": pl.String(),
    }
)
MEASURED = pl.Schema(
    {
        **{name: kind for name, kind in DAYS.items() if name != "table"},
        "key": pl.String(),
        "may_be_open": pl.Boolean(),
        "bundle": pl.String(),
    }
)
"""Measured market-days: a day without rows has none of the values; `may_be_open`: an open bar."""


@dataclass(frozen=True)
class Known:
    """What bundles list of a table: `FILE_HASHES` and `MEASURED`, with the last such bundle."""

    files: pl.DataFrame
    days: pl.DataFrame

    def add(self, later: Known) -> Known:
        """Add what a later bundle lists; of two entries, that of the later bundle stays."""
        return Known(
            _override(self.files, later.files, _FILE), _override(self.days, later.days, KEY)
        )

    def find_hashes(self, table_id: str, files: pl.DataFrame) -> pl.DataFrame:
        """Return `path` and `recorded` SHA-256 of those files that some bundle lists already."""
        listed = self.files.filter(table_id=table_id).rename({"sha256": "recorded"})
        return files.join(listed, on=["path", "bytes"]).select("path", "recorded")


@dataclass(frozen=True)
class _State:
    """The bundles that the lists join, and the seals of the lists: of files and days, by table."""

    bundles: frozenset[str]
    seals: Mapping[str, Mapping[str, FileSeal]]


_EMPTY = _State(frozenset(), {})


class KnownIndex:
    """The index of what the bundles of a lake list. Processes and threads take turns."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._bundles = repository.root.bundles
        self._folder = self._bundles / FOLDER
        self._state = self._bundles / _STATE

    def read(self, table: str) -> Known:
        """Return what the bundles of the lake list of a table.

        Bundles with data of their own do not count: they say nothing about the table's files.
        """
        with translate_errors("bundles"), lock_file(self._bundles / _LOCK):
            state = self._update(self._read_state())
            try:
                return self._load(state, table)
            except DamagedError:
                return self._load(self._make(), table)

    def update(self) -> None:
        """Add what new bundles list, and drop what only removed ones list."""
        with translate_errors("bundles"), lock_file(self._bundles / _LOCK):
            self._update(self._read_state())

    def _update(self, state: _State) -> _State:
        ids = frozenset(self._repository.list_ids())
        try:
            if any(self._is_last(state, table, state.bundles - ids) for table in state.seals):
                return self._make()  # others may list the same: only all of them together tell
            bundles, tables = self._join(state, ids)
        except DamagedError:
            return self._make()
        if bundles == state.bundles:
            return state
        return self._write(_State(bundles, state.seals), tables)

    def _make(self) -> _State:
        """Make the index from all bundles."""
        bundles, tables = self._join(_EMPTY, frozenset(self._repository.list_ids()))
        return self._write(_State(bundles, {}), tables)

    def _is_last(self, state: _State, table: str, gone: frozenset[str]) -> bool:
        """Whether something of a table was last listed by a bundle that is gone."""
        if not gone:
            return False
        known = self._load(state, table)
        frames = (known.files, known.days)
        return any(frame["bundle"].is_in(list(gone)).any() for frame in frames)

    def _join(self, state: _State, ids: frozenset[str]) -> tuple[frozenset[str], dict[str, Known]]:
        """Join the lists of bundles that a state lacks to its own; return those that changed."""
        opened = []
        for bundle_id in ids - state.bundles:
            with suppress(LakeError):  # a damaged bundle has no usable list
                opened.append(self._repository.open(bundle_id))
        tables: dict[str, Known] = {}
        bundles = set(state.bundles & ids)
        for contents in sorted(opened, key=lambda item: (item.manifest.version, item.id)):
            with suppress(LakeError):
                listed = _list_known(contents)
                bundles.add(contents.id)
                for table, known in listed.items():
                    before = tables.get(table) or self._load(state, table)
                    tables[table] = before.add(known)
        return frozenset(bundles), tables

    def _load(self, state: _State, table: str) -> Known:
        """Read the lists of a table.

        Raises
        ------
        DamagedError
            One of them is missing or damaged.
        """
        if table not in state.seals:
            return Known(pl.DataFrame(schema=FILE_HASHES), pl.DataFrame(schema=MEASURED))
        (files, files_seal), (days, days_seal) = state.seals[table].items()
        return Known(
            read_checked(self._folder / files, files_seal, FILE_HASHES),
            read_checked(self._folder / days, days_seal, MEASURED),
        )

    def _write(self, state: _State, tables: Mapping[str, Known]) -> _State:
        """Write lists of tables under new names, then the state that names them."""
        if self._folder.is_file():
            self._folder.unlink()
        self._folder.mkdir(exist_ok=True)
        seals = dict(state.seals)
        for table, known in tables.items():
            stem = f"{table}.{secrets.token_hex(8)}"
            frames = {f"{stem}.files.parquet": known.files, f"{stem}.days.parquet": known.days}
            seals[table] = {
                name: write_sealed(self._folder / name, frame) for name, frame in frames.items()
            }
        written = _State(state.bundles, seals)
        if self._state.is_dir():
            _log.error("a folder is in place of a file: pins take longer", file=str(self._state))
        else:
            replace_file(self._state, _render(written))
        named = {name for own in seals.values() for name in own}
        for path in self._folder.iterdir():
            if path.name not in named and not path.is_dir():
                path.unlink(missing_ok=True)
        return written

    def _read_state(self) -> _State:
        """Read the state; the empty one if it is missing or damaged."""
        if not self._state.is_file() or self._folder.is_file():
            return _EMPTY
        return _parse(self._state.read_bytes()) or _EMPTY


def _list_known(contents: Contents) -> dict[str, Known]:
    """Return what a bundle lists of each table, if its data is in the tables of the lake."""
    if contents.owns_data:
        return {}
    return {ref.table: _list_table(contents, ref) for _, ref in contents.manifest.refs()}


def _list_table(contents: Contents, ref: Ref) -> Known:
    source = pl.lit(contents.id).alias("bundle")
    files = contents.files.files(ref.table)
    hashes = files.select(pl.lit(ref.table_id).alias("table_id"), "path", "bytes", "sha256", source)
    selection = ref.selection.selection
    spread = spread_files(files, selection)
    if spread is None:
        return Known(hashes, pl.DataFrame(schema=MEASURED))
    measured = contents.days.filter(table=ref.table).drop("table")
    bounds = [
        (part.exchange, part.symbol, part.first.date(), part.last.date()) for part in ref.left_out
    ]
    names = {"exchange": pl.String(), "symbol": pl.String(), "low": pl.Date(), "high": pl.Date()}
    left_out = pl.DataFrame(bounds, schema=names, orient="row")
    is_open = pl.col("date").is_between("low", "high").fill_null(value=False)
    days = (
        list_day_keys(contents.dataset(ref.table), spread, selection)
        .join(measured, on=[*MARKET_COLUMNS, "date"], how="left")
        .join(left_out, on=MARKET_COLUMNS, how="left")
        .with_columns(source, pl.col("rows").fill_null(0), may_be_open=is_open)
    )
    return Known(hashes, days.select(list(MEASURED)))


def _override(before: pl.DataFrame, after: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    kept = before.join(after, on=key, how="anti") if before.height else before
    return pl.concat([kept, after])


def _render(state: _State) -> bytes:
    content = {
        "format": _FORMAT,
        "bundles": sorted(state.bundles),
        "tables": {
            table: {name: asdict(seal) for name, seal in seals.items()}
            for table, seals in state.seals.items()
        },
    }
    return json.dumps({"content": content, "checksum": _compute_checksum(content)}).encode()


def _parse(text: bytes) -> _State | None:
    """Parse a state; None if it is damaged, or of another version."""
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        record = json.loads(text)
        content = record["content"]
        if content["format"] != _FORMAT or record["checksum"] != _compute_checksum(content):
            return None
        seals = {
            table: {name: FileSeal(**seal) for name, seal in own.items()}
            for table, own in content["tables"].items()
        }
        return _State(frozenset(content["bundles"]), seals)
    return None


def _compute_checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
