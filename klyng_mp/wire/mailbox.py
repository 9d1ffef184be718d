"""The mailbox: where messages wait for receives, and receives for messages.

Layer: wire; no sockets, no clocks, no locks.

Invariants: a message matches on (context, source, tag), in the order of arrival; receives match in the
order they were posted; a stored message matches no posted receive, and the other way round; exact
matches cost the same however many others wait.

Threads: not safe by itself. Its owner has one lock around every call.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from klyng_mp.native import core
from klyng_mp.wire.frames import OBJECTS, is_collective, run_of

if TYPE_CHECKING:
    from klyng_mp.wire.frames import PureMessage

__all__ = [
    "ANSWERS",
    "ANY_SOURCE",
    "ANY_TAG",
    "PROC_NULL",
    "SYNCHRONOUS",
    "Mailbox",
    "PureMailbox",
    "PureReceive",
    "Receive",
]

ANY_SOURCE = -1  # mpi4py's value
ANY_TAG = -1  # mpi4py's value
PROC_NULL = -2
"""A rank that is nobody: what is sent to it is gone at once, and what is received from it is None."""

SYNCHRONOUS = 0x80  # a bit of a message's code: its sender wants to know when it is matched; it is cleared then
ANSWERS = 1 << 31 | 1  # bits of a context: where that is said, with the message's tag; no communicator has them

_Key = tuple[int, int | str]


class PureReceive:
    """A posted receive: what it accepts, and the message once it has got one.

    Attributes:
        context: exactly this one.
        source: a sender's number, or `ANY_SOURCE`.
        tag: a tag, or `ANY_TAG`.
        message: what it matched, or None.
        withdrawn: it was taken back, so it never will match.
        order: when it was posted, counted by its mailbox.
    """

    __slots__ = ("context", "message", "order", "source", "tag", "withdrawn")

    def __init__(self, context: int, source: int, tag: int | str) -> None:
        self.context = context
        self.source = source
        self.tag = tag
        self.message: PureMessage | None = None
        self.withdrawn = False
        self.order = 0

    @property
    def done(self) -> bool:
        """Whether it has its message."""
        return self.message is not None


class _Box:
    """What waits in one context."""

    __slots__ = ("posted", "stored", "taken")

    def __init__(self) -> None:
        self.stored: dict[_Key, deque[PureMessage]] = {}
        self.posted: dict[_Key, deque[PureReceive]] = {}
        self.taken = 0


class PureMailbox:
    """Messages that nobody has received yet, and receives that no message has come for.

    Attributes:
        dropped: how many messages came too late, for a run that had ended.
    """

    __slots__ = ("_boxes", "_lowest", "_order", "_unanswered", "dropped")

    def __init__(self) -> None:
        self._boxes: dict[int, _Box] = {}
        self._order = 0  # of arrivals and postings, counted together
        self._lowest = 0
        self.dropped = 0
        self._unanswered: list[PureMessage] = []

    def __len__(self) -> int:
        return sum(len(bucket) for box in self._boxes.values() for bucket in box.stored.values())

    def deliver(self, message: PureMessage) -> None:
        """Give the message to the first posted receive that accepts it, else keep it.

        One of the context OBJECTS is for no receive: it is left to `take_unanswered`.
        """
        if message.context == OBJECTS:
            self._unanswered.append(message)
            return
        box = self._boxes.get(message.context)
        if box is None:
            if 0 < message.context < self._lowest:
                self.dropped += 1
                return
            box = self._boxes[message.context] = _Box()
        key = (message.source, message.tag)
        if box.posted:
            receive = _pop_posted(box.posted, key)
            if receive is not None:
                box.taken += 1
                receive.message = message
                self._note_matched(message)
                return
        self._order += 1
        message.arrival = self._order
        bucket = box.stored.get(key)
        if bucket is None:
            box.stored[key] = deque((message,))
        else:
            bucket.append(message)

    def take(self, context: int, source: int, tag: int | str) -> PureMessage | None:
        """Remove and return the first waiting message that matches, or return None."""
        box = self._boxes.get(context)
        if box is None or not box.stored:
            return None
        key = _first_key(box.stored, source, tag)
        if key is None:
            return None
        bucket = box.stored[key]
        message = bucket.popleft()
        if not bucket:
            del box.stored[key]
        box.taken += 1
        self._note_matched(message)
        return message

    def peek(self, context: int, source: int, tag: int | str) -> PureMessage | None:
        """Return the first waiting message that matches and leave it there, or return None."""
        box = self._boxes.get(context)
        key = _first_key(box.stored, source, tag) if box is not None else None
        return box.stored[key][0] if box is not None and key is not None else None

    def is_posted(self, context: int) -> bool:
        """Tell whether any receive is posted in a context."""
        box = self._boxes.get(context)
        return box is not None and bool(box.posted)

    def is_stored(self, context: int) -> bool:
        """Tell whether any message waits in a context."""
        box = self._boxes.get(context)
        return box is not None and bool(box.stored)

    def restore(self, message: PureMessage) -> None:
        """Put back a message that was taken and not used: it is again the first of its sender and tag."""
        box = self._boxes.setdefault(message.context, _Box())
        receive = _pop_posted(box.posted, (message.source, message.tag))  # posted meanwhile, by another thread
        if receive is not None:
            receive.message = message
            return
        bucket = box.stored.setdefault((message.source, message.tag), deque())
        bucket.appendleft(message)
        box.taken -= 1

    def post(self, receive: PureReceive) -> None:
        """Match the receive with a waiting message, else with the first that comes and no earlier receive accepts.

        A receive in a context that was dropped is withdrawn at once.
        """
        context = receive.context
        box = self._boxes.get(context)
        if box is None:
            if 0 < context < self._lowest:
                receive.withdrawn = True
                return
            box = self._boxes[context] = _Box()
        if box.stored:
            receive.message = self.take(context, receive.source, receive.tag)
            if receive.message is not None:
                return
        self._order += 1
        receive.order = self._order
        key = (receive.source, receive.tag)
        bucket = box.posted.get(key)
        if bucket is None:
            box.posted[key] = deque((receive,))
        else:
            bucket.append(receive)

    def withdraw(self, receive: PureReceive) -> bool:
        """Take a posted receive back; return False if it was matched or withdrawn already."""
        if receive.message is not None or receive.withdrawn:
            return False
        receive.withdrawn = True
        posted = self._boxes[receive.context].posted
        key = (receive.source, receive.tag)
        bucket = posted[key]
        bucket.remove(receive)
        if not bucket:
            del posted[key]
        return True

    def drop_below(self, context: int) -> list[PureMessage]:
        """Forget everything in contexts from 1 up to (not including) ``context``, for good.

        Posted receives are withdrawn; messages that come later are dropped and counted.

        Returns:
            The messages that were forgotten, in the order of arrival.
        """
        self._lowest = max(self._lowest, context)
        forgotten = self.waiting(1, context)
        for old in [number for number in self._boxes if 0 < number < context]:
            for bucket in self._boxes.pop(old).posted.values():
                for receive in bucket:
                    receive.withdrawn = True
        return forgotten

    def waiting(self, low: int, high: int) -> list[PureMessage]:
        """Return the messages with low <= context < high that wait, in the order of arrival; they stay."""
        found = [
            message
            for context, box in self._boxes.items()
            if low <= context < high
            for bucket in box.stored.values()
            for message in bucket
        ]
        found.sort(key=_by_arrival)
        return found

    def waiting_below(self, context: int, tag: int) -> list[PureMessage]:
        """Return the messages of a context whose tags are numbers below ``tag``, in the order of arrival; they stay."""
        return [one for one in self.waiting(context, context + 1) if not isinstance(one.tag, str) and one.tag < tag]

    def taken(self, run: int) -> int:
        """Return how many messages of a run's point-to-point contexts have been received."""
        return sum(
            box.taken for context, box in self._boxes.items() if run_of(context) == run and not is_collective(context)
        )

    @property
    def unanswered(self) -> int:
        """How many messages wait for `take_unanswered`."""
        return len(self._unanswered)

    def take_unanswered(self) -> list[PureMessage]:
        """Remove and return the messages that their owner has to do something about, in the order of that.

        Those were matched and their senders want to know and were not told yet, or they are of the context OBJECTS.
        """
        matched, self._unanswered = self._unanswered, []
        return matched

    def _note_matched(self, message: PureMessage) -> None:
        if message.code & SYNCHRONOUS:
            message.code &= ~SYNCHRONOUS  # one that is put back is not noted twice
            self._unanswered.append(message)


