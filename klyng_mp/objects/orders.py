"""What the users of shared objects and those who keep them say to each other, as messages of the context OBJECTS.

Layer: objects; sans-IO.

One message is an *order*. Its tag is the object's number; its head begins with `_FRONT`, and the rest of it, the code
and the buffers are content as the codec has made it, which nobody looks at but who it is for.

Invariant: nothing that comes is unpickled here, and what does not have the form is refused.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import RemoteProtocolError
from klyng_mp.wire.frames import OBJECTS, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.wire.frames import Part

__all__ = ["NOTHING", "Asker", "Content", "Order", "Outcome", "Process", "Verb", "What", "own_content", "pack", "read"]

Content = tuple[int, bytes, "Sequence[Part]"]
"""A code, a head and buffers, as the codec makes them."""

NOTHING: Content = (0, b"", ())
Process = tuple[int, int]
"""A process: its number in the World, and its incarnation."""

# verb, what, place, incarnation, thread, request, and three numbers whose meaning is the verb's
_FRONT = struct.Struct("<BBIIQQqqq")


class Verb:
    """What an order is."""

    ASK, CANCEL, ANSWER, PUT, TAKEN, HOME, ADOPT, ITEM, SETTLED = range(1, 10)


class What:
    """What is asked for, of a state."""

    ACQUIRE, RELEASE, LET_GO, COUNT = range(1, 5)  # of a lock or semaphore
    WAIT, NOTIFY = range(5, 7)  # of a condition; WAIT also of an event and a barrier
    SET, CLEAR, LOOK = range(7, 10)  # of an event; LOOK also of a barrier
    DONE, RESET, ABORT = range(10, 13)  # of a barrier
    READ, WRITE = range(13, 15)  # of a cell
    GET, PEEK, SIZE, TASK_DONE, JOIN = range(15, 20)  # of a queue
    SEND, RECV, GIVE_BACK, PASS, HOLD, DROP = range(20, 26)  # of a pipe's end; PEEK also of that
    OPEN = 26  # of a door


class Outcome:
    """How an order was answered."""

    NO, YES, CANCELLED, BROKEN, ENDED, TOO_OFTEN, NOT_OWNED, FULL, UNKNOWN, OVER = range(10)
    GOT, ACT = range(10, 12)  # an item of a queue; the last of a barrier has an action to do


class Asker(NamedTuple):
    """Who asks.

    Attributes:
        place: its number in the World.
        incarnation: which occupant of the place it is.
        thread: the thread's identity.
        request: counts those of the process; 0 where no answer is wanted.
    """

    place: int
    incarnation: int
    thread: int
    request: int

    @property
    def process(self) -> Process:
        """The process of it."""
        return self.place, self.incarnation

    @property
    def owner(self) -> tuple[int, int, int]:
        """The thread of it, as owners of locks are known."""
        return self.place, self.incarnation, self.thread


class Order(NamedTuple):
    """One thing that is said.

    Attributes:
        verb: one of `Verb`.
        what: one of `What`, or in an answer one of `Outcome`.
        asker: whom it is from in the end; in an answer whom it is for.
        first, second, third: numbers.
        content: an object, as the codec has made it.
    """

    verb: int
    what: int
    asker: Asker
    first: int = 0
    second: int = 0
    third: int = 0
    content: Content = NOTHING


def pack(source: int, target: int, order: Order, incarnation: int = 0) -> Message:
    """Return the message that says this about the object with the number ``target`` to that occupant of a place."""
    code, head, buffers = order.content
    front = _FRONT.pack(order.verb, order.what, *order.asker, order.first, order.second, order.third)
    return Message(OBJECTS, source, target, incarnation, code, front + head, buffers)


def read(message: Message) -> Order:
    """Return what a message says.

    Raises:
        RemoteProtocolError: it is no order.
    """
    if len(message.head) < _FRONT.size or not isinstance(message.tag, int):
        raise RemoteProtocolError(f"{message!r} is no order about a shared object")
    verb, what, place, incarnation, thread, request, first, second, third = _FRONT.unpack_from(message.head)
    content = message.code, message.head[_FRONT.size :], message.buffers
    return Order(verb, what, Asker(place, incarnation, thread, request), first, second, third, content)


def own_content(content: Content) -> Content:
    """Return content with memory of its own, which stays as it is whatever becomes of the sender's objects."""
    code, head, buffers = content
    return code, bytes(head), [bytearray(buffer) for buffer in buffers]
