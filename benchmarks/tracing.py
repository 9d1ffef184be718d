"""What does `klyng-mp run --trace` cost a program, for each event when it is on, and when it is off?

Two figures, each from the medians of alternating rounds, in fresh processes that send themselves messages (so that
no wake-up of another process is in the way) and receive them:

    python benchmarks/tracing.py [--rounds N] [--pairs N] [--json FILE]

* on: the time that a send and a receive take more than untraced ones, for each of the two events: at most 1 us.
* off: the time of an untraced send and receive where the code of the trace is in the process beside one where it
  is not: at most 1.02 of it, which is noise, since nothing refers to it.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from common import Figure, alternate, figure_arguments, median, publish, run_command

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

EVENT_LIMIT = 1e-6
OFF_LIMIT = 1.02
WAYS = ("not there", "off", "on")
SLICE = 500  # pairs, enough for the collector of garbage to have its part; the fastest slice counts


def make_communicator(way: str) -> Any:
    """Return a communicator of one rank: "on" with a trace, "off" without one beside its code, or "not there"."""
    from klyng_mp.communicator.communicator import Communicator
    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.wire.codec import Codec
    from klyng_mp.wire.frames import make_context

    kinds: Any = Endpoint, Communicator
    if way != "not there":
        from klyng_mp.communicator.tracing import TracedCommunicator, TracedEndpoint

        if way == "on":
            kinds = TracedEndpoint, TracedCommunicator
    endpoint, communicator = kinds
    return communicator(endpoint(0), Codec(main_by_reference=True), context=make_context(1), rank=0, members=range(1))


def exchange(way: str, pairs: int) -> float:
    """Return the seconds that one send and its receive take, in the fastest slice of them."""
    comm = make_communicator(way)
    fastest = float("inf")
    size = min(pairs, SLICE)
    for _ in range(pairs // size):
        began = time.perf_counter()
        for number in range(size):
            comm.send(number, 0, 1)
            comm.recv(0, 1)
        fastest = min(fastest, time.perf_counter() - began)
    return fastest / size


def in_fresh_process(way: str, pairs: int) -> Callable[[], float]:
    """Return a measure: `exchange` in a process of its own."""
    command = [sys.executable, __file__, "--child", way, "--pairs", str(pairs)]
    return lambda: float(run_command(command)[1])


def main() -> None:
    parser = figure_arguments(__doc__, rounds=20)
    parser.add_argument(
        "--pairs", type=int, default=40_000, metavar="N", help="messages a round (default: %(default)s)"
    )
    parser.add_argument("--child", choices=WAYS, help="measure in this process, and print the seconds")
    options = parser.parse_args()
    if options.child is not None:
        print(exchange(options.child, options.pairs))
        return
    samples = alternate({way: in_fresh_process(way, options.pairs) for way in WAYS}, options.rounds)
    nothing, off, on = (median(samples[way]) for way in WAYS)
    figures = [
        Figure("an event, trace on", (on - nothing) / 2, EVENT_LIMIT),
        Figure("a send and a receive, trace off", off, OFF_LIMIT, nothing, "no trace there"),
    ]
    publish(figures, samples, options.json)


if __name__ == "__main__":
    main()
