"""What the C core reads of memory that others write, as far as Python reaches it; see targets.py.

A fault here may end the process: run.py notices that, and tests run these in a process of their own.
"""

from __future__ import annotations

import contextlib
import mmap
import os

from contracts.transport import Side, message
from targets import split, target

from klyng_mp.native import core
from klyng_mp.wire.frames import PureMessage
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG, PureMailbox, PureReceive

__all__ = []

RANKS = 2
INCARNATION = 3
BODIES = [
    (b"small", []),
    (b"x" * 3000, []),
    (b"h" * 40_000, []),
    (b"h", [bytes(100), bytes(50_000)]),
    (b"h", [bytes(200_000), b"", bytes(40_000)]),
    (b"", []),
]
MOST_STEPS = 60


class Steps:
    """A program of the fuzzer's: bytes that are taken from the front."""

    def __init__(self, data):
        self._data = data
        self._at = 0

    def __bool__(self):
        return self._at < len(self._data)

    def take(self, count=1):
        found = self._data[self._at : self._at + count].ljust(count, b"\0")
        self._at += count
        return found

    def number(self, count=1):
        return int.from_bytes(self.take(count), "little")


# -- rings -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def two_sides():
    from klyng_mp.transports.shm import Segment, ShmTransport

    segment = Segment(RANKS)
    sides = [Side(number) for number in range(RANKS)]
    try:
        for side in sides:
            place = os.dup(segment.fd), os.dup(segment.bells[side.number]), RANKS, side.number, INCARNATION
            side.transport = ShmTransport(
                side, side.poller, place=place, spin=False, call=segment.ring, progress=side.turn
            )
        yield segment, sides
    finally:
        for side in sides:
            if side.transport is not None:
                side.close()
        segment.close()


def places(ring_size):
    """Return where what a peer writes begins, and how much of it is worth to be spoilt."""
    pages, headers = RANKS * 4096, RANKS * RANKS * 256
    rings = pages + headers
    pools = (rings + RANKS * RANKS * ring_size + 4095) // 4096 * 4096
    found = [(0, pages), (pages, headers)]
    found += [(rings + number * ring_size, 8192) for number in range(RANKS * RANKS)]
    found += [(pools + number * (256 << 20), 1024) for number in range(RANKS)]
    return found


@target
def ring(data):
    """Rings of two ranks whose peer writes what it likes into the memory that they share."""
    if core is None:
        return False
    from klyng_mp.transports.shm import ring_size

    steps = Steps(data)
    spots = places(ring_size(RANKS))
    spoilt = delivered = 0
    with two_sides() as (segment, sides):
        size = core.segment_size(RANKS, ring_size(RANKS), True)
        with mmap.mmap(segment.fd, size) as memory:
            for _ in range(MOST_STEPS):
                if not steps:
                    break
                kind = steps.number()
                one, other = sides if kind & 8 else sides[::-1]
                if kind % 4 == 0:
                    head, buffers = BODIES[(kind >> 4) % len(BODIES)]
                    one.send(other, message(one, head, [memoryview(buffer) for buffer in buffers]), copy=True)
                elif kind % 4 == 1:
                    one.turn()
                else:
                    start, length = spots[(kind >> 2) % len(spots)]
                    where = start + steps.number(2) * 4 % (length - 8)
                    memory[where : where + 8] = steps.take(8)
                    spoilt += 1
            for side in sides:
                side.turn()
                for _, got in side.messages:
                    bytes(got.head)
                    for buffer in got.buffers:
                        bytes(buffer)
                    delivered += 1
                side.messages.clear()
                assert spoilt or not side.losses
    return bool(delivered)


# -- mailboxes -------------------------------------------------------------------------------------

CONTEXTS = (0, 1 << 32, 1 << 32 | 1, 2 << 32)
SOURCES = (0, 1, ANY_SOURCE)
TAGS = (0, "0", 1, ANY_TAG)


def run_mailbox(steps, mailbox_type, message_type, receive_type):
    """Do what the steps say; return what became visible of it."""
    mailbox = mailbox_type()
    seen, receives, taken = [], [], []
    for number in range(1000):
        if not steps:
            break
        kind, choice = steps.number(), steps.number()
        context, source, tag = CONTEXTS[choice % 4], SOURCES[choice // 4 % 3], TAGS[choice // 12 % 4]
        kind %= 8
        if kind < 2:
            source, tag = max(0, source), 0 if tag == ANY_TAG else tag
            mailbox.deliver(message_type(context, source, tag, 0, choice & 0x80, b"%d" % number, ()))
        elif kind == 2:
            receives.append(receive_type(context, source, tag))
            mailbox.post(receives[-1])
        elif kind == 3:
            found = mailbox.take(context, source, tag)
            taken += [] if found is None else [found]
            seen.append(None if found is None else bytes(found.head))
        elif kind == 4 and receives:
            seen.append(mailbox.withdraw(receives[choice % len(receives)]))
        elif kind == 5:
            seen.append([bytes(one.head) for one in mailbox.drop_below(context)])
        elif kind == 6 and taken:
            mailbox.restore(taken.pop())
        elif kind == 7:
            found = mailbox.peek(context, source, tag)
            seen.append(None if found is None else bytes(found.head))
        seen.append((len(mailbox), mailbox.dropped, mailbox.unanswered, mailbox.is_posted(context)))
    seen += [(receive.done, receive.withdrawn) for receive in receives]
    seen += [bytes(one.head) for one in mailbox.waiting(0, 1 << 62)]
    seen += [bytes(one.head) for one in mailbox.take_unanswered()]
    return seen


@target
def mailbox(data):
    """Whatever comes, and in whatever order it is asked for, both mailboxes say the same."""
    pure = run_mailbox(Steps(data), PureMailbox, PureMessage, PureReceive)
    if core is None:
        return bool(pure)
    native = run_mailbox(Steps(data), core.Mailbox, core.Message, core.Receive)
    assert native == pure
    return bool(split(data, 1)[1]) and bool(pure)
