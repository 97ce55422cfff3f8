"""Text from outside, such as symbols and the words of a venue, for people to read."""

from __future__ import annotations

import re

# C0 and C1 controls, soft hyphen, zero-width and directional marks, separators of lines, tags;
# all spaces but the usual one, and letters without a shape.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\xa0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f"
    "\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
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
