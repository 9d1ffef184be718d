"""Where the ranks of a communicator that share one process leave what they give to a collective.

Layer: communicator. Who comes last finds what all have left, combines it, and sends the outcome to the others in the
name of rank 0, for whose message they wait: so each has its turn twice, whatever the number of ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.call import Packed
from klyng_mp.wire.frames import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.communicator.call import Call
    from klyng_mp.native import core

__all__ = ["Gathering", "answer_all", "combine_pairs", "gather_here"]

_UNCHANGING = (int, float, bool, str, bytes, type(None))

_NOTHING = object()


class Gathering:
    """What has been left in one communicator.

    Args:
        size: of the communicator.
        forward: takes a message, of whichever sender, to an endpoint.

    Attributes:
        lane: the short way of rank 0's collectives; set by rank 0.
    """

    __slots__ = ("_left", "_size", "forward", "lane")

    def __init__(self, size: int, forward: Callable[[int, Message], object]) -> None:
        self._size = size
        self.forward = forward
        self._left: dict[int, list[Any]] = {}
        self.lane: core.Local | None = None

    def leave(self, tag: int, rank: int, value: Any) -> list[Any] | None:
        """Leave a value for the call with a tag; return what all have left, by rank, if this was the last."""
        left = self._left.get(tag)
        if left is None:
            left = self._left[tag] = [0, [_NOTHING] * self._size]
        left[1][rank] = value
        left[0] += 1
        if left[0] < self._size:
            return None
        values: list[Any] = self._left.pop(tag)[1]
        return values

    def absent(self, tag: int) -> list[int]:
        """Return the ranks that have left nothing yet for the call with a tag, for which others have."""
        left = self._left.get(tag)
        return [] if left is None else [rank for rank, value in enumerate(left[1]) if value is _NOTHING]


def gather_here(call: Call, obj: Any) -> list[Any] | None:
    """Leave a copy of an object; return copies of what all have left, by rank, if this was the last."""
    gathering = call.comm.gathering
    assert gathering is not None  # noqa: S101 - who calls has looked
    values = gathering.leave(call.tag, call.rank, obj if type(obj) in _UNCHANGING else call.pack(obj))
    return None if values is None else [call.open(one) if type(one) is Packed else one for one in values]


def answer_all(call: Call, obj: Any) -> Any:
    """Send an object to all other ranks, in the name of rank 0; return it."""
    gathering, members = call.comm.gathering, call.comm.members
    assert gathering is not None  # noqa: S101 - as above
    packed: Packed | None = None
    for dest in range(call.size):
        if dest == call.rank or (gathering.lane is not None and gathering.lane.send(obj, dest, call.tag)):
            continue
        packed = packed or call.pack(obj)
        gathering.forward(members[dest], Message(call.comm.context | 1, members[0], call.tag, 0, *packed))
    return obj


def combine_pairs(values: list[Any], op: Callable[[Any, Any], Any]) -> Any:
    """Combine values in their order, as recursive doubling does, to the last bit."""
    size = len(values)
    extra = size - (1 << (size.bit_length() - 1))  # beyond the largest power of two: their neighbours stand for them
    pairs = [op(values[index], values[index + 1]) for index in range(0, 2 * extra, 2)]
    left = pairs + values[2 * extra :]
    while len(left) > 1:
        left = [op(left[index], left[index + 1]) for index in range(0, len(left), 2)]
    return left[0]
