"""What a job has for processes, where its ranks are none.

Layer: green.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.errors import LaunchError
from klyng_mp.launch.driver import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.deadline import Deadline
    from klyng_mp.launch.driver import Order

__all__ = ["Processless"]

_NO_PROCESS = (
    "a World of green ranks starts no processes, as its ranks are none: take Process and Pool of klyng_mp itself, or "
    "of a World without green="
)


class Processless(Job):
    """A job without processes that could be started or signalled."""

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
