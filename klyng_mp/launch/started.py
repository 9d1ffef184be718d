"""The main of a process that was started from a World: it does one thing, and ends.

Layer: launch. To the program it is a multiprocessing process like any other, and if it has a place, a rank, too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from klyng_mp.communicator.current import forbid
from klyng_mp.errors import ClosedError, LaunchError
from klyng_mp.launch.link import make_link
from klyng_mp.launch.surroundings import NO_RANK, end_process, seed_random_numbers
from klyng_mp.launch.task import Task, read_task
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.namespace import install_main

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from klyng_mp.deadline import Deadline
    from klyng_mp.launch.link import RankLink
    from klyng_mp.launch.surroundings import Place, Start

__all__ = ["InheritedFd", "Ties", "bequeath", "claim_channel", "rebuild_process", "run_started", "tied"]

_inherited: list[int] = []
_detached: set[int] = set()
_ties: list[Ties] = []  # this process's, if it has a place


class _Wires(Protocol):
    def claim(self, number: int, deadline: Deadline) -> Any:
        """Return the socket of a channel, or None if it was not opened in time."""


class Ties(Protocol):
    """What a process in a place has of its job; see `RankLink`."""

    @property
    def wires(self) -> _Wires | None:
        """Lead to its driver, where that may be on another host."""

    def tell_with(self, kind: str, fd: int) -> None:
        """Send a descriptor to who supervises it."""


class InheritedFd:
    """A descriptor that came along with a started process; what unpickles an object calls ``detach``."""

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        """Return the descriptor, which is the caller's from now on."""
        _detached.add(self._index)
        return _inherited[self._index]


def claim_channel(number: int, deadline: Deadline) -> Any:
    """Return the socket of a channel that the driver opens to this process.

    Raises:
        LaunchError: it did not until then, or this process has no place in a World with hosts.
    """
    wires = _ties[0].wires if _ties else None
    if wires is None:
        raise LaunchError("this process has no place in a World that may have other hosts, so no channel leads here")
    sock = wires.claim(number, deadline)
    if sock is None:
        raise LaunchError(f"the driver opened no channel within {deadline.seconds:g} s: is the network up?")
    return sock


def bequeath(fd: int) -> None:
    """Let whoever started this process have what is in a file when it has ended, however it ends.

    Args:
        fd: a memfd that is not larger than `ESTATE_BYTES`; still the caller's.
    """
    if _ties:
        _ties[0].tell_with("bequeath", fd)


@contextmanager
def tied(ties: Ties | None) -> Iterator[None]:
    """Let the process that was started find what it has of its job."""
    if ties is not None:
        _ties.append(ties)
    try:
        yield
    finally:
        _ties.clear()


def run_started(place: Place, start: Start, leash: int) -> NoReturn:
    """Be the process that was started in this place, or in none; the leash is that of `BodyEnds`."""
    fd, *inherited = place.task
    task = read_task(fd)
    link = _take_rank(place, start, task)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    with tied(link):
        process = rebuild_process(task, inherited)
        if process is not None:
            code = process._bootstrap(parent_sentinel=_reopen(leash))  # noqa: SLF001 - as each start method does
    end_process(code, lambda: _say_goodbye(place, link))


def _take_rank(place: Place, start: Start, task: Task) -> RankLink | None:
    if place.spec.seed is not None:
        seed_random_numbers(place.spec.seed, -start.serial, place.rank)
    if place.rank == NO_RANK:
        place.channel.send_now("ready")
        forbid(f"process {task.name} has no rank: {start.no_rank}")
        return None
    link = make_link(place, Codec(main_by_reference=task.by_reference))
    link.begin(start.run)
    return link


def rebuild_process(task: Task, inherited: Sequence[int]) -> Any:
    """Return the process object, or None: then its program's error has been printed, and the exit code is 1.

    Args:
        task: what it is to do.
        inherited: descriptors that came along; those that nothing wants are closed.
    """
    _inherited[:] = inherited
    _detached.clear()
    own: Any = multiprocessing.current_process()
    own.authkey = task.authkey
    _set_up_logger(task)
    own._inheriting = True  # noqa: SLF001 - by this, proxies know that they were handed over at a start
    try:
        process = _load(task)
    except Exception:  # noqa: BLE001 - as an exception of the program: its traceback
        sys.stderr.write(f"Process {task.name}:\n")
        sys.excepthook(*sys.exc_info())
        process = None
    finally:
        del own._inheriting  # noqa: SLF001
    for index in set(range(len(inherited))) - _detached:
        os.close(inherited[index])
    return process


def _load(task: Task) -> Any:
    codec = Codec(main_by_reference=task.by_reference)
    rebuild, arguments = codec.decode_run(*task.work)
    if codec.main_module is not None:
        install_main(codec.main_module)
    return rebuild(*arguments)


def _set_up_logger(task: Task) -> None:
    if task.log_level is None and not task.log_to_stderr:
        return
    from multiprocessing import util  # noqa: PLC0415 - imports logging, which few programs need

    if task.log_to_stderr:
        util.log_to_stderr()
    if task.log_level is not None:
        util.get_logger().setLevel(task.log_level)


def _reopen(leash: int) -> int:
    """Return another end of the leash's pipe, for who wants to see the parent's end in its own way.

    A duplicate would not do: whom the kernel kills at the end is a matter of what `os.open` returns, and shared by all
    duplicates of it.
    """
    return os.open(f"/proc/self/fd/{leash}", os.O_RDONLY | os.O_NONBLOCK)


def _say_goodbye(place: Place, link: RankLink | None) -> None:
    if link is not None:
        with suppress(ClosedError):  # an interruption has spoilt its endpoint: its end is meant even so
            link.say_goodbye(tuple)
            return
    place.channel.send_now("goodbye", ())
