"""The processes that were started from a World on several hosts, as its driver keeps account of them.

Layer: remote. Each has a serial number in the job, and here the writing end of the pipe that its process object waits
at: the exit code goes there when its host has told it, or the end comes without a word when its host is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.launch.exitpipe import ExitPipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from klyng_mp.remote.site import Site

__all__ = ["Arrivals", "StartedProcesses"]


_MOST_LEFT = 1024  # processes whose estate is kept for who may ask


class _Started:
    __slots__ = ("exit_pipe", "has_ended", "pid", "rank", "site", "taken", "wrong")

    def __init__(self, site: Site, rank: int, exit_pipe: int) -> None:
        self.site = site
        self.rank = rank
        self.exit_pipe = ExitPipe(exit_pipe)
        self.pid: int | None = None  # 0: it could not be started
        self.wrong = ""
        self.taken = False  # whether who has started it knows what came of that
        self.has_ended = False


class StartedProcesses:
    """Those of one job; its methods are called with the lock of the driver's endpoint held."""

    def __init__(self) -> None:
        self._serial = 0
        self._started: dict[int, _Started] = {}
        self._awaited: set[int] = set()  # places whose occupant gives way to a process
        self._steps: dict[int, list[Callable[[], None]]] = {}  # what is done when a process has come, by rank
        self._left: dict[int, bytes] = {}
        self._questions: dict[int, set[int]] = {}  # first ranks of hosts that have not answered, by question

    def expect(self, site: Site, rank: int, exit_pipe: int) -> int:
        """Return the serial number of a process that is about to be started; owns the pipe's end from now on."""
        self._serial += 1
        self._started[self._serial] = _Started(site, rank, exit_pipe)
        self._awaited.add(rank)
        return self._serial

    def launched(self, site: Site, serial: int, pid: int, wrong: str) -> None:
        """A process lives, or cannot: then the number is 0."""
        process = self._started.get(serial)
        if process is not None and process.site is site:
            process.pid, process.wrong = pid, wrong
            if not pid:
                self._awaited.discard(process.rank)

    def is_known(self, serial: int) -> bool:
        """Whether it is known what came of a start."""
        return self._started[serial].pid is not None

    def take(self, serial: int) -> tuple[int, str]:
        """Return a process' number, for who has started it; or 0, and why there is none, and forget it."""
        process = self._started[serial]
        process.taken = True
        if not process.pid:
            self._end(serial, None)
        elif process.has_ended:
            del self._started[serial]
        return process.pid or 0, process.wrong

    def arrived(self, rank: int) -> None:
        """A process has come to its place."""
        self._awaited.discard(rank)
        for step in self._steps.pop(rank, ()):
            step()

    def when_arrived(self, rank: int, step: Callable[[], None]) -> None:
        """Do something as soon as the process of a place has come there; not if it never does."""
        if rank in self._awaited:
            self._steps.setdefault(rank, []).append(step)
        else:
            step()

    def is_awaited(self, rank: int) -> bool:
        """Whether the place's occupant gives way to a process that has not come yet."""
        return rank in self._awaited

    def has(self, rank: int) -> bool:
        """Whether a process holds the place, or just has."""
        holders = (one for one in self._started.values() if not one.has_ended)
        return rank not in self._awaited and any(one.rank == rank for one in holders)

    def exited(self, site: Site, serial: int, exitcode: int) -> None:
        """A process has ended, and all that it printed was written."""
        process = self._started.get(serial)
        if process is not None and process.site is site:
            self._end(serial, exitcode)

    def _end(self, serial: int, exitcode: int | None) -> None:
        process = self._started[serial]
        process.has_ended = True
        self._give_up(process)
        process.exit_pipe.tell(exitcode)
        if process.taken:
            del self._started[serial]

    def _give_up(self, process: _Started) -> None:
        """Expect a process no more, that may not have come yet."""
        if process.rank in self._awaited:
            self._awaited.discard(process.rank)
            self._steps.pop(process.rank, None)

    def left(self, site: Site, serial: int, data: bytes) -> None:
        """A process has ended, and has left this for whoever started it."""
        process = self._started.get(serial)
        if process is not None and process.site is site:
            if len(self._left) >= _MOST_LEFT:  # the oldest is for nobody
                del self._left[next(iter(self._left))]
            self._left[serial] = data

    def take_left(self, serial: int) -> bytes:
        """Return what a process that has ended has left, once."""
        return self._left.pop(serial, b"")

    def sites_of(self, serial: int) -> Iterable[Site]:
        """Return the host of a process, if that is not known to have ended."""
        process = self._started.get(serial)
        return () if process is None else (process.site,)

    def lose(self, site: Site, why: str) -> None:
        """A host is lost, and its processes with it."""
        for serial, process in list(self._started.items()):
            if process.site is site:
                if process.pid is None:
                    process.pid, process.wrong = 0, why
                self._end(serial, None)
        for waiting in self._questions.values():
            waiting.discard(site.share.start)

    def lose_all(self, why: str) -> None:
        """All hosts are lost, or given up."""
        for site in {process.site for process in self._started.values()}:
            self.lose(site, why)
        self._questions.clear()

    # Questions

    def ask(self, sites: Iterable[Site]) -> int:
        """Return the number of a question to these hosts."""
        self._serial += 1
        self._questions[self._serial] = {site.share.start for site in sites}
        return self._serial

    def refilled(self, site: Site, question: int) -> None:
        """A host has answered."""
        if question in self._questions:
            self._questions[question].discard(site.share.start)

    def is_answered(self, question: int) -> bool:
        """Whether all hosts have answered that are not lost."""
        return not self._questions.get(question)


class Arrivals:
    """Who has come to which place since ranks had them all, for a supervisor that was not there to hear of it."""

    def __init__(self) -> None:
        self._come: dict[int, tuple[int, int]] = {}  # incarnation and run of the last one, by rank
        self._ends: dict[int, tuple[int, str, bool]] = {}  # its incarnation, what became of it, whether orderly

    def arrived(self, rank: int, incarnation: int, run: int) -> None:
        """A process has come to a place."""
        self._come[rank] = incarnation, run
        self._ends.pop(rank, None)

    def parted(self, rank: int, incarnation: int, what: str, *, orderly: bool) -> None:
        """The occupant of a place has ended."""
        if self._come.get(rank, (None,))[0] == incarnation:
            self._ends[rank] = incarnation, what, orderly

    def forget(self, ranks: Iterable[int]) -> None:
        """What is to be told of these places is something else now, or nothing."""
        for rank in ranks:
            self._come.pop(rank, None)
            self._ends.pop(rank, None)

    def records(self) -> list[tuple[Any, ...]]:
        """Return what a supervisor is to be told."""
        come: list[tuple[Any, ...]] = [("come", rank, *who) for rank, who in self._come.items()]
        return come + [("gone", rank, *end) for rank, end in self._ends.items()]
