"""`lake config`: show the settings and their origins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from lake.cli.output import show
from lake.cli.session import Session, command


def add_to(app: typer.Typer) -> None:
    app.command("config")(command(config))


def config(session: Session) -> None:
    """Show every setting with its value and origin; secrets are masked."""
    import polars as pl

    from lake.settings import load_layers, merge_layers

    layers = load_layers(session.overrides(), config=session.config)
    origins: dict[str, str] = {}
    for layer in layers:
        origins |= {key: layer.origin for key, _ in _flat(layer.values)}
    rows = [
        {"setting": key, "value": str(value), "origin": origins.get(key, "default")}
        for key, value in _flat(merge_layers(layers).model_dump(mode="json"))
    ]
    show(session, pl.DataFrame(rows))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield from _flat({item["name"]: item for item in value}, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value
