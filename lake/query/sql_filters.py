"""What the conditions of a query say about markets and times: which files may hold its rows.

Conditions are DuckDB's own, as its plan shows them: one table each, constants folded, times in UTC.
What is not understood restricts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import reduce
from typing import Any

from lake.model.dataset import Dataset
from lake.model.selection import Selection
from lake.model.time import DAY, MICROSECOND
from lake.model.visibility import AVAILABLE_AT

Names = frozenset[str] | None
_MOST_BOXES = 8
_MIRRORED = {"GREATERTHAN": "LESSTHAN", "LESSTHAN": "GREATERTHAN", "EQUAL": "EQUAL"} | {
    "GREATERTHANOREQUALTO": "LESSTHANOREQUALTO",
    "LESSTHANOREQUALTO": "GREATERTHANOREQUALTO",
}


@dataclass(frozen=True, slots=True)
class Box:
    """Exchanges and symbols (None: all) in the range `[start, end)` (None: unbounded)."""

    exchanges: Names = None
    symbols: Names = None
    start: datetime | None = None
    end: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no row can lie in it."""
        is_reversed = self.start is not None and self.end is not None and self.start >= self.end
        return is_reversed or self.exchanges == frozenset() or self.symbols == frozenset()

    def overlap(self, other: Box) -> Box:
        """Return the rows that lie in both."""
        return Box(
            _intersect(self.exchanges, other.exchanges),
            _intersect(self.symbols, other.symbols),
            max(filter(None, (self.start, other.start)), default=None),
            min(filter(None, (self.end, other.end)), default=None),
        )

    def cover(self, other: Box) -> Box:
        """Return the smallest box around both."""
        return Box(
            _unite(self.exchanges, other.exchanges),
            _unite(self.symbols, other.symbols),
            None if self.start is None or other.start is None else min(self.start, other.start),
            None if self.end is None or other.end is None else max(self.end, other.end),
        )

    def to_selection(self) -> Selection:
        """Convert to a selection; the box must not be empty."""
        exchanges, symbols = tuple(sorted(self.exchanges or ())), tuple(sorted(self.symbols or ()))
        return Selection(exchanges, symbols, self.start, self.end)


Boxes = Sequence[Box] | None
"""Boxes that hold all rows of a condition; None: any row may meet it."""


def choose_selections(
    scans: Iterable[Sequence[Mapping[str, Any]]], dataset: Dataset, outer: Selection
) -> list[Selection]:
    """Choose selections of a table that hold all rows that the scans of a query can need.

    Parameters
    ----------
    scans
        The conditions of each scan of the table: all must be met.
    outer
        What the view of the table shows.
    """
    exchanges, symbols = frozenset(outer.exchanges) or None, frozenset(outer.symbols) or None
    within = Box(exchanges, symbols, outer.start, outer.end)
    needed = [box.overlap(within) for scan in scans for box in _read_all(scan, dataset)]
    boxes = [box for box in dict.fromkeys(needed) if not box.is_empty]
    if len(boxes) > _MOST_BOXES:
        boxes = [reduce(Box.cover, boxes)]
    return [box.to_selection() for box in boxes]


def _read_all(conditions: Iterable[Mapping[str, Any]], dataset: Dataset) -> Sequence[Box]:
    boxes = _join_all([_read(condition, dataset) for condition in conditions])
    return [Box()] if boxes is None else boxes


def _read(node: Mapping[str, Any], dataset: Dataset) -> Boxes:
    """Read a condition as DuckDB serializes it."""
    match node.get("class"), node.get("type"):
        case "CONJUNCTION", "CONJUNCTION_AND":
            return _join_all([_read(child, dataset) for child in node["children"]])
        case "CONJUNCTION", "CONJUNCTION_OR":
            return _unite_all([_read(child, dataset) for child in node["children"]])
        case "COMPARISON", str(kind):
            return _read_comparison(kind.removeprefix("COMPARE_"), node, dataset)
        case "BETWEEN", "COMPARE_BETWEEN":
            column = _get_column(node["input"])
            low = _compare(column, "GREATERTHANOREQUALTO", node["lower"], dataset)
            high = _compare(column, "LESSTHANOREQUALTO", node["upper"], dataset)
            return _join_all([low, high])
        case "OPERATOR", "COMPARE_IN":
            first, *values = node["children"]
            column = _get_column(first)
            return _unite_all([_compare(column, "EQUAL", value, dataset) for value in values])
    return None


