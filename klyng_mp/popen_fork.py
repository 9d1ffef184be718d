"""Children that are forks of this process.

Layer: above process.
"""

from __future__ import annotations

import multiprocessing.popen_fork as standard

from klyng_mp.process import Launching

__all__ = ["Popen"]


class Popen(Launching, standard.Popen):
    """See ``multiprocessing.popen_fork.Popen``."""
