"""Secrets of the settings are in nothing that a session of commands leaves."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import polars as pl
import pyarrow as pa

from lake.sandbox import Sandbox
from tests.cli.conftest import RANGE
from tests.cli.lake_process import run_lake

PLANTED = "planted5e"
BUG = f"""
import lake.api.lake
def fail(self):
    raise RuntimeError('no way: {PLANTED}-secret')
lake.api.lake.Lake.status = fail
"""
INGEST = ("ingest", "bars", "trades", "-e", "binance", *RANGE)
COMMANDS = [
    ("init",),
    ("config",),
    ("config", "--json"),
    (*INGEST, "-s", "BTC/USDT"),
    (*INGEST, "-s", "NOPE/USDT"),
    ("ingest", "bars", "-e", "okx", "-s", "BTC/USDT", *RANGE),
    ("sql", "SELECT count(*) FROM trades"),
    ("sql", "SELECT content FROM read_text('/proc/self/environ')"),
    ("status",),
    ("quality", "check"),
    ("quality", "report", "--html", "report.html"),
    ("bundle", "pin", "one", "trades", "bars_1m", "--no-check"),
    ("bundle", "show", "one", "--json"),
    ("bundle", "export", "one", "one.tar.zst"),
    ("alert", "run"),
    ("alert", "test"),
    ("audit", "commits"),
    ("maintain", "optimize"),
    ("replay", "one"),
]


def test_no_command_leaves_a_secret(tmp_path: Path, exchange: Sandbox) -> None:
    host = exchange.url.removeprefix("http://")
    variables = {
        "LAKE_EXCHANGES__BINANCE__URL": f"http://user:{PLANTED}-url@{host}",
        "LAKE_EXCHANGES__BINANCE__FALLBACK_URL": f"http://{host}/?token={PLANTED}-fallback",
        "LAKE_EXCHANGES__BINANCE__API_KEY": f"{PLANTED}-key",
        "LAKE_EXCHANGES__BINANCE__SECRET": f"{PLANTED}-secret",
        "LAKE_EXCHANGES__BINANCE__PASSWORD": f"{PLANTED}-password",
        "LAKE_EXCHANGES__OKX__URL": f"http://user:{PLANTED}-nobody@127.0.0.1:9",
        "LAKE_ALERTS__CHANNELS__PHONE": f"json://user:{PLANTED}-alert@127.0.0.1:9/{PLANTED}/path",
        "LAKE_RETRY__ATTEMPTS": "1",
        "LAKE_HTTP__RATE_LIMIT": "false",
    }
    shown = [run_lake(tmp_path, *command, "-v", **variables) for command in COMMANDS]
    shown.append(run_lake(tmp_path, "status", "-v", program=BUG, **variables))
    assert shown[3].code == 0, shown[3].err
    assert shown[-1].code == 1
    assert "Traceback" in shown[-1].err
    for command, outcome in zip([*COMMANDS, ("status",)], shown, strict=True):
        assert PLANTED not in outcome.out + outcome.err, command
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {".json", ".parquet", ".zst"} <= {path.suffix for path in files}
    for path in files:
        assert PLANTED.encode() not in _read(path), path


def _read(path: Path) -> bytes:
    """Return all text in a file, unpacked."""
    content = path.read_bytes()
    if path.name.endswith(".parquet"):
        return content + pl.read_parquet(path, hive_partitioning=False).write_json().encode()
    if not path.name.endswith(".tar.zst"):
        return content
    unpacked = pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        assert archive.getnames()
    return bytes(unpacked)
