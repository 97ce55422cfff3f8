"""Checks over the tables of a lake, or over what a bundle is about to pin: findings and scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from lake.errors import ConfigError, UnknownNameError, UsageError
from lake.jobs.quality.slices import CheckInputs
from lake.model.dataset import Dataset
from lake.model.market import DATASET_MARKET, Market
from lake.model.progress import Progress
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.model.venues import find_capabilities
from lake.quality.checks.completeness import gaps
from lake.quality.configure import ConfiguredCheck, Overrides, OwnChecks, configure
from lake.quality.run import FINDINGS, run_checks
from lake.quality.score import score_days
from lake.query.overview import read_coverage
from lake.settings import Settings
from lake.store.reader import TableReader
from lake.store.store import Store


@dataclass(frozen=True)
class MarketResult:
    """What checks say of one market of a table in a range.

    Attributes
    ----------
    findings
        `lake.quality.run.FINDINGS`; gaps without a trade are not among them.
    scores
        One row a day: see `lake.quality.score.score_days`.
    """

    table: str
    market: Market
    range: TimeRange
    findings: pl.DataFrame
    scores: pl.DataFrame

    @property
    def named_scores(self) -> pl.DataFrame:
        """The scores with `dataset`, `exchange` and `symbol`."""
        return self.scores.with_columns(
            dataset=pl.lit(self.table),
            exchange=pl.lit(self.market.exchange),
            symbol=pl.lit(self.market.symbol),
        )


def open_inputs(
    store: Store,
    settings: Settings,
    now: datetime,
    tables: Mapping[str, TableReader] | None = None,
    as_of: datetime | None = None,
) -> CheckInputs:
    """What a lake knows: its tables as they are now, or were at `as_of`.

    Where `tables` are given they are taken as they are, and of the others only those that can
    testify about them.

    Raises
    ------
    ConfigError
        The settings change checks of a table that there is not.
    """
    _require_tables(store, settings.quality.checks)
    found: dict[str, TableReader] = {}
    for name in store.tables():
        with suppress(UnknownNameError):  # it has no dataset file any more, or did not exist yet
            dataset = store.catalog.dataset(name)
            if dataset.kind == "data" and (not tables or _is_reference(dataset, tables)):
                found[name] = store.snapshot(dataset, as_of=as_of)

    def omits(exchange: str) -> bool:
        said = settings.exchanges.get(exchange)
        if said is not None and said.omits_empty_bars is not None:
            return said.omits_empty_bars
        return find_capabilities(exchange).omits_empty_bars

    return CheckInputs(
        tables={**found, **(tables or {})},
        coverage=read_coverage(store, (), Selection(), as_of),
        quarantine=store.read(store.catalog.dataset("quarantine"), as_of=as_of).drop("row"),
        now=as_of or now,
        omits_empty_bars=omits,
    )


def _is_reference(dataset: Dataset, tables: Mapping[str, TableReader]) -> bool:
    """Whether checks compare some tables with a table that is not among them."""
    return dataset.name not in tables and dataset.event in ("bar", "trade")


def _require_tables(store: Store, overrides: Overrides) -> None:
    for name in overrides:
        if name not in store.catalog.families:
            try:
                store.catalog.dataset(name)
            except UnknownNameError as error:
                raise ConfigError(
                    f"settings: quality.checks.{name}: {error.message}",
                    f"Name a table as bars_1m, or one of {', '.join(store.catalog.families)}.",
                ) from None


def check_tables(
    inputs: CheckInputs,
    tables: Sequence[str],
    selection: Selection,
    overrides: Overrides,
    progress: Progress,
    own: OwnChecks | None = None,
    *,
    exactly: bool = False,
) -> Iterator[MarketResult]:
    """Check tables, a market and some days at a time.

    Raises
    ------
    UnknownNameError
        A table does not exist.
    ConfigError
        A check, or a threshold, is wrong.
    """
    checks = {name: configure_checks(inputs, name, overrides, own) for name in tables}
    for name in tables:
        progress.begin(f"checking {name}", inputs.estimate_rows(name, selection))
        for rows in inputs.cut_slices(name, selection, exactly=exactly):
            seen = run_checks(rows, checks[name])
            progress.advance(int(seen.days["rows"].sum()))
            telling = (pl.col("check") != "gaps") | (pl.col("reason") != "no_trade")
            yield MarketResult(
                name,
                rows.market,
                rows.range,
                seen.findings.filter(telling),
                score_days(seen.days, seen.findings),
            )
        progress.end()


def configure_checks(
    inputs: CheckInputs, table: str, overrides: Overrides, own: OwnChecks | None = None
) -> tuple[ConfiguredCheck, ...]:
    """The checks of a table that exists."""
    if table not in inputs.tables:
        raise UnknownNameError(
            f"table {table} does not exist yet, or is the lake's own record",
            f"Tables with data: {', '.join(inputs.tables) or 'none'}.",
        )
    return configure(inputs.tables[table].dataset, overrides, own)


def find_gaps(inputs: CheckInputs, table: str, selection: Selection) -> pl.DataFrame:
    """Missing bars that open in a selection, with the reason: those without a trade, too.

    Returns
    -------
    DataFrame
        `dataset`, `exchange`, `symbol`, `start`, `end`, `slots`, `reason`; intervals that touch,
        of one reason, are one.

    Raises
    ------
    UsageError
        The table holds no bars.
    """
    configure_checks(inputs, table, {})
    if inputs.tables[table].dataset.timeframe is None:
        raise UsageError(
            f"{table} holds no bars, so that there are no slots to miss",
            f"`lake quality findings {table}` lists what was never asked for.",
        )
    parts = [
        gaps(rows)
        .select(
            pl.lit(table).alias("dataset"),
            pl.lit(rows.market.exchange).alias("exchange"),
            pl.lit(rows.market.symbol).alias("symbol"),
            "start",
            "end",
            pl.col("rows").alias("slots"),
            "reason",
        )
        .collect()
        for rows in inputs.cut_slices(table, selection, exactly=True)
    ]
    if not parts:
        return pl.DataFrame(schema=GAPS)
    cut = pl.concat(parts).sort(*DATASET_MARKET, "start")
    same = pl.all_horizontal(
        pl.col(name) == pl.col(name).shift(1) for name in (*DATASET_MARKET, "reason")
    )
    touches = same & (pl.col("start") == pl.col("end").shift(1))
    run = (~touches).fill_null(value=True).cum_sum()
    return (
        cut.group_by(run.alias("run"), *DATASET_MARKET, "reason", maintain_order=True)
        .agg(pl.col("start").first(), pl.col("end").last(), pl.col("slots").sum())
        .select(list(GAPS))
    )


GAPS = pl.Schema(
    {
        **dict.fromkeys(DATASET_MARKET, pl.String()),
        "start": FINDINGS["start"],
        "end": FINDINGS["end"],
        "slots": pl.Int64(),
        "reason": pl.String(),
    }
)
