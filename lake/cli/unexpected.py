"""The last handler: an exception that no command expects, in one line, with no secret in it."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import SecretStr

    from lake.settings import Settings

_SHORTEST = 4
_secrets: set[str] = set()


def remember_secrets(settings: Settings) -> None:
    """Remember the secrets in settings: they are masked in whatever is printed of exceptions."""
    _secrets.update(_find_secrets(settings))


def describe(error: BaseException, *, verbose: bool) -> tuple[str, str]:
    """Describe an unexpected exception: its type and message in one line, and what to do.

    Parameters
    ----------
    verbose
        The traceback comes before.
    """
    text = " ".join(str(error).split())
    message = f"unexpected {type(error).__name__}" + (f": {text}" if text else "")
    hint = "This is a bug of lake. Please report it with the traceback: add --verbose to see it."
    if verbose:
        trace = "".join(traceback.format_exception(error)).rstrip()
        message = f"{trace}\n{message}"
        hint = "This is a bug of lake. Please report it with this traceback."
    return _mask(message), hint


def _mask(text: str) -> str:
    from lake.settings.urls import MASK

    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _find_secrets(value: Any) -> Iterator[str]:
    """Find the secrets in settings that are long enough to be told from other text."""
    from pydantic import BaseModel, SecretStr

    if isinstance(value, SecretStr):
        yield from (text for text in _list_texts(value) if len(text) >= _SHORTEST)
        return
    parts: Iterable[Any] = value.values() if isinstance(value, dict) else ()
    if isinstance(value, BaseModel):
        parts = (getattr(value, name) for name in type(value).model_fields)
    for part in parts:
        yield from _find_secrets(part)


def _list_texts(secret: SecretStr) -> tuple[str, ...]:
    """List what may stand in a message; of a URL also its parts."""
    from lake.settings.urls import Url

    text = secret.get_secret_value()
    if isinstance(secret, Url):
        return secret.list_secrets()
    return (text, *Url(text).list_secrets()) if "://" in text else (text,)
