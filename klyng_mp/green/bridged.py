"""The job of a World with many green ranks in each of several processes.

Layer: green. The processes are the ranks of a World of their own, which is given by who knows what Worlds are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.errors import DeadlineError, DeadlockError, RankFailedError
from klyng_mp.green.bridge import GreenFailed, Task, perform
from klyng_mp.green.processless import Processless
from klyng_mp.launch.control import Cause

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.deadline import Deadline
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.launch.state import RankState
    from klyng_mp.wire.codec import Codec, Encoded

__all__ = ["BridgedJob", "Processes"]


class Processes(Protocol):
    """The World whose ranks are the processes."""

    def start(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Begin a run."""

    def report(self, timeout: float | None = None) -> str:
        """Return what each process does."""

    def close(self) -> None:
        """Let them end."""

    def terminate(self) -> None:
        """End them."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until they have ended."""


class BridgedJob(Processless):
    """Green ranks in processes; see `Job`.

    Args:
        spec: what the green ranks are to be.
        processes: the processes.
        share: how many green ranks each has.
        schedule: see `Scheduler`; each process adds its own number.
        label: whether lines of output begin with their rank.
    """

    def __init__(
        self, spec: RankSpec, processes: Processes, share: int, *, schedule: int | None, label: bool, by_reference: bool
    ) -> None:
        super().__init__(spec, by_reference=by_reference)
        self._processes = processes
        self._share = share
        self._schedule = schedule
        self._label = label
        self._by_reference = by_reference
        self._run = 0
        self._inner: Any = None
        self._failed = -1, ""  # the rank that failed last, and its host

    def host_of(self, rank: int) -> str:
        """See `Line.host_of`; it is known of the rank that failed last."""
        return self._failed[1] if rank == self._failed[0] else super().host_of(rank)

    def pack_run(
        self, codec: Codec, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Encoded:
        """See `Job.pack_run`: the processes' own World packs it, and they begin."""
        del codec
        task = Task(
            self._run + 1, self.spec.size, self._share, self._schedule, self.spec.seed, self._label, self._by_reference
        )
        self._answers.clear()
        self._left = {}
        self._inner = self._processes.start(perform, task, func, args, kwargs)
        return 0, b"", []

    def _submit(self, run: int, encoded: Encoded) -> None:
        del encoded  # the processes have begun
        self._run = run

    def wait(self, ready: Callable[[], bool], deadline: Deadline, doing: str) -> None:
        """See `Line.wait`."""
        while not (ready() or self.lost is not None or self.closed):
            try:
                shares = self._inner.result(deadline.left())
            except DeadlineError:
                if deadline.over():
                    raise deadline.error(doing) from None
            except (RankFailedError, DeadlockError) as error:
                self.settled[self._run] = self._cause_of(error)
            except Exception as error:  # noqa: BLE001 - whatever ended the processes, ended this
                cause = Cause("passed on", None, str(error))
                cause.error = error
                self.settled[self._run] = cause
            else:
                for outcomes, left in shares:
                    self._left.update(left)
                    for rank, encoded in outcomes:
                        self._put(self._run, rank, encoded)

    def _cause_of(self, error: RankFailedError | DeadlockError) -> Cause:
        if isinstance(error, DeadlockError):
            return Cause("deadlock", None, "", error.report)
        failed = error.__cause__
        if not isinstance(failed, GreenFailed):
            cause = Cause("passed on", None, str(error))
            cause.error = error
            return cause
        self._failed = failed.rank, failed.host
        cause = Cause("failed", failed.rank, failed.summary, failed.text)
        if failed.packed is not None:
            cause.error = self._codec.decode(*failed.packed)
        return cause

    def end_run(self, run: int, wish: str, phrase: str, *, grace: float, signum: int | None = None) -> None:
        """See `Job.end_run`."""
        del grace, signum
        if self._inner is not None and not self._inner.finished:
            self._inner.cancel()
        self.settled[run] = Cause(wish, None, phrase)

    def report(self, deadline: Deadline) -> list[RankState]:
        """See `Job.report`: nothing is known of single ranks."""
        del deadline
        return []

    def render(self, deadline: Deadline) -> str:
        """See `Job.render`: the calls of the processes say what some of their ranks wait for."""
        return self._processes.report(deadline.left())

    def close(self) -> None:
        """See `Job.close`."""
        self._processes.close()

    def kill(self) -> None:
        """See `Job.kill`."""
        self._processes.terminate()
        self.closed = True

    def wait_closed(self, deadline: Deadline, doing: str) -> None:
        """See `Job.wait_closed`."""
        del doing
        if not self.closed:
            self._processes.join(deadline.left())
            self.closed = True

    def dispose(self) -> None:
        """See `Job.dispose`."""
        self._processes.terminate()
        self.endpoint.close()