if TYPE_CHECKING or core is None:
    Mailbox = PureMailbox
    Receive = PureReceive
else:  # its twin, klyng_mp/_core/mailbox.c, of which the same suite asks the same
    Mailbox = core.Mailbox
    Receive = core.Receive


def _by_arrival(message: PureMessage) -> int:
    return message.arrival


def _first_key(stored: dict[_Key, deque[PureMessage]], source: int, tag: int | str) -> _Key | None:
    """Return the key of the message that matches first."""
    if source != ANY_SOURCE and tag != ANY_TAG:
        key = (source, tag)
        return key if key in stored else None
    first: _Key | None = None
    earliest = 0
    for key, bucket in stored.items():
        if source in (key[0], ANY_SOURCE) and tag in (key[1], ANY_TAG):
            arrival = bucket[0].arrival
            if first is None or arrival < earliest:
                first, earliest = key, arrival
    return first


def _pop_posted(posted: dict[_Key, deque[PureReceive]], key: _Key) -> PureReceive | None:
    """Remove and return the receive that accepts a message with this key and was posted first."""
    bucket = posted.get(key)
    if bucket is None or len(posted) > 1:  # else it is the one blocking receive of one thread, mostly
        source, tag = key
        for other in ((ANY_SOURCE, tag), (source, ANY_TAG), (ANY_SOURCE, ANY_TAG)):
            candidate = posted.get(other)
            if candidate is not None and (bucket is None or candidate[0].order < bucket[0].order):
                bucket, key = candidate, other
        if bucket is None:
            return None
    receive = bucket.popleft()
    if not bucket:
        del posted[key]
    return receive
