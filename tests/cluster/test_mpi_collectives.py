"""Collectives that MPI has itself, as programs that mpiexec has started meet them."""

from __future__ import annotations

from cluster.mpiprograms import each_mpi, mpiexec

RANK = "import time; import numpy as np; import klyng_mp as mp; c = mp.comm(); r, n = c.rank, c.size; "


@each_mpi
def test_what_fills_buffers_and_adds_arrays_goes_by_mpi_with_the_usual_results(python, tmp_path):
    program = tmp_path / "app.py"
    program.write_text(RESULTS)
    done = mpiexec(python, 3, program)
    assert (done.returncode, done.stdout) == (0, "all are right\n"), done.stderr


RESULTS = """
import numpy as np

import klyng_mp as mp

comm = mp.comm()
rank, size = comm.rank, comm.size


def check(found, wanted):
    assert np.array_equal(found, wanted), (rank, found, wanted)


def count_natives(calls):
    before = comm.natives.begun
    calls()
    return comm.natives.begun - before


def play(dtype, count):
    def part(rank):
        return (np.arange(count) % 7 + rank).astype(dtype)

    own, parts, root = part(rank), [part(one) for one in range(size)], size - 1
    total, everything = sum(parts), np.concatenate(parts)
    out, room = np.zeros(count, dtype), np.zeros(count * size + 1, dtype)
    comm.allreduce_into(own, out)
    check(out, total)
    same = own.copy()
    comm.allreduce_into(same, same)
    check(same, total)
    out[...] = 0
    comm.reduce_into(own, out if rank == root else None, root=root)
    check(out, total if rank == root else 0 * out)
    comm.bcast_into(own if rank == 0 else room, 0)
    check((own if rank == 0 else room)[:count], parts[0])
    comm.allgather_into(own, room)
    check(room[:-1], everything)
    room[...] = 0
    room[rank * count : (rank + 1) * count] = own
    comm.allgather_into(room[rank * count : (rank + 1) * count], room)
    check(room[:-1], everything)
    room[...] = 0
    comm.gather_into(own, room if rank == 0 else None, 0)
    check(room[:-1], everything if rank == 0 else 0 * everything)
    comm.scatter_into(everything if rank == 0 else None, out, 0)
    check(out, own)
    comm.alltoall_into(everything, room)
    check(room[:-1], np.tile(own, size))
    comm.reduce_scatter_into(everything, out)
    check(out, own * size)
    comm.scan_into(own, out)
    check(out, sum(parts[: rank + 1]))
    out[...] = 9
    comm.exscan_into(own, out)
    check(out, sum(parts[:rank]) if rank else 0 * out + 9)
    check(comm.allreduce(own), total)


for dtype in ("i4", "f8", "u1", "c16"):
    for count in (0, 1, 5):
        assert count_natives(lambda: play(dtype, count)) == 12  # allreduce only of what is large
    assert count_natives(lambda: play(dtype, 70_000)) == 13
assert count_natives(comm.barrier) == 1
text = bytearray(b"text") if rank == 0 else bytearray(6)
comm.bcast_into(text, 0)
assert text[:4] == b"text"
numbers, found = np.array([1.5, float("nan") if rank == 1 else 2.0]), np.empty(2)
comm.allreduce_into(numbers, found, mp.MAX)  # of which MPI says nothing where one is no number
assert found[0] == 1.5 and np.isnan(found[1])
truths = np.array([True, False])
comm.allreduce_into(truths, truths, mp.SUM)
check(truths, [True, False])
mine = np.zeros(2 if rank == 0 else 3)
try:
    comm.bcast_into(mine, 1)
except ValueError as error:
    assert (rank, str(error)) == (0, "bcast_into(): what came has 24 bytes, and the buffer 16")
else:
    assert rank != 0
if rank == 0:
    print("all are right")
"""


@each_mpi
def test_a_call_that_is_given_up_keeps_nobody_from_the_next_ones(python, tmp_path):
    program = tmp_path / "app.py"
    program.write_text(GIVEN_UP)
    done = mpiexec(python, 3, program)
    assert (done.returncode, done.stdout) == (0, "all go on\n"), done.stderr


