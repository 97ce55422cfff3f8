"""The verbs of `lake`: a command is built, and its module imported, only when it is used."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

# In the order of the help.
MODULES = {
    "init": "init",
    "demo": "demo",
    "ingest": "ingest",
    "sql": "query",
    "tables": "query",
    "describe": "query",
    "status": "query",
    "quality": "quality",
    "alert": "alert",
    "bundle": "bundle",
    "replay": "replay",
    "maintain": "maintain",
    "migrate": "migrate",
    "audit": "audit",
    "config": "config",
    "sandbox": "sandbox",
    "verify": "verify",
}
"""Modules of this package by verb."""


class Verbs(TyperGroup):
    """The group of all verbs."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the name that Click uses
        return list(MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - likewise
        if cmd_name not in self.commands:
            # All, if there is no such verb: similar ones are suggested.
            named = MODULES.get(cmd_name)
            self._build([named] if named else dict.fromkeys(MODULES.values()))
        return self.commands.get(cmd_name)

    def _build(self, modules: Iterable[str]) -> None:
        for module in modules:
            part = typer.Typer(rich_markup_mode=self.rich_markup_mode)
            import_module(f"lake.cli.{module}").add_to(part)
            self.commands.update(typer.main.get_group(part).commands)
