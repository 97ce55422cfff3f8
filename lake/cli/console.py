"""The console of the command line: text is shown as it is, and obeys no one."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from lake.text import escape_unseen


class PlainConsole(Console):
    """A console without markup, emoji codes and highlights, which escapes unseen characters.

    Cells of tables, notes and the words of venues come from outside: `[bold]` or an escape
    sequence in them is data.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert text for rich; line ends and tabs stay."""
        return super().render_str(escape_unseen(text, keep="\n\t"), **options)
