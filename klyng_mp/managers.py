"""Objects that live in a process of their own, and proxies for them elsewhere.

Layer: above connection; multiprocessing.managers' names.
"""

from __future__ import annotations

import multiprocessing.managers as standard

__all__ = ["BaseManager", "SyncManager"]


class BaseManager(standard.BaseManager):
    """See ``multiprocessing.managers.BaseManager``."""


class SyncManager(BaseManager, standard.SyncManager):
    """See ``multiprocessing.Manager``."""
