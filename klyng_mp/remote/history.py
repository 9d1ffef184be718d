"""What became of a beacon's jobs: whose they were, when, which limit they met, and how they ended.

Layer: remote; sans-IO: callers say what happened and when. In memory, and bounded: of jobs that have ended, the last
ones are kept. What programs have written is not in it, but the names of exceptions that ranks have raised.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any, NamedTuple

from klyng_mp.remote.schema import Text

__all__ = [
    "KEPT_JOBS",
    "LISTED_JOBS",
    "OUTCOMES",
    "Course",
    "JobEntry",
    "JobHistory",
    "Origin",
    "Verdict",
    "say_duration",
]

KEPT_JOBS = 50  # that have ended; a status has to fit into one frame
LISTED_JOBS = 500  # that run
LOGGED_TROUBLES = 10  # of one job: a program that fails a thousand times a second must not push others out of the log

# How a job can end, as a status says it, and what that means.
OUTCOMES = {
    "finished": "its ranks have ended, as its client wanted",
    "terminated": "its client had its ranks killed",
    "left": "its client left, or was killed, while its ranks were there",
    "lost": "its client could not be heard any more, or said what cannot be",
    "refused": "the beacon refused it",
    "limit": "it reached a limit of the beacon while it ran",
    "failed": "it could not go on here",
    "killed": "its session was killed",
    "stopped": "the beacon ended",
}


_REASON = Text(600)
_TROUBLE = Text(300)


class Origin(NamedTuple):
    """Who has logged in: the name of the key that was shown, if one was; how; and from where."""

    owner: str
    method: str
    address: str

    def __str__(self) -> str:
        return (
            f"{self.owner} ({self.method}) from {self.address}" if self.owner else f"{self.method} from {self.address}"
        )


class Verdict(NamedTuple):
    """How a job has ended: one of `OUTCOMES`, what there is to say of it, the limit that was reached, if one was."""

    outcome: str
    reason: str = ""
    limit: str | None = None

    def __str__(self) -> str:
        limit = f" ({self.limit})" if self.limit else ""
        return f"{self.outcome}{limit}{f': {self.reason}' if self.reason else ''}"


class Course:
    """How far a job has come, as its session knows it, which says how it has ended.

    Attributes:
        begun: its ranks were started.
        terminated: its client has asked for their end.
        closed: they have ended.
    """

    def __init__(self) -> None:
        self.begun = self.terminated = self.closed = False

    def over(self, outcome: str, reason: str) -> Verdict:
        """Return how it has ended, from what became of the client: "left", "lost", or of the beacon: "stopped"."""
        if outcome == "left" and (self.terminated or self.closed):
            return Verdict("terminated" if self.terminated else "finished")
        return Verdict(outcome, reason or "before its ranks were started" * (not self.begun))

    def refused(self, sentence: str, limit: str | None) -> Verdict:
        """Return how it has ended, from why it cannot go on."""
        outcome = "refused" if not self.begun else "failed" if limit is None else "limit"
        return Verdict(outcome, sentence, limit)


class JobEntry:
    """One job; its beginning is the moment when it was asked for.

    Attributes:
        id: of the job.
        client: whose it is.
        ranks: how many it has here.
        began, ended: when, in seconds of a clock that does not go back; `ended` is meaningless without a verdict.
        verdict: how it has ended; None while it has not.
        troubles: how often a run of it was ended by a rank here.
        trouble: how the last one was.
        limit: that a rank has reached while the job went on.
    """

    __slots__ = ("began", "client", "ended", "id", "limit", "ranks", "trouble", "troubles", "verdict")

    def __init__(self, job: bytes, client: Origin, ranks: int, now: float) -> None:
        self.id = job
        self.client = client
        self.ranks = ranks
        self.began = now
        self.ended = 0.0
        self.verdict: Verdict | None = None
        self.troubles = 0
        self.trouble = ""
        self.limit: str | None = None

    def __str__(self) -> str:
        return f"job {self.id.hex()[:8]} of {self.client}"

    def note(self, trouble: str, limit: str | None) -> bool:
        """Take note of what a rank has done; tell whether it belongs into the log as well."""
        self.troubles += 1
        self.trouble = _TROUBLE.fit(trouble)
        self.limit = limit or self.limit
        return self.troubles <= LOGGED_TROUBLES


class JobHistory:
    """The jobs of one beacon: those that are there, and the last ones that were.

    Args:
        kept: how many of those.

    Threads: one.
    """

    def __init__(self, kept: int = KEPT_JOBS) -> None:
        self._running: dict[JobEntry, None] = {}
        self._ended: deque[JobEntry] = deque(maxlen=kept)

    def begin(self, job: bytes, client: Origin, ranks: int, now: float) -> JobEntry:
        """Take note that a job is asked for."""
        entry = JobEntry(job, client, ranks, now)
        self._running[entry] = None
        return entry

    def end(self, entry: JobEntry, verdict: Verdict, now: float) -> str | None:
        """Take note how a job has ended; return a line for the log, or None where that was known already."""
        if entry.verdict is not None:
            return None
        del self._running[entry]
        self._ended.append(entry)
        verdict = entry.verdict = verdict._replace(reason=_REASON.fit(verdict.reason))
        entry.ended = now
        if verdict.outcome == "refused":
            return f"{entry} ({entry.ranks} ranks) was {verdict}"
        troubles = f"; its runs had {entry.troubles} troubles" if entry.troubles else ""
        return f"{entry} ended after {say_duration(now - entry.began)}: {verdict}{troubles}"

    def running(self, now: float) -> list[dict[str, Any]]:
        """Return what a status says of those that are there, the oldest of them first."""
        return [
            {**_describe(entry), "age_seconds": int(now - entry.began)} for entry in islice(self._running, LISTED_JOBS)
        ]

    def ended(self, now: float) -> list[dict[str, Any]]:
        """Return what a status says of those that were there, the last one first."""
        return [
            {
                **_describe(entry),
                "ago_seconds": int(now - entry.ended),
                "lasted_ms": int((entry.ended - entry.began) * 1000),
                "outcome": entry.verdict.outcome,
                "reason": entry.verdict.reason,
                "limit": entry.verdict.limit or entry.limit,
            }
            for entry in reversed(self._ended)
            if entry.verdict is not None
        ]


def _describe(entry: JobEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        **entry.client._asdict(),
        "ranks": entry.ranks,
        "troubles": entry.troubles,
        "trouble": entry.trouble,
    }


def say_duration(seconds: float) -> str:
    """Return hours, minutes and seconds; of less than a minute, seconds."""
    if seconds < 60:
        return f"{round(seconds, 1) if seconds < 10 else int(seconds):g} s"
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
