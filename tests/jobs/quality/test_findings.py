"""Findings are opened, kept, closed and opened again; ingestion checks the ingested rows."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from lake.api import Lake
from lake.errors import ConfigError, SourceError, UnknownNameError
from lake.jobs.quality.findings import FindingCounts
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.quality.slice import Slice
from lake.sandbox import Fault, Sandbox
from lake.settings import QualitySettings, Settings
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
from tests.conftest import DAY, MINUTE, ORIGIN, T0, bars, store_of, trades, write
from tests.jobs.conftest import NOW, MakeLake
from tests.jobs.quality.children import start_check
from tests.quality.slices import rows_of

SINCE, UNTIL = NOW - timedelta(hours=3), NOW - timedelta(hours=1)


def versions(lake: Lake) -> tuple[int, int]:
    store = store_of(lake)
    return tuple(store.version(store.catalog.dataset(name)) for name in ("findings", "scores"))  # type: ignore[return-value]


def holed(lake: Lake) -> None:
    """An hour of bars of which two are missing."""
    write(lake, "bars_1m", bars(60).filter(~pl.int_range(pl.len()).is_in([10, 30])))


def gaps(lake: Lake, status: str | None = "open") -> pl.DataFrame:
    return lake.quality.findings("bars_1m", check="gaps", status=status).sort("timestamp")


def test_findings_are_opened_kept_closed_and_opened_again(lake: Lake) -> None:
    holed(lake)
    first = lake.quality.check()
    assert first.recorded == FindingCounts(opened=2)
    before = gaps(lake)
    assert before["timestamp"].to_list() == [T0 + 10 * MINUTE, T0 + 30 * MINUTE]
    assert set(before["job_id"]) == {first.job_id}
    assert first.findings.equals(lake.quality.findings())

    unchanged = versions(lake)
    assert lake.quality.check().recorded == FindingCounts(kept=2)
    assert gaps(lake).equals(before)
    assert versions(lake) == unchanged

    write(lake, "bars_1m", bars(1, start=T0 + 10 * MINUTE))
    third = lake.quality.check()
    assert third.recorded == FindingCounts(kept=1, closed=1)
    closed = gaps(lake, "closed").row(0, named=True)
    assert closed["finding_id"] == before["finding_id"][0]
    assert (closed["closed_by"], closed["job_id"]) == (third.job_id, first.job_id)
    assert lake.quality.scores()["completeness"].to_list() == [59 / 60]

    store = store_of(lake)
    day = TimeRange(T0, T0 + DAY)
    store.replace(
        lake.dataset("bars_1m"),
        next(iter(_markets(lake))),
        day,
        lambda rows: rows.filter(pl.col("timestamp") != T0 + 10 * MINUTE),
        ORIGIN,
    )
    fourth = lake.quality.check()
    assert fourth.recorded == FindingCounts(opened=1, kept=1)
    again = gaps(lake).row(0, named=True)
    assert again["finding_id"] == before["finding_id"][0]
    assert (again["job_id"], again["closed_by"], again["closed_at"]) == (fourth.job_id, None, None)
    assert gaps(lake, None).height == 2


def _markets(lake: Lake) -> list[Market]:
    frame = lake.scan("bars_1m").select("exchange", "symbol").unique().collect()
    return [Market(*row) for row in frame.rows()]


def test_what_changed_is_written_with_the_job_that_found_it_first(lake: Lake) -> None:
    holed(lake)
    first = lake.quality.check()
    settled = [CoveredRange(TimeRange(T0, T0 + DAY), 58)]
    Ledger(store_of(lake)).record_coverage({part_of("bars_1m", _markets(lake)[0]): settled}, ORIGIN)
    lake.quality.check()
    write(lake, "bars_1m", bars(1, start=T0 + 11 * MINUTE, volume=[9.0]))  # in the context
    third = lake.quality.check()
    assert third.recorded == FindingCounts(kept=2)
    finding = gaps(lake).row(0, named=True)
    assert '"volume":9.0' in finding["context"]
    assert finding["job_id"] == first.job_id


def test_a_check_of_one_market_or_day_closes_nothing_elsewhere(lake: Lake) -> None:
    for symbol in ("BTC/USDT", "ETH/USDT"):
        write(lake, "bars_1m", bars(3, step=720 * MINUTE, symbol=symbol))
    assert lake.quality.check().recorded.opened == 4
    before = versions(lake)
    lake.quality.check(symbol="BTC/USDT", since=T0, until=T0 + DAY)
    assert versions(lake) == before
    assert lake.quality.findings().height == 4


def test_findings_of_a_day_without_rows_are_closed(lake: Lake) -> None:
    epoch = T0.replace(year=1970, day=20)
    write(lake, "bars_1m", pl.concat([bars(3), bars(1, start=epoch)]))
    lake.quality.check()
    assert lake.quality.findings(severity="critical").height == 1
    store_of(lake).replace(
        lake.dataset("bars_1m"),
        _markets(lake)[0],
        TimeRange(epoch, epoch + DAY),
        lambda rows: rows.clear(),
        ORIGIN,
    )
    assert lake.quality.check().recorded == FindingCounts(closed=1)
    assert lake.quality.findings().is_empty()


def test_refused_rows_are_findings_until_a_sound_row_is_stored(lake: Lake) -> None:
    bad = bars(1, start=T0 + 3 * MINUTE, open=[-1.0], low=[-1.0])
    lake.write("bars_1m", pl.concat([bars(3), bad]))
    done = lake.quality.check()
    finding = done.findings.row(0, named=True)
    assert (finding["check"], finding["timestamp"]) == ("refused", T0 + 3 * MINUTE)
    assert "prices_positive" in finding["reason"]
    assert done.scores["accuracy"] == pytest.approx(2 / 3)
    lake.write("bars_1m", bars(1, start=T0 + 3 * MINUTE))
    done = lake.quality.check()
    assert done.recorded == FindingCounts(closed=1)
    assert done.scores["score"] == 1.0


def test_two_checks_at_once_do_no_harm(lake: Lake) -> None:
    holed(lake)
    write(lake, "trades", trades(3))
    others = [Lake(lake.settings) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda lake: lake.quality.check(), others))
    assert gaps(lake, None)["status"].to_list() == ["open", "open"]
    assert lake.quality.scores().select("dataset", "timestamp").is_duplicated().sum() == 0
    last = lake.quality.check().recorded
    assert (last.opened, last.closed) == (0, 0)


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Return a function that returns the log since its last call."""
    # The command line, where a test has run it in this process, keeps logs to itself.
    monkeypatch.setattr(logging.getLogger("lake"), "propagate", True)
    caplog.set_level("INFO", logger="lake")

    def text() -> str:
        log = caplog.text
        caplog.clear()
        return log

    return text


