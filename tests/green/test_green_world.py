"""A World of green ranks: runs, errors, deadlocks, ends, and what each rank has for itself."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import klyng_mp as mp


@pytest.fixture
def world():
    with mp.World(4, green=True) as world:
        yield world


def ring():
    comm = mp.comm()
    comm.send([comm.rank], (comm.rank + 1) % comm.size)
    return comm.recv((comm.rank - 1) % comm.size)


def test_ranks_are_told_apart_and_talk(world):
    assert world.run(lambda: (mp.rank(), mp.size(), mp.comm().rank)) == [(rank, 4, rank) for rank in range(4)]
    assert world.run(ring) == [[3], [0], [1], [2]]
    assert world.run(lambda: mp.comm().allreduce(mp.rank() + 1)) == [10] * 4


def test_they_are_in_this_process_and_the_function_is_itself(world):
    seen = []
    world.run(lambda: seen.append((os.getpid(), threading.get_ident())))
    assert seen == [(os.getpid(), threading.get_ident())] * 4


def test_nothing_is_shared_by_accident(world):
    given = {"list": [0], "array": np.zeros(3)}

    def change(what):
        what["list"].append(mp.rank())
        what["array"] += mp.rank()
        if mp.rank() == 0:
            for dest in range(1, 4):
                mp.send(what, dest)
            what["list"].append("later")
            return what
        got = mp.recv(0)
        got["array"] += 1
        return got

    results = world.run(change, given)
    assert given["list"] == [0]
    assert not given["array"].any()
    assert [one["list"] for one in results] == [[0, 0, "later"], *[[0, 0]] * 3]
    assert [one["array"][0] for one in results] == [0, 1, 1, 1]


def test_large_arrays_are_copied(world):
    def swap():
        mine = np.full(100_000, mp.rank())
        got = mp.comm().sendrecv(mine, 3 - mp.rank(), source=3 - mp.rank())
        got += 10
        return int(mine[0]), int(got[-1])

    assert world.run(swap) == [(0, 13), (1, 12), (2, 11), (3, 10)]


def test_a_rank_that_fails_ends_the_run_and_the_others_clean_up(world):
    cleaned = []

    def fail():
        try:
            if mp.rank() == 2:
                raise KeyError("no such thing")
            mp.recv(source=2, tag="never")
        finally:
            cleaned.append(mp.rank())

    with pytest.raises(mp.RankFailedError, match=r"rank 2 .*KeyError") as caught:
        world.run(fail)
    assert sorted(cleaned) == [0, 1, 2, 3]
    assert caught.value.rank == 2
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__cause__.__traceback__ is not None  # so that a debugger can look into the rank
    assert world.run(mp.rank) == [0, 1, 2, 3]


def test_who_goes_on_after_the_end_is_ended(world):
    def stubborn():
        if mp.rank() == 0:
            raise ValueError
        while True:
            try:
                mp.recv(source=0)
            except mp.PeerLostError:
                mp.sleep(60)

    began = time.monotonic()
    with pytest.raises(mp.RankFailedError):
        world.run(stubborn)
    assert time.monotonic() - began < 10


def test_a_deadlock_is_seen_at_once(world):
    began = time.monotonic()
    with pytest.raises(mp.DeadlockError, match=r"test_green_world\.py:\d+ in .*wait_around") as caught:
        world.run(wait_around)
    assert time.monotonic() - began < 5
    assert caught.value.cycle == (0, 1, 2, 3)
    assert "recv(source=1, tag=ANY_TAG)" in caught.value.report


def wait_around():
    return mp.recv(source=(mp.rank() + 1) % mp.size())


def test_the_report_of_many_is_short():
    with mp.World(3000, green=True) as world, pytest.raises(mp.DeadlockError, match="and 2872 more ranks") as caught:
        world.run(wait_around)
    assert len(caught.value.cycle) == 3000
    assert len(caught.value.report) < 40_000


def test_timeouts(world):
    def patient():
        with pytest.raises(mp.DeadlineError, match="recv"):
            mp.recv(timeout=0.05)
        with pytest.raises(mp.DeadlineError):
            mp.recv(timeout=0)
        if mp.rank():
            with pytest.raises(mp.DeadlineError, match="barrier"):
                mp.comm().barrier(timeout=0.05)
        return "patient"

    assert world.run(patient) == ["patient"] * 4
    run = world.start(lambda: mp.sleep(0.3))
    with pytest.raises(mp.DeadlineError):
        run.result(timeout=0.05)
    assert run.result() == [None] * 4


def test_sleepers_wake_in_their_order_while_others_run(world):
    order = []

    def nap():
        mp.sleep((4 - mp.rank()) / 50)
        order.append(mp.rank())

    began = time.monotonic()
    world.run(nap)
    assert order == [3, 2, 1, 0]
    assert time.monotonic() - began < 2


def test_no_time_is_no_sleep(world):
    def nap():
        mp.sleep(0)
        with pytest.raises(ValueError, match="non-negative"):
            mp.sleep(-1)

    assert world.run(nap) == [None] * 4


def test_elsewhere_they_are_pythons_own(run_python):
    code = (
        "import os, time\n"
        "import klyng_mp as mp\n"
        "fds = os.listdir('/proc/self/fd')\n"
        "begun = time.monotonic()\n"
        "mp.sleep(0.05); mp.yield_()\n"
        "assert time.monotonic() - begun >= 0.05\n"
        "assert os.listdir('/proc/self/fd') == fds\n"
        "try: mp.sleep(-1)\n"
        "except ValueError: print('refused')\n"
        "with mp.World(1) as world: print(world.run(lambda: (mp.sleep(0.01), mp.yield_())))\n"
    )
    done = run_python("-c", code)
    assert (done.stdout, done.stderr) == ("refused\n[(None, None)]\n", "")


def test_who_computes_can_give_way(world):
    order = []

    def work():
        for step in range(3):
            order.append((step, mp.rank()))
            mp.yield_()

    world.run(work)
    assert order == [(step, rank) for step in range(3) for rank in range(4)]


def test_who_polls_lets_others_run(world):
    def poll():
        if mp.rank():
            mp.sleep(0.02)
            mp.send("at last", 0)
            return None
        while mp.comm().iprobe() is None:
            pass
        request = mp.comm().irecv(3)
        while not request.test():
            pass
        return [mp.recv(1), mp.recv(2), request.wait()]

    assert world.run(poll)[0] == ["at last"] * 3


def test_synchronous_sends_and_requests(world):
    def talk():
        comm = mp.comm()
        if comm.rank == 0:
            comm.ssend("sync", 1)
            request = comm.issend("later", 2)
            assert not request.test()
            comm.send("go", 2, "go")
            request.wait()
        elif comm.rank == 1:
            return comm.recv(0)
        elif comm.rank == 2:
            return comm.recv(0, "go"), comm.recv(0, 0)
        return None

    assert world.run(talk) == [None, "sync", ("go", "later"), None]


def test_who_waits_for_the_next_message_has_received_the_last(world):
    """The sender of a message that was taken is told, although its receiver goes on to wait."""

    def talk():
        comm = mp.comm()
        if comm.rank == 0:
            comm.ssend("first", 1)
            comm.send("second", 1)
            return None
        if comm.rank == 1:
            mp.yield_()
            return comm.recv(0), comm.recv(0)
        return None

    assert world.run(talk)[1] == ("first", "second")


def test_a_debugger_sees_any_rank(run_python, tmp_path):
    path = tmp_path / "app.py"
    path.write_text(
        "import klyng_mp as mp\n"
        "def main():\n"
        "    if mp.rank() == 2:\n"
        "        breakpoint()\n"
        "    return mp.comm().allreduce(mp.rank())\n"
        "with mp.World(4, green=True) as world:\n"
        "    print(world.run(main))\n"
    )
    done = run_python(path, stdin="p ('rank', mp.rank())\nn\nc\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "('rank', 2)" in done.stdout
    assert done.stdout.endswith("[6, 6, 6, 6]\n")


def test_who_has_returned_receives_nothing(world):
    def too_late():
        if mp.rank() == 0:
            mp.sleep(0.01)
            with pytest.raises(mp.PeerLostError, match="has returned"):
                mp.comm().ssend("too late", 3)

    with pytest.warns(mp.UnreceivedMessagesWarning):
        world.run(too_late)


def test_what_nobody_received_is_warned_of(world):
    def leave():
        if mp.rank() == 0:
            mp.send("lost", 3, tag="t")
            mp.send("lost", 3, tag=7)

    with pytest.warns(mp.UnreceivedMessagesWarning, match=r"rank 3 ended with 2 .*source 0, tag 't'"):
        world.run(leave)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        world.run(ring)


def test_different_collectives_are_told(world):
    def quarrel():
        comm = mp.comm()
        return comm.barrier() if comm.rank else comm.bcast(1)

    with pytest.raises(mp.RankFailedError, match="CollectiveMismatchError: this rank called"):
        world.run(quarrel)


def test_a_run_can_be_cancelled_and_the_world_be_terminated():
    with mp.World(2, green=True) as world:
        run = world.start(wait_around)
        assert run.cancel()
        with pytest.raises(mp.RunCancelledError):
            run.result()
    world = mp.World(2, green=True)
    run = world.start(lambda: mp.sleep(60))
    with pytest.raises(mp.WorldBusyError):
        world.run(ring)
    with pytest.raises(mp.DeadlineError):
        run.result(timeout=0.01)
    assert "waits in sleep()" in world.report()
    world.terminate()
    with pytest.raises(mp.RunCancelledError):
        run.result()


def test_an_interrupt_ends_the_run_and_the_world_stays(world):
    cleaned = []

    def interrupted():
        try:
            if mp.rank() == 1:
                raise KeyboardInterrupt
            mp.recv(1)
        finally:
            cleaned.append(mp.rank())

    with pytest.raises(KeyboardInterrupt):
        world.run(interrupted)
    assert sorted(cleaned) == [0, 1, 2, 3]
    assert world.run(mp.rank) == [0, 1, 2, 3]


def test_another_thread_is_refused(world):
    run = world.start(lambda: mp.sleep(60))
    with pytest.raises(mp.DeadlineError):
        run.result(timeout=0.01)
    met = []

    def wait():
        try:
            run.result()
        except mp.WorldError as error:
            met.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert "the thread in which they began" in met[0]
    assert run.cancel()


def test_a_coroutine_is_refused_with_what_to_do(world):
    async def main():
        return 1

    with pytest.raises(mp.RankFailedError, match="a green rank cannot run a coroutine"):
        world.run(main)


def test_a_process_from_it_is_refused_with_what_to_do(world):
    with pytest.raises(mp.LaunchError, match="a World of green ranks starts no processes"):
        world.Process(target=print).start()


def test_a_fork_in_a_rank_has_no_communicator(world):
    def fork():
        if mp.rank() == 0:
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    mp.send(1, 1)
                except mp.ForkedError:
                    code = 0
                finally:
                    os._exit(code)
            return os.waitpid(pid, 0)[1]
        return mp.comm().rank

    assert world.run(fork) == [0, 1, 2, 3]


def test_a_forked_child_that_leaves_its_rank_does_not_go_on_as_the_others(world, capfd):
    def fork():
        if mp.rank() == 0 and not os.fork():
            return "child"
        mp.comm().barrier()
        return "rank"

    me = os.getpid()
    try:
        result = world.run(fork)
    except BaseException as error:
        if os.getpid() == me:
            raise
        os.write(1, str(error).encode())
        os._exit(0)
    os.wait()
    assert result == ["rank"] * 4
    assert "ended: end it by os._exit" in capfd.readouterr().out.replace("the end of the rank's function", "ended")


def test_a_schedule_is_repeated_by_its_seed():
    def who():
        order.append(mp.rank())
        for _ in range(5):
            mp.yield_()
            order.append(mp.rank())

    orders = []
    for schedule in (1, 1, 2):
        order = []
        with mp.World(4, green=True, schedule=schedule) as world:
            world.run(who)
        orders.append(order)
    assert orders[0] == orders[1] != orders[2]


def test_schedules_find_what_order_hides():
    def race():
        if mp.rank():
            mp.send(mp.rank(), 0)
            return None
        return [mp.recv() for _ in range(3)]

    seen = set()
    for schedule in range(30):
        with mp.World(4, green=True, schedule=schedule) as world:
            seen.add(tuple(world.run(race)[0]))
    assert len(seen) > 3


@pytest.mark.parametrize("schedule", range(8))
def test_synchronous_sends_by_chance(schedule):
    def talk():
        comm = mp.comm()
        right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        request = comm.irecv(left, "ring")
        comm.ssend(comm.rank, right, "ring")
        comm.barrier()
        return request.wait()

    with mp.World(5, green=True, schedule=schedule) as world:
        assert world.run(talk) == [4, 0, 1, 2, 3]


def test_lines_are_labelled(capsys):
    with mp.World(2, green=True, label=True) as world:

        def say():
            print("begun", end=" ")
            mp.yield_()
            print("and ended")
            print("no end", end="")
            print("oh", file=sys.stderr)

        world.run(say)
    host = mp.World(1, green=True)._spec.host
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"[{rank}@{host}] {what}" for what in ("begun and ended", "no end") for rank in (0, 1)]
    assert err.splitlines() == [f"[{rank}@{host}] oh" for rank in (0, 1)]


def test_random_numbers_can_be_repeated():
    def draw():
        return random.random()

    with mp.World(3, green=True, seed=5) as world:
        first = world.run(draw)
    with mp.World(3, green=True, seed=5) as world:
        assert world.run(draw) == first
    assert len(set(first)) == 3


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"green": "yes"}, TypeError, "green must be"),
        ({"green": True, "schedule": "x"}, TypeError, "schedule must be an int"),
        ({"schedule": 1}, ValueError, "give green=True"),
        ({"green": True, "method": "spawn"}, ValueError, "method= has no meaning with green="),
        ({"green": True, "env": {"A": "b"}}, ValueError, "set os.environ"),
        ({"green": True, "preload": ["numpy"]}, ValueError, "preload= has no meaning"),
        ({"green": True, "n": 0}, ValueError, "at least 1 rank"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        mp.World(**{"n": 2, **arguments})


def test_worlds_leave_nothing_behind():
    def count():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with mp.World(50, green=True) as world:
        world.run(ring)
    before = count()
    for _ in range(5):
        with mp.World(50, green=True) as world:
            world.run(ring)
    assert count() == before


def test_ten_thousand_ranks_go_around_a_ring():
    def around():
        comm = mp.comm()
        if comm.rank == 0:
            comm.send(1, comm.size - 1)
            return comm.recv(1)
        got = comm.recv((comm.rank + 1) % comm.size)
        comm.send(got + 1, comm.rank - 1)
        return None

    with mp.World(10_000, green=True) as world:
        assert world.run(around)[0] == 10_000
        assert world.run(lambda: mp.comm().allreduce(mp.rank())) == [10_000 * 9_999 // 2] * 10_000


def test_reductions_are_those_of_processes_to_the_last_bit():
    def add():
        comm = mp.comm()
        value = 1.0 / (3 + comm.rank) ** 7
        return comm.allreduce(value), comm.reduce(value, root=1), comm.scan(value)

    for size in (2, 3, 5, 20):
        with mp.World(size, green=True) as green, mp.World(size) as world:
            if size > 16:  # few that share memory combine in another order
                assert green.run(add) == world.run(add)
            else:
                assert [one[0] for one in green.run(add)] == pytest.approx([one[0] for one in world.run(add)])


def test_sub_communicators(world):
    def halves():
        comm = mp.comm()
        half = comm.split(comm.rank % 2)
        half.send(comm.rank, (half.rank + 1) % 2)
        return half.recv(), half.allreduce(comm.rank), comm.dup().allgather(comm.rank)

    assert world.run(halves) == [(other, total, [0, 1, 2, 3]) for other, total in ((2, 2), (3, 4), (0, 2), (1, 4))]
