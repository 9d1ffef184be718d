"""Who starts successors of a pool's workers that may be on other hosts, where that takes its time.

Layer: pooling. A thread, while there is a place without a worker: no result has to wait until a host has answered.
Where the World has no free place, since a host is lost, it looks again until there is one.

Invariants: nothing is started with the desk's lock held.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Recruiter"]

_PAUSE = 0.5  # seconds between looks whether there is a place again


class Recruiter:
    """Fills places, one after the other.

    Args:
        has_place: whether a worker could be started now; may raise, which is told to `give_up`.
        recruit: starts a worker for a place; returns an error that says why it could not be, or None.
        give_up: nobody can be started any more.
    """

    def __init__(
        self,
        has_place: Callable[[], bool],
        recruit: Callable[[int], Exception | None],
        give_up: Callable[[Exception], None],
    ) -> None:
        self._has_place = has_place
        self._recruit = recruit
        self._give_up = give_up
        self._vacant: list[int] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def want(self, place: int) -> None:
        """Start a worker for this place, as soon as that can be."""
        with self._changed:
            self._vacant.append(place)
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._serve, name="klyng_mp pool's recruiter", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Start nobody any more, and wait until nobody is just being started."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                if self._stopped or not self._vacant:
                    self._thread = None
                    return
            try:
                free = self._has_place()
            except Exception as error:  # noqa: BLE001 - it is told to all who wait
                self._give_up(error)
                free = False
            if not free:
                with self._changed:
                    if not self._stopped:
                        self._changed.wait(_PAUSE)
                continue
            with self._changed:
                place = self._vacant.pop(0)
            wrong = self._recruit(place)
            if wrong is not None and self._has_place_now():
                self._give_up(wrong)
            elif wrong is not None:
                with self._changed:
                    self._vacant.append(place)

    def _has_place_now(self) -> bool:
        try:
            return self._has_place()
        except Exception:  # noqa: BLE001 - the next look says so
            return False
