"""What jobs of green ranks have in common: their answers lie in this process, and nothing of them is a process.

Layer: green.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

from klyng_mp.errors import LaunchError
from klyng_mp.launch.control import UNRECEIVED
from klyng_mp.launch.driver import Job
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import CONTROL, Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from klyng_mp.deadline import Deadline
    from klyng_mp.launch.driver import Order
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.wire.codec import Encoded

__all__ = ["Processless"]

_NO_PROCESS = (
    "a World of green ranks starts no processes, as its ranks are none: take Process and Pool of klyng_mp itself, or "
    "of a World without green="
)


class Processless(Job):
    """A job without processes that could be started or signalled.

    Args:
        spec: what the ranks are to be.
        by_reference: whether the ranks know the driver's ``__main__`` as their own.
    """

    is_here = True

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

    def fence(self, run: int) -> None:
        """See `Job.fence`: what was printed is written."""
        self.fenced = run

    def over(self, run: int) -> None:
        """See `Job.over`."""

    def start_process(self, order: Order, task: int, exit_pipe: int, fds: Sequence[int]) -> tuple[int, int, int | None]:
        """See `Job.start_process`: it cannot be."""
        del task, exit_pipe, fds
        raise LaunchError(f"{order.name} cannot be started: {_NO_PROCESS}")

    def signal_process(self, serial: int, signum: int) -> None:
        """See `Job.signal_process`: there are none."""

    def refill(self, run: int, *, renew: bool) -> None:
        """See `Job.refill`: ranks are made anew for each run."""

    def flush(self) -> None:
        """See `Job.flush`."""

    def wait_closed(self, deadline: Deadline, doing: str) -> None:
        """See `Job.wait_closed`."""

    def forget(self) -> None:
        """See `Job.forget`: the ranks' endpoints know of the fork themselves."""
