"""Where ranks compute that do not answer: their stacks, which they write at a signal, even from within C code.

Layer: launch. `prepare` in a rank lets Python's faulthandler write to a file in memory that all ranks of a supervisor
share with it; `Stacks`, in the supervisor, sends the signal and reads. The signal is a real-time one, so that SIGUSR1
and the like stay the program's; it is sent only to who catches it, as others would die of it.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from collections import deque
from typing import TYPE_CHECKING

from klyng_mp.launch.program import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.loop import Loop

__all__ = ["STACK_SIGNAL", "Stacks", "prepare", "users_part"]

STACK_SIGNAL = signal.SIGRTMAX - 1
_LOOK_SECONDS = 0.02  # after which a stack of the usual depth has been written
_MOST_LOOKS = 15  # on a busy machine it waits for its turn; in an uninterruptible call it never writes
_STOPPED = "it is stopped by a signal"
_MOST_BYTES = 1 << 16
_OUR_FOLDER = os.path.dirname(os.path.abspath(__file__))
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\S+) in (?P<name>.*)')


def prepare(fd: int) -> None:
    """Let this process write its stacks to a file, which stays open, whenever it gets `STACK_SIGNAL`."""
    faulthandler.register(STACK_SIGNAL, file=fd, all_threads=True)


class Stacks:
    """Reads the stacks of ranks, one after the other."""

    def __init__(self, loop: Loop) -> None:
        self.fd = os.memfd_create("klyng-stacks", os.MFD_CLOEXEC)
        self._loop = loop
        self._wanted: deque[tuple[int, Callable[[str], None]]] = deque()
        self._then: Callable[[str], None] | None = None  # of the rank that is writing

    def read(self, pid: int, then: Callable[[str], None]) -> None:
        """Call ``then(text)``, soon, with the user's part of a rank's stacks; with "" if they are not to be had.

        The rank must not have been waited for, so that its number is its own.
        """
        self._wanted.append((pid, then))
        self._begin()

    def close(self) -> None:
        """Close the file; what was asked for is answered with ""."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._finish("")
        while self._wanted:
            self._wanted.popleft()[1]("")

    def _begin(self) -> None:
        while self._wanted and self._then is None:
            pid, self._then = self._wanted.popleft()
            state, catches = _look_at(pid)
            if self.fd < 0 or not catches or state in "Tt":
                self._finish(_STOPPED if state and state in "Tt" else "")
                continue
            # The file's position is one for all who have it.
            os.ftruncate(self.fd, 0)
            os.lseek(self.fd, 0, os.SEEK_SET)
            os.kill(pid, STACK_SIGNAL)
            self._look_later(0, 0)

    def _finish(self, text: str) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(text)

    def _look_later(self, looks: int, size: int) -> None:
        self._loop.call_later(_LOOK_SECONDS, lambda: self._look(looks + 1, size))

    def _look(self, looks: int, last_size: int) -> None:
        if self.fd < 0:
            return  # it was closed, and who waited has been told
        size = os.fstat(self.fd).st_size
        if looks < _MOST_LOOKS and (not size or size != last_size):
            self._look_later(looks, size)
            return
        text = os.pread(self.fd, _MOST_BYTES, 0).decode(errors="replace")
        self._finish(users_part(text))
        self._begin()


def _look_at(pid: int) -> tuple[str, bool]:
    """Return the letter that ps shows for a process ("" if there is none), and whether it handles `STACK_SIGNAL`."""
    try:
        with open(f"/proc/{pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
    except OSError:
        return "", False
    return fields["State"].split()[0], bool(int(fields["SigCgt"], 16) >> (STACK_SIGNAL - 1) & 1)


def users_part(text: str) -> str:
    """Return faulthandler's text, innermost frame first, without what is not the user's."""
    threads = [_users_frames(thread.splitlines()) for thread in text.split("\n\n") if thread.strip()]
    if len(threads) == 1:
        threads[0] = [line for line in threads[0] if line.startswith("at ")]
    return "\n".join(line for thread in threads for line in thread)


def _users_frames(lines: list[str]) -> list[str]:
    heading, frames = [], []
    for line in lines:
        frame = _FRAME.fullmatch(line)
        if frame is None:
            heading.append(line.replace(" (most recent call first)", ""))
        else:
            frames.append((frame["file"], f"at {frame['file']}:{frame['line']} in {frame['name']}"))
    # What called the rank's own main is how its process was made.
    mains = [position for position, (file, _) in enumerate(frames) if os.path.dirname(file) == _OUR_FOLDER]
    own = frames[: mains[-1]] if mains else frames
    return [*(line for line in heading if line), *(line for file, line in own if not is_ours(file))]
