"""The endpoint of a rank that shares its process with others: it waits by letting them run.

Layer: green. What ten thousand ranks know alike they have once, in their `Hall`; a rank has its mailbox and little
else.

Threads: only the one that drives the ranks.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.communicator.express import Ways
from klyng_mp.communicator.gathering import Gathering
from klyng_mp.communicator.lifecycle import watch_forks
from klyng_mp.communicator.peers import Peers
from klyng_mp.communicator.waiters import Guests, Waiter
from klyng_mp.communicator.waiting import WaitingRoom
from klyng_mp.deadline import Deadline
from klyng_mp.errors import LocalProtocolError
from klyng_mp.native import core
from klyng_mp.transports.contract import SENT, Nowhere, Ticket
from klyng_mp.wire.mailbox import SYNCHRONOUS, Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from klyng_mp.communicator.express import ExpressCodec
    from klyng_mp.green.scheduler import Scheduler
    from klyng_mp.wire.frames import Message

__all__ = ["GreenEndpoint", "GreenRoom", "Hall"]


class Hall(Nowhere):
    """What the ranks of one process share; it is the transport of all of them.

    Args:
        scheduler: whose turn it is.
        size: how many ranks there are, also elsewhere.

    Attributes:
        endpoints: by number; None for ranks of other processes.
        mailboxes: theirs.
        abroad: sends a message to a rank of another process.
    """

    def __init__(self, scheduler: Scheduler, size: int) -> None:
        self.scheduler = scheduler
        self.size = size
        self.endpoints: list[GreenEndpoint | None] = [None] * size
        self.mailboxes: list[Any] = [None] * size
        self.abroad: Callable[[int, Message], None] | None = None
        self.peers = Peers(-1)  # none is ever lost: a rank that fails ends the run
        self._gatherings: dict[tuple[int, int], Gathering] = {}
        self.waited: defaultdict[int | None, list[int]] = defaultdict(lambda: [0, 0])
        watch_forks(self)

    def enter(self, number: int) -> GreenEndpoint:
        """Return the new endpoint of a rank."""
        endpoint = self.endpoints[number] = GreenEndpoint(self, number)
        self.mailboxes[number] = endpoint.mailbox
        return endpoint

    def gather(self, context: int, members: Sequence[int]) -> Gathering | None:
        """Return where the ranks of a communicator leave what they give, if all ranks are in this process."""
        if self.abroad is not None:
            return None
        key = context, members[0]  # the parts of a split have one context
        found = self._gatherings.get(key)
        if found is None:
            found = self._gatherings[key] = Gathering(len(members), self.forward)
        return found

    def forward(self, peer: int, message: Message) -> None:
        """Send a message of whichever sender to a rank."""
        self.send(peer, message, copy=True)

    def find_call(self, peer: int, context: int, number: int) -> str | None:
        """Say what collective call of a number a rank made; None where it is not in this process."""
        endpoint = self.endpoints[peer]
        log = None if endpoint is None else endpoint.call_logs.get(context)
        return None if log is None else log.find(number)

    def see_call(self, peer: int, context: int, number: int) -> int | None:
        """Return the tag of a rank's collective call of a number, if it is in this process and has made one."""
        endpoint = self.endpoints[peer]
        log = None if endpoint is None else endpoint.call_logs.get(context)
        return None if log is None else log.tag_of(number)

    # -- as a transport

    def send(self, peer: int, message: Message, *, copy: bool) -> Ticket:
        """See `Transport.send`; what is sent is there at once."""
        del copy
        endpoint = self.endpoints[peer]
        if endpoint is None:
            if self.abroad is None:
                raise LocalProtocolError(f"there is no rank {peer}")
            self.abroad(peer, message)
            return SENT
        if message.buffers:
            message.buffers = [bytearray(buffer) for buffer in message.buffers]
        endpoint.accept(message)
        return SENT

    def abandon(self) -> None:
        """In a forked child: refuse everything with ForkedError, and let no rank go on but the one that has forked."""
        if not self.scheduler.forked:
            self.scheduler.forked = True
            for endpoint in self.endpoints:
                if endpoint is not None:
                    endpoint.abandon()


