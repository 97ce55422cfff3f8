"""The report as a page: one HTML file that opens offline and asks nobody for anything.

The document is in the page as compressed JSON in base64, so that a year of fifty markets stays
under a megabyte with nothing left out, and so that no text of a venue can end the element that it
is in. The summary is in the HTML itself, for readers without JavaScript.
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
    ("completeness", "Rows that are there, of those that should be; only real losses count."),
    (
        "accuracy",
        "Rows whose values can be true: in bounds, in order, not frozen, no false spikes.",
    ),
    ("consistency", "Rows that agree with finer data, other tables and other venues."),
    ("timeliness", "Rows that came when they should, with clocks that agree."),
)
_SEVERITIES = (
    ("critical", "critical", "critical"),
    ("error", "error", "errors"),
    ("warning", "warning", "warnings"),
    ("info", "note", "notes"),
)
_REASONS = (
    ("not_fetched", "never asked for"),
    ("unknown", "unknown"),
    ("lost", "lost"),
    ("no_trade", "without a trade"),
    ("venue_outage", "in outages of the venue"),
)
_PAUSE_DAYS = 31
_LOSSES = ("not_fetched", "unknown", "lost")


def render_page(report: Report) -> str:
    """The page: HTML with everything in it, to be written as UTF-8."""
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
    """The report in two or three sentences."""
    totals = report.totals
    if not report.markets:
        return "No market was checked in this range."
    rows = f"{format_count(totals.rows)} {_pluralize(totals.rows, 'row')}"
    markets = (
        f"{format_count(len(report.markets))} {_pluralize(len(report.markets), 'series', 'series')}"
    )
    return (
        f"{rows} in {markets} were checked. {_describe_losses(totals)} {_describe_findings(totals)}"
    )


@dataclass(frozen=True, slots=True)
class Trend:
    """The mean score of all markets by day: a path in a box of `width` by 40, and bounds.

    A day is one wide; a pause of more than a month is shortened.
    """

    path: str
    width: int
    lowest: float
    lowest_day: date
    highest: float


def draw_trend(report: Report) -> Trend | None:
    """How the score went, as steps; None where no day was checked."""
    means: dict[int, float] = {}
    for index in range(report.days):
        scores = [market.days.score[index] for market in report.markets]
        checked = [value / 10_000 for value in scores if value is not None]
        if checked:
            means[index] = sum(checked) / len(checked)
    if not means:
        return None
    lowest_day = min(means, key=lambda index: (means[index], index))
    lowest, highest = means[lowest_day], max(means.values())
    # A spread under a hundredth of a per cent is none that should fill the picture.
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


def format_count(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}"


def format_score(value: float | None) -> str:
    """A score with four digits, rounded down: only a perfect one reads 1."""
    if value is None:
        return "\N{EN DASH}"
    return "1" if value >= 1 else f"{math.floor(value * 10_000 + 1e-7) / 10_000:.4f}"


def format_share(part: int, whole: int) -> str:
    """A part in per cent, with as many digits as a small one needs."""
    percent = 100 * part / whole if whole else 0.0
    if percent == 0:
        return "0 %"
    digits = max(1, 1 - math.floor(math.log10(percent)))
    return f"{percent:.{digits}f} %"


def _describe_losses(totals: Totals) -> str:
    losses = totals.missing.losses
    if losses == 0:
        return "No row that should be there is missing."
    slots = f"{format_count(losses)} {_pluralize(losses, 'row is', 'rows are')}"
    part, whole = format_share(losses, totals.expected), format_count(totals.expected)
    return f"{slots} really missing, {part} of the {whole} that should be there."


def _describe_findings(totals: Totals) -> str:
    if totals.findings.total == 0:
        return "No finding is open."
    parts = [
        f"{format_count(number)} {one if number == 1 else many}"
        for name, one, many in _SEVERITIES
        if (number := getattr(totals.findings, name))
    ]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"Open findings: {listed}."


def _pluralize(number: int, one: str, many: str = "") -> str:
    return one if number == 1 else (many or f"{one}s")


def _read_styles() -> str:
    dark = _read_part("style/dark.css")
    chosen = f':root[data-theme="dark"] {{\n{dark}\n}}'
    system = f':root:not([data-theme="light"]) {{\n{dark}\n}}'
    themes = (chosen, f"@media (prefers-color-scheme: dark) {{\n{system}\n}}")
    return "\n".join([*(_read_part(name) for name in _STYLES), *themes])


def _compress(text: bytes) -> str:
    # No time of writing, so that the same report gives the same page.
    return base64.b64encode(gzip.compress(text, mtime=0)).decode()


def _hash_source(text: str) -> str:
    """An inline element's name in a Content-Security-Policy."""
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
