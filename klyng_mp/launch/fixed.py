"""Jobs whose ranks are all that there is: none is replaced, by a process or by another rank.

Layer: launch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.errors import LaunchError
from klyng_mp.launch.driver import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.launch.driver import Order

__all__ = ["FixedJob"]


class FixedJob(Job):
    """A job whose ranks stay; see `Job`.

    Attributes:
        refusal: why no process can be started, and what to do, where none can.
    """

    refusal = ""

    def start_process(self, order: Order, task: int, exit_pipe: int, fds: Sequence[int]) -> tuple[int, int, int | None]:
        """See `Job.start_process`: it cannot be."""
        del task, exit_pipe, fds
        raise LaunchError(f"{order.name} cannot be started: {self.refusal}")

    def signal_process(self, serial: int, signum: int) -> None:
        """See `Job.signal_process`: there are none."""

    def refill(self, run: int, *, renew: bool) -> None:
        """See `Job.refill`: no place was ever another's."""

    def flush(self) -> None:
        """See `Job.flush`: there are no processes that could have printed."""

    def fence(self, run: int) -> None:
        """See `Job.fence`: nothing is known of what is printed but that it is on its way."""
        self.fenced = run

    def over(self, run: int) -> None:
        """See `Job.over`."""
