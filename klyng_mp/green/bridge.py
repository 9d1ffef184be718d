"""Green ranks in several processes: what one of these processes does, and what goes from one to another.

Layer: green. The processes are ranks of a World of their own, and talk by its communicator; a message of green ranks is
one of its messages, encoded once.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.communicator.current import comm as comm_here
from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.errors import CodecError, DeadlineError
from klyng_mp.green.play import Play, rank_here
from klyng_mp.launch.control import GRACE_SECONDS
from klyng_mp.launch.labels import labelled
from klyng_mp.launch.surroundings import seed_random_numbers
from klyng_mp.machine import hostname
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import Message
from klyng_mp.wire.mailbox import ANY_SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.communicator.communicator import Communicator
    from klyng_mp.green.endpoint import Hall

__all__ = ["GreenFailed", "Task", "perform"]

_MAIL = 0  # the tag of what green ranks send
_MOST_SHOWN = 4  # of those that wait, in a report


class Task(NamedTuple):
    """What all processes of a run are told.

    Attributes:
        run: its number.
        size: how many green ranks there are.
        share: how many of them a process has; the last one may have fewer.
        schedule: see `Scheduler`.
        seed: of random numbers, or None.
        label: whether lines of output begin with their rank.
        by_reference: whether the processes know the driver's ``__main__`` as their own.
    """

    run: int
    size: int
    share: int
    schedule: int | None
    seed: int | None
    label: bool
    by_reference: bool


class GreenFailed(Exception):  # noqa: N818 - it carries an error, and is met by nobody
    """A green rank has failed.

    Attributes:
        rank, host: which, and where.
        summary, text: its exception in a line, and its traceback.
        packed: the exception as a codec encodes it, or None where it cannot travel.
    """

    def __init__(self, rank: int, host: str, summary: str, text: str, packed: Any) -> None:
        super().__init__(rank, host, summary, text, packed)
        self.rank, self.host, self.summary, self.text, self.packed = rank, host, summary, text, packed


def perform(
    task: Task, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[tuple[int, Any]], dict[int, list[tuple[int, int | str]]]]:
    """Be one of the processes: let its share of ranks call a function.

    Returns:
        (rank, encoded outcome) of each, and (source, tag) of what those ranks have not received that left any.

    Raises:
        GreenFailed: one of them failed.
        DeadlockError: none of them can go on, nor any elsewhere.
        PeerLostError: the run was ended.
    """
    comm = comm_here()
    first = comm.rank * task.share
    numbers = range(first, min(first + task.share, task.size))
    codec = Codec(main_by_reference=task.by_reference)
    schedule = None if task.schedule is None else task.schedule + comm.rank
    play = Play(task.run, task.size, numbers, codec, schedule)
    bridge = Bridge(comm, play.hall, task.share, lambda: _describe(play))
    play.hall.abroad, play.scheduler.outside = bridge.send, bridge
    if task.seed is not None:
        seed_random_numbers(task.seed, task.run, comm.rank)
    packed = codec.encode((args, kwargs), names=("args", "kwargs"))
    host = hostname()
    with labelled(host if task.label else None, rank_here):
        try:
            play.begin(func, packed)
            play.drive(lambda: False, NEVER)
            play.pass_interrupt_on()
            if play.cause is None:
                bridge.see_out()
        except BaseException as error:
            play.see_out(f"was ended: {error}", None, GRACE_SECONDS)
            raise
        if play.cause is not None:
            cause = play.cause
            play.see_out(cause.phrase(), cause.rank, GRACE_SECONDS)
            assert cause.rank is not None  # noqa: S101 - where others are, no process knows of a deadlock
            raise GreenFailed(cause.rank, host, cause.detail, cause.text, _pack(codec, cause.error))
    left = {rank: play.unreceived(rank) for rank in play.leavers()}
    return list(play.outcomes.items()), left


def _pack(codec: Codec, error: BaseException | None) -> Any:
    try:
        code, head, buffers = codec.encode(error)
    except CodecError:
        return None
    return code, head, [bytes(buffer) for buffer in buffers]


def _describe(play: Play) -> str:
    """Say what the green ranks of this process wait for, as the call that its process is in."""
    waiting = [state for state in play.states() if state.call]
    shown = "; ".join(f"rank {one.rank} in {one.call} at {one.where}" for one in waiting[:_MOST_SHOWN])
    more = f"; and {len(waiting) - _MOST_SHOWN} more" if len(waiting) > _MOST_SHOWN else ""
    return f"[green ranks {play.numbers[0]} to {play.numbers[-1]}: {shown or 'none waits'}{more}]"


class Bridge:
    """What leads from the green ranks of a process to those of others; see `Outside`.

    Args:
        comm: of the processes.
        hall: of the ranks that are here.
        share: how many ranks each process has.
        describe: returns what these wait for, as text.
    """

    def __init__(self, comm: Communicator, hall: Hall, share: int, describe: Callable[[], str]) -> None:
        self._comm = comm
        self._hall = hall
        self._share = share
        self._describe = describe

    def send(self, peer: int, message: Message) -> None:
        """Send a message to a rank of another process, where it is delivered when that has its turn."""
        buffers = [pickle.PickleBuffer(buffer) for buffer in message.buffers]
        content = peer, message.context, message.source, message.tag, message.code, message.head, buffers
        self._comm.isend(content, peer // self._share, _MAIL)

    def look(self) -> bool:
        """See `Outside.look`."""
        found = False
        while self._comm.iprobe(ANY_SOURCE, _MAIL) is not None:
            self._take()
            found = True
        return found

    def wait(self, seconds: float | None) -> bool:
        """See `Outside.wait`."""
        self._await(lambda: False, seconds)
        return self.look()

    def see_out(self) -> None:
        """Take what others send until the ranks of all processes have ended."""
        over = self._comm.ibarrier()
        while not over.test():
            self._await(lambda: over.settled, None)
            self.look()
        over.wait()
        self.look()

    def _await(self, enough: Callable[[], bool], seconds: float | None) -> None:
        comm, endpoint = self._comm, self._comm.endpoint

        def ready() -> bool:
            return enough() or endpoint.mailbox.peek(comm.context, ANY_SOURCE, _MAIL) is not None

        try:
            endpoint.wait(ready, Deadline(seconds), (self._describe,))  # type: ignore[arg-type]  # text when asked for
        except DeadlineError:
            return

    def _take(self) -> None:
        peer, context, source, tag, code, head, buffers = self._comm.recv(ANY_SOURCE, _MAIL)
        endpoint = self._hall.endpoints[peer]
        assert endpoint is not None  # noqa: S101 - who sent it knows the shares
        buffers = [bytearray(buffer) for buffer in buffers]
        endpoint.accept(Message(context, source, tag, 0, code, head, buffers))
