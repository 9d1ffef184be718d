"""One function in every rank of a World: its results, or the first thing that went wrong.

Layer: beside world, below it; a Run is made by ``World.start``.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import Deadline
from klyng_mp.errors import (
    CodecError,
    DeadlockError,
    LaunchError,
    RankDiedError,
    RankFailedError,
    RunCancelledError,
    UnreceivedMessagesWarning,
    WorldError,
)
from klyng_mp.launch.balance import describe_unreceived
from klyng_mp.launch.control import GRACE_SECONDS, INTERRUPT_GRACE_SECONDS, LOG, UNRECEIVED

if TYPE_CHECKING:
    from klyng_mp.launch.control import Cause
    from klyng_mp.launch.driver import Job
    from klyng_mp.wire.codec import Codec
    from klyng_mp.wire.frames import Message

__all__ = ["Run"]

_FOREVER = Deadline(None)


class Run:
    """A function that runs in every rank of a World; made by ``World.start``.

    Threads: any may ask; one at a time may wait.

    Attributes:
        number: counts the runs of the World's present ranks, from 1.
        collected: whether somebody has been given its results, or its error.
    """

    def __init__(self, job: Job, codec: Codec, number: int) -> None:
        self.number = number
        self._job = job
        self._codec = codec
        self._outcomes: dict[int, tuple[Any, ...]] = {}
        self._good = 0
        self._results: list[Any] | None = None
        self._error: BaseException | None = None
        self.collected = False
        self._concluding = threading.RLock()

    def submit(self, encoded: tuple[int, bytes, list[Any]]) -> None:
        """Send the function to every rank and wait until it is on its way, since nobody may wait for the result soon.

        All of them get it or, after an interruption, none keeps it.
        """
        job = self._job
        try:
            job.submit(self.number, encoded)
            job.wait(lambda: job.all_sent() or self.number in job.settled, _FOREVER, "starting a run")
        except BaseException:
            self.interrupt()
            raise

    def done(self) -> bool:
        """Tell whether the results, or the error, are there; never waits."""
        if not self.finished:
            with self._job.endpoint.lock:
                self._job.endpoint.progress()
                over = self._over()
            if over:
                self._conclude(_FOREVER)
        return self.finished

    def result(self, timeout: float | None = None) -> list[Any]:
        """Wait for the function to return in every rank; return the results by rank.

        Args:
            timeout: seconds to wait.

        Raises:
            DeadlineError: it had not returned everywhere in time. The run goes on: ask again, or ``cancel()``.
            RunCancelledError: it was cancelled.
            Exception: as in ``World.run``.
        """
        if not self.finished:
            deadline = Deadline(timeout)
            try:
                self._job.wait(self._over, deadline, f"run {self.number} of the World")
                self._conclude(deadline)
            except KeyboardInterrupt as error:
                self.interrupt()
                raise error from None
        self.collected = True
        if self._error is not None:
            raise self._error
        assert self._results is not None  # noqa: S101 - finished means one of the two
        return self._results

    def cancel(self) -> bool:
        """End the run: what blocks its ranks raises, and who has not left it after a grace time is replaced.

        Returns:
            Whether it was cancelled; False if it had come to its end before.
        """
        if self.done():
            return False
        self.collected = True
        self._end("cancelled", "was cancelled", grace=GRACE_SECONDS)
        self._error = RunCancelledError("the run was cancelled")
        return True

    def abandon(self, why: str) -> None:
        """Give the run up because its ranks are ended with it."""
        if not self.finished:
            self._error = RunCancelledError(f"the run was ended: {why}")

    # Waiting

    @property
    def finished(self) -> bool:
        """Whether its results, or its error, are known."""
        return self._results is not None or self._error is not None

    def _over(self) -> bool:
        """Take what answers have come; tell whether no more are needed. Called while waiting, with its lock held."""
        if self.finished:
            return True
        while (message := self._job.answer(self.number)) is not None:
            outcome = self._decode(message.source, message)
            self._outcomes[message.source] = outcome
            self._good += outcome[0] == "ok"
        while (message := self._job.answer(LOG)) is not None:
            self._log(message)
        return self._good == self._job.spec.size or self.number in self._job.settled

    def _log(self, message: Message) -> None:
        from klyng_mp.launch.logs import handle_record  # noqa: PLC0415 - imports logging, which few programs need

        handle_record(self._codec.decode(message.code, message.head, message.buffers))

    def _decode(self, rank: int, message: Message) -> tuple[Any, ...]:
        try:
            outcome: tuple[Any, ...] = self._codec.decode(message.code, message.head, message.buffers)
        except CodecError as error:
            what = f"the result of rank {rank} cannot be rebuilt in the driver: {error}"
            wrapped = CodecError(what, path=error.path)
            wrapped.__cause__ = error
            return "ok", _Broken(wrapped), ({}, 0, False)
        return outcome

    def _conclude(self, deadline: Deadline) -> None:
        with self._concluding:
            if not self.finished:
                self._find_outcome(deadline)
        self._job.endpoint.progress()  # whoever else waits for it is woken

    def _find_outcome(self, deadline: Deadline) -> None:
        job = self._job
        cause = job.settled.get(self.number)
        if cause is not None:
            self._error = self._explain(cause)
            del job.settled[self.number]
        elif self._good < job.spec.size:
            self._error = job.lost or RunCancelledError("the World was closed before the run was over")
        else:
            self._await_output(deadline)
            self._take_results()
            self._report_unreceived()

    def _await_output(self, deadline: Deadline) -> None:
        job = self._job
        if not job.forwards_output and all(outcome[2][2] for outcome in self._outcomes.values()):
            job.over(self.number)
            return
        job.fence(self.number)
        job.wait(lambda: job.fenced >= self.number, deadline, f"the output of run {self.number}")

    def _take_results(self) -> None:
        values = [self._outcomes[rank][1] for rank in range(self._job.spec.size)]
        broken = next((value for value in values if isinstance(value, _Broken)), None)
        if broken is not None:
            self._error = broken.error
        else:
            self._results = values

    # Ending early

    def _end(self, wish: str, phrase: str, *, grace: float, signum: int | None = None) -> None:
        job = self._job
        job.end_run(self.number, wish, phrase, grace=grace, signum=signum)
        job.wait(lambda: self.number in job.settled, _FOREVER, "ending the run")
        job.settled.pop(self.number, None)

    def interrupt(self) -> None:
        """Pass a Ctrl-C on to the ranks, and see them out of the run; a second one is less patient."""
        phrase = "was interrupted by Ctrl-C"
        try:
            try:
                self._end("interrupted", phrase, grace=INTERRUPT_GRACE_SECONDS, signum=signal.SIGINT)
            except KeyboardInterrupt:
                self._end("interrupted", phrase, grace=0.0)
        except BaseException:  # noqa: BLE001 - the caller raises the KeyboardInterrupt that began it
            # It came between two bytes of a message, or a third time: nothing more is heard of these ranks.
            self._job.lost = WorldError("the World is lost: it was interrupted in the middle of a message")
        finally:
            self._error = RunCancelledError("the run was ended by Ctrl-C")

    def _explain(self, cause: Cause) -> BaseException:
        rank = cause.rank
        if cause.kind == "stillborn":
            return LaunchError(f"rank {rank} could not start: {cause.detail}\n{cause.text}".rstrip())
        if cause.kind == "deadlock":
            return DeadlockError(cause.text, cause.cycle)
        if rank is None:
            return cause.error or RunCancelledError(f"the run {cause.detail}")
        host = self._job.host_of(rank)
        if cause.kind == "failed":
            error: WorldError = RankFailedError(rank, host, cause.detail, cause.text)
            error.__cause__ = cause.error or self._original(rank)
            return error
        return RankDiedError(rank, host, cause.exitcode, cause.text)

    def _original(self, rank: int) -> BaseException | None:
        """Return the exception that a rank raised, or one that says why it is not to be had."""
        with self._job.endpoint.lock:
            self._over()
        outcome = self._outcomes.get(rank)
        if outcome is None or outcome[0] != "failed":
            return None
        packed = outcome[3]
        if packed is None:
            return CodecError("the exception itself could not be pickled; its traceback is in the message above")
        try:
            original = self._codec.decode(*packed)
        except CodecError as error:
            return error
        return original if isinstance(original, BaseException) else None

    # Reporting

    def _report_unreceived(self) -> None:
        """Warn of messages that nobody received: more were sent to a rank than it took."""
        reports = {rank: outcome[2][:2] for rank, outcome in self._outcomes.items()}
        for rank in self._job.count_unreceived(reports):
            self._job.submit(f"{UNRECEIVED} {self.number}", (0, b"", []), [rank])
            if waiting := self._ask_unreceived():
                sentence = describe_unreceived(rank, len(waiting), waiting[0])
                warnings.warn(sentence, UnreceivedMessagesWarning, stacklevel=_user_level())

    def _ask_unreceived(self) -> list[tuple[int, int | str]]:
        answers: list[Any] = []

        def answered() -> bool:
            if (message := self._job.answer(f"{UNRECEIVED} {self.number}")) is not None:
                answers.append(message)
            return bool(answers) or self.number + 1 in self._job.settled  # the rank has died since

        self._job.wait(answered, _FOREVER, "asking for unreceived messages")
        if not answers:
            return []
        waiting: list[tuple[int, int | str]] = self._codec.decode(answers[0].code, answers[0].head, answers[0].buffers)
        return waiting


class _Broken:
    """In the place of a result that could not be rebuilt."""

    def __init__(self, error: CodecError) -> None:
        self.error = error


def _user_level() -> int:
    """Return the stack level of the first frame that is not ours, so that a warning names the user's line."""
    folder = os.path.dirname(os.path.abspath(__file__))
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - what warnings itself uses
    while frame.f_back is not None and frame.f_code.co_filename.startswith(folder):
        level, frame = level + 1, frame.f_back
    return level
