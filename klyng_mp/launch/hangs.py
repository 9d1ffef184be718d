"""Whether all ranks of a run wait for each other: the decision, and the words that tell of it.

Layer: launch; sans-IO: states of ranks in, a verdict or text out, so that any supervisor, here or on another host, can
use it.

The proof. A rank is *stuck* when its only thread waits without a limit of time, and nothing in its process but a
message can end that. Take two rounds of questions, the second begun when all answers of the first were there. If in
both every rank is stuck in the same wait, or had ended before the first, then at any moment between the two rounds all
of them waited, and none could send: where calls that were started go on meanwhile, also in ranks that had ended, none
has taken a step, and in the end none could. What they had sent before is no hope either: whatever left its sender is
with the kernel or in shared memory before the sender waits; each rank takes all of it in before it answers the second
time; and between hosts, where that is not so, the numbers of messages sent and received tell, of each connection.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from klyng_mp.launch.control import Cause
from klyng_mp.launch.state import ENDED, IDLE, SILENT, WAITING, RankState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["HangDetector", "deadlock_of", "describe_states", "find_cycle", "render_deadlock", "render_report"]

_MOST_SHOWN = 128  # ranks in a report
_MOST_IN_A_CYCLE = 32  # that are named
_MOST_SEARCHED = 256  # waiting ranks among which the shortest cycle is looked for; among more, any is found
_PHRASE = "waits, too, or has ended, and nothing is on its way, so the run was ended"

# What makes two waits the same: the rank's own number of it, the call, the steps of what goes on meanwhile, what it has
# sent and received.
_Wait = tuple[float, str, int, tuple[tuple[int, int], ...], int]


class HangDetector:
    """Judges one run after the other, from rounds of answers."""

    def __init__(self) -> None:
        self._run = 0
        self._last: dict[int, _Wait] = {}
        self._since: dict[int, tuple[RankState, float]] = {}

    def remember(self, state: RankState) -> RankState:
        """Return the state with the time when the wait began, although the rank woke up to answer questions."""
        known = self._since.get(state.rank)
        if known is not None and state.phase == WAITING and _is_same_wait(known[0], state):
            state = state._replace(since=min(known[1], state.since))
        self._since[state.rank] = state, state.since
        return state

    def judge(self, run: int, states: Mapping[int, RankState]) -> bool:
        """Take in a round's answers, of all ranks; tell whether they are proved to wait for each other."""
        stuck = {rank: state for rank, state in states.items() if state.is_stuck}
        others = [state for rank, state in states.items() if rank not in stuck]
        last, self._last = self._last if run == self._run else {}, {}
        self._run = run
        if not stuck or any(state.phase != ENDED or state.pending_bytes or state.doubts for state in others):
            return False
        self._last = {rank: _wait_of(state) for rank, state in states.items()}
        return last == self._last and _is_balanced(states, stuck)

    @property
    def suspects(self) -> bool:
        """Whether one more round may be the proof."""
        return bool(self._last)


def _wait_of(state: RankState) -> _Wait:
    return state.wait, state.call, state.steps, tuple(sorted(state.sent.items())), state.received


def _is_same_wait(one: RankState, two: RankState) -> bool:
    return (one.pid, one.phase, one.call, one.where, one.sent) == (two.pid, two.phase, two.call, two.where, two.sent)


def _is_balanced(states: Mapping[int, RankState], stuck: Mapping[int, RankState]) -> bool:
    """Whether those that are stuck have all that was ever sent to them."""
    return all(
        sum(state.sent.get(rank, 0) for state in states.values()) == taker.received for rank, taker in stuck.items()
    ) and all(
        peer in states and states[peer].exchanged.get(rank, (0, 0))[1] == sent
        for rank, state in states.items()
        for peer, (sent, _) in state.exchanged.items()
    )


def find_cycle(states: Iterable[RankState]) -> tuple[int, ...]:
    """Return the ranks of a cycle, each waiting for the next and the last for the first, or nothing.

    Among few it is a shortest one.

    Who waits for any rank waits for none in particular, unless only one is left.
    """
    states = list(states)
    waiting = {state.rank: state for state in states if state.phase == WAITING}
    edges = {rank: _needs(state, waiting) for rank, state in waiting.items()}
    starts = sorted(edges) if len(edges) <= _MOST_SEARCHED else _on_a_cycle(edges)
    cycles = [cycle for rank in starts if (cycle := _way_back(rank, edges))]
    return min(cycles, key=len, default=())


def _on_a_cycle(edges: Mapping[int, list[int]]) -> list[int]:
    """Return a rank from which the first of each one's peers lead back to it, if there is any."""
    seen: dict[int, int] = {}
    for start in edges:
        rank = start
        while rank not in seen and edges[rank]:
            seen[rank] = start
            rank = edges[rank][0]
        if seen.get(rank) == start:
            return [rank]
    return []


def _needs(state: RankState, waiting: Mapping[int, RankState]) -> list[int]:
    if state.peers is not None:
        return [peer for peer in state.peers if peer in waiting]
    return [rank for rank in waiting if rank != state.rank] if len(waiting) == 2 else []


