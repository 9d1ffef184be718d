"""How a rank's process is made: the contract of a launcher, and the ones that exist here.

Layer: launch. A launcher makes a *body*, a process that waits to be told its place; it supervises
nothing. To add one, write a class with ``launch`` and a row where launchers are chosen (zygote.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import TYPE_CHECKING, NoReturn, Protocol

from klyng_mp.launch.channel import Channel
from klyng_mp.launch.surroundings import BodyEnds, adopt

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.spec import RankSpec

__all__ = ["Body", "ForkLauncher", "Launcher", "SpareLauncher", "SpawnLauncher", "interpreter_command"]


class Body:
    """A process that has been made to be a rank, and the supervisor's ends of what ties the two.

    Attributes:
        pid, pidfd: the process, which is a child of this one.
        channel: over which it is told its place, and all else.
        leash: a pipe's end that only the supervisor holds: closing it ends the process.
        stdout, stderr: the reading ends of what it prints.
        knows_spec: whether it was forked from a process that had adopted the spec.
    """

    __slots__ = ("channel", "knows_spec", "leash", "pid", "pidfd", "stderr", "stdout")

    def __init__(self, start: Callable[[BodyEnds], int], *, knows_spec: bool) -> None:
        self.knows_spec = knows_spec
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            self.channel, channel_end = Channel.pair()
            ours.callback(self.channel.close)
            theirs.callback(channel_end.close)
            pipes = []
            for end in (0, 1, 1):  # the body reads its leash, and writes what it prints
                pipe = os.pipe()
                theirs.callback(os.close, pipe[end])
                ours.callback(os.close, pipe[1 - end])
                pipes.append(pipe)
            (leash_end, self.leash), (self.stdout, stdout_end), (self.stderr, stderr_end) = pipes
            self.pid = start(BodyEnds(channel_end.fileno(), leash_end, stdout_end, stderr_end))
            self.pidfd = os.pidfd_open(self.pid)
            ours.pop_all()

    def alive(self) -> bool:
        """Tell whether the process still runs."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def lay_to_rest(self) -> int:
        """Close all of a process that has ended but its output; return its exit code as ``multiprocessing`` has it."""
        _, status = os.waitpid(self.pid, 0)
        self.channel.close()
        os.close(self.pidfd)
        os.close(self.leash)
        return os.waitstatus_to_exitcode(status)

    def dismiss(self) -> None:
        """End a process that got no place, and wait for its end."""
        self.channel.close()
        for fd in (self.leash, self.stdout, self.stderr, self.pidfd):
            os.close(fd)
        os.waitpid(self.pid, 0)


class Launcher(Protocol):
    """Makes bodies for ranks."""

    def launch(self, spec: RankSpec) -> Body:
        """Return a body that waits for its place among the ranks of ``spec``."""


class ForkLauncher:
    """Forks the calling process; the child runs ``main(ends, keep)`` and nothing else."""

    def __init__(self, main: Callable[[BodyEnds, set[int]], NoReturn]) -> None:
        self._main = main

    def launch(self, spec: RankSpec) -> Body:
        """Fork; in the child this never returns."""
        adopt(spec)
        return Body(lambda ends: self._fork(ends, spec.inherited_fds), knows_spec=True)

    def _fork(self, ends: BodyEnds, keep: set[int]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                self._main(ends, keep)
            except BaseException:  # noqa: BLE001 - the last frame of this process: nobody else can tell of it
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(70)  # main ends its process itself; this is for when it could not
        return pid


class SpareLauncher(ForkLauncher):
    """Forks, too, but ahead of time, so that a World that starts soon after another finds its ranks made.

    Args:
        main: what a body does; a spare one's is given the last World's spec, too, to get ready in.
    """

    def __init__(self, main: Callable[..., NoReturn]) -> None:
        super().__init__(main)
        self._prepare = main
        self._spares: list[Body] = []

    def launch(self, spec: RankSpec) -> Body:
        """Return a spare body, or fork one."""
        while self._spares:
            body = self._spares.pop()
            if body.alive():
                return body
            body.dismiss()
        return super().launch(spec)

    def top_up(self, count: int, spec: RankSpec) -> None:
        """Have ``count`` spares."""
        forker = ForkLauncher(lambda ends, keep: self._prepare(ends, keep, spec))
        try:
            while len(self._spares) < count:
                body = forker.launch(spec)
                body.knows_spec = False  # the next World's may be another
                self._spares.append(body)
        except OSError:
            self.dismiss()  # the machine has no room for what nobody has asked for yet

    def dismiss(self) -> None:
        """End all spares."""
        while self._spares:
            self._spares.pop().dismiss()


class SpawnLauncher:
    """Starts a fresh interpreter for each rank."""

    def launch(self, spec: RankSpec) -> Body:
        """Start an interpreter that is told everything over its channel."""
        del spec
        return Body(self._spawn, knows_spec=False)

    @staticmethod
    def _spawn(ends: BodyEnds) -> int:
        from multiprocessing.util import spawnv_passfds  # noqa: PLC0415 - only ranks by spawn need it

        command = interpreter_command("klyng_mp.launch.rank", "spawned", list(ends))
        pid: int = spawnv_passfds(os.fsencode(sys.executable), command, sorted(ends))
        return pid


def interpreter_command(module: str, function: str, numbers: list[int]) -> list[str]:
    """Return the command line of an interpreter like this one that calls ``module.function(*numbers)``.

    The interpreter finds klyng_mp where this one did, whatever its own path says, and nothing in
    the current directory can take a standard module's place.
    """
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # noqa: PLC0415 - heavy

    package_folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    arguments = ", ".join(map(str, numbers))
    code = (
        f"import sys; sys.path[:] = [p for p in sys.path if p] + [{package_folder!r}]; "
        f"from {module} import {function}; {function}({arguments})"
    )
    return [sys.executable, *_args_from_interpreter_flags(), "-c", code]
