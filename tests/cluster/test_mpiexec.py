"""Programs that mpiexec has started: what they do, what they are told, and how they end."""

from __future__ import annotations

import sys

import pytest
from cluster.mpiprograms import each_mpi, environment, mpiexec, run

RANK = "import klyng_mp as mp; c = mp.comm(); r, n = c.rank, c.size; "


@each_mpi
def test_ranks_are_mpis_and_talk_to_each_other(python, tmp_path):
    program = tmp_path / "app.py"
    program.write_text(PROGRAM)
    done = mpiexec(python, 3, program, "word")
    assert done.returncode == 0, done.stderr
    for rank in range(3):  # whose lines a launcher may mix
        assert done.stdout.count(f"rank {rank} of 3 is content") == 1
    assert done.stderr == ""


PROGRAM = """
import sys
import threading

import numpy as np
from contracts.communicator import play
from mpi4py import MPI

import klyng_mp as mp


class Point:
    def __init__(self, x):
        self.x = x


def exchange(comm, obj, tag):
    comm.send(obj, (comm.rank + 1) % comm.size, tag)
    return comm.recv((comm.rank - 1) % comm.size, tag)


def main():
    comm = mp.comm()
    rank, size, left = comm.rank, comm.size, (comm.rank - 1) % comm.size
    assert (rank, size) == (MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size) == (mp.rank(), mp.size())
    assert sys.argv[1:] == ["word"]
    for tag in (0, 5, 2**40, "a word", ""):
        for obj in (rank, None, "text" * rank, b"b" * 3000, [rank, {"key": (1.5, "v")}], list(range(5000)), 1 << 90):
            got = exchange(comm, obj, tag)
            assert got == (left if obj is rank else "text" * left if obj == "text" * rank and rank else got), (obj, got)
    assert exchange(comm, Point(rank), 1).x == left
    assert exchange(comm, lambda: rank, 1)() == left  # by value, as pickle refuses it
    array = np.arange(300_000.0) + rank
    comm.isend(array, (rank + 1) % size, 7)
    assert (comm.recv(left, 7) == np.arange(300_000.0) + left).all()
    place = np.zeros(300_000)
    request = comm.isend(array, (rank + 1) % size, 8)
    assert comm.recv_into(place, left, 8) == place.nbytes
    assert (place == np.arange(300_000.0) + left).all()
    request.wait()
    # Nothing overtakes a large message, whichever way it goes.
    for number in range(20):
        comm.isend((number, bytes(200_000 if number % 3 else 10)), (rank + 1) % size, 9)
        comm.isend([number, np.full(30_000, number)], (rank + 1) % size, 9)
    for number in range(20):
        assert comm.recv(left, 9)[0] == number
        got = comm.recv(left, 9)
        assert got[0] == number and (got[1] == number).all()
    status = mp.Status()
    comm.send(rank, (rank + 1) % size, 11)
    assert comm.recv(status=status) == left and (status.source, status.tag) == (left, 11)
    assert not comm.iprobe()
    try:
        comm.recv(left, 12, timeout=0.05)
    except mp.DeadlineError as error:
        assert "recv(source=" in str(error)
    else:
        raise AssertionError("it got something")
    comm.ssend("seen", (rank + 1) % size, 13) if rank == 0 else None
    assert rank != 1 or comm.recv(0, 13) == "seen"
    request = comm.irecv(left, 14)
    comm.send("first", (rank + 1) % size, 15)
    comm.send("second", (rank + 1) % size, 14)
    comm.send("third", (rank + 1) % size, 15)
    assert [comm.recv(left, 15), comm.recv(left, 15), request.wait()] == ["first", "third", "second"]
    assert comm.allreduce(rank) == sum(range(size))
    assert (comm.allreduce(np.full(50_000, rank)) == sum(range(size))).all()
    assert comm.bcast({"from": rank}, 1) == {"from": 1}
    assert comm.gather(rank, 2) == (list(range(size)) if rank == 2 else None)
    assert comm.alltoall([(rank, dest) for dest in range(size)]) == [(source, rank) for source in range(size)]
    half = comm.split(rank % 2)
    assert half.allgather(rank) == [one for one in range(size) if one % 2 == rank % 2]
    assert exchange(half, rank, 3) in range(size)
    comm.barrier()
    errors = []

    def thread(tag):
        try:
            play(comm, tag, 42)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread, args=(tag,)) for tag in range(5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not errors, errors
    comm.barrier()
    print(f"rank {rank} of {size} is content", flush=True)


if __name__ == "__main__":
    main()
"""


@each_mpi
def test_a_rank_that_fails_ends_all_and_is_named(python):
    done = mpiexec(python, 3, "-c", RANK + "r == 1 and 1 / 0; c.recv()")
    assert done.returncode == 1
    assert "klyng-mp: rank 1 on " in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert 'File "<string>", line 1, in <module>' in done.stderr


@each_mpi
def test_ranks_that_wait_for_each_other_are_ended_with_a_report(python):
    done = mpiexec(python, 3, "-c", RANK + "c.recv((r + 1) % n, 'never')")
    assert done.returncode == 1
    assert "all ranks wait for each other, and nothing is on its way to any of them" in done.stderr
    assert "cycle: rank 0 -> rank 1 -> rank 2 -> rank 0" in done.stderr
    assert "waits in recv(source=2, tag='never') for rank 2" in done.stderr


@each_mpi
def test_who_waits_for_a_rank_that_has_ended_is_told(python):
    done = mpiexec(python, 2, "-c", RANK + "r == 0 and c.recv(1)")
    assert done.returncode == 1
    assert "PeerLostError: rank 1 has ended; this rank was in recv(source=1, tag=ANY_TAG)" in done.stderr


