"""Checks that a user declares: for a dataset of their own, and in the settings of the lake."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import ConfigError, SchemaError
from lake.settings import QualitySettings
from tests.conftest import DAY, MINUTE, T0, NewLake, bars, store_of, write

SCHEMA = """
name = "oracle_prices"
title = "Prices of an oracle"
description = "One row an update."
rows = "immutable"
date = "day"
time_column = "timestamp"
key = ["timestamp"]

[columns]
timestamp = {{ type = "timestamp", meaning = "Time." }}
price = {{ type = "float64", meaning = "Price." }}

{checks}
"""
CHECKS = """
[checks.implausible_time]
severity = "critical"
ahead_seconds = 60.0

[checks.far]
severity = "error"
dimension = "consistency"
sql = "SELECT timestamp, price AS measured FROM rows WHERE price > 100"
"""


def prices(*values: float) -> pl.DataFrame:
    frame = bars(len(values)).select("exchange", "symbol", "timestamp")
    return frame.with_columns(price=pl.Series(values))


def changed(lake: Lake, checks: dict[str, Any]) -> Lake:
    quality = QualitySettings(checks=checks)
    return Lake(lake.settings.model_copy(update={"quality": quality}))


def test_a_dataset_of_ones_own_has_checks_of_its_own(new_lake: NewLake) -> None:
    lake = new_lake(schemas={"oracle_prices": SCHEMA.format(checks=CHECKS)})
    write(lake, "oracle_prices", prices(1.0, 200.0, 2.0))
    done = lake.quality.check()
    finding = done.findings.row(0, named=True)
    assert (done.findings.height, finding["check"], finding["timestamp"]) == (1, "far", T0 + MINUTE)
    assert (finding["severity"], finding["dimension"], finding["measured"]) == (
        "error",
        "consistency",
        200.0,
    )
    assert done.scores["consistency"] == pytest.approx(2 / 3)

    milder = changed(lake, {"oracle_prices": {"far": {"severity": "warning"}}}).quality.check()
    assert (milder.recorded.opened, milder.recorded.kept, milder.recorded.closed) == (0, 1, 0)
    assert milder.findings["severity"].to_list() == ["warning"]
    off = changed(lake, {"oracle_prices": {"far": {"enabled": False}}}).quality.check()
    assert (off.recorded.closed, off.findings.height) == (1, 0)


@pytest.mark.parametrize(
    ("checks", "says"),
    [
        ("[checks.fra]\nseverity = 'error'", "there is no check 'fra'"),
        ("[checks.far]\nsql = 'SELECT nothing FROM rows'", "far.sql: .* does not work: .*nothing"),
        ("[checks.far]\nsql = 'SELECT price FROM rows'", "no column start or timestamp"),
        ("[checks.implausible_time]\nahead_seconds = 'x'", "'x' is not of type float"),
        ("[checks.implausible_time]", "threshold 'ahead_seconds' is missing"),
        ("[checks.far]\npython = 'no.such:check'", "would run code that you have not allowed"),
    ],
)
def test_a_mistake_in_a_check_of_a_dataset_file_is_reported_with_its_place(
    new_lake: NewLake, checks: str, says: str
) -> None:
    lake = new_lake(schemas={"oracle_prices": SCHEMA.format(checks=checks)})
    write(lake, "oracle_prices", prices(1.0))
    with pytest.raises(ConfigError, match=says) as caught:
        lake.quality.check()
    assert "schemas/oracle_prices.toml: checks." in caught.value.message


@pytest.mark.parametrize(
    ("checks", "says"),
    [
        ("[checks.far]\nseverity = 'bad'", r"checks\.far\.severity"),
        ("[checks.far]\npython = 'nothing'", r"checks\.far\.python"),
        ("checks = 3", "checks"),
    ],
)
def test_a_malformed_check_is_refused_when_the_file_is_read(
    new_lake: NewLake, checks: str, says: str
) -> None:
    with pytest.raises(SchemaError, match=says):
        new_lake(schemas={"oracle_prices": SCHEMA.format(checks=checks)}).tables()


@pytest.mark.parametrize(
    ("table", "name", "values", "says"),
    [
        ("bars", "gasp", {}, "there is no check 'gasp'"),
        ("bars", "spikes", {"deviation": 3.0}, "there is no threshold 'deviation'"),
        ("bars", "spikes", {"deviations": "many"}, "'many' is not of type float"),
        ("bars", "spikes", {"severity": "loud"}, "'loud' is not one of"),
        ("bars", "mine", {"sql": "SELEC 1"}, "SELEC"),
        ("barz", "gaps", {}, "there is no dataset 'barz'"),
    ],
)
def test_a_mistake_in_the_settings_stops_a_check_before_anything_is_recorded(
    lake: Lake, table: str, name: str, values: dict[str, Any], says: str
) -> None:
    write(lake, "bars_1m", bars(2, step=2 * MINUTE))
    with pytest.raises(ConfigError, match=says):
        changed(lake, {table: {name: values}}).quality.check()
    assert lake.quality.findings(status=None).is_empty()


def test_thresholds_that_change_open_and_close(lake: Lake) -> None:
    quiet = bars(200, volume=[1.0] * 50 + [0.0] * 40 + [1.0] * 110)
    moving = [100.0 + n % 7 for n in range(200)]
    write(lake, "bars_1m", quiet.with_columns(close=pl.Series(moving), high=pl.lit(200.0)))

    def findings_of(**thresholds: float) -> list[int]:
        checks = {"bars": {"zero_volume": thresholds}} if thresholds else {}
        changed(lake, checks).quality.check()
        return lake.quality.findings(check="zero_volume")["rows"].to_list()

    assert findings_of() == []
    assert findings_of(min_rows=30) == [40]
    assert findings_of(min_rows=30, times=10) == [40]
    assert findings_of() == []
    assert lake.quality.findings(check="zero_volume", status="closed").height == 1


def test_a_finding_that_measures_no_number_is_recorded_without_it(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3, step=DAY, volume=[1.0] * 3))
    query = "SELECT timestamp, (volume - 1) / (volume - 1) AS measured FROM rows"
    mine = changed(lake, {"bars": {"mine": {"sql": query}, "gaps": {"enabled": False}}})
    assert mine.quality.check().recorded.opened == 3
    store = store_of(lake)
    version = store.version(store.catalog.dataset("findings"))
    assert mine.quality.check().recorded.kept == 3
    assert store.version(store.catalog.dataset("findings")) == version
    assert mine.quality.findings()["measured"].to_list() == [None] * 3
