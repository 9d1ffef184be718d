"""Every error that klyng_mp raises, in one tree.

Layer: leaf; imports nothing of klyng_mp.

The first word tells whose fault it is: *Local* or *Closed* is ours, *Remote* or *Lost* is the
other side's. Each error carries its data as attributes, makes its own sentence from them, and
survives pickling with both. Where a standard exception says the same thing, ours is also one of
those, so that existing ``except`` clauses keep working::

    KlyngError
    ├── ProtocolError                 (abstract)
    │   ├── LocalProtocolError        this program asked for something that cannot be
    │   └── RemoteProtocolError       the other side sent something that cannot be
    ├── CodecError                    an object cannot travel, or cannot be rebuilt (also PicklingError)
    │   ├── CodecTypeError            the same, and a TypeError, as plain pickle's would be
    │   └── CodecAttributeError       the same, and an AttributeError
    ├── TransportError
    │   ├── ClosedError               this side has closed it
    │   ├── PeerLostError             the other side is gone (also EOFError, BrokenPipeError)
    │   ├── ForkedError               a forked child used its parent's communicator
    │   └── MessageTooLargeError      a length beyond the limit of the wire
    ├── BrokenLockError               who held a lock was killed (also OSError)
    ├── NothingSharedError            no Pool shares anything with this process (also LookupError)
    ├── DeadlineError                 a ``timeout=`` ran out (also both TimeoutErrors)
    ├── MachinesError                 the machines file, or a list of hosts, cannot be used (also ValueError)
    ├── BeaconError                   a beacon cannot be reached, or does not do what it is asked for
    │   ├── AuthenticationError       it is not the one, or does not know us (also multiprocessing's)
    │   ├── BundleError               the program cannot travel, or does not fit there
    │   └── BeaconBusyError           a limit of it is reached
    └── WorldError
        ├── RankFailedError           a rank raised
        ├── RankDiedError             a rank's process ended without returning
        ├── WorkerDiedError           a Pool's worker ended while it was at a task
        ├── CollectiveMismatchError   ranks made different collective calls
        ├── DeadlockError             all ranks wait for each other
        ├── RunCancelledError         the run was cancelled
        ├── HostLostError             a host is gone, and its ranks with it
        ├── NotAcrossHostsError       it does not work between machines
        ├── LaunchError               ranks could not be brought to life
        ├── WorldBusyError            a run is going on, or processes hold places
        └── NoRankError               this process has no rank
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from typing import Any

__all__ = [
    "AuthenticationError",
    "BeaconBusyError",
    "BeaconError",
    "BrokenLockError",
    "BundleError",
    "ClosedError",
    "CodecAttributeError",
    "CodecError",
    "CodecTypeError",
    "CollectiveMismatchError",
    "DeadlineError",
    "DeadlockError",
    "ForkedError",
    "HostLostError",
    "KlyngError",
    "LaunchError",
    "LocalProtocolError",
    "MachinesError",
    "MachinesWarning",
    "MessageTooLargeError",
    "NoRankError",
    "NotAcrossHostsError",
    "NothingSharedError",
    "PeerLostError",
    "ProtocolError",
    "RankDiedError",
    "RankFailedError",
    "RemoteProtocolError",
    "RunCancelledError",
    "TransportError",
    "UnreceivedMessagesWarning",
    "WorkerDiedError",
    "WorldBusyError",
    "WorldError",
]


def _rebuild(cls: type[KlyngError], args: tuple[Any, ...], data: dict[str, Any]) -> KlyngError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(data)
    return error


class KlyngError(Exception):
    """Something went wrong in klyng_mp; the base of all its errors."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())

    def __str__(self) -> str:
        # OSError, a base of some of these, would show its errno instead of the sentence.
        return str(self.args[0]) if len(self.args) == 1 else str(self.args) if self.args else ""


class ProtocolError(KlyngError):
    """Two sides disagree about what may be sent; abstract: raised as Local… or Remote…."""

    def __init__(self, *args: object) -> None:
        if type(self) is ProtocolError:
            raise TypeError("ProtocolError is abstract: raise LocalProtocolError or RemoteProtocolError")
        super().__init__(*args)


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol cannot do."""


class RemoteProtocolError(ProtocolError):
    """The other side sent something that the protocol does not allow; the connection is closed."""


class CodecError(KlyngError, pickle.PicklingError, pickle.UnpicklingError):
    """An object cannot travel between processes, or what arrived cannot be rebuilt.

    Attributes:
        path: where in the object the culprit sits (``"job.config.logger._lock"``), or ``""``.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class CodecTypeError(CodecError, TypeError):
    """A `CodecError` where plain pickle says TypeError."""


class CodecAttributeError(CodecError, AttributeError):
    """A `CodecError` where plain pickle says AttributeError."""


