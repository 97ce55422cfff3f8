"""A repair beside an ingestion of the same market, or another repair: neither loses a row."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait

from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.jobs.repairs.repair import RepairReport, undo
from lake.model.progress import NoProgress
from lake.sandbox import Sandbox
from tests.jobs.conftest import MakeLake, settings_for
from tests.jobs.repairs.damage import (
    BTC,
    DAY,
    SINCE,
    UNTIL,
    delete,
    finding,
    findings,
    minutes,
    repair,
    rows,
    store_of,
)


def _ingest(lake: Lake, *, refetch: bool) -> None:
    lake.ingest(
        "bars_1m",
        exchange="binance",
        symbol="BTC/USDT",
        since=SINCE - DAY,
        until=UNTIL,
        refetch=refetch,
    )


def test_repair_and_ingestion_of_one_market_at_once(make_lake: MakeLake, sandbox: Sandbox) -> None:
    lake = make_lake(batch_rows=200)
    _ingest(lake, refetch=False)
    truth = rows(lake, "bars_1m")
    gaps = [minutes(30, SINCE + n * DAY / 6) for n in range(1, 6)]
    for gap in gaps:
        delete(lake, "bars_1m", BTC, gap)
    found = findings(*(finding("bars_1m", BTC, gap) for gap in gaps))
    other = Lake(settings_for(lake.root.path, sandbox.url, batch_rows=200), now=lake._context.now)
    with ThreadPoolExecutor(2) as pool:
        ingestion = pool.submit(_ingest, other, refetch=True)
        report = pool.submit(repair, lake, found).result()
        ingestion.result()
    assert_frame_equal(rows(lake, "bars_1m"), truth)
    # What the ingestion gave first is no repair; what the repair gave is on record, and undone.
    for made in report.applied:
        undo(store_of(lake), made.repair_id)
    left = truth.height - rows(lake, "bars_1m").height
    assert left == report.inserted <= 150
    assert (
        rows(lake, "bars_1m").join(truth, on=truth.columns, how="anti", nulls_equal=True).is_empty()
    )


def test_two_repairs_at_once_do_the_work_of_one(make_lake: MakeLake, sandbox: Sandbox) -> None:
    lake = make_lake()
    _ingest(lake, refetch=False)
    truth = rows(lake, "bars_1m")
    gaps = [minutes(30, SINCE + n * DAY / 6) for n in range(1, 6)]
    for gap in gaps:
        delete(lake, "bars_1m", BTC, gap)
    found = findings(*(finding("bars_1m", BTC, gap) for gap in gaps))
    other = Lake(settings_for(lake.root.path, sandbox.url), now=lake._context.now)
    second: list[Future[RepairReport]] = []

    class BeginTheSecond(NoProgress):
        def begin(self, _what: str, _total: float, /) -> None:
            """The job of the first is on record, and runs."""
            second.append(pool.submit(repair, other, found))
            wait(second, timeout=1)

    with ThreadPoolExecutor(1) as pool:
        first = repair(lake, found, progress=BeginTheSecond())
        reports = [first, second[0].result()]
    assert_frame_equal(rows(lake, "bars_1m"), truth)
    assert [report.inserted for report in reports] == [150, 0]
    # The second did not take the first for a dead one whose records are to be completed.
    assert [report.recovered for report in reports] == [(), ()]
    assert set(lake.jobs().filter(command="quality repair")["status"]) == {"ok"}
    assert rows(lake, "repairs")["inserted"].sum() == 150