def commits(lake: Lake, table: str) -> int:
    return len(list((lake.root.path / "tables" / table / "_delta_log").glob("*.json")))


@pytest.mark.parametrize("least", [0, 1])
def test_a_killed_check_is_made_whole_by_the_next(tmp_path: Path, least: int) -> None:
    """Killed before and after the commit of findings, which comes before that of scores."""
    lake = Lake.create(Settings(uri=str(tmp_path / "lake")))
    symbols = [f"S{n:02}/USDT" for n in range(12)]
    holed_bars = bars(60).filter(pl.int_range(pl.len()) != 10)
    write(lake, "bars_1m", pl.concat(holed_bars.with_columns(symbol=pl.lit(s)) for s in symbols))
    child = start_check(tmp_path / "lake")
    created = 1  # the table's own first commit
    while commits(lake, "findings") < least + created and child.is_alive():
        time.sleep(0.002)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert lake.quality.scores().is_empty()
    done = Lake(lake.settings).quality.check()
    assert done.findings["symbol"].sort().to_list() == symbols
    assert lake.quality.scores().height == len(symbols)
    assert lake.quality.check().recorded == FindingCounts(kept=len(symbols))


def test_what_is_new_is_logged_as_it_deserves(lake: Lake, logs: Callable[[], str]) -> None:
    holed(lake)
    lake.quality.check()
    lines = [line for line in logs().splitlines() if "event=finding" in line]
    assert len(lines) == 2
    assert all(line.startswith("WARNING") for line in lines)
    assert "symbol=BTC/USDT" in lines[0]
    assert "start=2024-01-01T00:10:00Z" in lines[0]
    lake.quality.check()
    assert "event=finding" not in logs()
    write(lake, "bars_1m", bars(60))
    lake.quality.check()
    assert logs().count('event="finding closed"') == 2