class TransportError(KlyngError):
    """Messages cannot be moved."""


class ClosedError(TransportError):
    """This side has closed what it now tries to use; open a new one."""


class PeerLostError(TransportError, BrokenPipeError, EOFError):
    """The other side is gone, so what was waited for can never come.

    Attributes:
        rank: the rank that was lost, or ``None`` where it was none in particular.
        reason: what is known of its end, as a phrase ("was killed by SIGKILL").
    """

    def __init__(self, rank: int | None, reason: str, *, doing: str = "") -> None:
        who = "every other rank" if rank is None else f"rank {rank}"
        where = f"; this rank was in {doing}" if doing else ""
        super().__init__(f"{who} {reason}{where}")
        self.rank = rank
        self.reason = reason


class ForkedError(TransportError):
    """A communicator was used in a child that was forked from its rank.

    A message belongs to one process. Send from the rank itself, or start the child from a World.
    """


class MessageTooLargeError(TransportError):
    """A message or one of its parts is longer than the wire allows; nothing of it was sent.

    Attributes:
        size_bytes: the length that was asked for.
        limit_bytes: the largest that is allowed.
    """

    def __init__(self, size_bytes: int, limit_bytes: int, what: str = "message") -> None:
        super().__init__(f"a {what} of {size_bytes} bytes is over the limit of {limit_bytes}: send it in parts")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class BrokenLockError(KlyngError, OSError):
    """A process died while it held a lock, so what the lock guards may be half-written; make both anew.

    The lock stays as it is: every later ``acquire`` raises this, too. Of a semaphore it is raised only where no permit
    is to be had, and a process that was killed has one.

    Attributes:
        lock: which lock it is, as a phrase ("the Lock made at app.py:12").
        pid: the process that held it.
        rank: that process's rank, in a World with hosts, where its number is not known; else None.
        ended: the process was not killed: it ended by itself and had not released the lock. Then others may still
            release it, and only who would have waited for ever gets this error.
    """

    def __init__(self, lock: str, pid: int, ended: bool = False, rank: int | None = None) -> None:
        why = "ended without releasing it, and this wait would have no end" if ended else "died while holding it"
        what = "release it before a process ends" if ended else "what it guards may be half-written: make both anew"
        who = f"process {pid}" if rank is None else f"rank {rank}"
        super().__init__(f"{lock} is broken: {who} {why}; {what}")
        self.lock = lock
        self.pid = pid
        self.rank = rank
        self.ended = ended


