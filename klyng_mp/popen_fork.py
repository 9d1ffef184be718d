"""Children that are forks of this process.

Layer: above process.
"""

from __future__ import annotations

import multiprocessing.popen_fork as standard
from typing import Any

from klyng_mp.leash import hold

__all__ = ["Popen"]


class Popen(standard.Popen):
    """See ``multiprocessing.popen_fork.Popen``."""

    def _launch(self, process_obj: Any) -> None:
        super()._launch(process_obj)  # type: ignore[misc]
        hold(self)
