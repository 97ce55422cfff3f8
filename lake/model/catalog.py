"""The datasets of a lake, read from `schemas/*.toml`: built-in ones and the user's."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lake.errors import SchemaError, UnknownNameError, UsageError
from lake.model.dataset import PRESENT_METHODS, SHARED_SECTIONS, Dataset, FetchMethod
from lake.model.partitions import Granularity
from lake.model.timeframe import Timeframe

if TYPE_CHECKING:
    from lake.model.dataset_file import DatasetFile


class Catalog:
    """Datasets by name.

    Built-in files are read when a dataset of theirs is first asked for, others at once: a command
    needs few of the former, and of the latter an error must not wait.

    Parameters
    ----------
    files
        Dataset files; their names must be unique.
    granularity
        By table, the granularity that overrides the dataset file: `{"funding": "day"}`.

    Raises
    ------
    SchemaError
        A file is malformed; the message names file, key and reason.
    """

    def __init__(
        self, files: Iterable[Path], granularity: Mapping[str, Granularity] | None = None
    ) -> None:
        self._paths: dict[str, Path] = {}
        self._files: dict[str, DatasetFile] = {}
        self._granularity = dict(granularity or {})
        for path in files:
            if path.stem in self._paths:
                raise SchemaError(
                    f"{path}: name: a dataset called {path.stem!r} exists already",
                    "Choose another name; built-in datasets cannot be replaced.",
                )
            self._paths[path.stem] = path
            if path not in builtin_files():
                self._require_unique(path, self._read(path.stem))
        self._resolved: dict[str, Dataset] = {}

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the dataset files."""
        return tuple(sorted(self._paths))

    def keep_by(self, granularity: Mapping[str, Granularity]) -> None:
        """Change the granularities that override the dataset files."""
        self._granularity = dict(granularity)
        self._resolved.clear()

    @property
    def records(self) -> tuple[str, ...]:
        """Names of the tables of internal records."""
        return tuple(name for name in self.families if self._read(name).kind == "record")

    @property
    def fetch_methods(self) -> dict[str, FetchMethod]:
        """The ccxt methods that fetch rows, by family, in the order of a replay."""
        files = [spec for spec in self._read_all() if spec.fetch is not None]
        ordered = sorted(files, key=lambda s: (s.place, s.name))
        return {spec.name: spec.fetch.method for spec in ordered if spec.fetch is not None}

    @property
    def fetched_by_range(self) -> tuple[str, ...]:
        """Families that are fetched by range, in the order of a replay."""
        return tuple(n for n, method in self.fetch_methods.items() if method not in PRESENT_METHODS)

    @property
    def fetched_as_present(self) -> tuple[str, ...]:
        """Families of which only the present is fetched, in the order of a replay."""
        return tuple(n for n, method in self.fetch_methods.items() if method in PRESENT_METHODS)

    def dataset(self, name: str) -> Dataset:
        """Return the dataset of a table, such as `trades` or `bars_1m`.

        Raises
        ------
        UnknownNameError
            It does not exist; the hint suggests similar names.
        """
        if name not in self._resolved:
            self._resolved[name] = self._find(name)
        return self._resolved[name]

    def _find(self, name: str) -> Dataset:
        family, _, timeframe_name = name.rpartition("_")
        if name in self._paths and not self.has_timeframes(name):
            return self._build_dataset(self._read(name), None)
        if self.has_timeframes(family):
            try:
                timeframe = Timeframe.of_table_suffix(timeframe_name)
            except UsageError as error:
                raise UnknownNameError(f"there is no dataset {name!r}", error.message) from None
            return self._build_dataset(self._read(family), timeframe)
        raise UnknownNameError(f"there is no dataset {name!r}", self._suggest_names(name))

    def _read(self, family: str) -> DatasetFile:
        """Return the dataset file of a family, read once."""
        if family not in self._files:
            from lake.model.dataset_validation import read_dataset_file

            self._files[family] = read_dataset_file(self._paths[family])
        return self._files[family]

    def _read_all(self) -> list[DatasetFile]:
        return [self._read(family) for family in self._paths]

    def _require_unique(self, path: Path, spec: DatasetFile) -> None:
        """Require that no other dataset has the tables, the section or the method of a file."""
        from lake.model.dataset_validation import build_error

        for other in self._read_all():
            if other is spec:
                continue
            if spec.section == other.section and spec.section not in SHARED_SECTIONS:
                reason = f"{spec.section!r} is the section of dataset {other.name!r}"
                raise build_error(path, "section", reason)
            if spec.fetch and spec.fetch.window is None and spec.fetch == other.fetch:
                reason = f"{spec.fetch.method!r} is the method of dataset {other.name!r}"
                raise build_error(path, "fetch.method", reason)
        if self._is_table_of_family(spec.name):
            raise build_error(path, "name", f"{spec.name!r} is a table of another dataset")

    def _is_table_of_family(self, name: str) -> bool:
        family, _, suffix = name.rpartition("_")
        with suppress(UsageError):
            return self.has_timeframes(family) and bool(Timeframe.of_table_suffix(suffix))
        return False

    def has_timeframes(self, family: str) -> bool:
        """Return whether the family has one table per timeframe."""
        return family in self._paths and self._read(family).has_timeframes

    def _suggest_names(self, name: str) -> str:
        families = [family for family in self.families if family not in self.records]
        names = [f + "_1m" if self.has_timeframes(f) else f for f in families]
        close = difflib.get_close_matches(name, names, n=len(names), cutoff=0.5)
        return "Datasets: " + ", ".join([*close, *(n for n in names if n not in close)]) + "."

    def _build_dataset(self, spec: DatasetFile, timeframe: Timeframe | None) -> Dataset:
        return spec.dataset(timeframe, self._granularity.get(spec.table(timeframe)))


@cache
def builtin_files() -> tuple[Path, ...]:
    """Return the built-in dataset files: in the package, or beside it in a checkout."""
    package = Path(str(resources.files("lake")))
    for folder in (package / "schemas", package.parent / "schemas"):
        if folder.is_dir():
            return tuple(sorted(folder.glob("*.toml")))
    raise SchemaError("the built-in dataset files are missing", "Install the package again.")


@cache
def builtin() -> Catalog:
    """Return the catalog of built-in datasets."""
    return Catalog(builtin_files())


def parse_granularity(text: str) -> tuple[str, Granularity]:
    """Read table and granularity from `TABLE=day`, `TABLE=month` or `TABLE=year`."""
    name, _, value = text.partition("=")
    for granularity in get_args(Granularity):
        if name and value == granularity:
            return name, granularity
    raise UsageError(
        f"{text!r} is not TABLE=day, TABLE=month or TABLE=year", "For example funding=month."
    )
