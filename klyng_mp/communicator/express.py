"""The core's short way for the small messages of a communicator, where ranks share memory.

Layer: communicator. What it does, and when it leaves a message to the long way, ``klyng_mp/_core/express.c`` tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from klyng_mp.native import core
from klyng_mp.wire.frames import make_context, run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.communicator.gathering import Gathering
    from klyng_mp.communicator.membership import Membership
    from klyng_mp.communicator.requests import Status
    from klyng_mp.errors import CodecError
    from klyng_mp.transports.shortcuts import Natives

__all__ = ["NOTHING", "NOT_YET", "ExpressCodec", "Ways", "make_ways"]

_MOST_DIRECT = 16  # ranks; with more, so many messages cost more than waking up a second time

NOTHING: Any = None if core is None else core.NOTHING
"""What the short way's ``recv`` returns where the long way has to be taken."""

NOT_YET: Any = None if core is None else core.NOT_YET
"""What it returns where the message has not come, neither to the mailbox nor to the ring, but is of the usual kind."""


class ExpressCodec(Protocol):
    """What the short way needs of a codec; see `Codec`."""

    main_by_reference: bool

    @staticmethod
    def decode_error(error: Exception, code: int, head: bytes) -> CodecError:
        """Return the error that says why a message cannot be rebuilt."""


class Ways(NamedTuple):
    """How a communicator's messages may go past the layers below it.

    Attributes:
        short: the core's short way, or None.
        collective: the same for messages of collectives.
        meeting: the way in which its ranks meet without messages; it is there on all of them or on none.
        direct: whether each rank had better send to each of the others than by way of some of them.
        in_turns: whether its ranks run one after the other, so that few messages are better than few rounds of them.
        gathering: where these leave what they give to a collective; it is there on all of them or on none.
        natives: the collectives that the transport has itself; they are there on all of them or on none.
        telling: as the short way's ``recv``, with a status to be filled in, where that is quicker than the long way.
    """

    short: core.Express | core.Local | None
    collective: core.Express | core.Local | None
    meeting: core.Meeting | None
    direct: bool = False
    in_turns: bool = False
    gathering: Gathering | None = None
    natives: Natives | None = None
    telling: Callable[[int, int | str, Status], Any] | None = None


def make_ways(endpoint: Membership, context: int, members: Sequence[int], codec: ExpressCodec) -> Ways:
    """Return the ways of a communicator of processes: there are some where its ranks share memory."""
    port = endpoint.port
    if port is None:
        return Ways(None, None, None)

    def express(context: int) -> core.Express:
        return core.Express(
            endpoint.lock, port, endpoint.mailbox, context, members, codec.main_by_reference, codec.decode_error
        )

    if not all(member in endpoint.nearby for member in members):
        return Ways(express(context), None, None)
    slot = (context - make_context(run_of(context))) // 2  # the communicator's index
    meeting = core.Meeting(endpoint.lock, port, context, slot, members) if slot < core.MEETINGS else None
    return Ways(express(context), express(context | 1), meeting, 2 < len(members) <= _MOST_DIRECT)
