"""The process that removes named shared memory and semaphores whose users were killed.

Layer: above process. It is the standard module's, under the same name here: there is one tree of processes.
"""

from __future__ import annotations

from multiprocessing.resource_tracker import (  # type: ignore[attr-defined]
    _CLEANUP_FUNCS,
    ResourceTracker,
    _resource_tracker,
    ensure_running,
    getfd,
    main,
    register,
    unregister,
)

__all__ = [
    "ResourceTracker",
    "ensure_running",
    "getfd",
    "main",
    "register",
    "unregister",
]
