"""Work on several tables of which some cannot be read: show what was done for the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lake.errors import LakeError

_Report = TypeVar("_Report")


def show_done(
    work: Callable[[], _Report], kind: type[_Report], show: Callable[[_Report], None]
) -> _Report:
    """Show the result of work, also if an error that carries it follows; return it.

    Parameters
    ----------
    kind
        The type of the result.

    Raises
    ------
    LakeError
        The work failed, for some tables or as a whole.
    """
    try:
        report = work()
    except LakeError as error:
        if isinstance(error.report, kind):
            show(error.report)
        raise
    show(report)
    return report