def test_findings_that_cannot_be_recorded_are_logged(lake: Lake, logs: Callable[[], str]) -> None:
    """Another engine wrote rows of a time that no table of a lake can hold."""
    write(lake, "bars_1m", bars(1))
    far = as_stored(lake, bars(1, start=datetime(4670, 1, 1, tzinfo=UTC)))
    write_deltalake(lake.root.path / "tables" / "bars_1m", far, mode="append")
    lake.quality.check()
    (error,) = [line for line in logs().splitlines() if "cannot be recorded" in line]
    assert error.startswith("ERROR")
    assert "start=4670-01-01T00:00:00Z" in error


def as_stored(lake: Lake, frame: pl.DataFrame) -> pl.DataFrame:
    dataset = lake.dataset("bars_1m")
    return rows_of(dataset, frame).with_columns(dataset.day())


def test_a_check_of_nothing_is_refused(lake: Lake) -> None:
    holed(lake)
    for wanted in ({"exchange": "binanse"}, {"symbol": "BTC/EUR"}, {"since": T0 + 10 * DAY}):
        with pytest.raises(UnknownNameError, match="nothing to check"):
            lake.quality.check(**wanted)
    with pytest.raises(UnknownNameError, match="bars_2m does not exist"):
        lake.quality.check("bars_2m")


def test_a_check_of_ones_own_is_recorded_like_the_others(lake: Lake) -> None:
    holed(lake)

    def mine(rows: Slice) -> pl.LazyFrame:
        return rows.frame.head(1).select(start="timestamp", severity=pl.lit("critical"))

    done = lake.quality.check(own={"mine": mine})
    assert lake.quality.findings(check="mine", severity="critical").height == 1
    assert done.worst("critical") == 1
    assert done.worst("error") == 3


def test_an_ingestion_records_what_it_finds(make_lake: MakeLake) -> None:
    lake = make_lake()
    report = lake.ingest("bars_1m", exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL)
    assert report.findings == lake.quality.findings(severity="warning").height
    assert report.score == pytest.approx(lake.quality.scores("bars_1m")["score"][0])
    assert lake.quality.scores()["rows"].to_list() == [120]


def changed(lake: Lake, quality: QualitySettings) -> Lake:
    settings = lake.settings.model_copy(update={"quality": quality})
    return Lake(settings, now=lambda: NOW)


def test_settings_can_leave_the_check_out(make_lake: MakeLake) -> None:
    lake = changed(make_lake(), QualitySettings(after_ingest=False))
    report = lake.ingest("bars_1m", exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL)
    assert (report.findings, report.score) == (None, None)
    assert lake.quality.scores().is_empty()


@pytest.mark.parametrize(
    "broken",
    [{"sql": "SELECT nothing FROM rows"}, {"python": "tests.jobs.quality.test_findings:fails"}],
)
def test_a_broken_check_of_a_user_is_logged_and_does_not_fail_the_ingestion(
    make_lake: MakeLake, logs: Callable[[], str], broken: dict[str, str]
) -> None:
    quality = QualitySettings(checks={"bars": {"mine": broken}}, python_modules=("tests",))
    lake = changed(make_lake(), quality)
    report = lake.ingest("bars_1m", exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL)
    assert report.status == "ok"
    assert report.score is None
    assert lake.scan("bars_1m").collect().height == 120
    (error,) = [line for line in logs().splitlines() if "check after ingestion failed" in line]
    assert "quality.checks.bars.mine" in error
    with pytest.raises(ConfigError, match=r"quality\.checks\.bars\.mine"):
        lake.quality.check()


def fails(rows: Slice) -> pl.LazyFrame:
    raise ZeroDivisionError(rows.market)


def test_what_came_before_a_source_failed_is_checked(make_lake: MakeLake, sandbox: Sandbox) -> None:
    lake = make_lake(batch_rows=100)
    sandbox.fail(Fault("503", match="klines", skip=6, times=10**6))
    with pytest.raises(SourceError):
        lake.ingest(
            "bars_1m", exchange="binance", symbol="BTC/USDT", since=NOW - 5 * DAY, until=UNTIL
        )
    assert lake.scan("bars_1m").collect().height > 0
    assert lake.quality.scores()["rows"].sum() == lake.scan("bars_1m").collect().height
