"""A supervisor's questions to its ranks: what they do, and whether all of them wait for each other.

Layer: launch. While a run goes on all ranks are asked now and then; the next question comes only after all have
answered the last, so one that computes, and therefore does not answer, makes the questions stop. A rank that has
nothing to do keeps the question until its next run: idle Worlds are not asked, and nobody need tell that a run begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.launch.hangs import HangDetector, deadlock_of
from klyng_mp.launch.stacks import Stacks
from klyng_mp.launch.state import ENDED, SILENT, RankState

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.loop import Loop, Timer
    from klyng_mp.launch.occupant import Occupant
    from klyng_mp.launch.supervisor import Supervisor

__all__ = ["PAUSE_SECONDS", "PAUSE_SECONDS_PER_RANK", "SUSPICIOUS_PAUSE_SECONDS", "Watch"]

PAUSE_SECONDS = 0.4  # between rounds: three of them and a grace time are within two seconds
PAUSE_SECONDS_PER_RANK = 0.004  # to answer takes a rank 0.1 ms of a processor
SUSPICIOUS_PAUSE_SECONDS = 0.1  # when all seem to wait, the next round is the proof
_ANSWER_SECONDS = 0.3  # who has not answered by then computes
_MOST_STACKS = 16  # of those, in one report: each takes a twentieth of a second


class _Survey:
    """One question to all ranks, and the answers."""

    __slots__ = ("awaited", "run", "states", "then", "timer")

    def __init__(self, run: int, then: Callable[[_Survey], None]) -> None:
        self.run = run
        self.then = then
        self.timer: Timer | None = None
        self.awaited: dict[int, int] = {}  # process numbers of the ranks that have not answered
        self.states: dict[int, RankState] = {}


class Watch:
    """Asks the ranks of one supervisor, and ends a run whose ranks wait for each other."""

    def __init__(self, supervisor: Supervisor, loop: Loop, catch_up: Callable[[], None]) -> None:
        self._supervisor = supervisor
        self._loop = loop
        self._catch_up = catch_up
        self._stacks: Stacks | None = None
        self._detector = HangDetector()
        self._question = 0
        self._surveys: dict[int, _Survey] = {}
        self._sent: dict[int, dict[int, int]] = {}  # by ranks whose program has ended
        self._started = self._stopped = False

    def stack_file(self) -> int:
        """Return the descriptor of the file that ranks write their stacks to."""
        if self._stacks is None:
            self._stacks = Stacks(self._loop)
        return self._stacks.fd

    def close(self) -> None:
        """Close that file: there are no ranks any more."""
        self.stop()
        if self._stacks is not None:
            self._stacks.close()

    def start(self) -> None:
        """Begin to look whether ranks wait for each other, unless that goes on already."""
        if not self._started:
            self._started = True
            self._look_later(self._pause())

    def stop(self) -> None:
        """Look no more; `ask` still works."""
        self._stopped = True

    def ask(self, then: Callable[[list[RankState]], None]) -> None:
        """Ask what each rank does, and call ``then(states)`` soon, whether all have answered or not."""

        def finish(survey: _Survey) -> None:
            holders = {rank: occupant.holder for rank, occupant in self._supervisor.occupants.items()}
            silent = {rank: RankState(rank, pid, SILENT, holder=holders[rank]) for rank, pid in survey.awaited.items()}
            self._add_stacks(survey.states | silent, list(silent)[:_MOST_STACKS], then)

        survey = _Survey(self._supervisor.run, finish)
        survey.timer = self._loop.call_later(_ANSWER_SECONDS, lambda: self._complete(survey))
        self._send(survey, at_once=True)

    def survey(self, run: int, then: Callable[[list[RankState]], None]) -> None:
        """Ask what each rank does in a run, and call ``then(states)`` when all have answered.

        Who computes answers late. Where there is no such run there are no states.
        """
        if self._stopped or self._supervisor.processes.places or run != self._supervisor.run:
            then([])
        else:
            self._send(_Survey(run, lambda survey: then(list(survey.states.values()))), at_once=False)

    def describe(self, then: Callable[[dict[str, Any]], None]) -> None:
        """As `ask`, but as one record of plain objects."""
        size, run = len(self._supervisor.occupants), self._supervisor.run
        self.ask(lambda states: then({"size": size, "run": run, "ranks": [state._asdict() for state in states]}))

    def answered(self, occupant: Occupant, question: int, state: RankState) -> None:
        """Take an answer."""
        state = self._detector.remember(state)
        if (survey := self._surveys.get(question)) is not None:
            self._note(survey, occupant, state)

    def left(self, occupant: Occupant, sent: dict[int, int] | None = None) -> None:
        """Take note that an occupant answers no more; ``sent`` are the messages that its program sent to whom."""
        if sent is not None:
            self._sent[occupant.rank] = sent
        for survey in list(self._surveys.values()):
            if survey.awaited.get(occupant.rank) == occupant.body.pid:
                self._note(survey, occupant, self._ended(occupant))

    # Inside

    def _add_stacks(
        self, states: dict[int, RankState], ranks: list[int], then: Callable[[list[RankState]], None]
    ) -> None:
        """Ask for the stacks of ranks, one after the other, and call ``then`` with all states."""
        stacks, occupant = self._stacks, self._supervisor.occupants[ranks[0]] if ranks else None
        if occupant is None or stacks is None:
            then(sorted(states.values()))
        elif not occupant.alive or occupant.body.pid != states[occupant.rank].pid:
            self._add_stacks(states, ranks[1:], then)
        else:

            def note(text: str) -> None:
                states[ranks[0]] = states[ranks[0]]._replace(stack=text)
                self._add_stacks(states, ranks[1:], then)

            stacks.read(occupant.body.pid, note)

    def _pause(self) -> float:
        return max(PAUSE_SECONDS, PAUSE_SECONDS_PER_RANK * len(self._supervisor.occupants))

    def _look_later(self, seconds: float) -> Timer:
        return self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        if self._stopped:
            return
        if self._supervisor.processes.places:  # there is no run before ranks are brought to life, and this starts again
            self._started = False
            return
        if self._supervisor.cause is not None:
            self._look_later(self._pause())
            return
        survey = _Survey(self._supervisor.run, self._judge)
        self._send(survey, at_once=False)

    def _judge(self, survey: _Survey) -> None:
        if self._stopped or self._supervisor.processes.places or not self._supervisor.living():
            self._started = False
            return
        proved = self._detector.judge(survey.run, survey.states)
        if proved and self._supervisor.cause is None:
            self._catch_up()  # the run may be over, or ended by its driver
            if survey.run == self._supervisor.run:
                self._supervisor.end_run(deadlock_of(survey.states.values()))
        self._look_later(SUSPICIOUS_PAUSE_SECONDS if self._detector.suspects else self._pause())

    def _send(self, survey: _Survey, *, at_once: bool) -> None:
        self._question += 1
        question = self._question
        self._surveys[question] = survey
        occupants = list(self._supervisor.occupants.values())
        for occupant in occupants:
            if occupant.alive and not occupant.orderly:
                survey.awaited[occupant.rank] = occupant.body.pid
            else:
                survey.states[occupant.rank] = self._ended(occupant)
        for occupant in occupants:
            if occupant.rank in survey.awaited:
                self._supervisor.tell(occupant, "state", question, survey.run, at_once)
        if not survey.awaited:
            self._complete(survey)

    def _note(self, survey: _Survey, occupant: Occupant, state: RankState) -> None:
        if survey.awaited.pop(occupant.rank, None) is not None:
            survey.states[occupant.rank] = state._replace(holder=occupant.holder)
            if not survey.awaited:
                self._complete(survey)

    def _complete(self, survey: _Survey) -> None:
        self._surveys = {question: other for question, other in self._surveys.items() if other is not survey}
        if survey.timer is not None:
            survey.timer.cancel()
        survey.then(survey)

    def _ended(self, occupant: Occupant) -> RankState:
        sent = self._sent.get(occupant.rank, {})
        return RankState(occupant.rank, occupant.body.pid, ENDED, sent=sent, holder=occupant.holder)
