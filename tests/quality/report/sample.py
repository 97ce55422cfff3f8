"""Reports to render: one of any size, with every part filled, the same for the same seed."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate

from lake.model.dataset import Dimension
from lake.model.severity import Severity
from lake.quality.report import document as doc

START = date(2025, 1, 1)
T0 = datetime(2025, 1, 1, tzinfo=UTC)
T0_S = int(T0.timestamp())
DAY_S = 86_400
MINUTES = 1440
VENUES = ("binance", "kraken", "okx", "coinbase", "bybit")
ASSETS = ("BTC", "ETH", "SOL", "XRP", "ADA", "DOGE", "LTC", "LINK", "DOT", "TRX")
REASONS: tuple[doc.Reason, ...] = ("no_trade", "venue_outage", "not_fetched", "unknown", "lost")
LOSSES = REASONS[2:]
KINDS: tuple[tuple[str, Severity, Dimension], ...] = (
    ("gaps", "error", "completeness"),
    ("spikes", "warning", "accuracy"),
    ("stale", "warning", "accuracy"),
    ("reconciliation", "error", "consistency"),
    ("late", "info", "timeliness"),
    ("venues", "critical", "consistency"),
)


def report(
    markets: int = 12, days: int = 120, findings: int = 160, charts: int = 8, seed: int = 1
) -> doc.Report:
    """A report on a lake with defects."""
    chance = random.Random(seed)
    rows = tuple(_market(chance, place, days) for place in range(markets))
    defects = tuple(_finding(chance, rows, place, days) for place in range(findings))
    order = ("critical", "error", "warning", "info")
    worst = tuple(sorted(defects, key=lambda finding: order.index(finding.severity)))
    gaps, spikes = ([f for f in worst if f.check == check] for check in ("gaps", "spikes"))
    shown = [finding for pair in zip(spikes, gaps, strict=False) for finding in pair]
    return doc.Report(
        title="Lake research",
        made_at=T0 + timedelta(days=days, hours=3),
        made_by="lake 0.1.0",
        lake_id="0197c2f4-7a31-7d2e-9c55-1f1e0e0a9b42",
        start=START,
        end=START + timedelta(days=days),
        totals=_totals(rows, worst),
        markets=rows,
        findings=worst,
        findings_total=findings + 37 if findings else 0,
        charts=tuple(_chart(chance, finding) for finding in shown[:charts]),
        deviations=tuple(_deviation(chance, asset, days) for asset in ASSETS[:4]),
        repairs=tuple(_repair(chance, rows, place) for place in range(24)),
        latency=tuple(_latency(chance, market, days) for market in rows),
        provenance=_provenance(rows),
    )


def perfect(days: int = 3) -> doc.Report:
    """A report on one market without defects, findings and repairs."""
    whole = doc.Scores(1.0, 1.0, 1.0, 1.0, 1.0)
    rows = MINUTES * days
    market = doc.MarketFigures(
        "bars_1m",
        "binance",
        "BTC/USDT",
        whole,
        rows,
        rows,
        doc.MissingSlots(),
        doc.OpenFindings(),
        doc.Days((10_000,) * days, (MINUTES,) * days),
    )
    totals = doc.Totals(whole, rows, rows, doc.MissingSlots(), doc.OpenFindings())
    end = START + timedelta(days=days)
    return doc.Report(
        "Bundle first", T0, "lake 0.1.0", "id", START, end, totals, (market,), "first"
    )


def _market(chance: random.Random, place: int, days: int) -> doc.MarketFigures:
    listed = chance.randrange(days // 2) if chance.random() < 0.15 else 0
    missing: list[tuple[int, doc.Reason, int]] = []
    scores: list[int | None] = [None] * listed
    for day in range(listed, days):
        lost = 0
        for reason in REASONS:
            if chance.random() < (0.10 if reason == "no_trade" else 0.012):
                slots = min(MINUTES - 1, int(chance.paretovariate(0.9)))
                missing.append((day, reason, slots))
                lost += slots if reason in LOSSES else 0
        flaw = chance.paretovariate(1.2) if chance.random() < 0.06 else 0
        scores.append(max(0, int(10_000 * (1 - lost / MINUTES) - 10 * flaw)))
    rows = [0] * listed + [MINUTES] * (days - listed)
    for day, _, slots in missing:
        rows[day] = max(0, rows[day] - slots)
    sums = {reason: sum(n for _, name, n in missing if name == reason) for reason in REASONS}
    total, losses = sum(rows), sum(sums[reason] for reason in LOSSES)
    completeness = total / (total + losses)
    checked = [value for value in scores if value is not None]
    score = sum(checked) / len(checked) / 10_000
    return doc.MarketFigures(
        dataset="bars_1m",
        exchange=VENUES[place % len(VENUES)],
        symbol=f"{ASSETS[place // len(VENUES) % len(ASSETS)]}/USDT",
        scores=doc.Scores(score, completeness, min(1.0, score / completeness), 1.0, 0.9991),
        rows=total,
        expected=total + losses,
        missing=doc.MissingSlots(**sums),
        findings=doc.OpenFindings(error=chance.randrange(3), warning=chance.randrange(9)),
        days=doc.Days(tuple(scores), tuple(rows), tuple(missing)),
    )


def _finding(
    chance: random.Random, markets: tuple[doc.MarketFigures, ...], place: int, days: int
) -> doc.Finding:
    market = chance.choice(markets)
    check, severity, dimension = chance.choice(KINDS)
    start = T0 + timedelta(minutes=chance.randrange(days * MINUTES - 60))
    slots = chance.randrange(1, 60)
    price = chance.uniform(10, 60_000)
    return doc.Finding(
        finding_id=f"{chance.getrandbits(64):016x}",
        dataset=market.dataset,
        exchange=market.exchange,
        symbol=market.symbol,
        check=check,
        against="trades" if check == "reconciliation" else "",
        severity=severity,
        dimension=dimension,
        reason=chance.choice(LOSSES) if check == "gaps" else None,
        start=start,
        end=start + timedelta(minutes=slots),
        rows=slots,
        measured=round(chance.uniform(10, 80), 3),
        expected=10.0,
        message=f"{slots} rows differ from what they should be by {chance.uniform(1, 80):.2f} MAD",
        job_id=f"20250601T00{place % 60:02d}00-{place % 7}c1e",
        found_at=T0 + timedelta(days=days, minutes=place % 50),
        status="closed" if chance.random() < 0.1 else "open",
        context=tuple(_context(chance, start + timedelta(minutes=n), price) for n in range(5)),
    )


def _context(chance: random.Random, at: datetime, price: float) -> dict[str, object]:
    figures = [round(price * chance.gauss(1, 0.002), 4) for _ in range(4)]
    return {
        "timestamp": at.isoformat().replace("+00:00", "Z"),
        "open": figures[0],
        "high": max(figures),
        "low": min(figures),
        "close": figures[3],
        "volume": round(chance.expovariate(0.2), 5),
    }


def _chart(chance: random.Random, finding: doc.Finding) -> doc.Chart:
    size, first = 110, int(finding.start.timestamp()) - 50 * 60
    closes = list(accumulate((chance.gauss(0, 12) for _ in range(size)), initial=42_000.0))
    opens, closes = closes[:-1], closes[1:]
    times = [first + 60 * place for place in range(size)]
    other = doc.Line("kraken", tuple(round(value + chance.gauss(2, 4), 2) for value in closes))
    highs = [max(pair) + abs(chance.gauss(0, 8)) for pair in zip(opens, closes, strict=True)]
    lows = [min(pair) - abs(chance.gauss(0, 8)) for pair in zip(opens, closes, strict=True)]
    length = min(40, finding.rows) if finding.check == "gaps" else 1
    if finding.check == "spikes":
        highs[50] += 260
        kept = list(range(size))
    else:
        kept = [place for place in range(size) if not 50 <= place < 50 + length]

    def of(values: list[float]) -> tuple[float, ...]:
        return tuple(round(values[place], 2) for place in kept)

    return doc.Chart(
        finding_id=finding.finding_id,
        kind="gap" if finding.check == "gaps" else "spike",
        title=f"{finding.exchange} {finding.symbol} · {finding.dataset}",
        times=tuple(times[place] for place in kept),
        open=of(opens),
        high=of(highs),
        low=of(lows),
        close=of(closes),
        volume=of([chance.expovariate(0.05) for _ in range(size)]),
        mark_start=times[50],
        mark_end=times[50] + 60 * length,
        second_opinion=other if finding.check == "spikes" else None,
    )


def _deviation(chance: random.Random, asset: str, days: int) -> doc.Deviation:
    size = 400  # as many as `lake.jobs.quality.charts` gives
    step = days * DAY_S // size
    bps = []
    level = 0.0
    for place in range(size):
        level = 0.9 * level + chance.gauss(0, 2)
        bps.append(round(level + (45 if 200 < place < 206 else 0), 1))
    times = tuple(T0_S + place * step for place in range(size))
    return doc.Deviation(
        dataset="bars_1m",
        symbol=f"{asset}/USDT",
        first="binance",
        second="kraken",
        times=times,
        bps=tuple(bps),
        low=tuple(round(value - chance.expovariate(0.3), 1) for value in bps),
        high=tuple(round(value + chance.expovariate(0.3), 1) for value in bps),
        compared=days * MINUTES,
        apart=days * MINUTES // 80,
        threshold_bps=20.0,
    )


def _repair(
    chance: random.Random, markets: tuple[doc.MarketFigures, ...], place: int
) -> doc.Repair:
    market = chance.choice(markets)
    start = T0 + timedelta(hours=7 * place)
    method = chance.choice(("refetch", "derive", "interpolate"))
    return doc.Repair(
        repair_id=f"20250602T00{place:02d}00-9a1f",
        dataset=market.dataset,
        exchange=market.exchange,
        symbol=market.symbol,
        start=start,
        end=start + timedelta(minutes=14),
        method=method,
        source={"refetch": market.exchange, "derive": "trades"}.get(method, "interpolation:flat"),
        why="14 bars are missing: this time was never requested",
        inserted=14,
        updated=0,
        status="undone" if place == 5 else "done",
        repaired_at=T0 + timedelta(days=152, minutes=place),
    )


def _latency(chance: random.Random, market: doc.MarketFigures, days: int) -> doc.Latency:
    half = [round(chance.lognormvariate(4, 0.2), 1) for _ in range(days)]
    return doc.Latency(
        market.dataset,
        market.exchange,
        market.symbol,
        tuple(range(days)),
        tuple(half),
        tuple(round(value * chance.uniform(1.5, 2.5), 1) for value in half),
        tuple(round(value * chance.uniform(4, 20), 1) for value in half),
    )


def _provenance(markets: tuple[doc.MarketFigures, ...]) -> doc.Provenance:
    rows = sum(market.rows for market in markets)
    tables = tuple(
        doc.TableVersion(name, f"0f2c{place}b1e-55a1-4c1e-8a0e-7f3d1c9b2a10", 400 - place, count)
        for place, (name, count) in enumerate(
            (("bars_1m", rows), ("findings", 2037), ("scores", 9))
        )
    )
    jobs = tuple(
        doc.JobRecord(
            f"20250601T00{place:02d}00-{place}c1e",
            f"ingest bars -e {VENUES[place % 5]} -s BTC/USDT --since 7d",
            T0 + timedelta(days=150, minutes=place),
            "done",
            10_080,
        )
        for place in range(30)
    )
    return doc.Provenance(tables, jobs, 412)


def _totals(
    markets: tuple[doc.MarketFigures, ...], findings: tuple[doc.Finding, ...]
) -> doc.Totals:
    sums = {name: sum(getattr(market.missing, name) for market in markets) for name in REASONS}
    still = [finding.severity for finding in findings if finding.status == "open"]
    rows, expected = (sum(getattr(m, name) for m in markets) for name in ("rows", "expected"))
    mean = sum(market.scores.score or 0 for market in markets) / len(markets)
    completeness = rows / expected
    return doc.Totals(
        doc.Scores(mean, completeness, min(1.0, mean / completeness), 1.0, 0.9991),
        rows,
        expected,
        doc.MissingSlots(**sums),
        doc.OpenFindings(
            **{name: still.count(name) for name in ("critical", "error", "warning", "info")}
        ),
    )
