"""Primes by trial division with the loop in plain Python; all else is ``klyng.py``.

klyng-mp run -n 4 benchmarks/tasks/primes/klyng_plain.py LIMIT

It has a size of its own in ``task.toml``: at the full one it would take minutes.
"""

from __future__ import annotations

import sys

from klyng import run

import klyng_mp as mp


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


def kernel(start: int, stop: int) -> int:
    return sum(map(is_prime, range(start, stop)))


def main() -> None:
    run(kernel, int(sys.argv[1]))
    mp.end()


if __name__ == "__main__":
    mp.init(main)
