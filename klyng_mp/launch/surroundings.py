"""Turns a freshly made process into a rank's: descriptors, session, environment, streams, random numbers.

Layer: launch. Called once, first thing, in the process itself; a failure ends it with a sentence on stderr.
"""

from __future__ import annotations

import atexit
import io
import multiprocessing
import os
import pickle
import random
import resource
import signal
import socket
import sys
import threading
import weakref
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from klyng_mp.launch.channel import Channel
from klyng_mp.launch.stacks import prepare
from klyng_mp.leash import put_on_leash

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.spec import RankSpec

__all__ = [
    "NO_RANK",
    "BodyEnds",
    "Place",
    "Start",
    "adopt",
    "close_all_but",
    "cut_loose",
    "end_process",
    "flush_streams",
    "forget_parent",
    "give_up",
    "seed_random_numbers",
    "show_in_ps",
    "take_place",
]


NO_RANK = -1  # of a started process that found no place free


class BodyEnds(NamedTuple):
    """The descriptors that a process starts with that is to be a rank.

    Attributes:
        channel: to the supervisor (seqpacket).
        leash: a pipe whose other end only the supervisor holds: its end is the end of the rank.
        stdout, stderr: what it prints.
    """

    channel: int
    leash: int
    stdout: int
    stderr: int


class Start(NamedTuple):
    """What a process is told that was started to do one thing.

    Attributes:
        serial: counts the processes that were started from this World.
        run: the number that the contexts of its communicator are made of.
        no_rank: why it has no rank, or an empty string.
        absent: places that no process has come to yet.
        has_driver: whether it is given a stream to the driver.
    """

    serial: int
    run: int
    no_rank: str
    absent: tuple[int, ...]
    has_driver: bool


class Place:
    """A rank's place in a World, as it is told to the body that is to fill it.

    Attributes:
        spec: its surroundings.
        rank, incarnation: which place (or NO_RANK), and the how-manieth occupant of it.
        incarnations: the occupants of the other places that are not the first.
        channel: to the supervisor.
        driver: stream socket to the driver, or None where there is none.
        shared: descriptors of the ranks' shared memory and of this rank's bell, or None where there is none.
        start: of a process that was started to do one thing; None for a rank that serves runs.
        task: descriptors of what that thing is, and of what it needs.
    """

    __slots__ = ("channel", "driver", "incarnation", "incarnations", "rank", "shared", "spec", "start", "task")

    def __init__(
        self, spec: RankSpec, rank: int, incarnation: int, incarnations: dict[int, int], channel: Channel
    ) -> None:
        self.spec = spec
        self.rank = rank
        self.incarnation = incarnation
        self.incarnations = incarnations
        self.channel = channel
        self.driver: socket.socket | None = None
        self.shared: tuple[int, int] | None = None
        self.start: Start | None = None
        self.task: list[int] = []


def cut_loose(ends: BodyEnds, keep: set[int]) -> Channel:
    """Cut this process loose from its parent; return its channel to the supervisor.

    Args:
        ends: what it has of its own.
        keep: further descriptors that stay open.
    """
    os.setsid()
    os.dup2(ends.stdout, 1)
    os.dup2(ends.stderr, 2)
    close_all_but({0, 1, 2, ends.channel, ends.leash} | keep)
    put_on_leash(ends.leash, -os.getpgrp())  # what this rank starts ends with it
    _reset_signals()
    _open_streams()
    return Channel(socket.socket(fileno=ends.channel))


def take_place(channel: Channel) -> Place:
    """Wait to be told a place, and fill it."""
    place = _wait_for_place(channel)
    try:
        adopt(place.spec)
        _limit(place.spec)
        _name(place)
    except (OSError, ValueError) as error:
        give_up(place, f"its surroundings cannot be made: {error}")
    if place.spec.seed is None:
        _forget_inherited_seeds()
    return place


def give_up(place: Place, reason: str) -> NoReturn:
    """End this process, which cannot fill its place, and say why, or for a rank let the supervisor say it."""
    if place.start is not None:
        sys.stderr.write(f"klyng_mp: a process could not start: {reason}\n")
        flush_streams()
    place.channel.send_now("unfit", reason)
    os._exit(71)


