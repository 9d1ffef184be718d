"""A World whose ranks MPI has started, as its driver sees it; each test's driver is a process of its own."""

from __future__ import annotations

from cluster.mpidriver import drive
from cluster.mpiprograms import each_mpi


@each_mpi
def test_functions_run_in_its_ranks_which_stay_warm(python):
    lines, _ = drive(
        python,
        """
with world(seed=7, env={"NAME": "value"}) as w:
    print("driver:", w.run(ring, "a"))
    secret = 42
    print("driver:", w.run(lambda: (mp.rank(), mp.size(), os.environ["NAME"], secret)))
    pids = w.run(os.getpid)
    numbers = w.run(lambda: __import__("random").random())
    for number in range(1000):  # MPI has fewer communicators than that
        assert w.run(ring, number) == [(number, 2), (number, 0), (number, 1)]
    print("driver:", w.run(os.getpid) == pids, len(set(pids)), len(set(numbers)))
    w.run(lambda: mp.comm().isend("never received", (mp.rank() + 1) % 3, 1) and None)
    print("driver:", w.run(ring, "afterwards"), w.statistics()[2:4], repr(w))
print("driver:", repr(w))
""",
    )
    assert lines == [
        "driver: [('a', 2), ('a', 0), ('a', 1)]",
        "driver: [(0, 3, 'value', 42), (1, 3, 'value', 42), (2, 3, 'value', 42)]",
        "driver: True 3 3",
        "driver: [('afterwards', 2), ('afterwards', 0), ('afterwards', 1)] ('mpi', 1007) <World of 3 ranks, idle>",
        "driver: <World of 3 ranks, closed>",
    ]


@each_mpi
def test_a_run_that_fails_says_where_and_the_next_one_has_other_ranks(python):
    lines, _ = drive(
        python,
        """
with world() as w:
    pids = w.run(os.getpid)
    try:
        w.run(lambda: 1 / (mp.rank() - 1) or mp.comm().recv(1))
    except mp.RankFailedError as error:
        print("driver:", error.rank, type(error.__cause__).__name__, "in <lambda>" in str(error))
    print("driver:", w.run(ring, "b"), set(pids) & set(w.run(os.getpid)))
    try:
        w.run(lambda: mp.comm().recv((mp.rank() + 1) % 3))
    except mp.DeadlockError as error:
        print("driver:", "cycle: rank 0 -> rank 1 -> rank 2 -> rank 0" in str(error), error.cycle)
    run = w.start(lambda: mp.rank() == 1 and os.kill(os.getpid(), 9) or mp.comm().recv(1))
    try:
        run.result()
    except mp.WorldError as error:
        print("driver:", str(error).partition(":")[0])
    print("driver:", w.run(ring, "c"))
""",
    )
    assert lines == [
        "driver: 1 ZeroDivisionError True",
        "driver: [('b', 2), ('b', 0), ('b', 1)] set()",
        "driver: True (0, 1, 2)",
        lines[3],
        "driver: [('c', 2), ('c', 0), ('c', 1)]",
    ]
    # Who is seen to be gone first may be one that MPI has ended for it.
    assert lines[3].endswith("has died, and with it the World, as MPI has it")


@each_mpi
def test_a_run_can_be_cancelled_and_times_out(python):
    lines, _ = drive(
        python,
        """
with world(2) as w:
    run = w.start(lambda: mp.comm().recv(1 - mp.rank(), "never", timeout=60))
    try:
        run.result(timeout=0.3)
    except mp.DeadlineError as error:
        print("driver:", error)
    print("driver:", run.cancel(), run.done())
    try:
        run.result()
    except mp.RunCancelledError as error:
        print("driver:", error)
    print("driver:", w.run(ring, "d"))
""",
    )
    assert lines == [
        "driver: run 1 of the World did not finish within 0.3 s",
        "driver: True True",
        "driver: the run was cancelled",
        "driver: [('d', 1), ('d', 0)]",
    ]


@each_mpi
def test_another_number_of_ranks_than_the_launcher_starts_is_told(python):
    lines, errors = drive(
        python,
        """
LAUNCHER = [word.replace("{n}", "2") for word in LAUNCHER]
w = world(3)
try:
    w.run(ring, "f")
except mp.LaunchError as error:
    print("driver:", "the ranks could not be started" in str(error))
w.terminate()
""",
    )
    assert lines == ["driver: True"]
    assert "has started 2 ranks for a World of 3: write {n} in launcher= where the number belongs" in errors


@each_mpi
def test_ranks_end_with_their_driver(python):
    lines, _ = drive(
        python,
        """
import signal

ours, theirs = os.pipe()
if not (child := os.fork()):
    w = world(2)
    pids = w.run(os.getpid)
    w.start(lambda: mp.comm().recv(1 - mp.rank(), timeout=60))
    os.write(theirs, " ".join(map(str, pids)).encode())
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
pids = [int(word) for word in os.read(ours, 100).split()]
end = time.monotonic() + 20
while time.monotonic() < end and any(os.path.exists(f"/proc/{pid}") for pid in pids):
    pass
print("driver:", len(pids), [os.path.exists(f"/proc/{pid}") for pid in pids])
""",
    )
    assert lines == ["driver: 2 [False, False]"]
