"""`lake demo`: the whole way of the data on one machine, in a minute, without a network."""

from __future__ import annotations

import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.output import show
from lake.cli.session import Format, Session, command
from lake.errors import DamagedError

if TYPE_CHECKING:
    from lake.api import Lake
    from lake.jobs.ingest import Wish
    from lake.read.bundles.bundle import Bundle

_SPOT, _PERPETUAL = "BTC/USDT", "BTC/USDT:USDT"
_DAYS = 3
_BUNDLE = "demo"
_UNTHROTTLED = {"rate_limit": False}
_NEXT = """Try next:

  export LAKE_URI={uri}
  lake status
  lake sql "SELECT symbol, date, sum(volume) FROM bars_1m GROUP BY ALL ORDER BY ALL"
  lake sql --bundle {bundle} "SELECT count(*) FROM trades"
  lake bundle verify {bundle}
  lake audit

  import lake
  bundle = lake.open_bundle("{bundle}", "{uri}")
  bars = bundle.scan("bars_1m", symbol="{symbol}").collect()
"""


def add_to(app: typer.Typer) -> None:
    app.command("demo")(command(demo))


def demo(
    session: Session,
    folder: Annotated[
        Path | None,
        typer.Argument(help="New folder for the lake; by default a temporary one that is kept."),
    ] = None,
) -> None:
    """Show what lake does: ingest from an embedded exchange, query, pin, revise, read at the pin.

    The exchange is a real HTTP server on this machine and the client is ccxt's own.
    """
    from lake.api import Lake
    from lake.sandbox import Sandbox
    from lake.settings import load_settings

    uri = str(folder or Path(tempfile.mkdtemp(prefix="lake-demo-")) / "lake")
    end = session.now.replace(hour=0, minute=0, second=0, microsecond=0)
    with Sandbox(weight_limit=False) as sandbox:
        exchanges = {"binance": {"url": sandbox.url}}
        settings = load_settings(
            {**session.overrides(), "uri": uri, "exchanges": exchanges, "http": _UNTHROTTLED}
        )
        _say(session, f"1. An exchange at {sandbox.url}, and a new lake at {uri}")
        lake = Lake.create(settings)
        since = end - timedelta(days=_DAYS)
        _say(session, f"2. Ingest {_DAYS} days of {_SPOT} and {_PERPETUAL}: bars, trades, funding")
        _ingest(session, lake, since, end)
        show(session, lake.status().drop("first", "last"))
        _say(
            session,
            f"3. Pin it as {_BUNDLE!r}: every read of the bundle gives these bytes for ever",
        )
        bundle = lake.pin(_BUNDLE, ("bars_1m", "trades", "funding"), since=since, until=end)
        _show_pin(session, bundle)
        time = since + timedelta(hours=12)
        before = _close(lake, bundle, time)
        _say(session, f"4. The venue corrects the bar of {time:%Y-%m-%d %H:%M}; ingest it again")
        sandbox.revise(_SPOT, "1m", time, close=f"{before[0] + 1:.2f}", high=f"{before[0] + 9:.2f}")
        _refetch(session, lake, time)
    after = _close(lake, bundle, time)
    _compare(session, before, after, bundle)
    _next_steps(session, uri)
    if bundle.verify() or after[1] != before[1] or after[0] == before[0]:
        raise DamagedError("the demo failed: the pinned read changed, or the revision is missing")


def _ingest(session: Session, lake: Lake, since: datetime, end: datetime) -> None:
    from lake.cli.progress import Bar
    from lake.jobs.ingest import Wish
    from lake.model.market import Market

    spot, perpetual = Market("binance", _SPOT), Market("binance", _PERPETUAL)
    pairs = [("bars_1m", spot), ("bars_1m", perpetual), ("trades", spot), ("trades", perpetual)]
    wishes: list[Wish] = [
        Wish(lake.dataset(table), market, since, end)
        for table, market in [*pairs, ("funding", perpetual)]
    ]
    lake.ingest_all(wishes, Bar(session))


def _refetch(session: Session, lake: Lake, time: datetime) -> None:
    from lake.cli.progress import Bar

    until = time + timedelta(minutes=1)
    lake.ingest(
        "bars_1m",
        exchange="binance",
        symbol=_SPOT,
        since=time,
        until=until,
        refetch=True,
        progress=Bar(session),
    )


def _close(lake: Lake, bundle: Bundle, time: datetime) -> tuple[float, float]:
    """The close of a bar: at the latest version, and at the pin."""
    one = {"symbol": _SPOT, "since": time, "until": time + timedelta(minutes=1)}
    latest = lake.scan("bars_1m", **one).collect()["close"]  # type: ignore[arg-type]
    pinned = bundle.scan("bars_1m", **one).collect()["close"]  # type: ignore[arg-type]
    return latest.item(), pinned.item()


def _show_pin(session: Session, bundle: Bundle) -> None:
    import polars as pl

    refs = [
        {"table": ref.table, "version": ref.version, "rows": ref.rows, "digest": ref.digest[:16]}
        for _, ref in bundle.manifest.refs()
    ]
    show(session, pl.DataFrame(refs))


def _compare(
    session: Session, before: tuple[float, float], after: tuple[float, float], bundle: Bundle
) -> None:
    import polars as pl

    _say(
        session, f"5. Read it back: the latest shows the revision, bundle {bundle.id[:12]} does not"
    )
    rows = {"read": ["latest", "at the pin"], "before": before, "after": after}
    show(session, pl.DataFrame(rows, orient="col"))


def _next_steps(session: Session, uri: str) -> None:
    if session.format is not Format.table or session.quiet:
        return
    sys.stdout.write(_NEXT.format(uri=uri, bundle=_BUNDLE, symbol=_SPOT))


def _say(session: Session, text: str) -> None:
    session.stderr().print(f"\n[bold]{text}[/bold]", highlight=False, soft_wrap=True)