class GreenRoom(WaitingRoom):
    """Where one rank waits; it has of a `WaitingRoom` what is called from outside, and neither poller nor threads.

    Attributes:
        waiter: the rank, if it waits.
        is_stopped: `stopped`, for who looks often.
    """

    guests = Guests()  # nobody: an event loop would keep all other ranks from running
    _waiters: list[Waiter] = []  # noqa: RUF012 - likewise of threads
    attendant = None
    is_stopped = False
    steps = 0
    _working = _calling = _closed = False

    # Without WaitingRoom's: ten thousand ranks with descriptors of their own are too many.
    def __init__(self, hall: Hall, number: int) -> None:
        self.lock = hall.scheduler.gate
        self.chores = []
        self.waited = hall.waited
        self._scheduler = hall.scheduler
        self._number = number
        self.waiter: Waiter | None = None

    @property
    def stopped(self) -> bool:
        """See `Room.stopped`; all ranks take the long way once one of them is stopped."""
        return self.is_stopped

    @stopped.setter
    def stopped(self, stopped: bool) -> None:
        self.is_stopped = self.lock.stopped = stopped

    @property
    def waiters(self) -> list[Waiter]:
        """See `WaitingRoom.waiters`."""
        return [] if self.waiter is None else [self.waiter]

    def wait(
        self,
        ready: Callable[[], bool],
        deadline: Deadline,
        doing: str | tuple[Any, ...] = "",
        on: int | Callable[[], Iterable[int]] | None = None,
    ) -> bool:
        """See `WaitingRoom.wait`."""
        if self._is_over(ready):
            return True
        scheduler, number = self._scheduler, self._number
        left = deadline.left()
        if left == 0:
            scheduler.give_way(number)
            return self._is_over(ready)
        self.waiter = Waiter(ready, deadline, doing, on)
        alarm = None if left is None else scheduler.set_alarm(number, deadline.at)
        try:
            while True:
                scheduler.sleep(number)
                if self._is_over(ready):
                    return True
                if deadline.over():
                    return False
        finally:
            self.waiter = None
            if alarm is not None:
                scheduler.call_off(alarm)

    def notify(self) -> None:
        """Let the rank look, if it sleeps."""
        self._scheduler.wake(self._number)

    def progress(self) -> None:
        """Let others run: what they send may be what is looked for."""
        if self.chores:
            self._work()
        if not self.stopped:
            self._scheduler.give_way(self._number)

    def close(self) -> None:
        """See `Room.close`; there is nothing to close."""

    def abandon(self) -> None:
        """See `Room.abandon`."""


class GreenEndpoint(Endpoint):
    """The endpoint of one rank of many in a process; see `Endpoint`."""

    port = None
    nearby: Sequence[int] = range(0)
    on_lost = None
    objects = None
    incarnation = 0
    aborted = poisoned = False
    free_index = 1
    _refusal = None
    _room: GreenRoom
    _over = _catching_up = False
    _lowest = _dropped = _over_below = 0

    # Without Endpoint's: what is the same for all, the hall has.
    def __init__(self, hall: Hall, number: int) -> None:
        self.number = number
        self.mailbox = Mailbox()
        self._hall = hall
        self._nap = hall.scheduler.nap
        self._room = GreenRoom(hall, number)
        self._transport = hall
        self._peers = hall.peers
        self.incarnations = hall.peers.incarnations
        self.find_call = hall.find_call
        self.see_call = hall.see_call
        self.call_logs = {}  # type: ignore[assignment]  # as long as the run, which is as long as this endpoint
        self._matched = []
        self._refused = []
        self._partings = []
        self._for_objects = []
        self._sent = _UNCOUNTED

    def ways(self, context: int, members: Sequence[int], codec: ExpressCodec) -> Ways:
        """See `Endpoint.ways`."""
        if core is None or self._hall.scheduler.is_shuffled:  # every message may be where another rank comes first
            return Ways(None, None, None, in_turns=True)
        short, collective = (
            core.Local(
                self.lock,
                self._hall.mailboxes,
                self._hall.scheduler.asleep,
                self._hall.scheduler.wake_soon,
                self.number,
                one,
                len(members) if members == range(len(members)) else members,
                codec.main_by_reference,
                codec.decode_error,
            )
            for one in (context, context | 1)
        )
        gathering = self._hall.gather(context, members)
        if gathering is not None and members[0] == self.number:
            gathering.lane = collective
        return Ways(short, collective, None, in_turns=True, gathering=gathering)

    def nap(self, steps: int = 0, on: int | None = None) -> bool:
        """See `WaitingRoom.nap`."""
        del steps, on
        room = self._room
        return not (room.is_stopped or room.chores) and self._nap(self.number)

    def accept(self, message: Message) -> None:
        """Take a message that another rank has sent."""
        self.deliver(message.source, message)
        if message.code & SYNCHRONOUS or self.mailbox.unanswered:
            self._catch_up()
        self._room.notify()

    def sleep(self, seconds: float) -> None:
        """See `Endpoint.sleep`."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        with self.lock:
            self._settle(lambda: False, Deadline(seconds), "sleep()")

    def give_way(self) -> None:
        """See `Endpoint.give_way`."""
        self._room.progress()

    def _start(self, peer: int, message: Message, doing: str, *, copy: bool) -> Ticket:
        ticket = super()._start(peer, message, doing, copy=copy)
        if not self._room.stopped:
            self._hall.scheduler.mix(self.number)
        return ticket


class _Uncounted(defaultdict[int, int]):
    """Takes counts and keeps none: that messages are left is seen in the mailboxes themselves."""

    def __missing__(self, key: int) -> int:
        return 0

    def __setitem__(self, key: int, value: int) -> None:
        pass


_UNCOUNTED = _Uncounted(int)
