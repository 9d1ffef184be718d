"""What each side of ``pools.py`` does in a process of its own, timed inside, and reported on one line.

    python benchmarks/pools_peer.py SIDE ROW [--quick]

A row is a function below; each checks what it got back, because a wrong answer has no time. A side is a module with
multiprocessing's names, or an executor. What a side cannot do, because it has no such thing, it has no row for.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))  # this checkout's klyng_mp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["ROWS", "SIDES", "has_row"]

WORKERS = 2
START_WORKERS = 4
ARRAY = 131_072  # numbers of eight bytes: 1 MiB
MODULES = ("klyng_mp", "multiprocessing", "multiprocess")
EXECUTORS = ("loky", "concurrent.futures")
IDEAL = "threading"  # threads that take sleeps from one list: nothing can be sooner
SIDES = (*MODULES, *EXECUTORS, IDEAL)


class BadAnswerError(Exception):
    """What came back is not what was sent."""


def same(value: Any) -> Any:
    """Be a task that does nothing."""
    return value


def check(result: Any, expected: Any) -> None:
    """Refuse a wrong result."""
    if result != expected:
        raise BadAnswerError(f"got {str(result)[:80]} where it is {str(expected)[:80]}")


def make_array() -> Any:
    """Return an array of 1 MiB; a process that is spawned for small numbers should not import NumPy."""
    import numpy as np

    return np.ones(ARRAY)


def check_array(array: Any) -> None:
    """Refuse an array that changed on its way."""
    check((array.shape, float(array[0]), float(array[-1])), ((ARRAY,), 1.0, 1.0))


# -- pools, of two kinds ---------------------------------------------------------------------------


class PoolOf:
    """A Pool of a module."""

    def __init__(self, module: Any, workers: int):
        self.pool = module.Pool(workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.pool.close()
        self.pool.join()

    def map(self, items: Iterable[Any], chunksize: int | None, function: Callable[[Any], Any] = same) -> list[Any]:
        """Map a function over the items."""
        return self.pool.map(function, items, chunksize)

    def apply(self, item: Any) -> Any:
        """Call `same` once."""
        return self.pool.apply(same, (item,))


class ExecutorOf:
    """An executor; it has no chunks by default."""

    def __init__(self, executor: Any):
        self.executor = executor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.executor.shutdown(wait=True)

    def map(self, items: Iterable[Any], chunksize: int | None, function: Callable[[Any], Any] = same) -> list[Any]:
        """Map a function over the items."""
        return list(self.executor.map(function, items, chunksize=chunksize or 1))

    def apply(self, item: Any) -> Any:
        """Call `same` once."""
        return self.executor.submit(same, item).result()


def open_pool(side: str, workers: int = WORKERS) -> PoolOf | ExecutorOf:
    """Return a side's pool."""
    if side in MODULES:
        return PoolOf(importlib.import_module(side), workers)
    if side == "loky":
        return ExecutorOf(importlib.import_module("loky").ProcessPoolExecutor(max_workers=workers))
    return ExecutorOf(ProcessPoolExecutor(max_workers=workers))


# -- rows ------------------------------------------------------------------------------------------


def time_map(side: str, chunksize: int | None, *, quick: bool) -> float:
    """Return the seconds of a map over small numbers, whose workers are there."""
    count = 200 if quick else 20_000
    with open_pool(side) as pool:
        pool.map(range(WORKERS * 4), 1)
        began = time.perf_counter()
        result = pool.map(range(count), chunksize)
        took = time.perf_counter() - began
    check(result, list(range(count)))
    return took


def time_apply(side: str, *, quick: bool) -> float:
    """Return the seconds of one call, there and back."""
    count = 20 if quick else 1_000
    with open_pool(side) as pool:
        pool.map(range(WORKERS * 4), 1)
        began = time.perf_counter()
        for number in range(count):
            check(pool.apply(number), number)
        return (time.perf_counter() - began) / count


def time_arrays(side: str, *, first: bool, quick: bool) -> float:
    """Return the seconds of one array of 1 MiB, there and back: in the first map of a pool, or in later ones."""
    count, repeats = (8, 2) if quick else (100, 5)
    arrays = [make_array() for _ in range(count)]
    times = []
    with open_pool(side) as pool:
        pool.map(arrays[:WORKERS], 1)
        for _ in range(1 if first else 1 + repeats):
            began = time.perf_counter()
            result = pool.map(arrays, 1)
            times.append((time.perf_counter() - began) / count)
            check(len(result), count)
            for array in result:
                check_array(array)
            del result
    return times[0] if first else statistics.median(times[1:])


