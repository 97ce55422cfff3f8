"""Global options of every command, and the session that they make."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lake.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from lake.api import Lake
    from lake.model.progress import Progress
    from lake.settings import Settings

_PANEL = "Global options"


class Format(StrEnum):
    """Output format."""

    table = "table"
    json = "json"
    ndjson = "ndjson"
    csv = "csv"
    parquet = "parquet"


class ReaderLeftError(Exception):
    """Stdout was closed by its reader. (Typer would turn a BrokenPipeError into exit code 1.)"""


class InterruptedByUserError(Exception):
    """The user stopped a command. (Typer would turn a KeyboardInterrupt into a silent exit.)"""


@dataclass(frozen=True)
class Session:
    """The values of the global options."""

    uri: str | None
    config: Path | None
    format: Format
    quiet: bool
    verbose: bool
    no_color: bool

    @property
    def now(self) -> datetime:
        """The present time; commands and the API read no other clock."""
        return datetime.now(UTC)

    @property
    def lake_option(self) -> str:
        """The option that names the lake, after a space, for a command that a note suggests."""
        return "" if self.uri is None else f" --lake {shlex.quote(self.uri)}"

    def overrides(self) -> dict[str, Any]:
        """Return the settings that the options override."""
        chosen: dict[str, Any] = {}
        if self.uri is not None:
            chosen["uri"] = self.uri
        if self.verbose:
            chosen["log"] = {"level": "debug"}
        if self.quiet:
            chosen["log"] = {"level": "error"}
        return chosen

    def settings(self, hidden_logs: Collection[str] = ()) -> Settings:
        """Load the settings in force, and configure logging by them."""
        from lake import log
        from lake.cli.unexpected import remember_secrets
        from lake.settings import load_settings

        settings = load_settings(self.overrides(), config=self.config)
        remember_secrets(settings)
        log.configure(settings.log.level, settings.log.format, hidden_logs)
        return settings

    def lake(self, hidden_logs: Collection[str] = ()) -> Lake:
        """Open the lake that the options name.

        Parameters
        ----------
        hidden_logs
            Loggers whose events the command shows itself.
        """
        from lake.api import Lake

        return Lake(self.settings(hidden_logs))

    def progress(self) -> Progress:
        """Return a progress bar on stderr."""
        from lake.cli.progress import ProgressBar

        return ProgressBar(self.stderr())

    def stderr(self) -> Console:
        """Return the console for progress and notes."""
        from lake.cli.console import PlainConsole

        return PlainConsole(stderr=True, quiet=self.quiet, no_color=self.no_color or None)


def _global_options(
    lake: Annotated[
        str | None,
        typer.Option("--lake", metavar="URI", help="Folder of the lake.", rich_help_panel=_PANEL),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings file instead of the nearest lake.toml.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    output: Annotated[
        Format | None,
        typer.Option("--format", "-o", help="Output format.", rich_help_panel=_PANEL),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Same as --format json.", rich_help_panel=_PANEL)
    ] = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Same as --format csv.", rich_help_panel=_PANEL)
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Show no progress and no notes.", rich_help_panel=_PANEL
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Show debug logs, and the traceback of a bug.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="Print without colour.", rich_help_panel=_PANEL)
    ] = False,
) -> None:
    """Declare the global options; only the signature is used."""


_GLOBALS = inspect.signature(_global_options, eval_str=True).parameters


def global_parameters() -> list[inspect.Parameter]:
    """Return the global options as keyword parameters of a command."""
    return [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in _GLOBALS.values()]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Add the global options to a command, which gets them as `session`, its first parameter.

    An option counts wherever it stands: `lake --json tables` and `lake tables --json`.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *own, *global_parameters()]

    @functools.wraps(function)
    def run(context: typer.Context, **given: Any) -> None:
        before = context.find_root().obj or {}
        chosen = {name: given.pop(name) or before.get(name) for name in _GLOBALS}
        try:
            function(_session(chosen), **given)
        except BrokenPipeError as error:
            raise ReaderLeftError from error
        except KeyboardInterrupt as error:
            raise InterruptedByUserError from error

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _session(chosen: Mapping[str, Any]) -> Session:
    formats = {chosen["output"]} - {None}
    formats |= {Format.json} if chosen["json"] else set()
    formats |= {Format.csv} if chosen["csv"] else set()
    if len(formats) > 1:
        raise UsageError("several output formats are given", "Give one.")
    return Session(
        uri=chosen["lake"],
        config=chosen["config"],
        format=formats.pop() if formats else Format.table,
        quiet=bool(chosen["quiet"]),
        verbose=bool(chosen["verbose"]),
        no_color=bool(chosen["no_color"]),
    )
