"""The processes of one job as somebody to talk to: each is told its place, and of the others; and each is heard.

Layer: launch; knows nothing of runs.
"""

from __future__ import annotations

import os
import pickle
import select
from typing import TYPE_CHECKING, Any

from klyng_mp.errors import describe_exitcode
from klyng_mp.launch.surroundings import NO_RANK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.launch.loop import Loop
    from klyng_mp.launch.occupant import Occupant
    from klyng_mp.launch.output import Output
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.launch.watch import Watch
    from klyng_mp.transports.shm import Segment

__all__ = ["Crew"]

_VERDICT_SECONDS = 1.0  # a process whose sockets are closed is seen to end well within that, if it ends


class Crew:
    """What lies under a supervisor.

    Attributes:
        occupants: who fills, or filled last, each place; by rank.
    """

    watch: Watch

    def __init__(self, loop: Loop, spec: RankSpec, output: Output) -> None:
        self._loop = loop
        self._spec = spec
        self._output = output
        self._packed_spec = pickle.dumps(spec, protocol=5)
        self._segment: Segment | None = None
        self._incarnations = dict(spec.incarnations)
        self.occupants: dict[int, Occupant] = {}

    def living(self) -> list[Occupant]:
        """Return the occupants whose end has not been seen."""
        return [occupant for occupant in self.occupants.values() if occupant.alive]

    def servers(self) -> list[Occupant]:
        """Return those that take part in runs: all but started processes."""
        return [occupant for occupant in self.living() if occupant.process is None]

    def tell_place(
        self,
        occupant: Occupant,
        first: Sequence[int],
        last: Sequence[int] = (),
        start: tuple[int, int, str, tuple[int, ...], bool] | None = None,
    ) -> None:
        """Tell a body its place.

        Args:
            occupant: the body's.
            first: descriptors before those of every rank; that of a stream to the driver is the first of them.
            last: descriptors after them.
            start: what a process that does one thing is to know besides; see `Start`.
        """
        body, rank, segment = occupant.body, occupant.rank, self._segment
        incarnations = {who: number for who, number in self._incarnations.items() if number > 1}
        spec = None if body.knows_spec else self._packed_spec
        shared = [] if segment is None or rank == NO_RANK else [segment.fd, segment.bells[rank]]
        fds = [*first, self.watch.stack_file(), *shared, *last]
        body.channel.send("place", spec, rank, occupant.incarnation, incarnations, bool(shared), start, fds=fds)

    def look_after(self, occupant: Occupant, number: int, label: str | None = None) -> None:
        """Forward what a process prints, hear it, and see its end.

        Args:
            occupant: which.
            number: of its output streams.
            label: what its lines begin with, where that is not its rank.
        """
        body = occupant.body
        self._output.attach(number, body.stdout, body.stderr, label)
        self._loop.register(body.pidfd, select.EPOLLIN, lambda _events: self._reap(occupant, number))
        self._loop.register(body.channel.fileno(), select.EPOLLIN, lambda events: self._channel_ready(occupant, events))

    def note_end(self, occupant: Occupant) -> None:
        """Let those who share memory see that an occupant has ended."""
        if self._segment is not None:
            self._segment.note_end(occupant.rank, occupant.incarnation)

    # Talking

    def tell(self, occupant: Occupant, *record: Any, fds: Sequence[int] = ()) -> None:
        """Send a record to a rank, at once or when it reads."""
        occupant.tell(self._loop, record, fds)

    def tell_rank(self, rank: int, *record: Any, fds: Sequence[int] = ()) -> None:
        """Send a record to the occupant of a place, if there is one."""
        occupant = self.occupants.get(rank)
        if occupant is not None and occupant.alive:
            self.tell(occupant, *record, fds=fds)

    def tell_end(self, rank: int, incarnation: int, what: str, *, orderly: bool) -> None:
        """Let the ranks that are here know that one, here or elsewhere, has ended."""
        for other in self.servers():
            self.tell(other, "gone", rank, incarnation, what, orderly)

    def note_incarnation(self, rank: int, incarnation: int) -> None:
        """Take note of who fills a place of another host."""
        self._incarnations[rank] = incarnation

    def _introduce(self, occupant: Occupant, rank: int, fd: int) -> None:
        """Hand one end of a rank's new connection to the rank that it is for."""
        other = self.occupants[rank]
        if other.alive:
            self.tell(other, "connected", occupant.rank, occupant.incarnation, fds=[fd])
        else:
            what = describe_exitcode(other.exitcode or 0)
            self.tell(occupant, "gone", rank, other.incarnation, what, other.orderly)
        os.close(fd)

    def is_here(self, rank: int) -> bool:
        """Tell whether a place is on this host."""
        return rank in self._spec.share

    def _explain_loss(self, occupant: Occupant, rank: int, incarnation: int, reason: str) -> None:
        """Answer a rank whose connection to another broke, as a rule because that one is just dying."""
        other = self.occupants.get(rank)
        what = reason if other is None else "closed its connections although it still runs"

        def explain() -> None:
            if occupant.alive and (other is None or other.alive):
                self.tell(occupant, "gone", rank, incarnation, what, False)

        # Else it has been told already, or will be right away.
        if other is None or (other.alive and other.incarnation == incarnation):
            self._loop.call_later(_VERDICT_SECONDS, explain)

    def _announce(self, ranks: list[int]) -> None:
        for rank in ranks:
            for other in self.living():
                if other.rank not in ranks:
                    self.tell(other, "present", rank, self.occupants[rank].incarnation)

    def _channel_ready(self, occupant: Occupant, events: int) -> None:
        if events & select.EPOLLOUT:
            occupant.channel.flush()
            if not occupant.channel.blocked:
                self._loop.modify(occupant.channel.fileno(), select.EPOLLIN)
        if events & (select.EPOLLIN | select.EPOLLHUP) and not self._hear(occupant):
            self._loop.unregister(occupant.channel.fileno())  # its end will be seen on the pidfd

    def _hear(self, occupant: Occupant) -> bool:
        try:
            while (received := occupant.channel.receive()) is not None:
                self._obey(occupant, *received)
        except EOFError:
            return False
        return True

    # What a supervisor does about it

    def _obey(self, occupant: Occupant, record: tuple[Any, ...], fds: list[int]) -> None:
        """Do what a process has asked for."""
        raise NotImplementedError

    def _reap(self, occupant: Occupant, number: int) -> None:
        """Take note that a process has ended; ``number`` is that of its output."""
        raise NotImplementedError
