"""Collectives that a transport has itself: what is asked of it.

Layer: transports; nothing here moves anything. Not every transport has some.
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["ANY_ROOM", "Natives", "Shortcut", "Taken"]

ANY_ROOM = 1 << 62


class Shortcut:
    """What a rank wants of a collective that the transport may have.

    Attributes:
        kind: of the call: "bcast".
        alike: what has to be the same on all ranks; None: it is not possible here.
        send: bytes, or for a reduction a flat array of NumPy's; or None.
        receive: likewise, to be written to.
        root: its rank, or 0.
        operation: the name of a reduction, or "".
        size: of the bytes of each part; 0 where only the root knows, and this is another.
        room: for how many there is room.
    """

    __slots__ = ("alike", "kind", "operation", "receive", "room", "root", "send", "size")

    def __init__(
        self, kind: str, alike: tuple[Any, ...] | None, send: Any = None, receive: Any = None, *, root: int = 0,
        operation: str = "",
    ) -> None:  # fmt: skip
        self.kind = kind
        self.alike = alike
        self.send = send
        self.receive = receive
        self.root = root
        self.operation = operation
        self.size = 0
        self.room = ANY_ROOM

    def copy(self) -> None:
        """Use memory of its own from now on, whose content at the end is nobody's."""
        if self.send is not None:
            self.send = self.send.copy() if self.operation else memoryview(bytes(self.send))
        if self.receive is not None:
            self.receive = self.receive.copy() if self.operation else memoryview(bytearray(self.receive))


class Taken(Protocol):
    """A call that was begun."""

    @property
    def is_over(self) -> bool:
        """Whether it is done, or all ranks know that it is to be done by messages."""

    @property
    def was_possible(self) -> bool:
        """Which of the two."""

    @property
    def strangers(self) -> dict[int, int]:
        """The tags of those ranks that have made another call, if any has."""

    @property
    def number(self) -> int:
        """Counts those of the communicator."""

    def give_up(self) -> None:
        """Let it go on without its caller's memory, as far as it has not begun to use that."""


class Natives(Protocol):
    """A communicator's collectives that the transport has; used with the endpoint's lock held.

    Attributes:
        waits_in: the number of the call that a thread waits in, or 0.
    """

    waits_in: int

    def begin(self, tag: int, shortcut: Shortcut) -> Taken:
        """Begin a call, which has the same tag on all ranks that make it."""

    def look(self, taken: Taken) -> None:
        """Look for a while whether it is over."""

    def gone_before(self, number: int) -> list[int]:
        """Return the peers that have left and not begun a call of this number."""
