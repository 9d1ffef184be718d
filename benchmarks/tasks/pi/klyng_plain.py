"""Pi as an integral with its loop in plain Python; all else is ``klyng.py``.

klyng-mp run -n 4 benchmarks/tasks/pi/klyng_plain.py STEPS

It has a size of its own in ``task.toml``: at the full one it would take minutes.
"""

from __future__ import annotations

import sys

from klyng import run

import klyng_mp as mp


def kernel(start: float, stop: float, dx: float) -> float:
    total = 0.0
    x = start
    while x < stop:
        total += 4.0 / (1.0 + x * x)
        x += dx
    return total


def main() -> None:
    run(kernel, int(sys.argv[1]))
    mp.end()


if __name__ == "__main__":
    mp.init(main)
