"""One point in time that several steps share, made from a ``timeout=`` in seconds.

Layer: leaf; imports only errors.
"""

from __future__ import annotations

import math
from time import monotonic

from klyng_mp.errors import DeadlineError

__all__ = ["NEVER", "Deadline"]


class Deadline:
    """When a call must be over. ``Deadline(None)`` is never.

    Args:
        timeout: seconds from now; negative counts as 0; ``None`` for no limit.

    Raises:
        TypeError: ``timeout`` is no number.
        ValueError: ``timeout`` is NaN.
    """

    __slots__ = ("at", "seconds")

    def __init__(self, timeout: float | None) -> None:
        if timeout is None:
            self.seconds = self.at = math.inf
            return
        if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
            raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
        if math.isnan(timeout):
            raise ValueError("timeout must be a number of seconds or None, not NaN")
        self.seconds = max(0.0, timeout)
        self.at = monotonic() + self.seconds

    def left(self) -> float | None:
        """Return the seconds that are left (never below 0), or None where there is no limit."""
        return None if self.at == math.inf else max(0.0, self.at - monotonic())

    def over(self) -> bool:
        """Tell whether the time has run out."""
        return self.at != math.inf and monotonic() >= self.at

    def error(self, doing: str, *, left: str = "") -> DeadlineError:
        """Return the error that says that ``doing`` did not finish, and what state is left."""
        return DeadlineError(doing, self.seconds, left=left)


NEVER = Deadline(None)
