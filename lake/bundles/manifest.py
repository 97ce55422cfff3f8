"""The manifest of a bundle: rows of table versions, and the digests that they must have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_serializer,
)

from lake.errors import DamagedError
from lake.model.dataset import RECEIVED_AT, SHARED_SECTIONS, Column, Dataset, RowKind
from lake.model.event_columns import EventKind
from lake.model.partitions import Granularity
from lake.model.selection import Selection
from lake.model.time import SECOND, iso
from lake.model.timeframe import Timeframe
from lake.store.index import FileSeal
from lake.store.root import build_format_error

FORMAT: Literal[2] = 2
FILES, DAYS_FILE, QUALITY_FILE = "files.parquet", "days.parquet", "quality.json"
"""The files beside a manifest."""
_RESTORE = "Restore it from a backup or from another export of the bundle."


class _Part(BaseModel):
    """Part of a manifest.

    `later_keys`: keys that manifests of earlier versions lack. They are left out where they have
    their default, so that such a manifest keeps its checksum.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    later_keys: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, handler: Any) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        for key in self.later_keys:
            if getattr(self, key) == type(self).model_fields[key].default:
                values.pop(key, None)
        return values

    @field_serializer("*", mode="wrap", when_used="json")
    def _render_times(self, value: Any, handler: Any) -> Any:
        return iso(value) if hasattr(value, "astimezone") else handler(value)


class SelectionPart(_Part):
    """The selected rows: exchanges, symbols, and the range `[start, end)`; null means no bound."""

    exchanges: tuple[str, ...]
    symbols: tuple[str, ...]
    start: AwareDatetime | None
    end: AwareDatetime | None

    @property
    def selection(self) -> Selection:
        return Selection(self.exchanges, self.symbols, self.start, self.end)


class LeftOutPart(_Part):
    """Open bars of a market within the selection: they are not final, so they are not pinned.

    `rows` is their number, `first` and `last` are the times at which the first and the last opens.
    """

    exchange: str
    symbol: str
    rows: int
    first: AwareDatetime
    last: AwareDatetime


class Ref(_Part):
    """One table in a bundle.

    Attributes
    ----------
    table, table_id, uri, version
        The Delta table (URI relative to the lake) and the pinned version.
    rows, files, bytes
        The number of selected rows, and number and size of the data files that hold them.
    first, last
        The times of the first and the last row.
    schema_fingerprint, digest
        The digests of the columns and of the rows, both without columns that digests leave out;
        `lake.model.digest` defines them.
    left_out
        The open bars that are not pinned, by market; absent if there were none. If there are any,
        rows of the data files whose `closed` is false are not part of the table.
    """

    table: str
    table_id: str
    uri: str
    version: int
    selection: SelectionPart
    rows: int
    files: int
    bytes: int
    first: AwareDatetime
    last: AwareDatetime
    schema_fingerprint: str
    digest: str
    left_out: tuple[LeftOutPart, ...] = ()
    later_keys = ("left_out",)


class DateRange(_Part):
    """The times of the first and the last row."""

    start: AwareDatetime
    end: AwareDatetime


class Metadata(_Part):
    """A summary of the bundle.

    `as_of` is the pinned time in the past, or null for the present. `data_quality_score` (0 to 1)
    is the score of the pinned rows, or null if no check was run; `lake/quality/score.py` has its
    formula.
    """

    symbols: tuple[str, ...]
    exchanges: tuple[str, ...]
    datasets: tuple[str, ...]
    date_range: DateRange
    data_quality_score: float | None = None
    note: str = ""
    as_of: AwareDatetime | None = None
    lake_id: str
    created_by: str


class ColumnPart(_Part):
    """A column in the data dictionary.

    `digest`: false for a column that the digests of rows leave out; absent for all others.
    """

    type: str
    unit: str
    nullable: bool
    meaning: str
    digest: bool = True
    later_keys = ("digest",)


