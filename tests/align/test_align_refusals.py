"""Invalid alignments are refused; the error names the source, the column and a remedy."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from lake.align.align import align
from lake.align.policies import AsOf, How, Resample
from lake.errors import UsageError
from tests.align.rows import STEP, UNTIL, Fact, rows_known_at, rows_of
from tests.conftest import SECOND, T0, TIME

MANY = rows_of([Fact(0, 1, "X", None), Fact(0, 1, "Y", None)])
NAIVE = rows_known_at(0).with_columns(pl.col("available_at").dt.replace_time_zone(None))
NEWEST = AsOf(staleness=None)
REFUSED: dict[str, tuple[dict[str, pl.DataFrame], dict[str, Any], str]] = {
    "no source": ({}, {}, "no sources to align"),
    "naive times": ({"x": NAIVE}, {}, "source 'x': column 'available_at' is Datetime"),
    "a naive start": ({"x": rows_known_at(0)}, {"since": T0.replace(tzinfo=None)}, "range"),
    "a range reversed": ({"x": rows_known_at(0)}, {"until": T0}, "range is empty or reversed"),
    "a step of nothing": ({"x": rows_known_at(0)}, {"every": 0 * SECOND}, "every is 0:00:00"),
    "an unknown step": ({"x": rows_known_at(0)}, {"every": "soon"}, "'soon' is not a timeframe"),
    "no availability": (
        {"x": rows_known_at(0).drop("available_at")},
        {},
        "source 'x' has no column 'available_at'",
    ),
    "null availability": (
        {
            "x": pl.concat(
                [rows_known_at(0), rows_known_at(0).with_columns(available_at=pl.lit(None, TIME))]
            )
        },
        {"how": Resample("sum")},
        "source 'x': column 'available_at' is null in 1 row",
    ),
    "an unknown column": (
        {"x": rows_known_at(0)},
        {"how": AsOf(staleness=None, columns=["nope"])},
        "source 'x' has no column 'nope'",
    ),
    "no column of the markets": (
        {"x": rows_known_at(0)},
        {"by": "symbol"},
        "source 'x' has no column",
    ),
    "several markets": ({"x": MANY}, {}, "source 'x' has several markets: a X and a Y"),
    "markets that one column does not tell apart": (
        {"x": MANY},
        {"by": "exchange"},
        "source 'x' has several markets: a X and a Y",
    ),
    "no prices": (
        {"x": rows_known_at(0)},
        {"how": Resample("ohlcv")},
        "source 'x' has no column 'open'",
    ),
    "prices of text": (
        {"x": rows_known_at(0, open=["a"], high=[1], low=[1], close=[1])},
        {"how": Resample("ohlcv")},
        "source 'x': column 'open' is String, not numeric",
    ),
    "a step without unit": ({"x": rows_known_at(0)}, {"every": 60}, "every is 60"),
    "a policy by its name": ({"x": rows_known_at(0)}, {"how": "last"}, "how is 'last'"),
    "text in a sum": (
        {"x": rows_known_at(0, side=["buy"])},
        {"how": Resample("sum", columns=["side"])},
        "source 'x': column 'side' is String, not numeric",
    ),
    "a zero of text": (
        {"x": rows_known_at(0, side=["buy"])},
        {"how": AsOf(staleness=None, fill="zero", columns=["side"])},
        "source 'x': column 'side' is String, not numeric",
    ),
    "a column twice": (
        {"x": rows_known_at(0)},
        {"how": AsOf(staleness=None, columns=["value", "value"])},
        "column 'x_value' would be duplicated",
    ),
    "names that meet": (
        {"x": rows_known_at(0, y_value=[1]), "x_y": rows_known_at(0)},
        {},
        "column 'x_y_value' would be duplicated",
    ),
    "the column that says what was filled": (
        {"x": rows_known_at(0, fill=["flat"])},
        {"how": AsOf(staleness=None, columns=["fill"])},
        "column 'x_fill' would be duplicated",
    ),
    "time as a market": (
        {"x": rows_known_at(0, time=[1])},
        {"by": "time"},
        "column 'time' would be duplicated",
    ),
    "a source without policy": (
        {"x": rows_known_at(0)},
        {"how": {}},
        "how has no policy for source 'x'",
    ),
    "a policy without source": (
        {"x": rows_known_at(0)},
        {"how": {"x": NEWEST, "y": NEWEST}},
        "how names the unknown source 'y'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_alignments_are_refused(case: str) -> None:
    sources, choice, message = REFUSED[case]
    arguments = {"every": STEP, "since": T0, "until": UNTIL, "how": NEWEST, **choice}
    with pytest.raises(UsageError) as caught:
        align(sources, arguments.pop("every"), **arguments)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "choice", "message"),
    [
        (Resample, {"aggregate": "median"}, "aggregate is 'median'"),
        (Resample, {"aggregate": "sum", "fill": "last", "limit": "1h"}, "fill of sum is 'last'"),
        (Resample, {"aggregate": "ohlcv", "fill": "zero"}, "fill of ohlcv is 'zero'"),
        (Resample, {"aggregate": "ohlcv", "fill": "flat"}, "fill 'flat' needs a limit"),
        (Resample, {"aggregate": "sum", "limit": "1h"}, "fill 'none' does not use a limit"),
        (AsOf, {"staleness": "1h", "fill": "flat"}, "fill is 'flat'"),
        (AsOf, {"staleness": "1h", "fill": "last"}, "fill 'last' needs a limit"),
        (AsOf, {"staleness": "1h", "fill": "last", "limit": "1h"}, "limit 1h is not longer than"),
        (AsOf, {"staleness": None, "fill": "last", "limit": "1h"}, "limit 1h is not longer than"),
        (AsOf, {"staleness": "1M"}, "staleness is 1M: months differ"),
        (AsOf, {"staleness": -SECOND}, "staleness is -1 day"),
        (AsOf, {"staleness": timedelta.max}, "staleness is 999999999 days"),
        (AsOf, {"staleness": 60}, "staleness is 60"),
        (AsOf, {"staleness": "a while"}, "'a while' is not a timeframe"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(
    kind: type[How], choice: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**choice)
    assert caught.value.message.startswith(message)
    assert caught.value.hint