@each_mpi
def test_what_was_sent_last_is_received_before_the_end_is_told(python):
    code = RANK + "r == 1 and [c.isend((k, bytes(90_000)), 0, k) for k in range(30)]; "
    done = mpiexec(python, 2, "-c", code + "r == 0 and print([c.recv(1, k)[0] for k in range(30)] == list(range(30)))")
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@each_mpi
def test_a_large_message_whose_sender_computes_is_given_up_in_time_and_received_later(python, tmp_path):
    program = tmp_path / "app.py"
    program.write_text(BUSY)
    done = mpiexec(python, 2, program)
    assert (done.returncode, done.stdout) == (0, "given up in time\nreceived\n"), done.stderr


BUSY = """
from time import perf_counter

import numpy as np

import klyng_mp as mp

comm = mp.comm()
if comm.rank == 1:
    comm.recv(0, 1)
    comm.send("it begins", 0, 2)  # and not later, as nothing overtakes a large message
    request = comm.isend(np.arange(500_000.0), 0, 8)
    end = perf_counter() + 1.0
    while perf_counter() < end:
        pass
    request.wait()
else:
    place = np.zeros(500_000)
    comm.send("go", 1, 1)
    comm.recv(1, 2)
    begin = perf_counter()
    try:
        comm.recv_into(place, 1, 8, timeout=0.3)
    except mp.DeadlineError:
        print("given up in time" if perf_counter() - begin < 0.8 else "late", flush=True)
    place[:] = -1
    assert (comm.recv(1, 8) == np.arange(500_000.0)).all()
    assert (place == -1).all()
    print("received")
"""


@each_mpi
def test_messages_that_nobody_received_are_named(python):
    done = mpiexec(python, 2, "-c", RANK + "r == 1 and c.send(5, 0, 'lost'); r == 1 and c.send(5, 0, 3)")
    assert done.returncode == 0
    assert "klyng-mp: rank 0 ended with 2 unreceived messages, first: source 1, tag 'lost'" in done.stderr


@each_mpi
@pytest.mark.parametrize(("program", "code"), [("sys.exit(7)", 7), ("r == 0 and sys.exit(3); c.recv()", 3)])
def test_the_exit_code_is_the_programs(python, program, code):
    done = mpiexec(python, 2, "-c", "import sys; " + RANK + program)
    assert done.returncode == code


@each_mpi
def test_lines_have_labels(python):
    done = mpiexec(python, 2, "--label", "-c", RANK + "print('one', r); print('two', end='')")
    lines = sorted(line.split("@")[0] + line.partition("]")[2] for line in done.stdout.splitlines())
    assert lines == ["[0 one 0", "[0 two", "[1 one 1", "[1 two"], done.stderr


@each_mpi
def test_the_same_seed_gives_the_same_numbers(python):
    words = ("--seed", "5", "-c", "import random; " + RANK + "got = c.gather(random.random()); r or print(*got)")
    first, second = (mpiexec(python, 2, *words) for _ in range(2))
    assert first.stdout == second.stdout, first.stderr
    assert len(set(first.stdout.split())) == 2


@each_mpi
def test_what_a_rank_starts_is_no_rank(python):
    child = "import klyng_mp as mp; print(mp.size())"
    start = f"subprocess.run([sys.executable, '-m', 'klyng_mp', '-n', '1', '-c', {child!r}], check=True)"
    done = mpiexec(python, 2, "-c", "import subprocess, sys; " + RANK + f"r or {start}")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@each_mpi
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "3"], "-n asks for 3 ranks, and mpiexec has started 2: leave -n out"),
        (["--green"], "--green means ranks of one process, and mpiexec has started 2"),
        (["--timeout", "5"], "--timeout ends what klyng-mp has started: give mpiexec a limit of its own"),
        (["--stats"], "--stats and --trace tell of ranks that klyng-mp has started"),
        (["-H", "machines.json"], "--machines would start ranks that mpiexec has started already"),
    ],
    ids=["n", "green", "timeout", "stats", "machines"],
)
def test_what_mpiexec_has_decided_is_refused_once(python, words, said):
    done = mpiexec(python, 2, *words, "-c", "1")
    assert done.returncode == 2
    assert done.stderr.count("klyng-mp: error:") == 1
    assert f"klyng-mp: error: {said}" in done.stderr


@each_mpi
def test_as_many_as_mpiexec_has_started_may_be_named(python):
    done = mpiexec(python, 2, "-n", "2", "-c", RANK + "r or print(n)")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


@each_mpi
def test_mpi4py_that_is_missing_is_named(python, tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('no such thing')")
    env = environment(PMI_RANK="0", PMI_SIZE="2")
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    done = run([python, "-m", "klyng_mp", "-c", "1"], env)
    assert done.returncode == 1
    assert "mpiexec has started this program, and mpi4py, through which its ranks talk" in done.stderr
    assert "pip install 'klyng_mp[mpi]'" in done.stderr


@pytest.mark.may_leave("files", why="Open MPI leaves its folder where it is told of a job that is none")
@each_mpi
def test_another_mpi_than_the_launchers_is_told(python):
    done = run([python, "-m", "klyng_mp", "-c", "1"], environment(OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="4"))
    assert done.returncode == 1
    assert "mpiexec has started 4 processes, and for the MPI of mpi4py (" in done.stderr
    assert "there is only 1: both must be of one MPI" in done.stderr


def test_without_a_launcher_nothing_of_mpi_is_imported():
    code = "import sys, klyng_mp.cli; klyng_mp.cli.main(['-n', '1', '-c', "
    code += '\'import sys; print([one for one in sys.modules if "mpi4py" in one or "cluster" in one])\'])'
    done = run([sys.executable, "-c", code])
    assert done.stdout == "[]\n", done.stderr