def _wait_for_place(channel: Channel) -> Place:
    try:
        (_, packed_spec, rank, incarnation, incarnations, is_shared, start), fds = channel.receive_now()
    except EOFError:
        os._exit(0)  # a spare that nobody needs
    spec = _adopted if packed_spec is None else pickle.loads(packed_spec)  # noqa: S301 - from this job's supervisor
    assert spec is not None  # noqa: S101 - whoever is not told it was forked by who adopted it
    place = Place(spec, rank, incarnation, incarnations, channel)
    stdin = fds.pop() if rank == 0 and start is None else os.open(os.devnull, os.O_RDONLY)
    os.dup2(stdin, 0)
    os.close(stdin)
    if is_shared:
        bell, memory = fds.pop(), fds.pop()
        place.shared = memory, bell
    prepare(fds.pop())
    if start is not None:
        place.start = Start(*start)
    if fds and (place.start is None or place.start.has_driver):
        place.driver = socket.socket(fileno=fds.pop(0))
    place.task = fds
    return place


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is not in ``keep``."""
    low = 0
    for fd in sorted(keep):
        if low < fd:  # CPython takes the empty range (0, 0) for all there are
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it has something to interrupt
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _open_streams() -> None:
    """Give the standard streams a fresh start over the descriptors, line-buffered."""
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        stream = getattr(sys, f"__{name}__")
        if not isinstance(stream, io.TextIOWrapper) or stream.closed or stream.fileno() != fd:
            stream = open(fd, mode, closefd=False)  # noqa: SIM115 - it lives as long as the process
            setattr(sys, f"__{name}__", stream)
        if mode == "w":
            stream.reconfigure(line_buffering=True)
        setattr(sys, name, stream)


_adopted: RankSpec | None = None


def adopt(spec: RankSpec) -> None:
    """Make the surroundings of ``spec`` this process's own, unless they are already.

    A process that forks ranks does it once for all of them, since memory that a child changes is copied.

    Raises:
        OSError: the directory is gone, or may not be entered.
    """
    global _adopted  # noqa: PLW0603 - the surroundings are the process's, too
    if _adopted is spec:
        return
    # What was adopted before is cheaper to compare than what the process has, which is decoded anew each time.
    if spec.environment != (os.environ if _adopted is None else _adopted.environment):
        os.environ.clear()
        os.environ.update(spec.environment)
    os.chdir(spec.cwd)
    sys.path[:] = spec.path
    sys.argv[:] = spec.argv
    os.umask(spec.umask)
    os.sched_setaffinity(0, spec.affinity)
    _adopted = spec


def _limit(spec: RankSpec) -> None:
    for kind, soft, hard in spec.limits:
        if resource.getrlimit(kind) != (soft, hard):
            resource.setrlimit(kind, (soft, hard))
    if spec.blas_threads is not None and "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 - only libraries that are loaded already need it

        threadpool_limits(limits=spec.blas_threads)


def show_in_ps(name: str) -> None:
    """Let ``ps`` and ``top`` show this name (15 characters of it) for the process; from its main thread."""
    # Not /proc/self/comm: a process that keeps to itself may not write to that.
    with open("/proc/thread-self/comm", "w") as comm:
        comm.write(name)


def _name(place: Place) -> None:
    """Show the rank in ``ps``, in multiprocessing, and so in log records (as ``processName``)."""
    number = "-" if place.rank == NO_RANK else place.rank
    show_in_ps(f"klyng {number}/{place.spec.size}")
    multiprocessing.current_process().name = f"rank {place.rank}"


def forget_parent() -> None:
    """In a fork of the driver: leave its exit functions and finalizers to it."""
    atexit._clear()  # noqa: SLF001 - nothing public takes all of them back
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # noqa: SLF001 - nor these
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]  # noqa: SLF001
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()  # noqa: SLF001 - as multiprocessing does in its own forks
        util._run_after_forkers()  # noqa: SLF001
        atexit.register(util._exit_function)  # noqa: SLF001
    if "logging" in sys.modules:
        atexit.register(sys.modules["logging"].shutdown)


def seed_random_numbers(seed: int, run: int, rank: int) -> None:
    """Make ``random`` and ``numpy.random`` give this rank its own, reproducible numbers in this run."""
    own = f"{seed}/{run}/{rank}"
    random.seed(own)
    try:
        import numpy as np  # noqa: PLC0415 - whoever asked for reproducible numbers pays for the import
    except ImportError:
        return
    np.random.seed(random.Random(own).getrandbits(32))  # noqa: S311 - programs use the old interface


def _forget_inherited_seeds() -> None:
    random.seed()  # module random does so after a fork, but a spare has rehearsed since then
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()


def end_process(code: int, last_words: Callable[[], None]) -> NoReturn:
    """End as Python ends: wait for threads, run the exit functions, flush; then say the last words and leave."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - what the interpreter itself calls first
    atexit._run_exitfuncs()  # noqa: SLF001 - and second
    flush_streams()
    last_words()
    os._exit(code)


def flush_streams() -> None:
    """Hand what was printed to the kernel; a reader that is gone is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
