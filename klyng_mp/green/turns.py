"""How the ranks of a World take turns: what ``World(green=…, schedule=…)`` asks for.

Layer: green; the only part that World knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from klyng_mp.launch.driver import Job
    from klyng_mp.launch.spec import RankSpec

__all__ = ["Turns"]

_MEANINGLESS = {
    "method": "green ranks are not brought to life as processes",
    "env": "green ranks have the environment of this process: set os.environ",
    "preload": "green ranks have the modules of this process: import them",
}


class Turns:
    """What a World with green ranks is asked for.

    Args:
        green: ``World``'s.
        schedule: likewise.
        others: arguments of World's that may have no meaning with it.

    Raises:
        TypeError, ValueError: an argument is not what it should be, or has no meaning here.
        ImportError: greenlet is not installed.
    """

    def __init__(self, green: bool, schedule: int | None, **others: Any) -> None:
        if schedule is not None and (isinstance(schedule, bool) or not isinstance(schedule, int)):
            raise TypeError(f"schedule must be an int or None, not {schedule!r}")
        if not isinstance(green, bool):
            raise TypeError(f"green must be True or False, not {green!r}")
        if not green:
            raise ValueError("schedule= is for green ranks: give green=True, too")
        for name, why in _MEANINGLESS.items():
            if others[name]:
                raise ValueError(f"{name}= has no meaning with green=True: {why}")
        if others["hosts"] is not None:
            raise ValueError("green=True means ranks of this process: leave hosts= out")
        self._schedule = schedule

    def launch(self, spec: RankSpec, *, label: bool) -> Job:
        """Return the job of such ranks."""
        from klyng_mp.green.job import GreenJob  # noqa: PLC0415 - greenlet is imported only where it is used

        return GreenJob(spec, schedule=self._schedule, label=label)
