"""The state of a shared value or array: bytes, and the lock that guards them.

Layer: objects; sans-IO; knows no types.

Invariant: one order reads or writes at once, and while another thread holds the lock none does.

Threads: not safe by itself; whoever keeps it has one lock around every call.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from klyng_mp.objects.orders import Outcome, What

if TYPE_CHECKING:
    from klyng_mp.objects.orders import Asker, Order, Process
    from klyng_mp.objects.semaphores import Answer, SemaphoreState

__all__ = ["CellState"]


class CellState:
    """Bytes.

    Args:
        answer: takes the answers.
        data: what is there at first.
        lock: of which who reads or writes needs a permit, or None.
    """

    def __init__(self, answer: Answer, data: bytes, lock: SemaphoreState | None) -> None:
        self._answer = answer
        self._data = bytearray(data)
        self._lock = lock

    def ask(self, order: Order) -> None:
        """Read ``second`` bytes from ``first``; or write items of ``third`` bytes there, each ``second`` further."""
        if order.what not in {What.READ, What.WRITE}:
            self._answer(order.asker, Outcome.UNKNOWN)
        elif self._lock is None:
            self._do(order)
        else:
            self._lock.acquire(order.asker, then=partial(self._go_on, order, self._lock))

    def cancel(self, asker: Asker) -> None:
        """Nothing: who reads or writes has no limit of time."""

    def part(self, process: Process, *, orderly: bool) -> None:
        """Take note that a process has ended; its lock sees to those that wait."""

    def _go_on(self, order: Order, lock: SemaphoreState, got: int) -> None:
        if got != Outcome.YES:
            self._answer(order.asker, got, *(lock.broken or (0, 0)))
            return
        self._do(order)
        lock.release(order.asker)

    def _do(self, order: Order) -> None:
        start, step, size = order.first, order.second, order.third
        if order.what == What.READ:
            fits = 0 <= start <= start + step <= len(self._data)
            data = bytes(self._data[start : start + step]) if fits else b""
            self._answer(order.asker, Outcome.YES if fits else Outcome.UNKNOWN, content=(0, data, ()))
            return
        data = order.content[1]
        count = len(data) // size if size > 0 else 0
        last = start + step * (count - 1)
        if not count or len(data) % size or min(start, last) < 0 or max(start, last) + size > len(self._data):
            self._answer(order.asker, Outcome.YES if size > 0 and not data else Outcome.UNKNOWN)
            return
        if step == size:
            self._data[start : start + len(data)] = data
        else:
            for index in range(count):
                place = start + index * step
                self._data[place : place + size] = data[index * size : (index + 1) * size]
        self._answer(order.asker, Outcome.YES)