def time_uneven(side: str, *, quick: bool) -> float:
    """Return the seconds of one long task and many short ones, which sleep."""
    naps = [0.1, *[0.001] * 100] if quick else [1.0, *[0.001] * 1000]
    if side == IDEAL:
        return time_threads(naps)
    with open_pool(side) as pool:
        pool.map(range(WORKERS * 4), 1)
        began = time.perf_counter()
        pool.map(naps, 1, time.sleep)
        return time.perf_counter() - began


def time_threads(naps: list[float]) -> float:
    """Return the seconds in which threads sleep it all, each of them the next one when it is free."""
    left = iter(naps)

    def work() -> None:
        for nap in left:
            time.sleep(nap)

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def time_start(side: str, method: str, *, first: bool, quick: bool) -> float:
    """Return the seconds from no pool of four to none again, with one map between: a process' first, or later ones.

    The first one imports what a pool needs.
    """
    context = importlib.import_module(side).get_context(method)
    repeats = 2 if quick or method == "spawn" else 10
    times = []
    for _ in range(1 if first else 1 + repeats):
        began = time.perf_counter()
        with PoolOf(context, START_WORKERS) as pool:
            result = pool.map(range(START_WORKERS), None)
        times.append(time.perf_counter() - began)
        check(result, list(range(START_WORKERS)))
    return times[0] if first else statistics.median(times[1:])


def put_all(queue: Any, value: Any, count: int) -> None:
    """Be the process that puts."""
    for _ in range(count):
        queue.put(value)


def time_stream(side: str, value: Any, count: int, receive: Callable[[Any], None]) -> float:
    """Return the seconds of one object of many that one process puts and another gets."""
    module = importlib.import_module(side)
    queue = module.Queue()
    process = module.Process(target=put_all, args=(queue, value, count + 1))
    process.start()
    receive(queue.get())
    began = time.perf_counter()
    for _ in range(count):
        receive(queue.get())
    took = (time.perf_counter() - began) / count
    process.join()
    return took


def send_back(there: Any, back: Any, count: int) -> None:
    """Be the other process of `time_round`."""
    for _ in range(count):
        back.put(there.get())


def time_round(side: str, value: Any, count: int, receive: Callable[[Any], None]) -> float:
    """Return the seconds of one object through one queue to another process, and through another one back."""
    module = importlib.import_module(side)
    there, back = module.Queue(), module.Queue()
    process = module.Process(target=send_back, args=(there, back, count + 1))
    process.start()
    took = 0.0
    for index in range(count + 1):
        began = time.perf_counter()
        there.put(value)
        receive(back.get())
        took += (time.perf_counter() - began) if index else 0.0
    process.join()
    return took / count


def queue_rows(time_queue: Callable[..., float]) -> tuple[Callable[..., float], Callable[..., float]]:
    """Return the rows of a small object, and of an array."""

    def small(side: str, *, quick: bool) -> float:
        return time_queue(side, 42, 50 if quick else 5_000, lambda got: check(got, 42))

    def array(side: str, *, quick: bool) -> float:
        return time_queue(side, make_array(), 5 if quick else 100, check_array)

    return small, array


STREAM, STREAM_OF_ARRAYS = queue_rows(time_stream)
ROUND, ROUND_OF_ARRAYS = queue_rows(time_round)

# What is measured, in the order of the table.
ROWS: dict[str, Callable[..., float]] = {
    "map, 20 000 tasks, chunksize=1": lambda side, **size: time_map(side, 1, **size),
    "map, 20 000 tasks, default chunks": lambda side, **size: time_map(side, None, **size),
    "1 task of 1 s, 1 000 of 1 ms": time_uneven,
    "apply, there and back": time_apply,
    "map over 1 MiB arrays, each": lambda side, **size: time_arrays(side, first=False, **size),
    "map over 1 MiB arrays, first map": lambda side, **size: time_arrays(side, first=True, **size),
    "Pool(4), fork: start, map, stop": lambda side, **size: time_start(side, "fork", first=False, **size),
    "Pool(4), fork: a process' first": lambda side, **size: time_start(side, "fork", first=True, **size),
    "Pool(4), spawn: start, map, stop": lambda side, **size: time_start(side, "spawn", first=False, **size),
    "Queue, small objects, each": STREAM,
    "Queue, small object, to and fro": ROUND,
    "Queue, 1 MiB arrays, each": STREAM_OF_ARRAYS,
    "Queue, 1 MiB array, to and fro": ROUND_OF_ARRAYS,
}
ONLY_MODULES = {row for row in ROWS if row.startswith(("Queue", "Pool")) or "default" in row}


def has_row(side: str, row: str) -> bool:
    """Tell whether a side has what a row measures."""
    if side == IDEAL:
        return ROWS[row] is time_uneven
    return side in MODULES or row not in ONLY_MODULES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--quick", action="store_true", help="few tasks: whether it works, not how fast")
    options = parser.parse_args()
    print("report " + json.dumps(ROWS[options.row](options.side, quick=options.quick)))


if __name__ == "__main__":
    main()
