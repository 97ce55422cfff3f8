"""Print data on stdout: as a table, JSON, NDJSON, CSV or Parquet."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lake.cli.session import Format, Session
from lake.errors import StorageError, UsageError
from lake.text import escape_unseen

if TYPE_CHECKING:
    import polars as pl

_TABLE_ROWS = 1000
_LINE_ENDS = "\n\t"
_PIPE_WIDTH = 200
_ISO = "%Y-%m-%dT%H:%M:%S%.fZ"


def show(session: Session, frame: pl.DataFrame, title: str | None = None) -> None:
    """Print a frame in the format of the session."""
    show_stream(session, [frame], title)


def show_stream(session: Session, frames: Iterable[pl.DataFrame], title: str | None = None) -> None:
    """Print frames of one schema, at least one, as they come: memory stays bounded."""
    writer = {
        Format.table: _table,
        Format.json: _json,
        Format.ndjson: _ndjson,
        Format.csv: _csv,
        Format.parquet: _parquet,
    }[session.format]
    writer(session, iter(frames), title)
    sys.stdout.flush()


def show_record(session: Session, record: dict[str, Any], title: str | None = None) -> None:
    """Print one record: lines of key and value, or one object with --json."""
    import orjson

    if session.format is Format.table:
        for key, value in record.items():
            sys.stdout.write(f"{key}: {escape_unseen(_cell(value), keep=_LINE_ENDS)}\n")
        return
    if session.format in (Format.json, Format.ndjson):
        options = orjson.OPT_INDENT_2 if session.format is Format.json else 0
        text = orjson.dumps(record, default=str, option=options | orjson.OPT_UTC_Z)
        sys.stdout.write(text.decode() + "\n")
        return
    import polars as pl

    pairs = {"key": list(record), "value": [str(value) for value in record.values()]}
    show(session, pl.DataFrame(pairs), title)


def _table(session: Session, frames: Iterator[pl.DataFrame], title: str | None) -> None:
    from rich import box
    from rich.table import Table

    from lake.cli.console import PlainConsole

    console = PlainConsole(no_color=session.no_color or None)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    first = next(frames)
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for name, dtype in first.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left", overflow="fold")
    shown = 0
    for frame in chain([first], frames):
        for row in frame.head(_TABLE_ROWS - shown).iter_rows():
            table.add_row(*(_cell(value) for value in row))
        shown += frame.height
    console.print(table)
    if shown > _TABLE_ROWS:
        session.stderr().print(
            f"… {shown - _TABLE_ROWS:,} more rows; --csv, --json or -o parquet give all."
        )


def _json(_: Session, frames: Iterator[pl.DataFrame], __: str | None) -> None:
    first = next(frames)  # before anything is written: a query may fail
    sys.stdout.write("[")
    separator = "\n"
    for frame in chain([first], frames):
        for line in _plain(frame).write_ndjson().splitlines():
            sys.stdout.write(separator + line)
            separator = ",\n"
    sys.stdout.write("\n]\n")


def _ndjson(_: Session, frames: Iterator[pl.DataFrame], __: str | None) -> None:
    for frame in frames:
        sys.stdout.write(_plain(frame).write_ndjson())


def _csv(_: Session, frames: Iterator[pl.DataFrame], __: str | None) -> None:
    header = True
    for frame in frames:
        sys.stdout.write(_flat(_plain(frame)).write_csv(include_header=header))
        header = False


def _parquet(_: Session, frames: Iterator[pl.DataFrame], __: str | None) -> None:
    if sys.stdout.isatty():
        raise UsageError(
            "Parquet cannot be shown on a terminal", "Write it to a file: … > FILE.parquet"
        )
    _write_parquet(frames, sys.stdout.buffer)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_parquet(frames: Iterable[pl.DataFrame], path: Path) -> int:
    """Write frames to a Parquet file, whole or not at all, and return the number of rows."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            rows = _write_parquet(iter(frames), file)
        unfinished.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _write_parquet(frames: Iterator[pl.DataFrame], file: BinaryIO) -> int:
    import pyarrow.parquet as pq

    first, rows = next(frames), 0
    with pq.ParquetWriter(file, first.to_arrow().schema, compression="zstd") as writer:
        for frame in chain([first], frames):
            writer.write_table(frame.to_arrow())
            rows += frame.height
    return rows


def rounded_down(score: float | None) -> str:
    """Format a score to six places, rounded down: a score below 1 never reads 1."""
    return "unknown" if score is None else f"{int(score * 1e6) / 1e6:.6f}"


def _cell(value: object) -> str:
    from datetime import datetime

    from lake.model.time import iso

    if value is None:
        return ""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return iso(value)
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_cell(item)}' for key, item in value.items())}}}"
    return str(value)


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Write times as ISO-8601 in UTC, and bytes as hex digits, inside lists and structs too."""
    import polars as pl

    plain = ((name, _to_plain(pl.col(name), kind)) for name, kind in frame.schema.items())
    return frame.with_columns(expr.alias(name) for name, expr in plain if expr is not None)


def _to_plain(values: pl.Expr, kind: pl.DataType) -> pl.Expr | None:
    """Convert values to what JSON and CSV can hold; None if they need no conversion."""
    import polars as pl

    if isinstance(kind, pl.Datetime) and kind.time_zone:
        return values.dt.convert_time_zone("UTC").dt.to_string(_ISO)
    if isinstance(kind, pl.Binary):
        return values.bin.encode("hex")
    if isinstance(kind, (pl.Array, pl.List)):
        inner = _to_plain(pl.element(), kind.inner)  # type: ignore[arg-type]
        items = values.arr.to_list() if isinstance(kind, pl.Array) else values
        return None if inner is None else items.list.eval(inner)
    return _to_plain_fields(values, kind) if isinstance(kind, pl.Struct) else None


def _to_plain_fields(values: pl.Expr, kind: pl.Struct) -> pl.Expr | None:
    fields = [
        (part.name, _to_plain(values.struct.field(part.name), part.dtype))  # type: ignore[arg-type]
        for part in kind.fields
    ]
    changed = [expr.alias(name) for name, expr in fields if expr is not None]
    return values.struct.with_fields(changed) if changed else None


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Write lists and structs as JSON text, which CSV can hold."""
    import polars as pl

    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    # Polars encodes structs only: each column as one of the field `v`, which is cut off again.
    encoded = {
        name: pl.struct(pl.col(name).alias("v")).struct.json_encode().str.slice(len('{"v":'))
        for name in nested
    }
    return frame.with_columns(
        pl.when(pl.col(name).is_not_null()).then(text.str.strip_suffix("}")).alias(name)
        for name, text in encoded.items()
    )
