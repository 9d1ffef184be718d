"""A process that was started from a World on MPI: a *guest* in the rank of its place, whose process goes on after it.

Layer: cluster. MPI does not go on without one of its ranks, so none is replaced: the target of the process object runs
in the rank, in its main thread, and all that it started has ended when it has. To the program it is a process with its
own name, exit code and children; what it has imported, and its globals, stay.
"""

from __future__ import annotations

import multiprocessing.process as standard
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from multiprocessing import util
from typing import TYPE_CHECKING, Any

from klyng_mp.launch.shell import exit_code_of
from klyng_mp.launch.surroundings import flush_streams
from klyng_mp.process import START_METHOD, active_children

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from klyng_mp.communicator.room import Room

__all__ = ["Guest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Terminated(BaseException):
    """SIGTERM, which would have ended a process that is none's host."""


class Guest:
    """One such process, in the main thread of its rank.

    A signal must strike where it ends nothing but the guest, which is wherever no messages are being moved. So it is
    sent by the endpoint's attendant, while that holds the lock of all that moves them, and one that finds the lock
    taken all the same does nothing: until it has struck, the attendant sends it again.

    Args:
        serial: its number in its World.
        room: of the rank's endpoint, which is attended.
    """

    def __init__(self, serial: int, room: Room) -> None:
        self.serial = serial
        self._room = room
        self._pid = os.getpid()
        self._signals: list[int] = []  # that have not struck yet, oldest first
        self._is_inside = False

    def signal(self, signum: int) -> None:
        """Send it a signal, which waits until it begins; needs the endpoint's lock. One that comes too late is lost."""
        self._signals.append(signum)
        if self._is_inside and len(self._signals) == 1:
            self._room.leave_to_attendant(self._knock)

    def live(self, process: Any) -> int:
        """Run a process object; return its exit code.

        What multiprocessing has a process do is done here, as in `multiprocessing.process.BaseProcess._bootstrap`, but
        for what would make this process useless after it.
        """
        error: BaseException | None = None
        with self._as_process(process):
            try:
                self._begin()
                self._run(process)
            except BaseException as raised:  # noqa: BLE001 - whatever it is, it ends the guest and not the rank
                error = raised
            finally:
                self._is_inside = False  # at once, so that no second signal strikes where nobody would catch it
            self._end()
            code = _explain(process, error)
            flush_streams()
        return code

    def _begin(self) -> None:
        with self._room.lock:
            self._is_inside = True
            if self._signals:
                self._room.leave_to_attendant(self._knock)

    def _end(self) -> None:
        """Let all signals that have been sent come here, where they end nothing: also where handlers are its own."""
        while True:
            with suppress(BaseException):
                for number in _SIGNALS:
                    signal.signal(number, self._strike)
                with self._room.lock:  # when the attendant has it no more, it has sent what it was about to send
                    self._signals.clear()
                signal.pthread_sigmask(signal.SIG_BLOCK, [])  # which calls the handlers of what has come
                return

    def _knock(self) -> bool:
        """Send the main thread its next signal; return whether there is none."""
        if not (self._is_inside and self._signals):
            return True
        number = self._signals[0]
        if signal.getsignal(number) != self._strike:  # nobody is going to tell whether it has struck
            self._signals.pop(0)
        signal.pthread_kill(threading.main_thread().ident or 0, number)
        return not self._signals

    def _strike(self, signum: int, frame: FrameType | None) -> None:
        if not self._is_inside:
            return
        if os.getpid() != self._pid:  # a forked child is a process like any other
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
            signal.raise_signal(signum)
            return
        if self._room.lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition does
            if signum not in self._signals:  # it came from elsewhere
                self.signal(signum)
            return
        if signum in self._signals:
            self._signals.remove(signum)
        if signum == signal.SIGTERM:
            raise _Terminated
        signal.default_int_handler(signum, frame)

    @staticmethod
    def _run(process: Any) -> None:
        children, threads = set(active_children()), set(threading.enumerate())
        waits = True
        try:
            process.run()
        except _Terminated:
            waits = False
            raise
        finally:
            _see_out(children, threads, waits=waits)

    @contextmanager
    def _as_process(self, process: Any) -> Iterator[None]:
        """Let this process be that one: what belongs to a process is as it was when it has ended."""
        module: Any = standard
        environment, folder, method = dict(os.environ), os.getcwd(), START_METHOD.name
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        former = module._current_process, module._parent_process  # noqa: SLF001 - where multiprocessing keeps them
        ends = os.pipe()  # the parent lives as long as the rank: without it, that ends
        module._current_process = process  # noqa: SLF001
        module._parent_process = module._ParentProcess(process._parent_name, process._parent_pid, ends[0])  # noqa: SLF001
        for number in _SIGNALS:
            signal.signal(number, self._strike)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)
            module._current_process, module._parent_process = former  # noqa: SLF001
            for end in ends:
                os.close(end)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(folder)
            START_METHOD.name = method


def _explain(process: Any, error: BaseException | None) -> int:
    """Return the exit code of a process that ended so; say why, where that is not said by the code."""
    if error is None:
        return 0
    if isinstance(error, _Terminated):
        return -signal.SIGTERM
    if isinstance(error, SystemExit):
        return exit_code_of(error)
    import traceback  # noqa: PLC0415 - only who has an error needs it

    sys.stderr.write(f"Process {process.name}:\n{''.join(traceback.format_exception(error))}")
    return 1


def _see_out(children: set[Any], threads: set[threading.Thread], *, waits: bool) -> None:
    """Let all end that a process has started, and not those who were there; `waits` for who is no daemon."""
    util._run_finalizers(0)  # type: ignore[attr-defined]  # noqa: SLF001 - as at the end of any process
    for child in set(active_children()) - children:
        if child.daemon:
            child.terminate()
        if child.daemon or waits:
            child.join()
    util._run_finalizers()  # type: ignore[attr-defined]  # noqa: SLF001
    for thread in set(threading.enumerate()) - threads if waits else ():
        if not thread.daemon:
            thread.join()
