"""Addresses of this machine that processes on other hosts of a World can dial: of servers of managers.

Layer: objects. A rank that dials has a pipe to the driver, where a thread carries messages between that and a
connection to the server, as long as both are open.
"""

from __future__ import annotations

import errno
import os
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Self, cast

from klyng_mp.errors import KlyngError
from klyng_mp.objects.asking import How
from klyng_mp.objects.ends import FarConnection, keep_pipe
from klyng_mp.objects.orders import Outcome, What
from klyng_mp.objects.shared import own_desk

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.objects.asking import Asking
    from klyng_mp.objects.orders import Asker, Order, Process
    from klyng_mp.objects.semaphores import Answer
    from klyng_mp.objects.shared import Numbers

__all__ = ["DoorAddress", "open_door"]


def _hang_up(desk: Asking, number: int, answer: Order) -> None:
    del number
    desk.tell(answer.first, What.DROP, (1, 0, 0))


_DIAL = How("connecting to the server of a manager", undo=_hang_up)


class DoorAddress(str):
    """The address of a server on the driver's machine, for processes anywhere in its World.

    Attributes:
        number: of the door.
    """

    __slots__ = ("number",)
    number: int

    def __new__(cls, address: str, number: int) -> Self:
        """Return an address that is this text."""
        made = super().__new__(cls, address)
        made.number = number
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return DoorAddress, (str(self), self.number)

    def dial(self) -> FarConnection | None:
        """Return a connection to the server, who knows that it is of this World; None if this process is no rank.

        Raises:
            ConnectionRefusedError: the server has ended.
            KlyngError: the World is closed, or the run is being ended.
        """
        desk = own_desk()
        if desk is None:
            return None
        answer = desk.ask(self.number, What.OPEN, how=_DIAL)
        if answer.what != Outcome.YES:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED), str(self))
        return FarConnection(desk, answer.first, 1)


def open_door(numbers: Numbers, address: str, connect: Callable[[], Any]) -> DoorAddress:
    """Return an address by which all processes of a World reach a server, to which ``connect()`` connects here."""
    number = numbers.new()
    numbers.desk.keep(number, lambda answer: _DoorState(answer, numbers, connect))
    return DoorAddress(address, number)


class _DoorState:
    """Who dials gets a connection; see `klyng_mp.objects.desk.State`."""

    def __init__(self, answer: Answer, numbers: Numbers, connect: Callable[[], Any]) -> None:
        self._answer = answer
        self._numbers = numbers
        self._connect = connect

    def ask(self, order: Order) -> None:
        """Let a thread connect, and answer."""
        if order.what == What.OPEN:
            try:
                threading.Thread(target=self._serve, args=(order.asker,), name="klyng door", daemon=True).start()
            except RuntimeError:  # there is no room for another thread
                self._answer(order.asker, Outcome.BROKEN)
        else:
            self._answer(order.asker, Outcome.UNKNOWN)

    def cancel(self, asker: Asker) -> None:
        """Nothing: it is answered soon."""

    def part(self, process: Process, *, orderly: bool) -> None:
        """Nothing: the pipes of who has ended end by themselves."""

    def _serve(self, asker: Asker) -> None:
        desk = self._numbers.desk
        try:
            near = self._connect()
        except (OSError, EOFError, AuthenticationError):
            with desk.endpoint.lock:
                self._answer(asker, Outcome.BROKEN)
            return
        with near:
            with desk.endpoint.lock:
                if desk.has_ended(asker.process):
                    return
                number = keep_pipe(self._numbers, (desk.process, asker.process))
                far = FarConnection(desk, number, 0)
                self._answer(asker, Outcome.YES, number)
            with far:
                _carry(near, far)


def _carry(near: Any, far: FarConnection) -> None:
    """Carry messages both ways until one of them is at its end, or the World is closed."""
    others = {near: far, far: near}
    try:
        while True:
            for end in cast("list[Any]", wait(list(others))):
                others[end].send_bytes(end.recv_bytes())
    except (EOFError, OSError, KlyngError):
        return  # which closes the other one
