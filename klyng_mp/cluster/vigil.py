"""Whether all ranks of an MPI job wait for each other: rank 0 asks, once it has nothing else to do.

Layer: cluster. While rank 0 waits, or has ended and waits for the others, it asks all ranks what they do, and again
when all have answered; who computes does not answer, and so nothing is decided. What is decided, and how, is
`klyng_mp.launch.hangs`' own. As times of one host mean nothing on another, those in the answers are ages.
"""

from __future__ import annotations

import pickle
from time import monotonic
from typing import TYPE_CHECKING

from klyng_mp.launch.hangs import HangDetector, deadlock_of
from klyng_mp.launch.state import ENDED, RUNNING, WAITING, RankState, describe_idle, describe_rank, note_surroundings
from klyng_mp.launch.watch import PAUSE_SECONDS, PAUSE_SECONDS_PER_RANK, SUSPICIOUS_PAUSE_SECONDS

if TYPE_CHECKING:
    from klyng_mp.cluster.member import Member
    from klyng_mp.wire.frames import Message

__all__ = ["Vigil"]

_ASK, _ANSWER = "state?", "state"


class Vigil:
    """A rank's part in it; rank 0's goes on as a chore of its waits.

    Args:
        member: the rank.
        run: the number of the run.
    """

    def __init__(self, member: Member, run: int) -> None:
        self._member = member
        self._run = run
        self._ended = self._stopped = False
        self._detector = HangDetector()
        self._question = 0
        self._answers: dict[int, RankState] = {}
        self._due = monotonic() + PAUSE_SECONDS
        self._asked = False

    def begin(self) -> None:
        """Begin to answer; rank 0 begins to ask."""
        note_surroundings()
        if self._member.rank == 0:
            self._member.endpoint.add_chore(self)

    def leave(self) -> None:
        """Take note that this rank's program has ended."""
        self._ended = True

    def stop(self) -> None:
        """Ask no more: another run begins."""
        self._stopped = True

    def state(self) -> RankState:
        """Return what this rank does; with the endpoint's lock held."""
        endpoint = self._member.endpoint
        natives = endpoint.transport.natives
        if self._ended:
            endpoint.take_in()
            state = describe_idle(self._member.rank, endpoint.sent_counts(), endpoint.pending(), ended=True)
            return state._replace(begun=natives.begun)
        return describe_rank(endpoint, self._run)._replace(begun=natives.begun, meets=natives.waits_in)

    def hear(self, message: Message) -> None:
        """Take a question or an answer; with the endpoint's lock held."""
        member = self._member
        if message.tag == _ASK:
            state = self.state()
            member.tell_rank(0, _ANSWER, pickle.dumps((message.head, state._replace(since=monotonic() - state.since))))
        elif message.tag == _ANSWER:
            question, state = pickle.loads(message.head)  # noqa: S301 - of a rank, as what others send is
            if question == b"%d %d" % (self._run, self._question):
                self._answers[state.rank] = state._replace(since=monotonic() - state.since)

    # -- as a chore of rank 0's

    @property
    def due(self) -> bool:
        """See `Chore.due`: that it asks lets no call of a program go on."""
        return False

    def advance(self) -> bool:
        """See `Chore.advance`."""
        if self._stopped:
            return True
        member = self._member
        now = monotonic()
        if not self._asked and now >= self._due:
            self._asked = True
            self._question += 1
            self._answers.clear()
            for peer in range(1, member.size):
                member.tell_rank(peer, _ASK, b"%d %d" % (self._run, self._question))
        if self._asked and len(self._answers) == member.size - 1:
            self._asked = False
            self._judge()
            pause = max(PAUSE_SECONDS, PAUSE_SECONDS_PER_RANK * member.size)
            self._due = monotonic() + (SUSPICIOUS_PAUSE_SECONDS if self._detector.suspects else pause)
        return False

    def _judge(self) -> None:
        states = _find_absent({0: self.state(), **self._answers})
        states = {rank: self._detector.remember(state) for rank, state in states.items()}
        if all(state.phase == ENDED for state in states.values()):
            return
        if self._detector.judge(self._run, states):
            self._member.give_up(deadlock_of(states.values()))


def _find_absent(states: dict[int, RankState]) -> dict[int, RankState]:
    """Find out for whom those wait that wait in a collective of MPI's: for who has not begun it."""
    found = {}
    for rank, state in states.items():
        if state.meets and state.phase == WAITING:
            absent = tuple(other for other, one in states.items() if one.begun < state.meets)
            found[rank] = state._replace(peers=absent) if absent else state._replace(phase=RUNNING)
        else:
            found[rank] = state
    return found
