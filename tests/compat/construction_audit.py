"""An audit of what the tests construct: is each Process, Pool, Queue, Connection and Manager of the right package?

It is copied beside the copy of the suite, and installed by whatever imports the copy's `test` package: the process
that runs the tests, and those that these start by any method. It gives the standard library's classes a `__new__`
that takes a note, so no instance is missed, neither of a subclass that does not call `__init__` nor one that was
unpickled. An instance is ours where a class in its line of ancestors is klyng_mp's.

Each process writes once for each class that it sees: the kind, the name of the class, and whether it is ours. The
first time it is not, it writes where that was, too.
"""

from __future__ import annotations

import importlib
import json
import os
import traceback

FILE_VARIABLE = "KLYNG_MP_COMPAT_AUDIT"

BASES = {
    "Process": "multiprocessing.process:BaseProcess",
    "Pool": "multiprocessing.pool:Pool",
    "Queue": "multiprocessing.queues:Queue",
    "SimpleQueue": "multiprocessing.queues:SimpleQueue",
    "Connection": "multiprocessing.connection:_ConnectionBase",
    "Manager": "multiprocessing.managers:BaseManager",
}
# What is made in these functions is their own affair, and reaches nobody who asked klyng_mp for something.
INTERNAL = {
    ("klyng_mp/connection.py", "Pipe"): "what the standard module makes is taken over, and only that is handed out",
    ("klyng_mp/connection.py", "Client"): "likewise",
    ("klyng_mp/connection.py", "accept"): "likewise",
    ("multiprocessing/resource_sharer.py", "_serve"): "a process has one sharer of descriptors, whoever needs it",
    ("multiprocessing/resource_sharer.py", "get_connection"): "likewise",
    ("multiprocessing/resource_sharer.py", "stop"): "likewise",
    ("multiprocessing/queues.py", "__init__"): "parts of a queue, which is noted itself",
    ("multiprocessing/connection.py", "rebuild_connection"): "noted where it was made",
    ("multiprocessing/pool.py", "__init__"): "parts of a Pool, which is noted itself; ThreadPool has such",
}

# Each interpreter has these once, whoever asks for them: there is one process tree.
SHARED = {"multiprocessing.process._MainProcess", "multiprocessing.process._ParentProcess"}

_seen: set[type] = set()


def install() -> None:
    """Begin to take notes in this process, where the environment says into which file."""
    if FILE_VARIABLE in os.environ:
        for kind, where in BASES.items():
            module, _, name = where.partition(":")
            base = getattr(importlib.import_module(module), name)
            if "__new__" not in vars(base):
                base.__new__ = _noting(kind)


def is_ours(cls: type) -> bool:
    """Tell whether a class is klyng_mp's, or derived from one that is."""
    return any(one.__module__.partition(".")[0] == "klyng_mp" for one in cls.__mro__)


def within(frame: traceback.FrameSummary, file: str, function: str) -> bool:
    """Tell whether a frame is of this function."""
    return frame.name == function and frame.filename.endswith("/" + file)


def _noting(kind):
    def __new__(cls, *_args, **_kwargs):
        if cls not in _seen:
            _seen.add(cls)
            _note(kind, cls)
        return object.__new__(cls)

    return __new__


def _note(kind, cls):
    name = f"{cls.__module__}.{cls.__qualname__}"
    if name in SHARED:
        return
    ours = is_ours(cls)
    line = {"kind": kind, "class": name, "ours": ours}
    if not ours:
        stack = traceback.extract_stack()[:-2]
        if any(within(frame, *place) for frame in stack for place in INTERNAL):
            _seen.discard(cls)  # one that somebody else makes is still to be seen
            return
        line["stack"] = "".join(traceback.format_list(stack[-12:]))
    file = os.open(os.environ[FILE_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")  # one write: many processes write here
    finally:
        os.close(file)
