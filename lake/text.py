"""Text from outside, such as symbols and the words of a venue, for people to read."""

from __future__ import annotations

import re

# C0 and C1 controls, soft hyphen, zero-width and directional marks, separators of lines, tags.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def escape_unseen(text: str, keep: str = "") -> str:
    r"""Write characters that are not seen, but change what is, as escapes such as `\x1b`.

    A terminal would obey control characters, and characters for right-to-left text show a name as
    another one. Visible characters of all scripts stay.

    Parameters
    ----------
    text
        Any text.
    keep
        Characters that stay, such as line ends.
    """
    return _UNSEEN.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
