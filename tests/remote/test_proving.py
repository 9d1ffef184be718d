"""proving: how many connections may prove themselves at a time, in all and by the same name."""

from __future__ import annotations

import threading

from klyng_mp.remote.proving import OF_ONE, SPARE, Proving


def test_by_the_same_name_there_are_few_and_others_do_not_wait_for_them():
    proving = Proving(peers=3)
    assert [proving.begin(1) for _ in range(OF_ONE + 5)] == [True] * OF_ONE + [False] * 5
    assert proving.dropped == 5
    assert proving.begin(2)
    proving.end(1)
    assert proving.begin(1)
    assert not proving.begin(1)
    assert proving.dropped == 6


def test_all_ranks_of_a_job_may_come_at_once_and_no_more_than_some_besides():
    proving = Proving(peers=1000)
    assert all(proving.begin(source) for source in range(1000))
    assert sum(proving.begin(source) for source in range(1000)) == SPARE
    assert proving.dropped == 1000 - SPARE
    for source in range(1000):
        proving.end(source)
    assert sum(proving.begin(source) for source in range(1000)) == 1000


def test_what_is_over_is_not_remembered():
    proving = Proving(peers=1)
    for source in range(10_000):
        assert proving.begin(source)
        proving.end(source)
    assert len(proving._now) == 0
    assert proving.dropped == 0


def test_threads_do_not_get_in_each_others_way():
    proving = Proving(peers=1)
    begun = threading.Barrier(8)

    def come_and_go(source):
        begun.wait()
        for _ in range(500):
            assert proving.begin(source)
            proving.end(source)

    threads = [threading.Thread(target=come_and_go, args=(number % OF_ONE,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(proving._now), proving.dropped) == (0, 0)
