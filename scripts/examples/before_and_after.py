"""Run every example with one bundle, before and after the lake gets more data and corrections.

The data come from the sandbox exchange of lake, so nothing leaves this machine.
"""

import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lake.api import Lake
from lake.sandbox import Sandbox
from lake.settings import load_settings

HERE = Path(__file__).parent
SINCE = datetime(2025, 3, 3, tzinfo=UTC)
UNTIL = SINCE + timedelta(days=2)
SPOT = ["BTC/USDT", "ETH/USDT"]
BUNDLE = "examples"


def main():
    with tempfile.TemporaryDirectory() as name, Sandbox(weight_limit=False) as sandbox:
        folder = str(Path(name) / "lake")
        lake = Lake.create(
            load_settings(
                {
                    "uri": folder,
                    "exchanges": {"binance": {"url": sandbox.url}},
                    "http": {"rate_limit": False},
                }
            )
        )
        lake.instruments("binance", symbol=SPOT)
        lake.ingest("bars_1m", exchange="binance", symbol=SPOT, since=SINCE, until=UNTIL)
        lake.bundles.pin(BUNDLE, table="bars_1m", since=SINCE, until=UNTIL)
        before = outputs(folder)
        revise_and_go_on(sandbox, lake)
        after = outputs(folder)
    for example, text in before.items():
        print(f"\n{example}: {'the same' if text == after[example] else 'DIFFERENT'}")
        side_by_side(text, after[example])
    return before != after


def revise_and_go_on(sandbox, lake):
    """Correct an hour inside the bundle at the venue, fetch it again, and fetch one more day."""
    first = SINCE + timedelta(hours=12)
    times = [first + timedelta(minutes=n) for n in range(60)]
    old = closes(lake, times)
    for time, close in zip(times, old, strict=True):
        changes = {"close": f"{close * 2:.2f}", "high": f"{close * 3:.2f}"}
        sandbox.revise(SPOT[0], "1m", time, **changes)
    market = {"exchange": "binance", "symbol": SPOT}
    lake.ingest("bars_1m", **market, since=times[0], until=times[-1], refetch=True)
    lake.ingest("bars_1m", **market, since=UNTIL, until=UNTIL + timedelta(days=1))
    if closes(lake, times)[0] != round(old[0] * 2, 2):
        raise SystemExit("error: the correction did not arrive, so this proves nothing")


def closes(lake, times):
    until = times[-1] + timedelta(minutes=1)
    rows = lake.scan("bars_1m", symbol=SPOT[0], since=times[0], until=until).collect()
    return rows["close"].to_list()


def outputs(folder):
    """Run each example, and return its output."""
    commands = {
        path.name: [sys.executable, str(path), BUNDLE, "--lake", folder]
        for path in sorted(HERE.glob("sma_*.py"))
    }
    running = {
        name: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name, command in commands.items()
    }
    printed = {}
    for name, process in running.items():
        printed[name], errors = process.communicate()
        if process.returncode != 0 or not printed[name]:
            raise SystemExit(f"error: {name} failed\n{errors}")
    return printed


def side_by_side(left, right):
    for before, after in zip(left.splitlines(), right.splitlines(), strict=False):
        print(f"  {before:<55}{after}")


if __name__ == "__main__":
    sys.exit(main())
