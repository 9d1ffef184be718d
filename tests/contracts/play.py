"""Programs of collective calls and messages, drawn at random, and what comes of them; light, as ranks import it."""

from __future__ import annotations

import operator
import random
from typing import NamedTuple

from contracts.definitions import DEFINITIONS, LISTS, REDUCTIONS, call, plain

import klyng_mp as mp
from klyng_mp.communicator.reductions import MAX, SUM

__all__ = ["expected_of", "once", "play", "play_at_random"]

LIMIT = 60.0


def play(comm, program, seed):
    """Take a program's steps, wait for what was started at some time later, and return all results in order.

    Args:
        comm: this rank's.
        program: of each step (name, which communicator, root, whether it is only started, how large).
        seed: each rank waits in an order of its own.
    """
    dice = random.Random(seed * 100 + comm.rank)
    comms = [comm, comm.dup(), comm.split(comm.rank % 2, -comm.rank)]
    started, found = {}, {}
    for number, (name, which, root, start, count) in enumerate(program):
        one = comms[which]
        if name == "message":
            one.isend((number, "x" * 40 * count), (one.rank + 1) % one.size, number)
            started[number] = one.irecv((one.rank - 1) % one.size, number)
        else:
            got = call(one, name, _given(one, name, number, count), root % one.size, operator.add, start=start)
            (started if start else found)[number] = got
        for late in [late for late in started if dice.random() < 0.3]:
            found[late] = started.pop(late).wait(LIMIT)
    for late in dice.sample(sorted(started), len(started)):
        found[late] = started[late].wait(LIMIT)
    return [found[number] for number in range(len(program))], [(one.rank, one.size) for one in comms]


def expected_of(program, size, rank):
    """Return what `play` returns."""
    halves = [[other for other in reversed(range(size)) if other % 2 == half] for half in (0, 1)]
    half = halves[rank % 2]
    places = [(rank, size), (rank, size), (half.index(rank), len(half))]
    found = []
    for number, (name, which, root, _, count) in enumerate(program):
        place, many = places[which]
        if name == "message":
            found.append((number, "x" * 40 * count))
            continue
        objs = [_given(_Place(other, many), name, number, count) for other in range(many)]
        found.append(DEFINITIONS[name](objs, root % many, operator.add)[place])
    return found, places


class _Place(NamedTuple):
    rank: int
    size: int


def _given(place, name, number, count):
    thing = [number, place.rank] * count
    return [[*thing, dest] for dest in range(place.size)] if name in LISTS else thing


# -- for ranks of a World --------------------------------------------------------------------------


def play_at_random(seeds):
    """Play a program for each of the seeds; return those that did not go as they should."""
    comm = mp.comm()
    wrong = []
    for seed in seeds:
        dice = random.Random(seed)
        program = [
            (dice.choice([*DEFINITIONS, "message"]), dice.randrange(3), dice.randrange(64), dice.random() < 0.4,
             dice.choice([1, 1, 1, 2500]))
            for _ in range(dice.randrange(1, 25))
        ]  # fmt: skip
        if plain(play(comm, program, seed)) != plain(expected_of(program, comm.size, comm.rank)):
            wrong.append(seed)
    return wrong


def once(large):
    """Make every collective call, waiting and not, with small objects and large ones; return the wrong ones.

    Args:
        large: bytes of the large ones.
    """
    comm = mp.comm()
    wrong = []
    for name, define in DEFINITIONS.items():
        scattered = ((600_000, 1),) if name == "bcast" and comm.size > 1 else ()
        for size, root in ((1, 0), (1, comm.size - 1), (large, comm.size // 2), *scattered):
            op = MAX if size > 1 or name not in REDUCTIONS else SUM
            objs = [str(rank % 10) * size for rank in range(comm.size)]
            objs = [objs] * comm.size if name in LISTS else objs
            for start in (False, True):
                got = call(comm, name, objs[comm.rank], root, op, start=start)
                if plain(got.wait(LIMIT) if start else got) != plain(define(objs, root, op)[comm.rank]):
                    wrong.append((name, size, root, start))
    parts = [comm.dup(), comm.split(comm.rank % 3), comm.create_cart([comm.size], True), comm.create(comm.group)]
    return wrong + [part for part in parts if part.allreduce(1) != part.size]