def _way_back(start: int, edges: Mapping[int, list[int]]) -> tuple[int, ...]:
    """Return the shortest way from a rank to itself, without its end."""
    ways: list[tuple[int, ...]] = [(start,)]
    seen: set[int] = set()
    for way in ways:  # grows meanwhile: breadth first
        for peer in edges[way[-1]]:
            if peer == start:
                return way
            if peer not in seen:
                seen.add(peer)
                ways.append((*way, peer))
    return ()


def deadlock_of(states: Iterable[RankState]) -> Cause:
    """Return why a run is ended whose ranks were proved to wait for each other."""
    states = list(states)
    cause = Cause("deadlock", None, _PHRASE, render_deadlock(states))
    cause.cycle = find_cycle(states)
    return cause


# -- words -------------------------------------------------------------------------------------------------


def render_deadlock(states: Iterable[RankState]) -> str:
    """Return the report of a run whose ranks wait for each other."""
    states = sorted(states)
    ended = [state for state in states if state.phase == ENDED]
    cycle = find_cycle(states)
    who = "all ranks that have not ended wait" if ended and not cycle else "all ranks wait for each other"
    if len(states) == 1:
        who = "the only rank waits for itself"
    lines = [f"{who}, and nothing is on its way to any of them:", *_describe_some(states, cycle)]
    if cycle:
        lines.append(_render_cycle(cycle))
    return "\n".join(lines)


def _describe_some(states: list[RankState], cycle: tuple[int, ...]) -> list[str]:
    """Return lines about as many ranks as anybody reads, those of a cycle first to be chosen."""
    chosen = sorted(states, key=lambda state: (state.rank not in cycle, state.phase == ENDED, state.rank))
    lines = describe_states(sorted(chosen[:_MOST_SHOWN]))
    return lines if len(states) <= _MOST_SHOWN else [*lines, f"  and {len(states) - _MOST_SHOWN} more ranks"]


def render_report(states: Iterable[RankState]) -> str:
    """Return what all ranks do, for somebody who asks."""
    states = sorted(states)
    cycle = find_cycle(states)
    lines = _describe_some(states, cycle)
    if cycle:
        lines.append(_render_cycle(cycle))
    return "\n".join(lines)


def _render_cycle(cycle: tuple[int, ...]) -> str:
    ranks = [f"rank {rank}" for rank in (*cycle, cycle[0])]
    if len(ranks) > _MOST_IN_A_CYCLE:
        ranks[_MOST_IN_A_CYCLE - 2 : -2] = [f"... {len(ranks) - _MOST_IN_A_CYCLE} more ..."]
    return "cycle: " + " -> ".join(ranks)


def describe_states(states: Iterable[RankState]) -> list[str]:
    """Return lines that tell what each rank does."""
    states = list(states)
    ended = {state.rank for state in states if state.phase == ENDED}
    return [line for state in states for line in _describe(state, ended)]


def _describe(state: RankState, ended: set[int]) -> list[str]:
    who = f"process {state.pid}"
    who = f": process {state.holder} ({who})" if state.holder else f" ({who})"
    lines = [f"  rank {state.rank}{who} {_doing(state, ended)}"]
    if state.phase == WAITING:
        lines[0] += f", since {_clock(state.since)}"
        if state.seconds is not None:
            lines[0] += f", for at most {state.seconds:g} s"
    if state.where:
        lines.append(f"    at {state.where}")
    if state.unclaimed_count:
        lines.append(f"    has, and did not ask for: {_describe_unclaimed(state)}")
    if state.pending_bytes:
        lines.append(f"    {state.pending_bytes} bytes that it sent are still on their way")
    if state.phase == WAITING and state.doubts:
        lines.append(f"    cannot tell whether it waits in vain: {', '.join(state.doubts)}")
    lines += [f"    {line}" for line in state.stack.splitlines()]
    return lines


def _doing(state: RankState, ended: set[int]) -> str:
    if state.phase == WAITING:
        return f"waits in {state.call} for {_whom(state, ended)}"
    return {
        ENDED: "has ended",
        IDLE: "has nothing to do",
        SILENT: "computes, or is in a call that is not klyng_mp's",
    }.get(state.phase, "is running")


def _whom(state: RankState, ended: set[int]) -> str:
    if state.peers is None:
        return "any rank"
    if state.peers == (state.rank,):
        return "itself"
    ranks = [f"{peer} (which has ended)" if peer in ended else str(peer) for peer in sorted(state.peers)]
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(ranks)}"


def _clock(since: float) -> str:
    """Return a point in monotonic time as the time of day, and how long ago it was."""
    ago = max(0.0, time.monotonic() - since)
    return f"{time.strftime('%H:%M:%S', time.localtime(time.time() - ago))} ({ago:.1f} s)"


def _describe_unclaimed(state: RankState) -> str:
    shown = [f"a message from rank {source} with tag {tag!r}" for source, tag in state.unclaimed]
    if more := state.unclaimed_count - len(shown):
        shown.append(f"{more} more")
    return ", ".join(shown)
