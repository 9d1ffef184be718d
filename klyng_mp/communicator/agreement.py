"""Whether the ranks of a communicator make the same collective calls, as far as one of them can see.

Layer: communicator.

A message of a collective that no call of this rank accounts for tells that they do not; and among ranks that share
memory, a look at what the others call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.communicator.calls import describe_tag, first_tag, number_of
from klyng_mp.errors import CollectiveMismatchError
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG

if TYPE_CHECKING:
    from klyng_mp.communicator.base import Base

__all__ = ["disagreement", "find_stranger", "may_disagree", "mismatch"]


def find_stranger(
    comm: Base, own_tag: int, source: int | None = None, *, needs: int | None = None
) -> tuple[int, int] | None:
    """Return the endpoint's number of a rank that makes another call than this one, and that call's tag, or None.

    Args:
        comm: the communicator.
        own_tag: of this rank's present call, or its last one.
        source: the rank that the call waits for, if it does nothing else: what that one sends for a later call tells,
            too, since what a rank sends comes in order.
        needs: the rank that the call waits for.
    """
    if comm.meeting is not None and (found := comm.meeting.find_stranger(own_tag)) is not None:
        return comm.members[found[0]], found[1]
    own, endpoint, context, log = number_of(own_tag), comm.endpoint, comm.context | 1, comm.call_log
    if needs is not None:
        seen = endpoint.see_call(comm.members[needs], comm.context, own)
        if seen is not None and seen != own_tag:
            return comm.members[needs], seen
    with endpoint.lock:
        for message in endpoint.mailbox.waiting_below(context, first_tag(own + 1)):
            assert isinstance(message.tag, int)  # noqa: S101 - for the type checker
            number = number_of(message.tag)
            told = number in log.abandoned or number in log.pending if number < own else message.tag == own_tag
            if not told:
                return message.source, message.tag
        if source is not None and not log.pending and endpoint.mailbox.peek(context, comm.members[source], ANY_TAG):
            for message in endpoint.mailbox.waiting(context, context + 1):  # what was abandoned may come first
                tag = message.tag
                if message.source == comm.members[source] and isinstance(tag, int) and number_of(tag) > own:
                    return message.source, tag
    return None


def may_disagree(comm: Base, own: int) -> bool:
    """Whether the oldest of the messages that wait is of a call before the one of a number; quick to tell."""
    context = comm.context | 1
    if not comm.endpoint.mailbox.is_stored(context):
        return False
    with comm.endpoint.lock:
        oldest = comm.endpoint.mailbox.peek(context, ANY_SOURCE, ANY_TAG)
    return oldest is not None and isinstance(oldest.tag, int) and number_of(oldest.tag) < own


def disagreement(
    comm: Base, own_tag: int, source: int | None = None, *, ask: bool, needs: int | None = None
) -> CollectiveMismatchError | None:
    """Return the error that says which other call another rank has made, or None if that is not known.

    The calls of this rank that do not agree then count as abandoned, so that it is told once.

    Args:
        comm: as of `find_stranger`.
        own_tag: likewise.
        source: likewise.
        needs: likewise.
        ask: whether the other rank may be asked for the line of its program, and waited for.
    """
    stranger = find_stranger(comm, own_tag, source, needs=needs)
    return None if stranger is None else mismatch(comm, own_tag, *stranger, ask=ask)


def mismatch(comm: Base, own_tag: int, peer: int, tag: int, *, ask: bool) -> CollectiveMismatchError:
    """Return the error that says that another rank has made another call; see `disagreement`.

    Args:
        comm: the communicator.
        own_tag: of this rank's call.
        peer: the other's number, of its endpoint.
        tag: of its call.
        ask: as of `disagreement`.
    """
    own, other = number_of(own_tag), number_of(tag)
    comm.call_log.abandoned.update((own, min(own, other)))
    ours = comm.call_log.find(min(own, other)) or "something else"
    theirs = comm.endpoint.find_call(peer, comm.context, other) if ask else None
    return CollectiveMismatchError(comm.rank_of(peer), (ours, theirs or describe_tag(tag)))
