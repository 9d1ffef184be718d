"""The words that drivers, supervisors and ranks say to each other about runs.

Layer: launch; data only.
"""

from __future__ import annotations

__all__ = ["CLOSE", "GRACE_SECONDS", "INTERRUPT_GRACE_SECONDS", "LOG", "PRESENT", "STATISTICS", "UNRECEIVED", "Cause"]

# Tags in the context CONTROL, beside the numbers of runs.
CLOSE, LOG, PRESENT, STATISTICS, UNRECEIVED = "close", "log", "present", "statistics", "unreceived"
GRACE_SECONDS = 0.5  # for the ``finally`` clauses of ranks whose run has failed
INTERRUPT_GRACE_SECONDS = 1.0  # for ranks to act on a Ctrl-C


class Cause:
    """Why a run ends early.

    Attributes:
        kind: "failed" (a rank raised), "died" (its process ended), "stillborn" (before it could begin, so
            that another would not either), "exited" (it called sys.exit), "deadlock" (all wait for each other),
            or the owner's own wish ("cancelled", "interrupted", "timeout").
        rank: whose fault it was, or None.
        detail: the exception's summary, or a phrase.
        text: its traceback, or the last lines of its stderr; of a deadlock, who waits for whom.
        exitcode: of a rank that died or exited.
        cycle: the ranks of a deadlock that wait for each other, if it is a cycle.
        error: what the rank raised, where it was raised in this process.
    """

    __slots__ = ("cycle", "detail", "error", "exitcode", "kind", "rank", "text")

    def __init__(self, kind: str, rank: int | None, detail: str, text: str = "", exitcode: int = 0) -> None:
        self.kind = kind
        self.rank = rank
        self.detail = detail
        self.text = text
        self.exitcode = exitcode
        self.cycle: tuple[int, ...] = ()
        self.error: BaseException | None = None

    def phrase(self) -> str:
        """Return what the other ranks are told, to follow "rank N"."""
        if self.kind == "stillborn":
            return f"could not start: {self.detail}"
        return f"failed ({self.detail})" if self.kind == "failed" else self.detail
