"""Primes by trial division with the loop compiled by numba; all else is ``klyng.py``.

    klyng-mp run -n 4 benchmarks/tasks/primes/klyng_numba.py LIMIT

Numba's import and compilation are over before a rank enters the task: they show as start-up.
"""

from __future__ import annotations

import sys

import numba
from klyng import run

import klyng_mp as mp


@numba.njit("b1(i8)", cache=True)
def is_prime(number: int) -> bool:
    if number < 2:
        return False
    if number % 2 == 0:
        return number == 2
    divisor = 3
    while divisor * divisor <= number:
        if number % divisor == 0:
            return False
        divisor += 2
    return True


@numba.njit("i8(i8, i8)", cache=True)
def kernel(start: int, stop: int) -> int:
    count = 0
    for number in range(start, stop):
        if is_prime(number):
            count += 1
    return count


def main() -> None:
    run(kernel, int(sys.argv[1]))
    mp.end()


if __name__ == "__main__":
    mp.init(main)
