"""What can be set, by section; see `load` for where values come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lake.settings.urls import Url, mask, require_http

DEFAULT_URI = "lake-data"

Seconds = Annotated[float, Field(gt=0)]
SecondsOrNone = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
Host = Annotated[Url, AfterValidator(require_http)]
Text = Annotated[str, Field(min_length=1)]
LOG = "log"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpSettings(_Section):
    """Requests to exchanges.

    `concurrency`: the most requests at once to one exchange; by default as many as fill its rate
    limit at its distance, up to 128, and 8 without rate limit. `max_answer_bytes`: the largest
    answer, after decompression.
    """

    timeout_seconds: Seconds = 30.0
    concurrency: Count | None = None
    rate_limit: bool = True
    max_answer_bytes: Count = 64_000_000


class RetrySettings(_Section):
    """Retries of failed requests; a venue's Retry-After has precedence over the waits."""

    attempts: Count = 8
    wait_initial_seconds: Seconds = 0.5
    wait_max_seconds: Seconds = 60.0


class IngestSettings(_Section):
    """Ingestion: more rows per commit use more memory; fewer commits are faster."""

    batch_rows: Count = 125_000


class ExchangeSettings(_Section):
    """One exchange: URLs that replace its own hosts, and credentials.

    Where they are shown, URLs are without user, password, query and keys in their paths. A
    `lake.toml` that is found from the current folder cannot send the credentials of another origin
    to a URL of its own. Public data are asked without them, unless the venue asks for them there.

    `fallback_url`: the URL that a repair tries if the first answer does not help.
    `omits_empty_bars`: whether the venue sends no bar for a period without trades.
    `funding_limit`: the largest absolute funding rate of an interval, as a fraction, and
    `funding_limits` by symbol.
    """

    url: Host | None = None
    fallback_url: Host | None = None
    omits_empty_bars: bool | None = None
    funding_limit: float | None = None
    funding_limits: dict[str, float] = {}
    api_key: SecretStr | None = None
    secret: SecretStr | None = None
    password: SecretStr | None = None

    @field_serializer("url", "fallback_url", when_used="json-unless-none")
    def _show(self, url: Url) -> str:
        return str(url)


class QualitySettings(_Section):
    """Checks of stored rows; they override and extend those in the dataset files.

    `after_ingest`: whether each ingestion checks the rows that it touched. `checks`: by table
    (`bars_1m`) or family (`bars`), then by name of the check: its severity, its thresholds, or the
    definition of your own check. `python_modules`: the modules, with all below them, from which
    checks may be imported; a `lake.toml` that is found from the current folder cannot set it, since
    whoever made the folder wrote it.
    """

    after_ingest: bool = True
    checks: dict[str, dict[str, dict[str, Any]]] = {}
    python_modules: tuple[Text, ...] = ()


def _require_channel(target: SecretStr) -> SecretStr:
    text = target.get_secret_value()
    if text != LOG and not all(text.partition("://")):
        raise PydanticCustomError("channel", "must be `log` or a URL such as json://HOST/PATH")
    return target


class AlertRule(_Section):
    """A rule that notifies when a market has too many open findings, or its rows are too old.

    `severity`: the minimum severity of findings that count; for old rows, the severity of the
    alert. `dataset`, `exchange`, `symbol`, `check`: patterns with `*` and `?`. `min_findings`: the
    number of findings, found `within_seconds` (0: at any time), that raises the alert.
    `freshness_seconds`: the maximum age of the newest row.
    """

    name: Text
    channels: Annotated[tuple[Text, ...], Field(min_length=1)]
    severity: Literal["info", "warning", "error", "critical"] | None = None
    dataset: Text = "*"
    exchange: Text = "*"
    symbol: Text = "*"
    check: Text = "*"
    min_findings: Count = 1
    within_seconds: SecondsOrNone = 0
    freshness_seconds: Seconds | None = None

    @model_validator(mode="after")
    def _require_one_kind(self) -> AlertRule:
        finding_keys = sorted({"check", "min_findings", "within_seconds"} & self.model_fields_set)
        if self.severity is None and self.freshness_seconds is None:
            reason = "needs severity, for findings, or freshness_seconds, for the age of rows"
        elif self.freshness_seconds is not None and finding_keys:
            keys = ", ".join(finding_keys)
            reason = f"has freshness_seconds, and {keys}, which apply to findings only"
        elif len(set(self.channels)) < len(self.channels):
            reason = "names the same channel twice"
        elif any("://" in name for name in self.channels):
            # The message does not show the URL: URLs of channels hold secrets.
            reason = "has a URL as a channel; use its name in [alerts.channels]"
        else:
            return self
        raise PydanticCustomError("rule", "rule {rule} {why}", {"rule": self.name, "why": reason})


class AlertSettings(_Section):
    """Alert rules, and the channels that they notify.

    `repeat_seconds`: when to notify again of an alert that lasts (0: never).
    `min_interval_seconds`: minimum time between two messages of one rule to one channel; alerts in
    between are sent with the next message. `timeout_seconds`: maximum time for all messages to one
    channel in one run; the remaining messages are sent by the next run. `channels`: `log`, the URL
    of a web hook, or a URL that apprise supports; the channel `log` always exists.
    """

    repeat_seconds: SecondsOrNone = 86_400
    min_interval_seconds: SecondsOrNone = 60
    timeout_seconds: Seconds = 10
    channels: dict[str, Annotated[SecretStr, AfterValidator(_require_channel)]] = {}
    rules: tuple[AlertRule, ...] = ()

    @model_validator(mode="after")
    def _require_unique_names(self) -> AlertSettings:
        names = [rule.name for rule in self.rules]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate is not None:
            raise PydanticCustomError(
                "rules", "two rules have the name {rule}", {"rule": duplicate}
            )
        return self

    @property
    def targets(self) -> dict[str, SecretStr]:
        """Destinations of messages by name of the channel."""
        return {LOG: SecretStr(LOG), **self.channels}


class CacheSettings(_Section):
    """The cache of pinned rows: files that are mapped into memory.

    `fill_bytes`: larger markets are cached only by `lake bundle warm`.
    """

    enabled: bool = True
    folder: Path | None = None
    max_bytes: Count = 10_000_000_000
    fill_bytes: Count = 500_000_000


class LogSettings(_Section):
    """The log on stderr, beside progress and errors."""

    level: Literal["debug", "info", "warning", "error"] = "warning"
    format: Literal["text", "json"] = "text"


class Settings(_Section):
    """All settings of a lake; an unknown key is an error."""

    uri: Annotated[str, PlainSerializer(mask, when_used="json")] = DEFAULT_URI
    http: HttpSettings = HttpSettings()
    retry: RetrySettings = RetrySettings()
    ingest: IngestSettings = IngestSettings()
    exchanges: dict[str, ExchangeSettings] = {}
    quality: QualitySettings = QualitySettings()
    alerts: AlertSettings = AlertSettings()
    cache: CacheSettings = CacheSettings()
    log: LogSettings = LogSettings()
