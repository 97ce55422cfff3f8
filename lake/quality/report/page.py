"""Render a report as a page: one HTML file that opens offline and makes no requests.

The document is in the page as compressed JSON in base64, so that a year of fifty markets stays
under a megabyte, and so that no text of a venue can close the element that contains it. The summary
is in the HTML itself, for readers without JavaScript.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from lake.model.words import join_words, pluralize
from lake.quality.report.document import Report, Totals, to_json

_HERE = Path(__file__).parent
_STYLES = ("uplot/uPlot.min.css", "style/base.css", "style/parts.css")
_SCRIPTS = (
    "script/format.js",
    "script/dom.js",
    "script/model.js",
    "script/grid.js",
    "script/table.js",
    "script/charts.js",
    "script/sections.js",
    "script/findings.js",
    "script/main.js",
)
_DIMENSIONS = (
    ("completeness", "Share of the expected rows that are stored; only real losses count."),
    ("accuracy", "Rows with plausible values: within limits, in order, not frozen, no spikes."),
    ("consistency", "Rows that agree with finer data, other tables and other venues."),
    ("timeliness", "Rows that arrived in time, with clocks that agree."),
)
_SEVERITIES = (
    ("critical", "critical", "critical"),
    ("error", "error", "errors"),
    ("warning", "warning", "warnings"),
    ("info", "note", "notes"),
)
_REASONS = (
    ("not_given", "no longer served by the source"),
    ("not_fetched", "never requested"),
    ("unknown", "for unknown reasons"),
    ("lost", "lost"),
    ("no_trade", "without a trade"),
    ("venue_outage", "in outages of the venue"),
)
_PAUSE_DAYS = 31
_LOSSES = ("not_given", "not_fetched", "unknown", "lost")


def render_page(report: Report) -> str:
    """Render the page: self-contained HTML, to be written as UTF-8."""
    style = _read_styles()
    plot = _read_part("uplot/uPlot.iife.min.js")
    own = "\n".join(_read_part(name) for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{own}\n}})();'
    return _load_template().render(
        report=report,
        lead=write_lead(report),
        trend=draw_trend(report),
        dimensions=_DIMENSIONS,
        severities=_SEVERITIES,
        reasons=_REASONS,
        losses=_LOSSES,
        data=Markup(_compress(to_json(report))),  # noqa: S704 - base64 holds no markup
        style=Markup(style),  # noqa: S704 - files of this package
        scripts=[Markup(plot), Markup(script)],  # noqa: S704 - likewise
        style_hashes=_hash_source(style),
        script_hashes=" ".join(_hash_source(text) for text in (plot, script)),
    )


def write_lead(report: Report) -> str:
    """Write the summary of a report in three sentences."""
    totals = report.totals
    if not report.markets:
        return "No market was checked in this range."
    rows = f"{format_count(totals.rows)} {pluralize(totals.rows, 'row')}"
    markets = (
        f"{format_count(len(report.markets))} {pluralize(len(report.markets), 'series', 'series')}"
    )
    return (
        f"{rows} in {markets} were checked. {_describe_losses(totals)} {_describe_findings(totals)}"
    )


@dataclass(frozen=True, slots=True)
class Trend:
    """The mean score of all markets by day: an SVG path in a box of `width` by 40, and its range.

    A day has width 1; pauses of more than a month are shortened.
    """

    path: str
    width: int
    lowest: float
    lowest_day: date
    highest: float


def draw_trend(report: Report) -> Trend | None:
    """Draw the score by day as steps; None if no day was checked."""
    means = _average_days(report)
    if not means:
        return None
    lowest_day = min(means, key=lambda index: (means[index], index))
    lowest, highest = means[lowest_day], max(means.values())
    # A spread of less than 0.01 % should not fill the picture.
    spread = max(highest - lowest, 0.0001)
    path, x, before = "", -1, -1
    for index, mean in means.items():
        pause = index - before
        x += pause if pause <= _PAUSE_DAYS or before < 0 else 1 + max(2, len(means) // 40)
        y = f"{40 * (highest - mean) / spread:.2f}"
        path += f"{'V' if pause == 1 and path else f'M{x} '}{y}H{x + 1}"
        before = index
    day = report.start + timedelta(days=lowest_day)
    return Trend(path, x + 1, lowest, day, highest)


def _average_days(report: Report) -> dict[int, float]:
    """Average the scores of all markets for each day that was checked."""
    means = {}
    for index in range(report.days):
        scores = [market.days.score[index] for market in report.markets]
        checked = [score / 10_000 for score in scores if score is not None]
        if checked:
            means[index] = sum(checked) / len(checked)
    return means


def format_count(number: int) -> str:
    """Format a whole number with separated thousands."""
    return f"{number:,}"


def format_score(value: float | None) -> str:
    """Format a score with four digits, rounded down, so that only a perfect score is 1."""
    if value is None:
        return "\N{EN DASH}"
    return "1" if value >= 1 else f"{math.floor(value * 10_000 + 1e-7) / 10_000:.4f}"


def format_share(part: int, whole: int) -> str:
    """Format a share in per cent; small shares keep their digits."""
    percent = 100 * part / whole if whole else 0.0
    if percent == 0:
        return "0 %"
    digits = max(1, 1 - math.floor(math.log10(percent)))
    return f"{percent:.{digits}f} %"


def _describe_losses(totals: Totals) -> str:
    losses = totals.missing.losses
    if losses == 0:
        return "No expected row is missing."
    rows = f"{format_count(losses)} {pluralize(losses, 'row is', 'rows are')}"
    part, whole = format_share(losses, totals.expected), format_count(totals.expected)
    return f"{rows} missing, {part} of the {whole} expected rows."


def _describe_findings(totals: Totals) -> str:
    if totals.findings.total == 0:
        return "No finding is open."
    parts = [
        f"{format_count(number)} {pluralize(number, singular, plural)}"
        for name, singular, plural in _SEVERITIES
        if (number := getattr(totals.findings, name))
    ]
    return f"Open findings: {join_words(parts)}."


def _read_styles() -> str:
    dark = _read_part("style/dark.css")
    explicit = f':root[data-theme="dark"] {{\n{dark}\n}}'
    system = f':root:not([data-theme="light"]) {{\n{dark}\n}}'
    themes = (explicit, f"@media (prefers-color-scheme: dark) {{\n{system}\n}}")
    return "\n".join([*(_read_part(name) for name in _STYLES), *themes])


def _compress(text: bytes) -> str:
    # Without the time of writing, so that the same report gives the same page.
    return base64.b64encode(gzip.compress(text, mtime=0)).decode()


def _hash_source(text: str) -> str:
    """Return the source expression of an inline element for a Content-Security-Policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@cache
def _read_part(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").strip()


@cache
def _load_template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": format_count, "score": format_score}
    return environment.get_template("page.html.j2")
