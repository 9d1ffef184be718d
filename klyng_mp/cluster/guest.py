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
    from collections.abc import Iterable, Iterator
    from types import FrameType

__all__ = ["Guest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Terminated(BaseException):
    """SIGTERM, which would have ended a process that is none's host."""


class Guest:
    """One such process, in the main thread of its rank.

    Args:
        serial: its number in its World.
        early: signals that came before it.
    """

    def __init__(self, serial: int, early: Iterable[int] = ()) -> None:
        self.serial = serial
        self._lock = threading.Lock()
        self._early: list[int] | None = list(early)  # signals until it begins
        self._is_inside = False

    def signal(self, signum: int) -> None:
        """Send it a signal; for any thread. One that comes too late is lost."""
        with self._lock:
            if self._early is not None:
                self._early.append(signum)
            elif self._is_inside:
                signal.pthread_kill(threading.main_thread().ident or 0, signum)

    def live(self, process: Any) -> int:
        """Run a process object; return its exit code.

        What multiprocessing has a process do is done here, as in `multiprocessing.process.BaseProcess._bootstrap`, but
        for what would make this process useless after it.
        """
        code = 1
        with self._as_process(process):
            try:
                self._begin()
                self._run(process)
                code = 0
            except _Terminated:
                code = -signal.SIGTERM
            except SystemExit as error:
                code = exit_code_of(error)
            except BaseException:  # noqa: BLE001 - whatever it is, it ends the guest and not the rank
                import traceback  # noqa: PLC0415 - only who has an error needs it

                sys.stderr.write(f"Process {process.name}:\n{traceback.format_exc()}")
            finally:
                self._end()
            flush_streams()
        return code

    def _begin(self) -> None:
        with self._lock:
            early, self._early, self._is_inside = self._early, None, True
        for signum in early or ():
            signal.raise_signal(signum)

    def _end(self) -> None:
        """Let no signal come any more, and let those that have been sent come here, where they end nothing."""
        while self._is_inside:
            with suppress(KeyboardInterrupt, _Terminated):
                self._is_inside = False  # without the lock, which would stay taken where a signal comes just then
                signal.pthread_sigmask(signal.SIG_BLOCK, [])  # which calls the handlers of what has come

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
        signal.signal(signal.SIGTERM, self._terminate)
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

    def _terminate(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        if self._is_inside:
            raise _Terminated


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