class NothingSharedError(KlyngError, LookupError):
    """This process is no worker of a Pool that shares anything: give `shared=` to the Pool, and ask in its tasks."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args or ("nothing is shared here: only workers of a Pool(..., shared={...}) have it",))


class DeadlineError(KlyngError, multiprocessing.TimeoutError, TimeoutError):
    """A ``timeout=`` ran out before the call could finish.

    Attributes:
        seconds: the time that was allowed.
    """

    def __init__(self, doing: str, seconds: float, *, left: str = "") -> None:
        super().__init__(f"{doing} did not finish within {seconds:g} s" + (f"; {left}" if left else ""))
        self.seconds = seconds


class MachinesError(KlyngError, ValueError):
    """The machines file, or a list of hosts, cannot be used; correct what the message names."""


class BeaconError(KlyngError):
    """A beacon cannot be reached, or does not do what it is asked for; the message says what to do.

    Attributes:
        host: which, as the user wrote it.
    """

    def __init__(self, message: str, host: str = "") -> None:
        super().__init__(message)
        self.host = host


class AuthenticationError(BeaconError, multiprocessing.AuthenticationError):
    """A beacon is not the one that it should be, or does not know us; check the password or the pinned fingerprint."""


class BundleError(BeaconError):
    """The program cannot travel to a host, or does not fit there; install or list what the message names."""


class BeaconBusyError(BeaconError):
    """A limit of a beacon is reached; wait, ask for less, or have the limit raised in its beacon.toml."""


class WorldError(KlyngError):
    """A World, or a run in it, did not end well."""


class RankFailedError(WorldError):
    """A rank raised an exception; it is the ``__cause__`` of this error.

    Attributes:
        rank: the first rank that failed.
        host: the machine it ran on.
        traceback: the rank's own traceback, as text.
    """

    def __init__(self, rank: int, host: str, summary: str, traceback: str = "") -> None:
        text = f"rank {rank} on {host} failed: {summary}"
        super().__init__(f"{text}\n\n{traceback.rstrip()}" if traceback else text)
        self.rank = rank
        self.host = host
        self.summary = summary
        self.traceback = traceback


class RankDiedError(WorldError):
    """A rank's process ended without returning: a signal, ``os._exit``, or the kernel's OOM killer.

    Attributes:
        rank: the first rank that died.
        host: the machine it ran on.
        exitcode: as in multiprocessing: the code it exited with, or minus the signal's number.
        stderr: the last lines that it wrote to standard error.
    """

    def __init__(self, rank: int, host: str, exitcode: int, stderr: str = "") -> None:
        text = f"rank {rank} on {host} died: it {describe_exitcode(exitcode)}"
        super().__init__(f"{text}; its last words:\n{stderr.rstrip()}" if stderr.strip() else text)
        self.rank = rank
        self.host = host
        self.exitcode = exitcode
        self.stderr = stderr


class WorkerDiedError(WorldError):
    """A worker of a Pool died while it was at a task; its other tasks are done by others. See ``retries=``.

    Attributes:
        task: which task it was, as a phrase.
        index: its number within its call of a method.
        pid: the worker's.
        exitcode: as in multiprocessing: the code it exited with, or minus the signal's number.
        where: its rank and host, as a phrase, where its Pool is a World's with hosts.
        reason: why its host is lost, if it is.
    """

    def __init__(
        self, task: str, pid: int, exitcode: int, index: int = 0, *, where: str = "", reason: str = ""
    ) -> None:
        who = f"the worker with pid {pid}" + (f" ({where})" if where else "")
        super().__init__(f"{who} died at {task}: {reason or f'it {describe_exitcode(exitcode)}'}")
        self.where = where
        self.reason = reason
        self.task = task
        self.index = index
        self.pid = pid
        self.exitcode = exitcode


class CollectiveMismatchError(WorldError):
    """Ranks made different collective calls at the same point, or with different arguments; see to it that all agree.

    Attributes:
        rank: the other rank.
        calls: what this rank and the other one called, as text with the line of the user's file where it is known.
    """

    def __init__(self, rank: int, calls: tuple[str, str]) -> None:
        super().__init__(f"this rank called {calls[0]}, but rank {rank} called {calls[1]}: all ranks must agree")
        self.rank = rank
        self.calls = calls


class DeadlockError(WorldError):
    """All ranks wait, and nothing is on its way that could end it.

    Attributes:
        report: who waits for whom, in which call, since when, at which line; as text.
        cycle: the ranks that wait for each other, each for the next and the last for the first; empty where
            it is no cycle.
    """

    def __init__(self, report: str, cycle: tuple[int, ...] = ()) -> None:
        super().__init__(report)
        self.report = report
        self.cycle = cycle


class RunCancelledError(WorldError):
    """The run was ended by ``Run.cancel()`` or by closing its World before it had a result."""


class HostLostError(WorldError):
    """A host of a World is gone, and its ranks with it; the next run starts all ranks anew, once it is back.

    Attributes:
        host: which.
        ranks: those that were there.
        reason: what was seen of its end.
    """

    def __init__(self, host: str, ranks: list[int], reason: str) -> None:
        self.host = host
        self.ranks = ranks
        self.reason = reason
        which = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        super().__init__(f"the host {host}, with {which}, is lost: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.host, self.ranks, self.reason), self.__dict__


class NotAcrossHostsError(WorldError):
    """What was asked for does not work between machines; use a World of this machine for it, or `World.run`.

    Attributes:
        what: that was asked for.
        remedy: what to do instead.
    """

    def __init__(self, what: str, remedy: str = "run functions there (World.run), or leave hosts= out") -> None:
        super().__init__(f"{what} cannot be had across hosts: {remedy}")
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.remedy), self.__dict__


class LaunchError(WorldError):
    """Ranks could not be brought to life; none of them is left."""


class WorldBusyError(WorldError):
    """A World runs one thing at a time; wait for the Run that is going on, or for the processes that hold its places.

    Attributes:
        holders: the names of those processes, by rank; empty where it is a run.
    """

    def __init__(self, message: str, holders: dict[int, str] | None = None) -> None:
        super().__init__(message)
        self.holders = {} if holders is None else dict(holders)


class NoRankError(WorldError):
    """This process has no rank in the World it was started from."""


class MachinesWarning(RuntimeWarning):
    """Hosts can be used as they are given, but not well: others can read a password, or ranks have to share CPUs."""


class UnreceivedMessagesWarning(RuntimeWarning):
    """Messages were still waiting in a rank when the run ended."""


def describe_made(made: object) -> str:
    """Return what errors call a lock that is being made: its class, and the line of the program that makes it."""
    frame = sys._getframe(1)  # noqa: SLF001 - what warnings itself uses
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(("klyng_mp", "multiprocessing")):
        frame = frame.f_back
    return f"the {type(made).__name__} made at {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def describe_exitcode(exitcode: int) -> str:
    """Say what a process's exit code (as ``multiprocessing`` counts them) means, as a phrase."""
    if exitcode >= 0:
        return f"exited with code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = " (the kernel does that when memory runs out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
