"""The job of a World whose ranks are greenlets of this process.

Layer: green. A run goes on while somebody waits for it: the ranks run in the thread, and the time, of ``Run.result``.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from klyng_mp.errors import WorldError
from klyng_mp.green.play import Play, rank_here
from klyng_mp.green.processless import Processless
from klyng_mp.launch.control import GRACE_SECONDS, Cause
from klyng_mp.launch.hangs import render_report
from klyng_mp.launch.job import JOBS
from klyng_mp.launch.labels import labelled
from klyng_mp.launch.surroundings import seed_random_numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.deadline import Deadline
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.launch.state import RankState
    from klyng_mp.wire.codec import Codec, Encoded

__all__ = ["GreenJob"]


class GreenJob(Processless):
    """Ranks that take turns in this process; see `Job`.

    Args:
        spec: what the ranks are to be.
        schedule: a seed, by which the next rank is chosen wherever several can run; None: in order.
        label: whether lines of output begin with their rank.
    """

    def __init__(self, spec: RankSpec, *, schedule: int | None = None, label: bool = False) -> None:
        super().__init__(spec, by_reference=True)
        self._labels = spec.host if label else None
        self._schedule = schedule
        self._func: Callable[..., Any] | None = None
        self._play: Play | None = None
        self._work: tuple[Callable[..., Any], Encoded] | None = None
        self._begun = False
        self._thread = 0
        JOBS.add(self)

    # -- runs

    def pack_run(
        self, codec: Codec, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Encoded:
        """See `Job.pack_run`; the function stays here as it is, so that a debugger knows it."""
        self._func = func
        return codec.encode((args, kwargs), names=("args", "kwargs"))

    def _submit(self, run: int, encoded: Encoded) -> None:
        assert self._func is not None  # noqa: S101 - it was packed
        self._answers.clear()
        self._play = Play(run, self.spec.size, range(self.spec.size), self._codec, self._schedule)
        self._work = self._func, encoded
        self._begun = False

    def wait(self, ready: Callable[[], bool], deadline: Deadline, doing: str) -> None:
        """See `Line.wait`; the ranks run meanwhile.

        Raises:
            WorldError: they have begun in another thread, in which alone they can go on.
        """
        play = self._play
        with labelled(self._labels, rank_here):
            while not (ready() or self.lost is not None or self.closed):
                if play is None or play is not self._play:
                    raise WorldError(f"{doing} would wait for ever: no ranks run here")
                self._begin(play)
                in_time = play.drive(ready, deadline)
                play.pass_interrupt_on()
                if play.cause is not None:
                    self._settle(play, play.cause, GRACE_SECONDS)
                elif not in_time:
                    raise deadline.error(doing)
                elif play.is_over:
                    self._hand_over(play)

    def _begin(self, play: Play) -> None:
        if not self._begun:
            self._begun = True
            self._thread = threading.get_ident()
            if self.spec.seed is not None:
                seed_random_numbers(self.spec.seed, play.run, 0)
            assert self._work is not None  # noqa: S101 - it was submitted
            play.begin(*self._work)
        elif self._thread != threading.get_ident():
            raise WorldError("green ranks go on only in the thread in which they began: wait for their run there")

    def _hand_over(self, play: Play) -> None:
        """Answer for all ranks, now that all have ended and it is known what they have left."""
        self._left = {rank: play.unreceived(rank) for rank in play.leavers()}
        for rank, encoded in play.outcomes.items():
            self._put(play.run, rank, encoded)
        self._play = None  # and with it what ten thousand ranks have had

    def _settle(self, play: Play, cause: Cause, grace: float) -> None:
        play.see_out(cause.phrase(), cause.rank, grace)
        self.settled[play.run] = cause
        self._play = self._work = None

    def end_run(self, run: int, wish: str, phrase: str, *, grace: float, signum: int | None = None) -> None:
        """See `Job.end_run`."""
        del signum  # its ranks are in the thread that was interrupted
        play = self._play
        if run in self.settled:
            return
        if play is None or play.run != run:  # its ranks have ended
            self.settled[run] = Cause(wish, None, phrase)
            return
        if self._begun and self._thread != threading.get_ident():
            raise WorldError("green ranks can be ended only in the thread in which they began")
        self._settle(play, Cause(wish, None, phrase), grace)

    # -- the rest of a job

    def report(self, deadline: Deadline) -> list[RankState]:
        """See `Job.report`."""
        del deadline
        return [] if self._play is None or not self._begun else self._play.states()

    def show_report(self) -> None:
        """See `Job.show_report`."""
        if self._play is not None and self._begun:
            sys.stderr.write(render_report(self._play.states()) + "\n")

    def close(self) -> None:
        """See `Job.close`."""
        self.closed = True

    def kill(self) -> None:
        """See `Job.kill`."""
        play = self._play
        if play is not None and self._begun and play.run not in self.settled and self._thread == threading.get_ident():
            play.see_out("was ended with its World", None, 0.0)
        self.closed = True

    def dispose(self) -> None:
        """See `Job.dispose`."""
        JOBS.discard(self)
        self.endpoint.close()
