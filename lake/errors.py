"""The errors that `lake` raises: each says what happened, where, and what to do next."""


class LakeError(Exception):
    """Base of every error of this package.

    `message` says what happened and where, `hint` what to do next (may be empty).
    `code` is a stable word for programs; the command line maps classes to exit codes.
    """

    code = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(LakeError):
    """A value that the caller gave cannot be used: a malformed time, a reversed range."""

    code = "usage"


class ConfigError(UsageError):
    """A setting, or the environment that the lake runs in, is wrong."""

    code = "config"


class UnknownNameError(UsageError):
    """No exchange, market, timeframe, dataset, version or bundle has this name."""

    code = "unknown_name"


class SchemaError(UsageError):
    """A dataset file, or a frame on its way into a dataset, does not fit its schema."""

    code = "schema"


class StorageError(LakeError):
    """The storage under the lake refused: disk full, not writable, gone."""

    code = "storage"


class DamagedError(LakeError):
    """Stored data are not what was written: a damaged file, an edited manifest."""

    code = "damaged"


class QualityError(LakeError):
    """Data are as they were written, but fall short of what the caller demands."""

    code = "quality"


class CommitConflictError(LakeError):
    """Another writer kept winning the race for the same table; nothing was written."""

    code = "commit_conflict"


class SourceError(LakeError):
    """A source answered, and the answer cannot be used; asking again would not help."""

    code = "source"


class SourceUnavailableError(SourceError):
    """A source did not answer, or answered rubbish, until the retries ran out: try later."""

    code = "source_unavailable"
