from __future__ import annotations

import os

import numpy as np
from threadpoolctl import threadpool_info

from klyng_mp.pooling.threads import limit_forks, limit_threads


def numbers():
    return {library["num_threads"] for library in threadpool_info()}


def in_child(look):
    child = os.fork()
    if not child:
        os._exit(0 if look() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_limit_for_what_is_loaded():
    assert np.ones((2, 2)).dot(np.ones((2, 2))).sum() == 8

    def look():
        limit_threads(1, is_fork=False)
        return numbers() <= {1} and os.environ["OMP_NUM_THREADS"] == "1"

    assert in_child(look)


def test_a_limit_for_forks_only():
    before = numbers()

    def look():
        limit_threads(1, is_fork=True)
        return numbers() <= {1} and np.ones((50, 50)).dot(np.ones((50, 50))).sum() == 125000

    with limit_forks(1):
        assert in_child(look)
    assert numbers() == before
    with limit_forks(None):
        assert in_child(lambda: numbers() == before)


def test_forks_start_no_threads_of_openblas_that_spin():
    """They would take a core from the workers for the first tenth of a second."""
    np.ones((500, 500)).dot(np.ones((500, 500)))

    def look():
        limit_threads(1, is_fork=True)
        return os.listdir("/proc/self/task") == [str(os.getpid())]

    with limit_forks(1):
        assert in_child(look)
    native = set(os.listdir("/proc/self/task"))
    with limit_forks(1):
        assert in_child(look)
    assert set(os.listdir("/proc/self/task")) <= native
