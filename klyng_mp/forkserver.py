"""The process that forks children for the start method forkserver.

Layer: above process. It is the standard module's, under the same name here: there is one tree of processes.
"""

from __future__ import annotations

from multiprocessing.forkserver import (
    MAXFDS_TO_SEND,
    ForkServer,
    _forkserver,
    connect_to_new_process,
    ensure_running,
    get_inherited_fds,
    main,
    read_signed,
    set_forkserver_preload,
    write_signed,
)

__all__ = [
    "ForkServer",
    "connect_to_new_process",
    "ensure_running",
    "get_inherited_fds",
    "main",
    "read_signed",
    "set_forkserver_preload",
    "write_signed",
]