GIVEN_UP = """
import numpy as np

import klyng_mp as mp

comm = mp.comm()
rank, size = comm.rank, comm.size
mine = np.full(50_000, float(rank))
if rank == 2:
    comm.recv(0, "the others have given up")
    comm.recv(1, "the others have given up")
    comm.barrier(timeout=60)  # those who gave up take part
    comm.allreduce_into(mine, mine, timeout=60)
    assert (mine == 3).all()
else:
    for attempt in (comm.barrier, lambda timeout: comm.allreduce_into(mine, mine, timeout=timeout)):
        try:
            attempt(timeout=0.05)
        except mp.DeadlineError as error:
            assert "did not finish within 0.05 s" in str(error), error
        else:
            raise AssertionError("it was not given up")
    assert (mine == rank).all()
    mine[...] = -100  # which is its own again
    comm.isend(None, 2, "the others have given up")
    comm.recv(2, "go on", timeout=60)
if rank == 2:
    for other in (0, 1):
        comm.send(None, other, "go on")
total = np.zeros(3)
for number in range(100):
    comm.allreduce_into(np.full(3, number + rank, float), total)
    assert (total == 3 * number + 3).all(), total
    comm.barrier()
if rank == 0:
    print("all go on")
"""


@each_mpi
def test_who_waits_in_one_for_a_rank_that_has_ended_is_told(python):
    done = mpiexec(python, 3, "-c", RANK + "c.barrier(); r == 1 or c.barrier()")
    assert done.returncode == 1
    assert "PeerLostError: rank 1 has ended; this rank was in barrier()" in done.stderr


@each_mpi
def test_who_ends_after_one_is_no_loss_to_the_others(python):
    done = mpiexec(python, 3, "-c", RANK + "[c.barrier() for _ in range(50)]; print('over')")
    assert (done.returncode, done.stdout.count("over")) == (0, 3), done.stderr


@each_mpi
def test_who_has_given_one_up_may_end(python):
    code = (
        "import contextlib\n"
        "with contextlib.suppress(mp.DeadlineError): c.recv(0, 1) if r else c.barrier(timeout=0.1)\n"
        "r or c.send(None, 1, 1)\n"
        "print('over')"
    )
    done = mpiexec(python, 2, "-c", RANK + "\n" + code)
    assert (done.returncode, done.stdout.count("over")) == (0, 2), done.stderr


@each_mpi
def test_a_deadlock_in_one_is_told(python):
    done = mpiexec(python, 3, "-c", RANK + "c.recv(1) if r == 0 else c.barrier()")
    assert done.returncode == 1
    assert "all ranks wait for each other, and nothing is on its way to any of them" in done.stderr
    assert "waits in barrier() for rank 0" in done.stderr


@each_mpi
def test_who_waits_long_for_one_that_computes_is_in_no_deadlock(python):
    code = "t = time.monotonic(); [0 for _ in iter(lambda: time.monotonic() - t < 3, False)] if r == 0 else 0; "
    done = mpiexec(python, 3, "-c", RANK + code + "c.barrier(); print('over')")
    assert (done.returncode, done.stdout.count("over")) == (0, 3), done.stderr


@each_mpi
def test_ranks_that_make_different_ones_are_told(python):
    buffers = "a, b = np.ones(3), np.ones(9); "
    for ours, theirs in (
        ("bcast_into(a, 0)", "bcast_into(a, 1)"),
        ("allreduce_into(a, a)", "scan_into(a, b[:3])"),
        ("allgather_into(a, b)", "barrier()"),
    ):
        done = mpiexec(python, 2, "-c", RANK + buffers + f"c.{ours} if r else c.{theirs}")
        assert done.returncode == 1
        name, other = (call.partition("_into")[0].partition("(")[0] for call in (ours, theirs))
        assert "CollectiveMismatchError" in done.stderr, done.stderr
        assert f"{name}(" in done.stderr
        assert f"{other}(" in done.stderr


@each_mpi
def test_calls_may_be_more_than_mpi_has_tags(python):
    code = RANK + (
        "a = np.arange(50_000) + r; "
        "good = all(c.allgather(k + r) == [k, k + 1] for k in range(20_000)); "
        "good &= all((c.bcast(a, k % 2) == np.arange(50_000) + k % 2).all() for k in range(5)); "
        "good &= [c.allgather([k]) for k in range(5)] == [[[k], [k]] for k in range(5)]; print(good)"
    )
    done = mpiexec(python, 2, "-c", code)
    assert (done.returncode, done.stdout.count("True")) == (0, 2), done.stderr