def _read_comparison(kind: str, node: Mapping[str, Any], dataset: Dataset) -> Boxes:
    left, right = node["left"], node["right"]
    if _get_column(left) is not None:
        return _compare(_get_column(left), kind, right, dataset)
    return _compare(_get_column(right), _MIRRORED.get(kind, ""), left, dataset)


def _compare(column: str | None, kind: str, value: Mapping[str, Any], dataset: Dataset) -> Boxes:
    """Return what holds the rows whose column compares so with a constant."""
    if column in ("exchange", "symbol"):
        name = _get_text(value, None)
        if kind != "EQUAL" or name is None:
            return None
        names = frozenset([name])
        return [Box(exchanges=names) if column == "exchange" else Box(symbols=names)]
    if column == "date":
        return _bound(kind, _to_day(_get_text(value, "DATE")), DAY)
    if column == dataset.time_column:
        return _bound(kind, _to_time(_get_text(value, "TIMESTAMP WITH TIME ZONE")), MICROSECOND)
    if column == AVAILABLE_AT and _is_never_early(dataset):
        latest = _bound(kind, _to_time(_get_text(value, "TIMESTAMP WITH TIME ZONE")), MICROSECOND)
        return None if latest is None else [replace(latest[0], start=None)]
    return None


def _bound(kind: str, begin: datetime | None, step: timedelta) -> list[Box] | None:
    """Return the times that compare so with those in `[begin, begin + step)`, taken as one."""
    if begin is None or begin > datetime.max.replace(tzinfo=UTC) - step:
        return None
    boxes = {
        "EQUAL": Box(start=begin, end=begin + step),
        "GREATERTHAN": Box(start=begin + step),
        "GREATERTHANOREQUALTO": Box(start=begin),
        "LESSTHAN": Box(end=begin),
        "LESSTHANOREQUALTO": Box(end=begin + step),
    }
    return [boxes[kind]] if kind in boxes else None


def _is_never_early(dataset: Dataset) -> bool:
    """Whether no row is available before its time."""
    return dataset.announcement_column is None and AVAILABLE_AT not in dataset.polars_schema


def _get_column(node: Mapping[str, Any]) -> str | None:
    names = node.get("column_names", ())
    return str(names[0]) if node.get("class") == "COLUMN_REF" and len(names) == 1 else None


def _get_text(node: Mapping[str, Any], kind: str | None) -> str | None:
    """Return the text of a constant of a type; None: a string."""
    if kind is not None:
        if node.get("type") != "OPERATOR_CAST" or node["type_expr"].get("type_name") != kind:
            return None
        node = node["child"]
    literal = node.get("literal", {})
    return str(literal["text"]) if literal.get("kind") == "STRING" and "text" in literal else None


def _to_time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:  # a year that Python does not know, or infinity
        return None
    return None if moment.tzinfo is None else moment.astimezone(UTC)


def _to_day(text: str | None) -> datetime | None:
    try:
        return datetime.combine(date.fromisoformat(text or ""), time(), UTC)
    except ValueError:
        return None


def _join_all(parts: Sequence[Boxes]) -> Boxes:
    """Return what holds the rows that meet all conditions."""
    joined: Boxes = None
    for part in parts:
        if joined is None or part is None:
            joined = joined if part is None else part
        elif len(joined) * len(part) <= _MOST_BOXES**2:
            both = (one.overlap(other) for one in joined for other in part)
            joined = [box for box in both if not box.is_empty]
    return joined


def _unite_all(parts: Sequence[Boxes]) -> Boxes:
    """Return what holds the rows that meet one condition at least."""
    boxes: list[Box] = []
    for part in parts:
        if part is None:
            return None
        boxes += part
    united = reduce(Box.cover, boxes) if boxes else None
    if united is not None and (_vary_by_one(boxes) or len(boxes) > _MOST_BOXES):
        return [united]
    return boxes


def _vary_by_one(boxes: Sequence[Box]) -> bool:
    """Whether boxes differ by their exchanges alone, or their symbols: then one holds no more."""
    without_exchanges = {replace(box, exchanges=None) for box in boxes}
    without_symbols = {replace(box, symbols=None) for box in boxes}
    return len(without_exchanges) == 1 or len(without_symbols) == 1


def _intersect(one: Names, other: Names) -> Names:
    return (one if other is None else other) if one is None or other is None else one & other


def _unite(one: Names, other: Names) -> Names:
    return None if one is None or other is None else one | other
