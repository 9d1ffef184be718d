"""Children that are forks of a World's zygote, and neither of this process nor its children in the kernel's sense.

Layer: above process. What they are to do, and the descriptors that it needs, go to the zygote's supervisor; the exit
code comes back through a pipe, whose end is the sentinel. So nothing here waits for more than a descriptor.
"""

from __future__ import annotations

import functools
import math
import os
import select
import signal
import threading
from contextlib import suppress
from multiprocessing import util
from multiprocessing.context import set_spawning_popen
from typing import TYPE_CHECKING, Any, Protocol, cast

from klyng_mp.deadline import Deadline
from klyng_mp.launch.exitpipe import EXIT_CODE
from klyng_mp.launch.job import PASSED_ON, pass_on_interrupt
from klyng_mp.launch.started import InheritedFd
from klyng_mp.launch.task import is_sealed
from klyng_mp.objects.leaving import refuse_descriptor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Popen", "Starter"]

_MOST_FDS = 240  # the kernel takes 253 in one message, of which a rank needs some itself
_FIRST = 1000  # of the finalizers; those of the standard library have priorities up to 100
_LONGEST_MILLISECONDS = 2**31 - 1  # that poll takes: 24 days


class Starter(Protocol):
    """A World, as far as starting processes goes."""

    @property
    def is_spread(self) -> bool:
        """Whether some of its processes are on other machines, or may be."""

    def start_process(self, process_obj: Any, popen: Popen) -> tuple[int, int, int | None]:
        """Start the process of a process object; see `klyng_mp.launch.driver.Job.start_process`."""

    def see_out(self, popen: Popen) -> None:
        """Take note that a process has ended; all that it has printed has been written when this returns."""

    def signal_process(self, serial: int, signum: int) -> None:
        """Send a signal to a process that was started, if it lives, or with serial 0 to all of them."""


class Popen:
    """The child of a process object that was made by a World; see ``multiprocessing.popen_forkserver.Popen``.

    Attributes:
        pid: its process number.
        returncode: its exit code, or minus the signal that killed it; None while it lives.
        sentinel: a descriptor that is readable once it has ended.
        is_spread: whether it may be on another host.
    """

    method = "zygote"
    DupFd = InheritedFd

    def __init__(self, process_obj: Any, world: Starter) -> None:
        _register(os.getpid())
        util._flush_std_streams()  # type: ignore[attr-defined]
        self._fds: list[int] = []
        self._world: Starter | None = world
        self._lock = threading.Lock()
        self.is_spread = False
        self.returncode: int | None = None
        self.sentinel, self.exit_pipe = os.pipe()
        try:
            self.serial, self.pid, self._pidfd = world.start_process(process_obj, self)
        except BaseException:
            os.close(self.sentinel)
            raise
        finally:
            os.close(self.exit_pipe)
        self.finalizer = util.Finalize(
            self,
            util.close_fds,  # type: ignore[attr-defined]
            [fd for fd in (self.sentinel, self._pidfd) if fd is not None],
        )

    # What a process is started with

    def duplicate_for_child(self, fd: int) -> int:
        """Send a descriptor along; called while the process object is pickled."""
        if self.is_spread and not is_sealed(fd):
            refuse_descriptor()
        self._fds.append(fd)
        return len(self._fds) - 1

    def gather(self, pack: Any, *, is_spread: bool) -> tuple[int, Sequence[int]]:
        """Return what ``pack()`` returns, which pickles the process object, and the descriptors that go along.

        Raises:
            NotAcrossHostsError: there are some which mean nothing on another host, where the process may be.
        """
        self.is_spread = is_spread
        set_spawning_popen(cast("Any", self))
        try:
            packed: int = pack()
        finally:
            set_spawning_popen(None)
        if len(self._fds) > _MOST_FDS:
            os.close(packed)
            raise ValueError(f"a process cannot be started with {len(self._fds)} descriptors: {_MOST_FDS} at most")
        return packed, self._fds

    # Its end

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, or None while it runs."""
        return self.wait(0 if flag == os.WNOHANG else None)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end, for at most ``timeout`` seconds; return the exit code, or None while it runs."""
        if self.returncode is None:
            try:
                ended = _wait_readable(self.sentinel, Deadline(timeout))
            except KeyboardInterrupt as interrupt:
                if self._world is not None:
                    self._world.signal_process(0, signal.SIGINT)
                    setattr(interrupt, PASSED_ON, True)
                raise
            if ended:
                self._take_exit_code()
        return self.returncode

    def _take_exit_code(self) -> None:
        with self._lock:
            if self.returncode is not None:
                return
            data = os.read(self.sentinel, EXIT_CODE.size)
            world, self._world = self._world, None
            if world is not None:
                world.see_out(self)
            # Without a word its supervisor is gone, and has taken it along.
            self.returncode = EXIT_CODE.unpack(data)[0] if data else -signal.SIGKILL

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL; what it has started ends with it."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, signum: int) -> None:
        """Send it a signal, if it lives."""
        if self.returncode is None and self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)
        elif self.returncode is None and self._world is not None:
            self._world.signal_process(self.serial, signum)

    def close(self) -> None:
        """Close the descriptors."""
        self.finalizer()


def _wait_readable(fd: int, deadline: Deadline) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    left = deadline.left()
    return bool(poll.poll(None if left is None else min(math.ceil(left * 1000), _LONGEST_MILLISECONDS)))


@functools.cache
def _register(_pid: int) -> None:
    # Before multiprocessing's own function of a program's end joins processes.
    util.Finalize(None, pass_on_interrupt, exitpriority=_FIRST)
