"""Reads the parameters of a request; refuses what Binance refuses, with its codes and messages."""

import re
from collections.abc import Sequence

# https://github.com/binance/binance-spot-api-docs/blob/master/errors.md
ILLEGAL_CHARACTERS = -1100
TOO_MANY_PARAMETERS = -1101
MISSING = -1102
NOT_ALL_READ = -1104
EMPTY = -1105
BAD_INTERVAL = -1120
BAD_SYMBOL = -1121
LOOKUP_TOO_LONG = -1127
BAD_COMBINATION = -1128
INVALID = -1130
START_AFTER_END = -1023  # futures only
BAD_DEPTH_LIMIT = -4021  # futures only

_DIGITS = "^[0-9]{1,20}$"
_SYMBOL = "^[A-Z0-9-_.]{1,20}$"
_GREATEST = 1 << 62  # far in the future, and fits into int64


class Refusal(Exception):  # noqa: N818 - an answer, not an error of this program
    """An error that Binance would answer with."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class Parameters:
    """The parameters of one request.

    Parameters
    ----------
    pairs : sequence of (str, str)
        Names and values in the order of the query string.
    allowed : sequence of str
        The parameters that the endpoint accepts.
    strict : bool
        Whether to refuse other parameters.
    """

    def __init__(
        self, pairs: Sequence[tuple[str, str]], allowed: Sequence[str], *, strict: bool
    ) -> None:
        self._values = dict(pairs)
        if len(self._values) < len(pairs):
            raise Refusal(TOO_MANY_PARAMETERS, "Duplicate values for a parameter detected.")
        if not strict:
            return
        sent, read = len(pairs), len(self._values.keys() & set(allowed))
        if sent > len(allowed):
            raise Refusal(
                TOO_MANY_PARAMETERS,
                f"Too many parameters; expected '{len(allowed)}' and received '{sent}'.",
            )
        if read < sent:
            raise Refusal(
                NOT_ALL_READ,
                f"Not all sent parameters were read; read '{read}' parameter(s) "
                f"but was sent '{sent}'.",
            )

    def has(self, *names: str) -> bool:
        """Return whether any of these parameters was sent."""
        return any(name in self._values for name in names)

    def text(self, name: str) -> str | None:
        """Return a value, or None if it was not sent."""
        value = self._values.get(name)
        if value == "":
            raise Refusal(EMPTY, f"Parameter '{name}' was empty.")
        return value

    def require(self, name: str) -> str:
        """Return a mandatory value."""
        if not self._values.get(name):
            raise Refusal(
                MISSING,
                f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.",
            )
        return self._values[name]

    def symbol(self) -> str:
        """Return the mandatory `symbol`."""
        return self._require_match("symbol", self.require("symbol"), _SYMBOL)

    def integer(self, name: str) -> int | None:
        """Return a whole number, or None if it was not sent."""
        value = self.text(name)
        if value is None:
            return None
        return min(int(self._require_match(name, value, _DIGITS)), _GREATEST)

    def times(self) -> tuple[int | None, int | None]:
        """Return `startTime` and `endTime` in milliseconds, both inclusive."""
        return self.integer("startTime"), self.integer("endTime")

    def limit(self, default: int, max_limit: int, *, lower: bool) -> int:
        """Return `limit`, at least 1; lower a value above `max_limit` to it, or refuse it."""
        limit = self.integer("limit")
        if limit is None:
            return default
        if limit == 0 or (limit > max_limit and not lower):
            raise Refusal(INVALID, "Data sent for parameter 'limit' is not valid.")
        return min(limit, max_limit)

    @staticmethod
    def _require_match(name: str, value: str, pattern: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise Refusal(
                ILLEGAL_CHARACTERS,
                f"Illegal characters found in parameter '{name}'; legal range is '{pattern}'.",
            )
        return value
