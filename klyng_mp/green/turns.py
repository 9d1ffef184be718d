"""How the ranks of a World take turns: what ``World(green=..., schedule=...)`` asks for.

Layer: green; the only part that World knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.green.bridged import Processes
    from klyng_mp.launch.driver import Job
    from klyng_mp.launch.spec import RankSpec

__all__ = ["Turns"]

_MEANINGLESS = {
    "method": "green ranks are not brought to life as processes",
    "env": "green ranks have the environment of this process: set os.environ",
    "preload": "green ranks have the modules of this process: import them",
    "hosts": "they are in this process; give the number of ranks a process, green=1000, to have them elsewhere",
}


class Turns:
    """What a World with green ranks is asked for.

    Args:
        green: ``World``'s.
        schedule: likewise.
        make_processes: returns a World of so many processes, with the arguments that this one was given.
        others: those of them that have no meaning in a single process.

    Raises:
        TypeError, ValueError: an argument is not what it should be, or has no meaning here.
    """

    def __init__(
        self, green: bool | int, schedule: int | None, make_processes: Callable[[int], Processes], **others: Any
    ) -> None:
        if schedule is not None and (isinstance(schedule, bool) or not isinstance(schedule, int)):
            raise TypeError(f"schedule must be an int or None, not {schedule!r}")
        if not isinstance(green, int):
            raise TypeError(f"green must be True, or the number of ranks in each process, not {green!r}")
        if green is False:
            raise ValueError("schedule= is for green ranks: give green=True, too")
        if green is not True and green < 1:
            raise ValueError(f"green must be at least 1 rank in each process, not {green}")
        if green is True:
            for name, why in _MEANINGLESS.items():
                if others[name]:
                    raise ValueError(f"{name}= has no meaning with green=True: {why}")
        self._share = None if green is True else int(green)
        self._schedule = schedule
        self._make_processes = make_processes
        self._by_reference = others["method"] == "fork"

    def launch(self, spec: RankSpec, *, label: bool) -> Job:
        """Return the job of such ranks.

        Raises:
            Exception: as `World`, where there are processes.
        """
        if self._share is None:
            from klyng_mp.green.job import GreenJob  # noqa: PLC0415 - greenlet is imported only where it is used

            return GreenJob(spec, schedule=self._schedule, label=label)
        from klyng_mp.green.bridged import BridgedJob  # noqa: PLC0415 - likewise

        processes = self._make_processes(-(-spec.size // self._share))
        return BridgedJob(
            spec, processes, self._share, schedule=self._schedule, label=label, by_reference=self._by_reference
        )
