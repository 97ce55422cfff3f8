"""`lake demo`: ingest, check, pin and read back, without a network."""

from __future__ import annotations

import shutil
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lake.cli.output import rounded_down, show
from lake.cli.session import Format, Session, command
from lake.errors import DamagedError

if TYPE_CHECKING:
    import polars as pl

    from lake.api import Lake
    from lake.bundles.bundle import Bundle
    from lake.sandbox import Sandbox

_SPOT, _PERPETUAL = "BTC/USDT", "BTC/USDT:USDT"
_DAYS = 3
_BUNDLE = "demo"
_NEXT = """Try next:

{path}  export LAKE_URI={uri}
  lake status
  lake sql "SELECT symbol, date, sum(volume) FROM bars_1m GROUP BY ALL ORDER BY ALL"
  lake sql --bundle {bundle} "SELECT count(*) FROM trades"
  lake quality report --html quality.html
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
        typer.Argument(help="New folder for the lake; default: a temporary one, which is kept."),
    ] = None,
) -> None:
    """Show what lake does: ingest from an embedded exchange, check, pin, revise, read the pin.

    The exchange is a real HTTP server on this machine and the client is ccxt's own.
    """
    import polars as pl

    from lake.sandbox import Sandbox

    uri = str(folder or Path(tempfile.mkdtemp(prefix="lake-demo-")) / "lake")
    end = session.now.replace(hour=0, minute=0, second=0, microsecond=0)
    since, time = end - timedelta(days=_DAYS), end - timedelta(hours=12)
    with Sandbox(weight_limit=False) as sandbox:
        _say(session, f"1. An exchange at {sandbox.url}, and a new lake at {uri}")
        lake = _new_lake(session, uri, sandbox.url)
        _say(session, f"2. Ingest {_DAYS} days of {_SPOT} and {_PERPETUAL}: bars, trades, funding")
        _ingest(session, lake, since, end)
        show(session, lake.status().drop("first", "last"))
        _say(session, "3. Check it: gaps with reasons, spikes, bars against trades, and more")
        _check(session, lake)
        _say(session, f"4. Pin it as {_BUNDLE!r}: what is read from it stays the same for ever")
        bundle = lake.bundles.pin(
            _BUNDLE, table=("bars_1m", "trades", "funding"), since=since, until=end
        )
        _show_pin(session, bundle)
        before = _close(lake, time), _close(bundle, time)
        _say(session, f"5. The venue corrects the bar of {time:%Y-%m-%d %H:%M}; ingest it again")
        _revise(sandbox, lake, time)
        _refetch(session, lake, time)
    after = _close(lake, time), _close(bundle, time)
    _say(session, f"6. Read it back: the latest shows the revision, bundle {bundle.id[:12]} not")
    rows = {"read": ["latest", "at the pin"], "before": before, "after": after}
    show(session, pl.DataFrame(rows, orient="col"))
    _next_steps(session, uri)
    if bundle.verify() or after[1] != before[1] or after[0] == before[0]:
        raise DamagedError("the demo failed: the pinned read changed, or the revision is missing")


def _new_lake(session: Session, uri: str, url: str) -> Lake:
    from lake.api import Lake
    from lake.settings import load_settings

    chosen = {"uri": uri, "exchanges": {"binance": {"url": url}}, "http": {"rate_limit": False}}
    return Lake.create(load_settings({**session.overrides(), **chosen}))


def _ingest(session: Session, lake: Lake, since: datetime, end: datetime) -> None:
    for tables, symbols in ((("bars_1m", "trades"), (_SPOT, _PERPETUAL)), ("funding", _PERPETUAL)):
        lake.ingest(
            tables,
            exchange="binance",
            symbol=symbols,
            since=since,
            until=end,
            progress=session.progress(),
        )


def _check(session: Session, lake: Lake) -> None:
    done = lake.quality.check(progress=session.progress())
    if done.findings.height:
        show(session, done.findings.select("dataset", "symbol", "timestamp", "check", "message"))
    session.stderr().print(
        f"Rows checked: {done.rows:,}; score: {rounded_down(done.scores['score'])}; "
        f"findings: {done.findings.height:,}.",
    )


def _refetch(session: Session, lake: Lake, time: datetime) -> None:
    until = time + timedelta(minutes=1)
    lake.ingest(
        "bars_1m",
        exchange="binance",
        symbol=_SPOT,
        since=time,
        until=until,
        refetch=True,
        progress=session.progress(),
    )


def _revise(sandbox: Sandbox, lake: Lake, time: datetime) -> None:
    """Let the venue say that the bar closed above what was its high."""
    high = _bar(lake, time)["high"].item()
    sandbox.revise(_SPOT, "1m", time, close=f"{high + 1:.2f}", high=f"{high + 2:.2f}")


def _close(source: Lake | Bundle, time: datetime) -> float:
    return float(_bar(source, time)["close"].item())


def _bar(source: Lake | Bundle, time: datetime) -> pl.DataFrame:
    until = time + timedelta(minutes=1)
    return source.scan("bars_1m", symbol=_SPOT, since=time, until=until).collect()


def _show_pin(session: Session, bundle: Bundle) -> None:
    import polars as pl

    refs = [
        {"table": ref.table, "version": ref.version, "rows": ref.rows, "digest": ref.digest[:16]}
        for _, ref in bundle.manifest.refs()
    ]
    show(session, pl.DataFrame(refs))


def _next_steps(session: Session, uri: str) -> None:
    if session.format is not Format.table or session.quiet:
        return
    path = "" if shutil.which("lake") else f'  export PATH="{Path(sys.executable).parent}:$PATH"\n'
    sys.stdout.write(_NEXT.format(path=path, uri=uri, bundle=_BUNDLE, symbol=_SPOT))


def _say(session: Session, text: str) -> None:
    session.stderr().print(f"\n{text}", style="bold", soft_wrap=True)
