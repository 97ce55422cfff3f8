"""Count the defects that findings name, and print the table of all kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
import polars as pl

from lake.model.severity import SEVERITIES, Severity, severity_rank
from lake.quality.configure import configure
from lake.quality.run import FOLDED_PATTERN, run_checks
from lake.quality.slice import Slice

COUNT = 50
FEW = 4  # so many defects, or fewer, are all put into the smallest recording
NAMED = 2 / 3  # share of the rows of a defect that findings must name
Numbers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
_SAME = ["check", "reason", "against", "start", "end"]


@dataclass(frozen=True)
class Defect:
    """Times of the rows that are wrong."""

    times: tuple[datetime, ...]


@dataclass(frozen=True)
class Trial:
    """Findings of clean rows, and the slice of the same rows with defects."""

    clean: pl.DataFrame
    wrong: Slice
    defects: Sequence[Defect]


@dataclass(frozen=True)
class Kind:
    """A kind of defect.

    Attributes
    ----------
    trials
        Makes trials of about `count` defects in total: `trials(random, count, witness)`.
    least
        Least number of 50 defects that must be found, by witness; a witness that is absent does
        not apply, and 0 asks for nothing.
    severity
        Least severity of a finding that counts, by witness; `warning` by default.
    named
        Share of the rows of a defect that findings must name, by witness; `NAMED` by default.
    """

    name: str
    trials: Callable[[np.random.Generator, int, str], list[Trial]]
    least: Mapping[str, int]
    severity: Mapping[str, Severity] | None = None
    named: Mapping[str, float] | None = None


def count_hits(
    kind: Kind, random: np.random.Generator, witness: str, count: int = COUNT
) -> tuple[int, int]:
    """Return how many defects were found, and how many there are."""
    severity = (kind.severity or {}).get(witness, "warning")
    named = (kind.named or {}).get(witness, NAMED)
    hits = total = 0
    for trial in kind.trials(random, count, witness):
        findings = find_new(trial, severity)
        spans = findings.select("start", "end").rows()
        hits += sum(_is_named(defect, spans, named) for defect in trial.defects)
        total += len(trial.defects)
    return hits, total


def find_new(trial: Trial, severity: Severity = "warning") -> pl.DataFrame:
    """Return findings of at least a severity that the clean rows do not have."""
    return (
        find_all(trial.wrong)
        .join(trial.clean, on=_SAME, how="anti")
        .filter(
            severity_rank() >= SEVERITIES.index(severity),
            ~pl.col("message").str.contains(FOLDED_PATTERN),
        )
    )


def find_all(data: Slice) -> pl.DataFrame:
    """Run all checks of a dataset over a slice."""
    return run_checks(data, configure(data.dataset)).findings


def _is_named(defect: Defect, spans: Sequence[tuple[datetime, datetime]], share: float) -> bool:
    inside = sum(any(start <= time < end for start, end in spans) for time in defect.times)
    return inside > 0 and inside >= share * len(defect.times)


def pick_places(
    random: np.random.Generator, places: Sequence[int], count: int, *, edge: int, rows: int = 1
) -> list[int]:
    """Pick random first rows, one in each of `count` equal parts of the rows.

    Parameters
    ----------
    places
        Rows that may be picked, in order.
    edge
        Number of rows at both ends that are left as they are.
    rows
        Number of rows of a defect, none of which is in the next part.
    """
    numbers = np.asarray(places)
    bounds = np.linspace(edge, numbers[-1] + 1 - edge, count + 1)
    parts = (
        numbers[(numbers >= low) & (numbers < high - rows)]
        for low, high in pairwise(bounds.tolist())
    )
    return [int(random.choice(part)) for part in parts if part.size]


def share_out(
    count: int, shares: Mapping[str, int], most: Mapping[str, int]
) -> Iterator[tuple[str, int]]:
    """Cut `count` defects into runs: a recording and the number of defects in it.

    Parameters
    ----------
    shares
        Number of defects of each recording if there are 50, the smallest recording last.
    most
        Most defects of one run of each recording.
    """
    if count <= FEW:
        yield [*shares][-1], count
        return
    for name, share in shares.items():
        rest = round(share * count / COUNT)
        while rest > 0:
            yield name, min(rest, most[name])
            rest -= most[name]


def require_hits(kind: Kind, witness: str, hits: int, total: int) -> None:
    """Require the bound of a kind, in proportion to the number of defects."""
    least = math.floor(kind.least[witness] * total / COUNT)
    assert hits >= least, f"{kind.name}, {witness}: {hits} of {total} found, not {least}"