class DatasetPart(_Part):
    """A table in the data dictionary, complete enough to read and replay it without its lake.

    The keys are those of a dataset file, which `lake.model.dataset_file` describes; `family` is the
    name of the file. `event` is the class of the rows in a replay, `rank` their place among rows of
    one instant. `counts_receipt` says that no row is available before its `received_at`; in
    manifests without the key, that holds only if `available_at` names this column. Files may lack
    `added_columns`: they are null there. `tolerance_seconds` is that of `schedule_seconds`.
    """

    family: str
    timeframe: str | None
    title: str
    description: str
    key: tuple[str, ...]
    time_column: str
    available_at: str | None
    counts_receipt: bool = False
    sort: tuple[str, ...]
    date: Granularity
    rows: RowKind
    event: EventKind | None
    rank: int
    columns: dict[str, ColumnPart]
    added_columns: tuple[str, ...] = ()
    schedule_seconds: int | None = None
    tolerance_seconds: int | None = None
    later_keys = ("counts_receipt", "added_columns", "schedule_seconds", "tolerance_seconds")

    @classmethod
    def from_dataset(cls, dataset: Dataset, added_columns: tuple[str, ...] = ()) -> DatasetPart:
        return cls(
            family=dataset.family,
            timeframe=str(dataset.timeframe) if dataset.timeframe else None,
            title=dataset.title,
            description=dataset.description,
            key=dataset.key,
            time_column=dataset.time_column,
            available_at=dataset.available_at,
            counts_receipt=dataset.records_receipt,
            sort=dataset.sort,
            date=dataset.granularity,
            rows=dataset.rows,
            event=dataset.event,
            rank=dataset.rank,
            columns={
                column.name: ColumnPart(
                    type=column.type,
                    unit=column.unit,
                    nullable=column.nullable,
                    meaning=column.meaning,
                    digest=column.digest,
                )
                for column in dataset.columns
            },
            added_columns=added_columns,
            schedule_seconds=dataset.schedule // SECOND if dataset.schedule else None,
            tolerance_seconds=dataset.time_tolerance // SECOND if dataset.schedule else None,
        )

    def dataset(self, name: str) -> Dataset:
        """Return the dataset at the time of the pin."""
        return Dataset(
            name=name,
            family=self.family,
            title=self.title,
            description=self.description,
            columns=tuple(Column(name, **dict(part)) for name, part in self.columns.items()),
            key=self.key,
            time_column=self.time_column,
            sort=self.sort,
            granularity=self.date,
            rows=self.rows,
            timeframe=Timeframe.parse(self.timeframe) if self.timeframe else None,
            available_at=self.available_at,
            counts_receipt=self.counts_receipt or self.available_at == RECEIVED_AT,
            event=self.event,
            rank=self.rank,
            schedule=self.schedule_seconds * SECOND if self.schedule_seconds else None,
            time_tolerance=(self.tolerance_seconds or 0) * SECOND,
        )


class CoveragePart(_Part):
    """A covered interval: rows that it does not have did not exist at the source."""

    table: str
    exchange: str
    symbol: str
    start: AwareDatetime
    end: AwareDatetime


class FilePart(_Part):
    """A file beside the manifest."""

    bytes: int
    sha256: str


class ListPart(FilePart):
    """A list beside the manifest; `tail_sha256` is the digest of its Parquet footer."""

    tail_sha256: str

    @property
    def seal(self) -> FileSeal:
        return FileSeal(self.bytes, self.sha256, self.tail_sha256)


class Beside(_Part):
    """The files beside the manifest: `files.parquet`, `days.parquet` and `quality.json`.

    The last one is the quality report, or null if no check was run.
    """

    files: ListPart
    days: ListPart
    quality: FilePart | None = None

    def list_parts(self) -> dict[str, FilePart]:
        """Return the files by name."""
        parts = {FILES: self.files, DAYS_FILE: self.days, QUALITY_FILE: self.quality}
        return {name: part for name, part in parts.items() if part is not None}


