"""The errors that `lake` raises: each says what happened, where, and what to do next."""

from typing import Literal

RefusalReason = Literal["not_listed", "too_long_ago", "forbidden", "refused"]


class LakeError(Exception):
    """Base of every error of this package.

    `message` says what happened and where; `hint` says what to do next and may be empty. `code` is
    a stable identifier for programs. The command line maps classes to exit codes.

    Attributes
    ----------
    report
        What a job that failed in part did all the same, such as an `IngestReport`; None elsewhere.
    """

    code = "error"
    report: object | None = None

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(LakeError):
    """The caller passed an invalid value, such as a malformed time or a reversed range."""

    code = "usage"


class ConfigError(UsageError):
    """A setting or the environment is invalid."""

    code = "config"


class UnknownNameError(UsageError):
    """An exchange, market, timeframe, dataset, version or bundle with this name does not exist."""

    code = "unknown_name"


class SchemaError(UsageError):
    """A dataset file is invalid, or a frame does not fit the schema of its dataset."""

    code = "schema"


class StorageError(LakeError):
    """The storage failed: the disk is full, read-only, or missing."""

    code = "storage"


class DamagedError(LakeError):
    """Stored data differ from what was written, such as a damaged file or an edited manifest."""

    code = "damaged"


class QualityError(LakeError):
    """Data are intact but do not meet the quality that the caller requires."""

    code = "quality"


class CommitConflictError(LakeError):
    """Other writers committed to the same table in every attempt; nothing was written."""

    code = "commit_conflict"


class SourceError(LakeError):
    """A source returned an unusable answer; a retry would not help."""

    code = "source"


class SourceUnavailableError(SourceError):
    """A source returned no usable answer in any attempt; try later."""

    code = "source_unavailable"


class SourceRefusedError(SourceError):
    """A source permanently refuses a market or a range; other markets and ranges are not affected.

    The message holds the words of the source.

    Attributes
    ----------
    reason
        `not_listed`: the market is gone. `too_long_ago`: the range is older than what the source
        serves. `forbidden`: the source refuses this client, such as for its location or its
        credentials. `refused`: any other reason.
    words
        What the source said; empty where it said nothing.
    """

    code = "source_refused"

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        reason: RefusalReason = "refused",
        words: str = "",
    ) -> None:
        super().__init__(message, hint)
        self.reason = reason
        self.words = words
