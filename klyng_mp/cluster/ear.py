"""A sink that hears some words at once, whoever waits for what, and leaves all other messages to an endpoint.

Layer: cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.wire.frames import CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.transports.contract import Sink
    from klyng_mp.wire.frames import Message

__all__ = ["Ear"]


class Ear:
    """See `Sink`.

    Args:
        sink: gets all but the words.
        tag: of the words, in the context CONTROL.
        hear: is given them, with the endpoint's lock held.
    """

    def __init__(self, sink: Sink, tag: str, hear: Callable[[Message], None]) -> None:
        self._sink = sink
        self._tag = tag
        self._hear = hear

    def deliver(self, peer: int, message: Message) -> None:
        """See `Sink.deliver`."""
        if message.context == CONTROL and message.tag == self._tag:
            self._hear(message)
        else:
            self._sink.deliver(peer, message)

    def lost(self, peer: int, reason: str) -> None:
        """See `Sink.lost`."""
        self._sink.lost(peer, reason)
