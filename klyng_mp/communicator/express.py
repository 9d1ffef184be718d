"""The core's short way for the small messages of a communicator, where ranks share memory.

Layer: communicator. What it does, and when it leaves a message to the long way, ``klyng_mp/_core/express.c`` tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.native import core
from klyng_mp.wire.frames import make_context, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.errors import CodecError

__all__ = ["NOTHING", "NOT_YET", "ExpressCodec", "make_express", "make_meeting"]

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


def make_express(endpoint: Endpoint, context: int, members: Sequence[int], codec: ExpressCodec) -> core.Express | None:
    """Return the short way of a communicator, or None where there is none."""
    if endpoint.port is None:
        return None
    blame = codec.decode_error
    return core.Express(
        endpoint.lock, endpoint.port, endpoint.mailbox, context, members, codec.main_by_reference, blame
    )


def make_meeting(endpoint: Endpoint, context: int, members: Sequence[int]) -> core.Meeting | None:
    """Return the way in which the ranks of a communicator meet without messages, or None where there is none.

    It is there on all of them or on none.
    """
    port, slot = endpoint.port, (context - make_context(run_of(context))) // 2  # the communicator's index
    if port is None or slot >= core.MEETINGS or not all(member in endpoint.nearby for member in members):
        return None
    return core.Meeting(endpoint.lock, port, context, slot, members)
