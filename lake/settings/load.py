"""Load settings: command line > `LAKE_*` > nearest `lake.toml` upward > user's file > default."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from lake.errors import ConfigError
from lake.settings.sections import AlertSettings, Settings

FILE_NAME = "lake.toml"
ENV_PREFIX = "LAKE_"


class _Environment(Settings, BaseSettings):
    """Settings from `LAKE_*` variables."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__")


@dataclass(frozen=True)
class Layer:
    """Settings of one origin, not yet validated: a file, the environment, or the caller.

    `is_found`: nobody named the file, it lies at or above the current folder. Whoever made that
    folder wrote it, which need not be the user.
    """

    origin: str
    values: dict[str, Any]
    is_found: bool = False


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    folder: Path | None = None,
) -> Settings:
    """Load all settings.

    Parameters
    ----------
    overrides
        Values that override all others.
    config
        A file to read instead of the nearest `lake.toml`.
    folder
        The folder where the upward search for `lake.toml` starts; the current folder by default.

    Raises
    ------
    ConfigError
        A file cannot be read, or a key is unknown or a value invalid; the message names the key
        and its origin.
    """
    return merge_layers(load_layers(overrides, config=config, folder=folder))


def load_layers(
    overrides: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    folder: Path | None = None,
) -> tuple[Layer, ...]:
    """Load settings by origin, weakest first; validate each alone, so that errors name it."""
    loaded = [
        Layer(str(path), _file_values(path), is_found)
        for path, is_found in _files(config, folder or Path.cwd())
    ]
    loaded.append(Layer("environment", _environment_values()))
    loaded.append(Layer("command line", dict(overrides or {})))
    for layer in loaded:
        _validate(layer)
    return tuple(loaded)


def merge_layers(layers: tuple[Layer, ...]) -> Settings:
    """Merge layers into settings; later layers override earlier ones."""
    values: dict[str, Any] = {}
    for layer in layers:
        values = _deep_merge(values, layer.values)
    settings = _validate(Layer("settings", values))
    _require_channels(settings.alerts, layers)
    for exchange in settings.exchanges:
        _require_own_credentials(exchange, layers)
    for layer in layers:
        _require_no_consent(layer)
    return settings


def _require_no_consent(layer: Layer) -> None:
    """Refuse a found file that consents to running code in the user's place."""
    if layer.is_found and layer.values.get("quality", {}).get("python_modules"):
        raise ConfigError(
            f"{layer.origin}: quality.python_modules lets the checks of this folder run code",
            "If you trust it, set it in your own settings (~/.config/lake/lake.toml, "
            "LAKE_QUALITY__PYTHON_MODULES), or name the file by --config.",
        )


def _require_own_credentials(exchange: str, layers: tuple[Layer, ...]) -> None:
    """Refuse a URL of a found file that would get the credentials of another origin."""
    setters = {
        key: layer
        for layer in layers
        for key, value in layer.values.get("exchanges", {}).get(exchange, {}).items()
        if value is not None
    }
    for key in ("url", "fallback_url"):
        url = setters.get(key)
        for credential in ("api_key", "secret", "password"):
            owner = setters.get(credential)
            if url is not None and url.is_found and owner is not None and owner is not url:
                raise ConfigError(
                    f"{url.origin}: exchanges.{exchange}.{key} would get the {credential} of "
                    f"{owner.origin}",
                    f"If you trust that file, name it by --config, or set {credential} in it; "
                    f"otherwise remove {key} from it.",
                )


def _require_channels(alerts: AlertSettings, layers: tuple[Layer, ...]) -> None:
    """Refuse rules with channels that no layer defines: rules and channels may have two origins."""
    origin = next((x.origin for x in reversed(layers) if "rules" in x.values.get("alerts", {})), "")
    for number, rule in enumerate(alerts.rules):
        for name in rule.channels:
            if name not in alerts.targets:
                raise ConfigError(
                    f"{origin}: alerts.rules.{number}: rule {rule.name!r} names the unknown "
                    f"channel {name!r}",
                    f"Use one of {', '.join(alerts.targets)}, or define it in [alerts.channels].",
                )


def _files(config: Path | None, folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield settings files, weakest first, and whether one was found rather than named."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    user_file = home / "lake" / FILE_NAME
    if user_file.is_file():
        yield user_file, False
    if config is not None:
        yield config, False
        return
    for parent in (folder.absolute(), *folder.absolute().parents):
        if (parent / FILE_NAME).is_file():
            yield parent / FILE_NAME, True
            return


def _file_values(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", "Name a settings file that exists."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not TOML: {error}", "The README shows a complete settings file."
        ) from error
    uri = values.get("uri")
    if isinstance(uri, str) and "://" not in uri:
        values["uri"] = str(path.absolute().parent / Path(uri).expanduser())
    return values


def _environment_values() -> dict[str, Any]:
    for name in os.environ:
        key = name.removeprefix(ENV_PREFIX).split("__")[0].lower()
        if name.startswith(ENV_PREFIX) and key not in Settings.model_fields:
            close = difflib.get_close_matches(key, Settings.model_fields, n=1)
            hint = f"Did you mean {ENV_PREFIX}{close[0].upper()}? " if close else ""
            raise ConfigError(
                f"environment: unknown setting {name}", f"{hint}`lake config` lists all settings."
            )
    try:
        return EnvSettingsSource(_Environment)()
    except SettingsError as error:
        raise ConfigError(f"environment: {error}") from error


def _validate(layer: Layer) -> Settings:
    try:
        return Settings.model_validate(layer.values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise ConfigError(
            f"{layer.origin}: {key}: {reason}", "`lake config` lists all settings."
        ) from None


def _deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        base_value = result.get(key)
        are_mappings = isinstance(base_value, Mapping) and isinstance(value, Mapping)
        result[key] = _deep_merge(base_value, value) if are_mappings else value  # type: ignore[arg-type]
    return result
