"""Run checks over the tables of a lake, or over the tables of a new bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from lake.errors import ConfigError, UnknownNameError, UsageError
from lake.jobs.quality.groups import cut_groups
from lake.jobs.quality.rejected import read_rejected
from lake.jobs.quality.slices import CheckInputs
from lake.model.dataset import Dataset
from lake.model.market import DATASET_MARKET, Market
from lake.model.progress import Progress
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.model.venues import find_capabilities
from lake.quality.checks.completeness import gaps
from lake.quality.configure import ConfiguredCheck, Overrides, OwnChecks, configure
from lake.quality.run import FINDINGS, IS_DEFECT, run_groups
from lake.quality.score import score_days
from lake.query.markets import read_instruments
from lake.query.overview import join_answers
from lake.settings import QualitySettings, Settings
from lake.store.coverage import is_covered
from lake.store.damages import UNREADABLE, Damages
from lake.store.ledger import Ledger
from lake.store.reader import TableReader, UnreadableTable
from lake.store.store import Store


@dataclass(frozen=True)
class MarketResult:
    """The result of the checks of one market of a table in a range.

    Attributes
    ----------
    findings
        `lake.quality.run.FINDINGS`, without gaps in which nothing was traded.
    scores
        One row per day, by `lake.quality.score.score_days`.
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
    """Open the tables of a lake for checks, as they are now or were at `as_of`.

    If `tables` are given, they are used as they are, and of the other tables only those that
    they can be compared with.

    Raises
    ------
    ConfigError
        The settings change checks of a table that does not exist.
    """
    _require_tables(store, settings.quality.checks)
    opened: dict[str, TableReader] = {}
    for name in store.tables():
        with suppress(UnknownNameError):  # its dataset file is gone, or it did not exist yet
            dataset = store.catalog.dataset(name)
            if dataset.kind == "data" and (not tables or _is_reference(dataset, tables)):
                opened[name] = _open_table(store, dataset, as_of)

    def omits_empty_bars(exchange: str) -> bool:
        configured = settings.exchanges.get(exchange)
        if configured is not None and configured.omits_empty_bars is not None:
            return configured.omits_empty_bars
        return find_capabilities(exchange).omits_empty_bars

    answers = Ledger(store).read_coverage(Selection(), as_of)
    coverage, not_given = join_answers(answers)

    def find_funding_limit(market: Market) -> float | None:
        configured = settings.exchanges.get(market.exchange)
        known = find_capabilities(market.exchange).funding_limit
        if configured is None:
            return known
        return configured.funding_limits.get(market.symbol, configured.funding_limit or known)

    return CheckInputs(
        tables={**opened, **(tables or {})},
        coverage=coverage,
        quarantine=read_rejected(store, as_of),
        now=as_of or now,
        omits_empty_bars=omits_empty_bars,
        not_given=not_given,
        answers=answers.filter(is_covered()),
        instruments=read_instruments(store, as_of=as_of),
        funding_limits=find_funding_limit,
    )


def _open_table(store: Store, dataset: Dataset, as_of: datetime | None) -> TableReader:
    """Open a table; one that is damaged stops only checks that need its rows."""
    try:
        return store.snapshot(dataset, as_of=as_of)
    except UNREADABLE as error:
        return UnreadableTable(dataset, error)


def _is_reference(dataset: Dataset, tables: Mapping[str, TableReader]) -> bool:
    """Whether a table is not among the given ones, but they can be compared with it."""
    return dataset.name not in tables and dataset.event in ("bar", "trade")


def _require_tables(store: Store, overrides: Overrides) -> None:
    for name in overrides:
        if name not in store.catalog.families:
            try:
                store.catalog.dataset(name)
            except UnknownNameError as error:
                raise ConfigError(
                    f"settings: quality.checks.{name}: {error.message}",
                    f"Give a table (bars_1m) or one of {', '.join(store.catalog.families)}.",
                ) from None


def check_tables(
    inputs: CheckInputs,
    tables: Sequence[str],
    selection: Selection,
    quality: QualitySettings,
    progress: Progress,
    own: OwnChecks | None = None,
    damages: Damages | None = None,
    *,
    exactly: bool = False,
) -> Iterator[MarketResult]:
    """Check tables, many small markets or some days of a large one at a time.

    Parameters
    ----------
    damages
        Gets what cannot be read, so that all other markets and days are checked; None: it is
        raised.

    Raises
    ------
    UnknownNameError
        A table does not exist.
    ConfigError
        A check or a threshold is invalid.
    """
    checks = {name: configure_checks(inputs, name, quality, own) for name in tables}
    for name in tables:
        progress.begin(f"checking {name}", inputs.estimate_rows(name, selection))
        groups = cut_groups(inputs, name, selection, damages, exactly=exactly)
        for data, result in run_groups(groups, checks[name]):
            progress.advance(int(result.days["rows"].sum()))
            findings = result.findings.filter(IS_DEFECT)
            scores = score_days(result.days, result.findings)
            yield MarketResult(name, data.market, data.range, findings, scores)
        progress.end()


def configure_checks(
    inputs: CheckInputs, table: str, quality: QualitySettings, own: OwnChecks | None = None
) -> tuple[ConfiguredCheck, ...]:
    """Configure the checks of a table.

    Raises
    ------
    UnknownNameError
        The table does not exist, or is not a table with data.
    """
    _require_table(inputs, table)
    return configure(inputs.tables[table].dataset, quality.checks, own, quality.python_modules)


def _require_table(inputs: CheckInputs, table: str) -> None:
    if table not in inputs.tables:
        raise UnknownNameError(
            f"table {table} does not exist yet, or is the lake's own record",
            f"Tables with data: {', '.join(inputs.tables) or 'none'}.",
        )


def find_gaps(inputs: CheckInputs, table: str, selection: Selection) -> pl.DataFrame:
    """Find missing bars that open in a selection, with the reason, including those without a trade.

    Returns
    -------
    DataFrame
        `GAPS`: adjacent intervals with the same reason are joined.

    Raises
    ------
    UsageError
        The table does not hold bars.
    """
    _require_table(inputs, table)
    if inputs.tables[table].dataset.timeframe is None:
        raise UsageError(
            f"table {table} holds no bars, and gaps are missing bars",
            f"`lake quality findings {table}` lists time that was never requested.",
        )
    parts = [
        gaps(data)
        .select(
            pl.lit(table).alias("dataset"),
            pl.lit(data.market.exchange).alias("exchange"),
            pl.lit(data.market.symbol).alias("symbol"),
            "start",
            "end",
            pl.col("rows").alias("slots"),
            "reason",
            pl.when(pl.col("against").is_not_null()).then(pl.lit("conservation")).alias("proof"),
        )
        .collect()
        for data in inputs.cut_slices(table, selection, exactly=True)
    ]
    return _join_gaps(pl.concat(parts)) if parts else pl.DataFrame(schema=GAPS)


def _join_gaps(gaps: pl.DataFrame) -> pl.DataFrame:
    """Join adjacent intervals of one market, reason and proof."""
    cut = gaps.sort(*DATASET_MARKET, "start")
    same = pl.all_horizontal(
        pl.col(name).eq_missing(pl.col(name).shift(1))
        for name in (*DATASET_MARKET, "reason", "proof")
    )
    touches = same & (pl.col("start") == pl.col("end").shift(1))
    run = (~touches).fill_null(value=True).cum_sum()
    return (
        cut.group_by(run.alias("run"), *DATASET_MARKET, "reason", "proof", maintain_order=True)
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
        "proof": pl.String(),
    }
)
"""Missing bars; `proof` is `conservation` where a longer bar proves the reason by its volume."""
