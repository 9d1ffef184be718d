"""The zygotes of this process: started by the first job that wants one of a kind, kept for those that follow.

Layer: launch; the other end is zygote.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Any

from klyng_mp.errors import LaunchError
from klyng_mp.launch.channel import Channel
from klyng_mp.launch.launcher import interpreter_command

__all__ = ["ZygoteProcess", "forget_zygotes", "reap", "stop_zygotes", "zygote_for", "zygotes"]

_DYING_MILLISECONDS = 200


class ZygoteProcess:
    """The driver's end of a zygote."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        from multiprocessing.util import spawnv_passfds  # noqa: PLC0415 - a program without Worlds does not need it

        self.suspect = False  # one of its jobs has ended without a word
        self.channel, theirs = Channel.pair()
        fd = theirs.fileno()
        command = interpreter_command("klyng_mp.launch.zygote", "zygote_main", [fd])
        self.pid: int = spawnv_passfds(os.fsencode(sys.executable), command, [fd])
        theirs.close()
        try:
            if preload:
                self._preload(preload)
        except BaseException:
            self.stop()
            raise

    def _preload(self, names: tuple[str, ...]) -> None:
        self.channel.send_now("preload", list(names), list(sys.path))
        try:
            (_, wrong), _ = self.channel.receive_now()
        except EOFError:
            wrong = f"the zygote ended while it imported {', '.join(names)}"
        if wrong:
            raise LaunchError(wrong)

    def alive(self) -> bool:
        """Tell whether it can take another job; a dead one is laid to rest."""
        if self.suspect:
            # Its descriptors are closed one after the other, and only then it is a child to wait for.
            poll = select.poll()
            poll.register(self.channel, select.POLLIN)
            self.suspect = False
            if poll.poll(_DYING_MILLISECONDS):
                self.stop()
                return False
        if dead := reap(self.pid, os.WNOHANG):
            self.channel.close()
        return not dead

    def stop(self) -> None:
        """Let it end, and what is left of its jobs with it."""
        self.channel.close()
        reap(self.pid)


def reap(pid: int, options: int = 0) -> bool:
    """Lay a child to rest; return whether it has ended. The program may have waited for all its children itself."""
    try:
        return os.waitpid(pid, options)[0] == pid
    except ChildProcessError:
        return True


zygotes: dict[tuple[Any, ...], ZygoteProcess] = {}
"""Those that were started, by what they have imported and how their interpreter was started."""


def zygote_for(preload: tuple[str, ...]) -> ZygoteProcess:
    """Return a living zygote that has imported these modules.

    Raises:
        LaunchError: it could not import them.
    """
    key = (preload, sys.executable, tuple(sys.flags), tuple(sys.warnoptions))
    zygote = zygotes.get(key)
    if zygote is None or not zygote.alive():
        zygote = zygotes[key] = ZygoteProcess(preload)
    return zygote


def stop_zygotes() -> None:
    """Let all of them end, and what is left of their jobs with them."""
    while zygotes:
        zygotes.popitem()[1].stop()


def forget_zygotes() -> None:
    """In a forked child: close the parent's ends, or its death would not be seen while this child lives."""
    for zygote in zygotes.values():
        zygote.channel.close()
    zygotes.clear()
