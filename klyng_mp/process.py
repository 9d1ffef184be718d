"""Processes with multiprocessing's interface, whose targets and arguments may be anything.

Layer: above reduction and leash. There is one tree of processes: the current process, its children and their counter
are the standard module's own, whichever of the two modules has started them.
"""

from __future__ import annotations

import multiprocessing.context as standard_context
import multiprocessing.process as standard
import os
from contextlib import contextmanager
from multiprocessing.process import (  # type: ignore[attr-defined]
    ORIGINAL_DIR,
    AuthenticationString,
    _children,
    _cleanup,
    _dangling,
    _process_counter,
    active_children,
    current_process,
    parent_process,
)
from typing import TYPE_CHECKING, Any, cast

from klyng_mp.leash import hold, put_on_leash
from klyng_mp.reduction import ForkingPickler, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.popen_fork import Popen

__all__ = [
    "ORIGINAL_DIR",
    "START_METHOD",
    "AuthenticationString",
    "BaseProcess",
    "Launching",
    "StartMethod",
    "active_children",
    "current_process",
    "parent_process",
    "rebuild",
    "take_apart",
]


class StartMethod:
    """The start method of the default context, once something has chosen one.

    Attributes:
        name: what was chosen for this module; None: what the standard module's default context uses.
        context: returns the context that is used by default; set by ``klyng_mp.context``.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.context: Callable[[], Any] = standard_context._default_context.get_context


START_METHOD = StartMethod()


class BaseProcess(standard.BaseProcess):
    """A function call in a process of its own; see ``multiprocessing.Process``.

    Target, arguments and the class itself may be lambdas, closures, local classes or things of a notebook's
    ``__main__``, with each start method. A daemonic process may have children. They are daemonic, too; and a daemonic
    process is killed when its parent has ended without ending it.

    Raises:
        CodecError: where the start method needs to pickle it, something cannot travel; names which part.
    """

    _start_method: Any  # str | None; the stubs of the subclasses disagree
    _popen: Any

    def start(self) -> None:
        """Start the child process; see ``multiprocessing.Process.start``."""
        self._check_closed()  # type: ignore[attr-defined]
        for wrong, reason in (
            (self._popen is not None, "cannot start a process twice"),
            (self._parent_pid != os.getpid(), "can only start a process object created by current process"),  # type: ignore[attr-defined]
        ):
            if wrong:
                raise AssertionError(reason)
        standard._cleanup()  # type: ignore[attr-defined]
        self._popen = self._Popen(self)  # type: ignore[attr-defined]
        self._sentinel = self._popen.sentinel
        del self._target, self._args, self._kwargs  # type: ignore[attr-defined]  # they may refer to this process
        standard._children.add(self)  # type: ignore[attr-defined]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle to be started elsewhere: as a pickle of its own, in which anything may be."""
        del protocol  # what is made here goes to a process of the same Python
        return _open, (bytes(ForkingPickler.dumps(take_apart(self))),)

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        if self._start_method is not None:
            START_METHOD.name = self._start_method
        if self.daemon and parent_sentinel is not None:
            put_on_leash(parent_sentinel, os.getpid())
        exitcode: int = super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        return exitcode


def _open(content: bytes) -> Any:
    function, arguments = loads(content)
    return function(*arguments)


def take_apart(process_obj: Any) -> tuple[Any, ...]:
    """Return a function and its arguments, which make the process object elsewhere."""
    reduced: Any = object.__reduce_ex__(process_obj, 2)
    func, arguments, *rest = reduced
    return rebuild, (func, arguments, rest[0] if rest else None, START_METHOD.name)


def rebuild(func: Any, arguments: tuple[Any, ...], state: Any, method: str | None) -> Any:
    """Return the process object that was taken apart."""
    START_METHOD.name = method
    process = func(*arguments)
    if state is not None:
        if hasattr(process, "__setstate__"):
            process.__setstate__(state)
        else:
            process.__dict__.update(state)
    return process


class Launching:
    """What goes before the standard library's Popen of a start method: it settles nothing, and the child is held."""

    def _launch(self, process_obj: Any) -> None:
        with _undecided_start_method():
            super()._launch(process_obj)  # type: ignore[misc]
        hold(cast("Popen", self))


@contextmanager
def _undecided_start_method() -> Iterator[None]:
    """Keep the standard module's default context as undecided as it is: it is settled when anything is started."""
    context: Any = standard_context._default_context
    undecided = context.get_start_method(allow_none=True) is None
    try:
        yield
    finally:
        if undecided:
            context.set_start_method(None, force=True)
