"""URLs in settings: what may be a secret in them is masked wherever they are shown."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from pydantic import SecretStr
from pydantic_core import PydanticCustomError

MASK = "***"
# A key in a path, as gateways give them: long, with letters and digits.
_TOKEN = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[\w~-]{16,}")


class Url(SecretStr):
    """The URL of a host; its text shows neither user, password, query nor keys in the path."""

    def _display(self) -> str:
        return mask(self.get_secret_value())

    def list_secrets(self) -> tuple[str, ...]:
        """Return the parts of the URL that no message may show, as written and as decoded."""
        parts = _split(self.get_secret_value())
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        values = [value for _, value in parse_qsl(parts.query)]
        found = [f"{user}:{password}@" if password else f"{user}@", password or user]
        found += [*values, *_TOKEN.findall(parts.path)]
        if not user:
            found = found[2:]
        return tuple(dict.fromkeys(text for part in found for text in (part, unquote(part))))


def mask(url: str) -> str:
    """Return a URL for people: without what may be a secret in it; a path stays as it is."""
    if "://" not in url:
        return url
    parts = _split(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    netloc = f"{MASK}@{host}" if at and userinfo else host
    query = urlencode([(name, MASK) for name, _ in parse_qsl(parts.query)], safe="*")
    return parts._replace(
        netloc=netloc, path=_TOKEN.sub(MASK, parts.path), query=query, fragment=""
    ).geturl()


def require_http(url: Url) -> Url:
    """Refuse what is not the URL of a host, without showing it."""
    parts = _split(url.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PydanticCustomError("url", "must be a URL such as https://HOST")
    return url


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", MASK, "", "", "")
