"""The thread that serves an endpoint's descriptors while no thread of the program does.

Layer: communicator; started only where peers are on other hosts: what ranks of one host send each other lies in memory
that needs no service, but what comes over a network has to be taken in, or its sender waits.

Whoever waits serves, as ever, so no message passes through a second thread on its way to who waits for it. The
attendant is in one of three states. It *watches* the poller's descriptor, with no limit of time, while nobody waits; a
caller who starts to wait sends it away. Then it *rests*, for milliseconds in which callers come and go without noticing
it. Where it finds one that waits when it comes back it *sleeps* until that one leaves. So an idle wait and a long
computation cost no wake-up, and a ping-pong some hundred a second.

Errands can be left to it, for which nobody else can be had: each is run, with the lock held, until it has done what it
is to do.

It is no guest and no waiter: it waits for nothing, so it neither looks like a rank that is blocked nor keeps the core's
short way closed.

Invariant: it moves messages only with the lock held, and while nobody waits in the room or naps.

A pool's desk hands over in a like manner, but it is not this: it has another lock and other descriptors, its thread
calls the user back, and what it takes over is looking in shared memory, which no descriptor shows.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from klyng_mp.communicator.room import EpollPoller, Gate

__all__ = ["Attendant"]

_REST = 0.008  # seconds: how late it may be where a caller stops waiting
_AGAIN = 0.05  # seconds until an errand that was in vain is run again
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}


class _Attended(Protocol):
    """The room, as its attendant sees it."""

    lock: Gate
    poller: EpollPoller

    @property
    def guests(self) -> Sized: ...

    @property
    def turn(self) -> int: ...

    @property
    def is_used(self) -> bool: ...

    def progress(self) -> None: ...

    def spoil(self) -> None: ...

    def part(self) -> None: ...


class Attendant:
    """One thread for one room.

    Args:
        room: what it serves.

    Attributes:
        is_watching: it serves, or is about to; `send_away` before waiting.
        wants_call: it sleeps until somebody who waited calls it.
    """

    def __init__(self, room: _Attended) -> None:
        self._room = room
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopped = False
        self._errands: list[Callable[[], bool]] = []
        self.is_watching = self.wants_call = False
        self._thread = threading.Thread(target=self._serve, name="klyng_mp attendant", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send_away(self) -> None:
        """Let it serve no more for a while, because somebody else does; needs the lock."""
        self.is_watching = False
        self._ring()

    def call(self) -> None:
        """Let it come back after a while, because nobody waits any more. Who is interrupted may call again."""
        self._ring()
        self.wants_call = False

    def send(self, errand: Callable[[], bool]) -> None:
        """Have an errand run soon, with the lock held, and from time to time until it returns True; needs the lock."""
        self._errands.append(errand)
        self._ring()

    def stop(self) -> None:
        """Let the thread end soon; needs the lock. What is left of its errands is not done."""
        self._stopped = True
        self._ring()

    def join(self) -> None:
        """Wait until the thread has ended; not with the lock held."""
        self._thread.join()

    def abandon(self) -> None:
        """In a forked child, where there is no such thread: close its descriptor."""
        self._stopped = True
        self._close()

    # -- inside

    def _ring(self) -> None:
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)

    def _close(self) -> None:
        if self._bell >= 0:
            bell, self._bell = self._bell, -1
            os.close(bell)

    def _serve(self) -> None:
        # Signals are for the main thread, which they interrupt in what it waits for; faults are the thread's own.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
        room = self._room
        try:
            self._take_turns()
        except BaseException:
            with room.lock:
                room.spoil()
            raise
        finally:
            with room.lock:
                self.is_watching = self.wants_call = False
                self._close()
                room.part()

    def _take_turns(self) -> None:
        bell = select.poll()
        bell.register(self._bell, select.POLLIN)
        both = select.poll()
        both.register(self._bell, select.POLLIN)
        both.register(self._room.poller.fileno(), select.POLLIN)
        while not self._stopped:
            if self._is_needed():
                self._watch(both, bell)
            else:
                bell.poll(self._patience())
                self._silence()
            self._run_errands()
            if not self._stopped:
                bell.poll(_REST * 1000)

    def _is_needed(self) -> bool:
        """Decide whether to watch or to sleep."""
        # First to say it and then to look: who leaves, or begins to nap, first does so and then looks here. So one of
        # the two sees the other, also where the lock is not held.
        with self._room.lock:
            self.is_watching = self.wants_call = True
            if self._room.is_used:
                self.is_watching = False
            else:
                self.wants_call = False
            return self.is_watching

    def _watch(self, both: select.poll, bell: select.poll) -> None:
        """Serve until somebody sends it away, or it has an errand."""
        room = self._room
        while True:
            shown = [fd for fd, _ in both.poll(self._patience())]
            if self._bell in shown or not shown:
                self._silence()
                return
            if room.guests and self._leave_it_to_guests(bell):
                continue
            with room.lock:
                if not self.is_watching or self._stopped:
                    continue  # the bell has been rung
                room.progress()

    def _leave_it_to_guests(self, bell: select.poll) -> bool:
        """Let event loops move what has come; return whether one did, or the bell rings: else their tasks compute."""
        turn = self._room.turn
        return bool(bell.poll(_REST * 1000)) or self._room.turn != turn

    def _patience(self) -> float | None:
        """Return for how many milliseconds it may sleep."""
        return _AGAIN * 1000 if self._errands else None

    def _run_errands(self) -> None:
        if self._errands:
            with self._room.lock:
                self._errands = [errand for errand in self._errands if not errand()]

    def _silence(self) -> None:
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:  # somebody who left at the same time
            return
