"""Two versions of a dataset file on one lake: the one without a column loses no value of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake import open_bundle
from lake.api import Lake
from lake.errors import SchemaError
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.columns import require_columns
from tests.conftest import DAY, ORIGIN, T0, NewLake, funding, store_of, write
from tests.model.everything import own_copy

EXTRA = 'extra = { type = "float64", unit = "quote", nullable = true, meaning = "Added." }\n'
COUNT = 12
TIMES = [T0 + number * DAY for number in range(COUNT)]
PERPETUAL = Market("binance", "BTC/USDT:USDT")


class Versions:
    """A lake as an older version of the code sees it, and as a newer one does."""

    def __init__(self, lake: Lake, text: str) -> None:
        self._settings, self._older = lake.settings, text
        self._file = Path(lake.root.path, "schemas", "rates.toml")

    def older(self) -> Lake:
        self._file.write_text(self._older)
        return Lake(self._settings)

    def newer(self) -> Lake:
        self._file.write_text(self._older.replace("\n[rules]", EXTRA + "\n[rules]", 1))
        return Lake(self._settings)

    def extra(self) -> list[float | None]:
        return self.newer().scan("rates").collect()["extra"].to_list()


@pytest.fixture(params=["day", "month", "year"])
def versions(new_lake: NewLake, request: pytest.FixtureRequest) -> Versions:
    """Rows of which half were written before there was a column, and half with it."""
    text = own_copy("funding", "rates").replace('date = "year"', f'date = "{request.param}"')
    both = Versions(new_lake(schemas={"rates": text}), text)
    write(both.older(), "rates", funding(TIMES[: COUNT // 2]))
    rows = funding(TIMES[COUNT // 2 :])
    values = pl.Series("extra", [float(n) for n in range(COUNT // 2, COUNT)])
    write(both.newer(), "rates", rows.with_columns(values))
    return both


EXPECTED = [None] * (COUNT // 2) + [float(n) for n in range(COUNT // 2, COUNT)]


def revise(lake: Lake) -> None:
    """Update a stored row, and insert another, in one merge."""
    rows = funding([TIMES[-1], TIMES[-1] + DAY]).with_columns(funding_rate=pl.lit(0.25))
    written = write(lake, "rates", rows)
    assert (written.inserted, written.updated) == (1, 1)


def replace(lake: Lake) -> None:
    """Delete a row, and change another."""
    store = store_of(lake)
    window = TimeRange(TIMES[-3], TIMES[-1])
    change: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows.tail(1).with_columns(  # noqa: E731
        funding_rate=pl.lit(0.25)
    )
    store.replace(store.catalog.dataset("rates"), PERPETUAL, window, change, ORIGIN)


def optimize(lake: Lake) -> None:
    report = lake.maintenance.optimize(table="rates", before=T0 + timedelta(days=400))
    assert report["files_after"].sum() > 0 or lake.dataset("rates").granularity == "day"


@pytest.mark.parametrize(
    ("rewrite", "expected"),
    [
        (revise, [*EXPECTED, None]),
        (replace, [*EXPECTED[:-3], *EXPECTED[-2:]]),
        (optimize, EXPECTED),
    ],
)
def test_a_version_without_the_column_keeps_its_values(
    versions: Versions, rewrite: Callable[[Lake], None], expected: list[float | None]
) -> None:
    assert versions.extra() == EXPECTED
    rewrite(versions.older())
    assert versions.extra() == expected


def test_a_version_without_the_column_reads_and_pins_as_before(
    versions: Versions, tmp_path: Path
) -> None:
    lake = versions.older()
    rows = lake.scan("rates").collect()
    assert (rows.height, "extra" in rows.columns) == (COUNT, False)
    assert_frame_equal(lake.scan("rates", ordered=False).collect().sort(rows.columns), rows)
    assert_frame_equal(
        lake.sql("SELECT * EXCLUDE (available_at) FROM rates ORDER BY timestamp").pl(), rows
    )
    names: Any = {"exchange": "binance", "symbol": "BTC/USDT:USDT"}
    assert lake.latest("rates", **names, n=COUNT)["timestamp"].to_list() == TIMES
    old = lake.bundles.pin("old", table="rates", check=False)
    exported = open_bundle(old.export(tmp_path / "exported"), cache=False)
    for bundle in (old, exported):
        assert bundle.verify(deep=True) == []
        assert_frame_equal(bundle.scan("rates").collect(), rows)
        assert bundle.sql("SELECT count(*) FROM rates").fetchall() == [(COUNT,)]
        assert len(list(bundle.replay())) == COUNT
    newer = versions.newer()
    assert newer.bundles.open("old").verify(deep=True) == []
    assert newer.sql("SELECT count(extra) FROM rates").fetchall() == [(COUNT // 2,)]


def test_a_column_that_must_not_be_null_and_is_not_known_stops_writes(
    new_lake: NewLake,
) -> None:
    text = own_copy("funding", "rates")
    required = EXTRA.replace("nullable = true", "nullable = false")
    both = Versions(
        new_lake(schemas={"rates": text.replace("\n[rules]", required + "\n[rules]", 1)}), text
    )
    lake = both.older()
    file = Path(lake.root.path, "schemas", "rates.toml")
    file.write_text(text.replace("\n[rules]", required + "\n[rules]", 1))
    write(Lake(lake.settings), "rates", funding(TIMES[:2]).with_columns(extra=pl.lit(1.0)))
    older = both.older()
    assert older.scan("rates").collect().height == 2
    with pytest.raises(SchemaError, match="column 'extra' must not be null, and the dataset file"):
        write(older, "rates", funding(TIMES))


def test_maintenance_of_other_tables_goes_on_where_one_does_not_fit(new_lake: NewLake) -> None:
    text = own_copy("funding", "rates")
    both = Versions(new_lake(schemas={"rates": text}), text)
    lake = both.newer()
    for number in range(3):
        rows = funding([TIMES[number]])
        write(lake, "rates", rows.with_columns(extra=pl.lit(1.0)))
        write(lake, "funding", rows)
    file = Path(lake.root.path, "schemas", "rates.toml")
    file.write_text(file.read_text().replace(EXTRA, EXTRA.replace("float64", "int64")))
    other = Lake(lake.settings)
    for act in (other.maintenance.optimize, other.maintenance.checkpoint):
        with pytest.raises(SchemaError, match="column 'extra' has another type") as caught:
            act()
        assert "Restore schemas/rates.toml" in caught.value.hint
    store = store_of(other)
    assert store.snapshot(other.dataset("funding")).files().height == 1
    assert write(other, "funding", funding([TIMES[-1]])).inserted == 1


def test_a_table_of_a_built_in_dataset_that_does_not_fit_asks_for_another_version(
    lake: Lake,
) -> None:
    write(lake, "funding", funding(TIMES[:2]))
    stored = store_of(lake).open(lake.dataset("funding")).schema()
    columns = tuple(
        dataclasses.replace(column, nullable=False) if column.name == "mark_price" else column
        for column in lake.dataset("funding").columns
    )
    with pytest.raises(SchemaError, match="column 'mark_price' may be null") as caught:
        require_columns(stored, dataclasses.replace(lake.dataset("funding"), columns=columns))
    assert caught.value.hint.startswith("Another version of lake made the table")