class Manifest(_Part):
    """A market data bundle.

    `version` is the time of the pin. `id` is the digest of the selection and of the selected rows:
    the same selection of the same rows has the same id, whatever section holds a table. It is the
    SHA-256 of a list as JSON with sorted keys and no spaces: for each table, in order of name, the
    keys `table`, `selection`, `rows`, `schema_fingerprint` and `digest` of its ref. `beside` seals
    the lists of data files and of market-days, and the quality report, whose file name is
    `quality_report`. `checksum` is the SHA-256 of this document without the key `checksum`, as JSON
    with sorted keys and no spaces.
    """

    format: Literal[2] = FORMAT
    id: str
    version: AwareDatetime
    metadata: Metadata
    bars: dict[str, Ref] = {}
    trades: Ref | None = None
    orderbooks: Ref | None = None
    funding: Ref | None = None
    chain: dict[str, Ref] = {}
    other: dict[str, Ref] = {}
    quality_report: str | None = None
    data_dictionary: dict[str, DatasetPart]
    instruments: tuple[dict[str, Any], ...] = ()
    coverage: tuple[CoveragePart, ...] = ()
    access: dict[str, str] = Field(default_factory=dict)
    beside: Beside
    checksum: str = ""

    def refs(self) -> Iterator[tuple[str, Ref]]:
        """Yield every ref with its place in the manifest, such as `bars.1m`."""
        for section in ("bars", "chain", "other"):
            for key, ref in getattr(self, section).items():
                yield f"{section}.{key}", ref
        for section in ("trades", "orderbooks", "funding"):
            ref = getattr(self, section)
            if ref is not None:
                yield section, ref

    def compute_id(self) -> str:
        """Compute the value that `id` must have."""
        fields = {"table", "selection", "rows", "schema_fingerprint", "digest"}
        refs = sorted((ref for _, ref in self.refs()), key=lambda ref: ref.table)
        return _hash([ref.model_dump(mode="json", include=fields) for ref in refs])

    def compute_checksum(self) -> str:
        """Compute the value that `checksum` must have."""
        return _hash(self.model_dump(mode="json", exclude={"checksum"}))

    def seal(self) -> Manifest:
        """Return the manifest with id and checksum filled in."""
        named = self.model_copy(update={"id": self.compute_id()})
        return named.model_copy(update={"checksum": named.compute_checksum()})

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=2).encode() + b"\n"


def compute_checksum_of(text: bytes) -> str:
    """Compute the value that `checksum` must have, from the text of a manifest file.

    It covers the keys that the text has, so that a manifest of an earlier version, which lacks
    keys of this one, keeps its checksum.
    """
    values = json.loads(text)
    values.pop("checksum", None)
    return _hash(values)


def place_refs(refs: Iterable[tuple[Dataset, Ref]]) -> dict[str, Any]:
    """Place the refs of tables into the sections of a manifest, by the section of each dataset."""
    sections: dict[str, Any] = {"bars": {}, "chain": {}, "other": {}}
    for dataset, ref in refs:
        if dataset.section == "bars":
            sections["bars"][str(dataset.timeframe)] = ref
        elif dataset.section in SHARED_SECTIONS:
            sections[dataset.section][dataset.name] = ref
        else:
            sections[dataset.section] = ref
    return sections


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Parse the text of a manifest file.

    Raises
    ------
    ConfigError
        The format is another than this version reads.
    DamagedError
        The text is not a manifest.
    """
    try:
        values = json.loads(text)
        if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
            raise build_format_error(f"{where} has bundle format", values["format"], FORMAT)
        return Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DamagedError(f"{where} is damaged: {place}: {first['msg']}", _RESTORE) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError(f"{where} is not a manifest: {error}", _RESTORE) from error


def _hash(content: dict[str, Any] | list[dict[str, Any]]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
