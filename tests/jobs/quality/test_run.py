"""Checks of recorded markets in a real lake give known results, and a bundle keeps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import ConfigError, DamagedError, QualityError, UsageError
from lake.quality.report.document import from_json
from lake.settings import QualitySettings
from tests.conftest import DAY, MINUTE, T0, NewLake, bars, store_of, trades, write
from tests.quality.real import (
    PERPETUAL,
    UNITTEST,
    XRP,
    needs_data,
    recorded_bars,
    recorded_trades,
)


def structural(lake: Lake) -> pl.DataFrame:
    """Open findings of checks without thresholds."""
    return lake.quality.findings(severity="warning").filter(
        pl.col("check").is_in(["gaps", "off_grid", "order", "duplicates", "implausible_time"])
    )


@needs_data
def test_717_missing_minutes_of_a_recorded_market_are_unknown(lake: Lake) -> None:
    lake.write("bars_1m", recorded_bars("binance_UNITTEST-BTC_1m", UNITTEST))
    done = lake.quality.check()
    assert done.rows == 13_681
    missing = lake.quality.gaps("bars_1m")
    assert missing["slots"].sum() == 717
    assert set(missing["reason"]) == {"unknown"}
    assert structural(lake).filter(pl.col("check") == "gaps")["rows"].sum() == 717
    assert lake.quality.scores()["unknown"].sum() == 717
    assert done.scores["completeness"] == pytest.approx(13_681 / (13_681 + 717))


@needs_data
def test_1091_missing_minutes_of_a_recorded_market_had_no_trade_and_nothing_is_lost(
    lake: Lake,
) -> None:
    lake.write("bars_1m", recorded_bars("binance_XRP-ETH_1m", XRP))
    lake.write("trades", recorded_trades().select(lake_columns(lake)))
    done = lake.quality.check()
    missing = lake.quality.gaps("bars_1m")
    assert missing["slots"].sum() == 1091
    assert set(missing["reason"]) == {"no_trade"}
    assert structural(lake).is_empty()
    assert done.scores["completeness"] == 1.0
    assert lake.quality.scores("bars_1m")["no_trade"].sum() == 1091


def lake_columns(lake: Lake) -> list[str]:
    columns = lake.dataset("trades").polars_schema
    return [name for name in recorded_trades().columns if name in columns]


@needs_data
def test_the_recorded_perpetual_is_complete(lake: Lake) -> None:
    lake.write("bars_1m", recorded_bars("ftx_BTC-PERP_1m", PERPETUAL))
    done = lake.quality.check()
    assert lake.quality.gaps("bars_1m").is_empty()
    assert structural(lake).is_empty()
    assert done.scores["completeness"] == 1.0


def test_gaps_are_joined_over_midnight_and_cut_to_the_selection(lake: Lake) -> None:
    write(lake, "bars_1m", bars(2, timestamp=[T0, T0 + 2 * DAY]))
    whole = lake.quality.gaps("bars_1m")
    assert whole.select("start", "end", "slots").rows() == [
        (T0 + MINUTE, T0 + 2 * DAY, 2 * 1440 - 1)
    ]
    part = lake.quality.gaps("bars_1m", since=T0 + 5 * MINUTE, until=T0 + DAY + MINUTE)
    assert part.select("start", "slots").rows() == [(T0 + 5 * MINUTE, 1440 - 4)]


def test_gaps_of_what_is_no_bar_are_refused(lake: Lake) -> None:
    write(lake, "trades", trades(3))
    with pytest.raises(UsageError, match="trades holds no bars"):
        lake.quality.gaps("trades")


def test_settings_for_a_table_that_cannot_be_are_refused(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    for name in ("barz", "bars_1x", "bars_"):
        quality = QualitySettings(checks={name: {"gaps": {"severity": "info"}}})
        other = Lake(lake.settings.model_copy(update={"quality": quality}))
        with pytest.raises(ConfigError, match=f"quality.checks.{name}"):
            other.quality.check()
    quality = QualitySettings(checks={"bars_7m": {"gaps": {"severity": "info"}}})
    Lake(lake.settings.model_copy(update={"quality": quality})).quality.check()


@pytest.fixture
def half(lake: Lake) -> Lake:
    """Two days, of which the first lacks half of its bars."""
    kept = (pl.int_range(pl.len()) % 2 == 0) | (pl.int_range(pl.len()) >= 1440)
    write(lake, "bars_1m", bars(2 * 1440).filter(kept))
    return lake


def test_a_pin_keeps_score_and_report_of_what_is_pinned(half: Lake) -> None:
    bundle = half.bundles.pin("all", table="bars_1m")
    completeness = (720 + 1440) / (2 * 1440)
    assert bundle.manifest.metadata.data_quality_score == pytest.approx(completeness, abs=2e-3)
    assert bundle.manifest.quality_report == "quality.json"
    report = bundle.quality
    assert report is not None
    assert report.bundle_id in (None, bundle.id)
    assert report.totals.missing.unknown == 720
    sound = half.bundles.pin("second", table="bars_1m", since=T0 + DAY)
    assert sound.manifest.metadata.data_quality_score == 1.0
    assert half.quality.findings().is_empty(), "a pin records nothing"
    assert half.bundles.pin("all", table="bars_1m").id == bundle.id


def test_the_score_is_of_what_was_pinned_also_of_the_past(half: Lake) -> None:
    store = store_of(half)
    then = store.now()
    write(half, "bars_1m", bars(1440))
    now = half.bundles.pin("now", table="bars_1m")
    assert now.manifest.metadata.data_quality_score == 1.0
    past = half.bundles.pin("past", table="bars_1m", as_of=then)
    score = past.manifest.metadata.data_quality_score
    assert score is not None
    assert score < 0.8


def test_only_the_selection_is_checked_to_the_minute(half: Lake) -> None:
    from_hole = half.bundles.pin(
        "part", table="bars_1m", since=T0 + 1439 * MINUTE, until=T0 + DAY + MINUTE
    )
    report = from_hole.quality
    assert report is not None
    assert (report.totals.rows, report.totals.missing.unknown) == (1, 1)


def test_the_gate_lets_through_what_is_good_enough(half: Lake) -> None:
    half.bundles.pin("second", table="bars_1m", since=T0 + DAY, min_quality=1.0)
    with pytest.raises(QualityError, match=r"0\.9 is required"):
        half.bundles.pin("all", table="bars_1m", min_quality=0.9)
    with pytest.raises(QualityError, match="was not checked"):
        half.bundles.pin("all", table="bars_1m", min_quality=0.1, check=False)
    assert half.bundles.ls()["name"].to_list() == ["second"]


def test_without_a_check_there_is_no_score_and_no_report(half: Lake) -> None:
    bundle = half.bundles.pin("all", table="bars_1m", check=False)
    assert bundle.manifest.metadata.data_quality_score is None
    assert bundle.manifest.quality_report is None
    assert bundle.quality is None


def test_export_and_import_keep_the_report(half: Lake, new_lake: NewLake, tmp_path: Path) -> None:
    bundle = half.bundles.pin("all", table="bars_1m")
    half.bundles.open("all").export(tmp_path / "all.tar.zst")
    imported = new_lake().bundles.import_(tmp_path / "all.tar.zst", name="all")
    assert imported.id == bundle.id
    assert imported.quality == bundle.quality
    assert imported.manifest.metadata == bundle.manifest.metadata


@pytest.mark.parametrize("damage", ["other", "cut", "gone"])
def test_a_damaged_report_is_noticed(half: Lake, damage: str) -> None:
    bundle = half.bundles.pin("all", table="bars_1m")
    (path,) = (half.root.path / "bundles").rglob("quality.json")
    text = path.read_bytes()
    assert replace(from_json(text), bundle_id=bundle.id) == bundle.quality
    path.chmod(0o644)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(text.replace(b"unknown", b"no_trad") if damage == "other" else text[:100])
    with pytest.raises(DamagedError):
        _ = half.bundles.open("all").quality
    assert any("quality.json" in problem.place for problem in half.bundles.open("all").verify())
