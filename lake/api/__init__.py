"""The Python API: a thin façade over jobs and reads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from lake.api.bundles import Bundles
from lake.api.opened import utc_now
from lake.api.repairing import Repairing
from lake.model.dataset import Granularity
from lake.settings import Settings, load_settings
from lake.store.root import Root

__all__ = ["Lake", "open_lake", "utc_now"]


class Lake(Repairing, Bundles):
    """A lake: its tables, its bundles, and what brings data into it.

    Made by `lake.open(uri)`. All times are UTC, all ranges `[since, until)`.

    Parameters
    ----------
    settings
        Its `uri` says where the lake is.
    now
        The present; replaced in tests.

    Raises
    ------
    ConfigError
        There is no lake at the URI.
    """

    @classmethod
    def create(
        cls,
        settings: Settings,
        granularity: dict[str, Granularity] | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> Lake:
        """Make a new lake at the URI of the settings.

        `granularity` says for single tables whether `date` is a `day` or a `year` in storage.

        Raises
        ------
        ConfigError
            There is one already, or the folder is not empty.
        StorageError
            It cannot be written.
        """
        Root.create(settings.uri, now(), granularity)
        return cls(settings, now)


def open_lake(uri: str | Path | None = None, *, config: Path | None = None) -> Lake:
    """See `lake.open`."""
    overrides = {} if uri is None else {"uri": str(uri)}
    return Lake(load_settings(overrides, config=config))
