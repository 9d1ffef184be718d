"""Processes that take numbers from a queue and count their divisors: here, or on several machines.

    $ python examples/work_queue.py --limit 2000
    the most divisors: 1680 has 40
    done 2000 of 2000

    $ python examples/work_queue.py --limit 2000 --machines machines.json

It is an ordinary program for multiprocessing, whose context is a World: `Process`, `Queue`, `SimpleQueue` and `Value`
work between processes on any of the machines.
"""

from __future__ import annotations

import argparse
from typing import Any

import klyng_mp as mp


def divisors(number: int) -> int:
    return sum(number % divisor == 0 for divisor in range(1, number + 1))


def work(numbers: Any, results: Any, done: Any) -> None:
    """Count the divisors of each number that comes, until None does."""
    best = (0, 0)
    for number in iter(numbers.get, None):
        best = max(best, (divisors(number), -number))
        with done.get_lock():
            done.value += 1
    results.put(best)


def main() -> None:
    parser = argparse.ArgumentParser(description="Find the number with the most divisors.")
    parser.add_argument("--limit", type=int, default=2000, help="the largest number")
    parser.add_argument("--machines", metavar="FILE", help="a machines file; else all is done here")
    options = parser.parse_args()
    with mp.World(4) if options.machines is None else mp.World(hosts=options.machines) as world:
        numbers, results, done = world.Queue(maxsize=100), world.SimpleQueue(), world.Value("i", 0)
        workers = [world.Process(target=work, args=(numbers, results, done)) for _ in range(world.size)]
        for worker in workers:
            worker.start()
        for number in range(1, options.limit + 1):
            numbers.put(number)
        for _ in workers:
            numbers.put(None)
        count, number = max(results.get() for _ in workers)
        for worker in workers:
            worker.join()
        print(f"the most divisors: {-number} has {count}")
        print(f"done {done.value} of {options.limit}")


if __name__ == "__main__" and mp.rank() == 0:
    main()
