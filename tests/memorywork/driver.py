"""What the core does when memory runs out: the driver of scenarios.

A scenario is a generator. It makes what it needs, yields one call of the core, gets an `Outcome`, and asserts what is
true then, whether the call has failed or not; after a failure mostly that the call, repeated, does what it should.
The driver makes the first allocation within that call fail, then the second, and so on until the call needs no more;
and each of them many times, so that what one failure leaves behind shows in the count of blocks, or of references.
"""

from __future__ import annotations

import gc
import sys
from _testcapi import remove_mem_hooks, set_nomemory
from contextlib import suppress
from functools import partial
from itertools import count

import klyng_mp._core as core

SCENARIOS = {}  # by name, then by case
MODES = {"one": 1, "all": 0}  # whether one allocation fails, or all from one on
REPEATS, ROUNDS = 20, 15
MORE_THAN_ANY = 1000  # allocations of one call

# What CPython itself leaves behind: for an extension that is loaded again, and when memory runs out while it pickles
# or unpickles.
LEAVING = {
    ("module", ""),
    ("express_recv", "buffer_within"),
    *(("express_send", name) for name in ("set", "bytearray_within", "buffer_within")),
}


class RebuildError(Exception):
    """What the short way raises of an object that cannot be rebuilt; the codec's own in the ranks."""


class Outcome:
    """What became of a call: a value or an error, and whether an allocation did fail."""

    def __init__(self, value, error=None, hit=True):
        self.value = value
        self.error = error
        self.hit = hit


def scenario(make):
    SCENARIOS[make.__name__] = {"": make}
    return make


def each(**cases):
    """Make a scenario of a generator function for each of these arguments."""

    def register(make):
        SCENARIOS[make.__name__] = {name: partial(make, case) for name, case in cases.items()}
        return make

    return register


def attempt(action, number, mode):
    """Call it while the allocation with this number, from 0, fails."""
    value = error = None
    set_nomemory(number, (number + 1) * MODES[mode])
    try:
        value = action()
    except BaseException as caught:
        error = caught
    try:  # the failure is still ahead, unless the call went on without what it did not get
        for _ in range(number + 2):
            bytes(40)
        hit = True
    except MemoryError:
        hit = error is not None or mode == "all"
    remove_mem_hooks()
    if error is not None:
        error = error.with_traceback(None)
    return Outcome(value, error, hit)


def trial(make, number, mode):
    """Tell whether there was such an allocation."""
    steps = make()
    outcome = attempt(next(steps), number, mode)
    if outcome.error is not None and type(outcome.error) not in (MemoryError, RebuildError):
        raise outcome.error
    with suppress(StopIteration):
        steps.send(outcome)
    return outcome.hit


def run(name):
    """Run all cases of a scenario."""
    for case, make in SCENARIOS[name].items():
        for mode in MODES:
            try:
                drive(make, mode, leaves=(name, case) in LEAVING)
            except BaseException as error:
                error.add_note(f"(scenario {name} {case}, mode {mode})")
                raise


def drive(make, mode, *, leaves=False):
    """Let each allocation of the scenario's call fail; return how many there are."""
    trial(make, MORE_THAN_ANY, "one")  # whatever is made only once
    gc.collect()
    gc.freeze()
    gc.disable()
    for number in count():
        try:
            if not trial(make, number, "one"):
                return number
            kept = min(grown(make, number, mode), key=sum)
            assert kept == (leaves and kept[0], 0), f"it leaves {kept[0]} blocks and {kept[1]} references behind"
        except BaseException as error:
            error.add_note(f"(allocation {number} fails)")
            raise
    raise AssertionError("unreachable")


def grown(make, number, mode):
    """Yield what is kept of each failure, in blocks and references, until it is nothing; caches fill slowly."""
    for _ in range(ROUNDS):
        before = usage()
        for _ in range(REPEATS):
            trial(make, number, mode)
        found = [(now - then) // (REPEATS // 2) for now, then in zip(usage(), before, strict=True)]
        kept = max(0, found[0]), max(0, *found[1:])
        yield kept
        if kept == (0, 0):
            return


def usage():
    gc.collect()
    types = [one for one in vars(core).values() if isinstance(one, type)]
    counts = [sys.getrefcount(one) for one in (*types, core.NOTHING, core.NOT_YET, RebuildError)]
    return [sys.getallocatedblocks(), *counts]
