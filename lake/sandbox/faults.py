"""Faults of answers: chosen by a script, at random from a seed, or for every request."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from lake.errors import UsageError
from lake.sandbox import noise

KINDS = (
    "429",  # refused, with Retry-After
    "418",  # banned, with Retry-After
    "500",
    "502",
    "503",
    # the connection is aborted before an answer; aiohttp's client silently repeats the request
    # once if the connection was used before, so it sees the fault only if two follow each other
    "reset",
    "timeout",  # no answer for `hang_seconds`, then the connection is aborted
    "cut",  # the connection is aborted in the middle of the body
    "truncated",  # a well-formed 200 with half of the body
    "html",  # 200 and an HTML page
    "empty",  # 200 and no body
    "duplicate",  # the previous answer of the same endpoint and symbol
    "shuffled",  # the rows of a page in a different order
)
# no repetition of the request shows that these are faults
HARD_KINDS = (
    "403",  # refused by a firewall, with an HTML page
    "451",  # refused for the location, in Binance's words
    "misrouted",  # the answer to the same request for another market of the host
)
_HTML = b"<html><head><title>Maintenance</title></head><body>Be right back.</body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one or more answers.

    Parameters
    ----------
    kind : str
        One of `KINDS` or `HARD_KINDS`.
    match : str, default ""
        Part of the path and query, `/host/path?query`, of the requests that get the fault.
    times : int, default 1
        Number of requests that get the fault.
    skip : int, default 0
        Number of matching requests to let pass first.
    retry_after : float, default 1
        Seconds in the `Retry-After` header of 429 and 418.
    hang_seconds : float, default 30
        Seconds that a `timeout` hangs.
    """

    kind: str
    match: str = ""
    times: int = 1
    skip: int = 0
    retry_after: float = 1.0
    hang_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS + HARD_KINDS:
            raise UsageError(
                f"Unknown kind of fault {self.kind!r}.",
                f"Use one of {', '.join(KINDS + HARD_KINDS)}.",
            )
        if self.times < 0 or self.skip < 0 or self.retry_after < 0 or self.hang_seconds < 0:
            raise UsageError(f"A number of the fault {self.kind!r} is negative.", "Use 0 or more.")


@dataclass(frozen=True, slots=True)
class RandomFaults:
    """Faults in a random share of all answers.

    Parameters
    ----------
    rate : float
        The share, 0 to 1.
    kinds : sequence of str
        Kinds of faults, equally likely.
    seed : int, default 0
        The same seed selects the same requests, counted from when the faults were set.
    retry_after, hang_seconds : float
        As for `Fault`.
    """

    rate: float
    kinds: Sequence[str]
    seed: int = 0
    retry_after: float = 1.0
    hang_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1 or not self.kinds:
            raise UsageError(
                f"Random faults need a rate and kinds, not {self.rate} and {list(self.kinds)}.",
                "Use a rate from 0 to 1 and at least one kind.",
            )
        for number in range(len(self.kinds)):
            self.fault(number)

    def fault(self, number: int) -> Fault:
        """Return the fault of the kind with this number."""
        return Fault(
            self.kinds[number], retry_after=self.retry_after, hang_seconds=self.hang_seconds
        )


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """All faults of a sandbox: `down` precedes the script, the script precedes random faults."""

    script: tuple[Fault, ...] = ()
    random: RandomFaults | None = None
    down: bool = False


@dataclass(slots=True)
class _ScriptEntry:
    fault: Fault
    skip: int
    times: int


class Faults:
    """Selects the fault of each request."""

    def __init__(self) -> None:
        self.set(FaultPlan())

    def set(self, plan: FaultPlan) -> None:
        """Replace all faults by a plan."""
        self.random = plan.random
        self.down = plan.down
        self._count = 0
        self._script: list[_ScriptEntry] = []
        for fault in plan.script:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Append a fault to the script."""
        self._script.append(_ScriptEntry(fault, fault.skip, fault.times))

    def pick(self, url: str) -> Fault | None:
        """Return the fault of a request for `/host/path?query`, and count it as used."""
        if self.down:
            return Fault("503")
        return self._pick_scripted(url) or self._pick_random()

    def _pick_scripted(self, url: str) -> Fault | None:
        for entry in self._script:
            if entry.fault.match not in url or entry.times == 0:
                continue
            if entry.skip:
                entry.skip -= 1
                continue
            entry.times -= 1
            return entry.fault
        return None

    def _pick_random(self) -> Fault | None:
        random = self.random
        if random is None:
            return None
        self._count += 1
        counters = np.array([2 * self._count, 2 * self._count + 1])
        draw, kind = noise.draw_uniforms(noise.derive_key(random.seed, "faults"), counters).tolist()
        return random.fault(int(kind * len(random.kinds))) if draw < random.rate else None


def corrupt_body(kind: str, body: bytes, seed: int = 0) -> tuple[bytes, str]:
    """Return a body after a fault of its contents, and its content type.

    `truncated`, `html`, `empty` and `shuffled` change the body; other kinds do not.
    """
    if kind == "truncated":
        return body[: len(body) // 2], "application/json"
    if kind == "html":
        return _HTML, "text/html"
    if kind == "empty":
        return b"", "application/json"
    if kind == "shuffled":
        return _shuffle_rows(body, seed), "application/json"
    return body, "application/json"


def _shuffle_rows(body: bytes, seed: int) -> bytes:
    rows = orjson.loads(body)
    if not isinstance(rows, list) or len(rows) < 2:
        return body
    order = np.argsort(noise.draw_words(seed, np.arange(len(rows)))).tolist()
    if order == sorted(order):
        order.reverse()
    return orjson.dumps([rows[place] for place in order])
