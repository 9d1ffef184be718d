"""Pi as an integral with its loop compiled by numba; all else is ``klyng.py``.

    klyng-mp run -n 4 benchmarks/tasks/pi/klyng_numba.py STEPS

Numba's import and compilation are over before a rank enters the task: they show as start-up.
"""

from __future__ import annotations

import sys

import numba
from klyng import run

import klyng_mp as mp


@numba.njit("f8(f8, f8, f8)", cache=True)
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
