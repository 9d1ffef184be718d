"""What jobs of green ranks have in common: their answers lie in this process, and nothing of them is a process.

Layer: green.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

from klyng_mp.launch.control import UNRECEIVED
from klyng_mp.launch.fixed import FixedJob
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import CONTROL, Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from klyng_mp.deadline import Deadline
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.wire.codec import Encoded

__all__ = ["Processless"]

_NO_PROCESS = (
    "a World of green ranks starts no processes, as its ranks are none: take Process and Pool of klyng_mp itself, or "
    "of a World without green="
)


class Processless(FixedJob):
    """A job without processes that could be started or signalled.

    Args:
        spec: what the ranks are to be.
        by_reference: whether the ranks know the driver's ``__main__`` as their own.
    """

    is_here = True
    refusal = _NO_PROCESS

    def __init__(self, spec: RankSpec, *, by_reference: bool) -> None:
        super().__init__(spec)
        self._codec = Codec(main_by_reference=by_reference)
        self._left: dict[int, list[tuple[int, int | str]]] = {}  # (source, tag) of what ranks have not received
        self._answers: defaultdict[int | str, deque[Message]] = defaultdict(deque)

    def submit(self, run: int | str, encoded: Encoded, ranks: Sequence[int] | None = None) -> None:
        """See `Line.submit`."""
        if isinstance(run, int):
            self._submit(run, encoded)
        elif run.startswith(UNRECEIVED):
            for rank in ranks or ():
                self._put(run, rank, self._codec.encode(self._left.get(rank, [])))

    def all_sent(self) -> bool:
        """See `Line.all_sent`."""
        return True

    def answer(self, tag: int | str) -> Message | None:
        """See `Line.answer`."""
        answers = self._answers.get(tag)
        return answers.popleft() if answers else None

    def count_unreceived(self, reports: Mapping[int, tuple[dict[int, int], int]]) -> dict[int, int]:
        """See `Job.count_unreceived`; the mailboxes themselves were looked at."""
        del reports
        return {rank: len(waiting) for rank, waiting in self._left.items()}

    def _submit(self, run: int, encoded: Encoded) -> None:
        """Take note of a run's number, and of what was packed for it."""
        raise NotImplementedError

    def _put(self, tag: int | str, rank: int, encoded: Encoded) -> None:
        self._answers[tag].append(Message(CONTROL, rank, tag, 0, *encoded))

    def wait_closed(self, deadline: Deadline, doing: str) -> None:
        """See `Job.wait_closed`."""

    def forget(self) -> None:
        """See `Job.forget`: the ranks' endpoints know of the fork themselves."""
