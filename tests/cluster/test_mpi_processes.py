"""Processes and Pools of a World on MPI, which are guests in its ranks; each test's driver is a process of its own."""

from __future__ import annotations

from cluster.mpidriver import drive
from cluster.mpiprograms import each_mpi


@each_mpi
def test_a_process_is_the_guest_of_a_rank_and_has_an_end_of_its_own(python):
    lines, errors = drive(
        python,
        """
def live(text):
    parent, own = mp.parent_process(), mp.current_process()
    os.environ["LEFT"] = "behind"
    os.chdir("/")
    print("rank:", mp.rank(), own.name, own.daemon, parent.name, parent.is_alive(), text, flush=True)

def outcome(target, *args):
    process = w.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode

def divide():
    return 1 / 0

def spin():
    while True:
        pass

with world(2) as w:
    pids = w.run(os.getpid)
    process = w.Process(target=live, args=("text",), name="Named", daemon=True)
    process.start()
    process.join()
    print("driver:", process.exitcode, process.pid == pids[0])
    print("driver:", w.run(lambda: (os.environ.get("LEFT"), os.getcwd() != "/", mp.current_process().name)))
    print("driver:", outcome(divide), outcome(sys.exit), outcome(sys.exit, 7), outcome(sys.exit, "last words"))
    process = w.Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join(30)
    print("driver:", process.exitcode)
    process = w.Process(target=spin, name="Busy")
    process.start()
    process.terminate()
    process.join(30)
    print("driver:", process.exitcode, w.run(os.getpid) == pids)
    w.Process(target=live, args=("joined by its World",)).start()
    w.Process(target=time.sleep, args=(60,), daemon=True).start()
print("driver:", repr(w))
""",
    )
    assert lines == [
        "driver: 0 True",
        "driver: [(None, True, 'MainProcess'), (None, True, 'MainProcess')]",
        "driver: 1 0 7 1",
        "driver: -15",
        "driver: -15 True",
        "driver: <World of 2 ranks, closed>",
        "rank: 0 Named True MainProcess True text",
        "rank: 0 Process-8 False MainProcess True joined by its World",
    ]
    assert "ZeroDivisionError" in errors
    assert "last words" in errors


@each_mpi
def test_what_a_process_starts_ends_with_it(python):
    lines, _ = drive(
        python,
        """
import threading

def leave_others(write):
    child = mp.Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    threading.Thread(target=lambda: (child.join(), print("rank: a thread ends", flush=True))).start()
    with mp.Pool(2) as pool:
        print("rank:", pool.map(abs, [-1]), child.is_alive(), flush=True)

with world(1) as w:
    process = w.Process(target=leave_others, args=(1,))
    process.start()
    process.join()
    print("driver:", process.exitcode, w.run(lambda: len(mp.active_children())))
""",
    )
    assert lines == ["driver: 0 [0]", "rank: [1] True", "rank: a thread ends"]


@each_mpi
def test_processes_talk_and_who_waits_for_one_that_has_ended_is_told(python):
    lines, _ = drive(
        python,
        """
def first():
    mp.comm().send("last words", 1)

def second():
    print("rank:", mp.comm().recv(0, timeout=30), flush=True)
    try:
        mp.comm().recv(0, timeout=30)
    except mp.PeerLostError as error:
        print("rank:", error, flush=True)

def third():
    mp.comm().send("again", 1)
    mp.comm().recv(1, timeout=30)

def fourth():
    print("rank:", mp.comm().recv(0, timeout=30), flush=True)
    mp.comm().send("over", 0)

with world(2) as w:
    for targets in ((first, second), (third, fourth)):
        both = [w.Process(target=target) for target in targets]
        for process in both:
            process.start()
        for process in both:
            process.join()
        print("driver:", [process.exitcode for process in both], w.run(lambda: mp.comm().allreduce(1)))
    one = w.Process(target=mp.comm)
    other = w.Process(target=time.sleep, args=(60,))
    other.start()
    one.start()
    one.join()
    late = w.Process(target=lambda: mp.comm().send("for whoever holds place 0", 0))
    late.start()
    late.join()
    print("driver:", one.exitcode, late.exitcode, w.statistics().ranks[0].rank)
    try:
        w.run(ring, "a")
    except mp.WorldBusyError as error:
        print("driver:", error)
    other.terminate()
    other.join()
    print("driver:", w.run(ring, "b"))
""",
    )
    assert lines == [
        "driver: [0, 0] [2, 2]",
        "driver: [0, 0] [2, 2]",
        "driver: 0 0 0",
        "driver: process Process-6 (rank 0) holds place of this World: join() or terminate() them first",
        "driver: [('b', 1), ('b', 0)]",
        "rank: last words",
        "rank: rank 0 has ended; this rank was in recv(source=0, tag=ANY_TAG)",
        "rank: again",
    ]


@each_mpi
def test_signals_end_a_process_wherever_it_is_and_nothing_else(python):
    lines, _ = drive(
        python,
        """
import collections, random, signal

def wait():
    mp.comm().recv(1 - mp.rank(), timeout=60)

def talk():
    comm = mp.comm()
    while True:
        comm.isend(bytes(100), 1 - comm.rank)
        try:
            comm.recv(1 - comm.rank, timeout=0.0005)
        except (mp.DeadlineError, mp.PeerLostError):
            pass

def spin():
    while True:
        pass

def outlive():
    def note(signum, frame):
        print("rank: its own handler", flush=True)
        os.write(end, b"x")
    reader, end = os.pipe()
    signal.signal(signal.SIGTERM, note)
    mp.comm().send("ready", 1)
    os.read(reader, 1)

def fork():
    reader, ready = os.pipe()
    if not (child := os.fork()):
        os.write(ready, b"x")
        spin()
    os.read(reader, 1)
    os.kill(child, signal.SIGTERM)
    print("rank:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

def end(target, signum, pause):
    process = w.Process(target=target)
    process.start()
    time.sleep(pause)  # wherever it is then
    w.signal_process(process._popen.serial, signum)
    process.join(60)
    return process.exitcode

with world(2) as w:
    pids = w.run(os.getpid)
    threads = w.run(lambda: len(os.listdir("/proc/self/task")))
    random.seed(1)
    counts = collections.Counter()
    for number in range(120):
        target = (wait, talk, spin, lambda: time.sleep(60), lambda: None)[number % 5]
        signum = (signal.SIGTERM, signal.SIGINT)[number // 5 % 2]
        counts[end(target, signum, random.random() * 0.006)] += 1
    print("driver:", sorted({*counts} - {0}), sum(counts.values()))  # 0: it came too late
    process = w.Process(target=outlive)
    process.start()
    other = w.Process(target=lambda: mp.comm().recv(0, timeout=60))
    other.start()
    other.join()
    process.terminate()
    process.join()
    print("driver:", process.exitcode)
    process = w.Process(target=fork)
    process.start()
    process.join()
    print("driver:", process.exitcode)
    print("driver:", w.run(ring, "a"), w.run(os.getpid) == pids)
    print("driver:", w.run(lambda: len(os.listdir("/proc/self/task"))) == threads)
""",
    )
    assert lines == [
        "driver: [-15, 1] 120",
        "driver: 0",
        "driver: 0",
        "driver: [('a', 1), ('a', 0)] True",
        "driver: True",
        "rank: its own handler",
        "rank: -15",
    ]


@each_mpi
def test_a_pool_works_and_leaves_its_ranks_as_they_were(python):
    lines, _ = drive(
        python,
        """
def square(number):
    return number * number

def spin():
    while True:
        pass

def prepare():
    os.environ["READY"] = "1"

def look(_):
    return os.environ["READY"] + mp.shared()["word"], mp.size()

with world(3) as w:
    pids = w.run(os.getpid)
    with w.Pool() as pool:
        print("driver:", pool.map(square, range(10)), sum(pool.imap_unordered(square, range(1000))))
        pool.map(time.sleep, [0.1] * 3, chunksize=1)  # who has come has come
        print("driver:", {*pool.map(lambda _: os.getpid(), range(100), chunksize=1)} <= {*pids})
        try:
            pool.map(lambda number: 1 / number, range(2), chunksize=1)
        except ZeroDivisionError as error:
            print("driver:", error)
        try:
            w.run(ring, "a")
        except mp.WorldBusyError:
            print("driver: busy")
    print("driver:", w.run(ring, "b"))
    with w.Pool(2, prepare, maxtasksperchild=4, shared={"word": "s"}) as pool:
        print("driver:", {*pool.map(look, range(40), chunksize=1)})
        pool.close()
        pool.join()
    for busy in (lambda: time.sleep(60), spin):
        with w.Pool() as pool:
            pool.apply(abs, (1,))
            pool.apply_async(busy)
    print("driver:", w.run(os.getpid) == pids, w.run(lambda: os.environ.get("READY")))
    before = w.run(lambda: len(os.listdir("/proc/self/task")))
    for _ in range(30):
        with w.Pool() as pool:
            pool.map(square, range(3))
    print("driver:", w.run(lambda: len(os.listdir("/proc/self/task"))) == before)
""",
    )
    assert lines == [
        "driver: [0, 1, 4, 9, 16, 25, 36, 49, 64, 81] 332833500",
        "driver: True",
        "driver: division by zero",
        "driver: busy",
        "driver: [('b', 2), ('b', 0), ('b', 1)]",
        "driver: {('1s', 3)}",
        "driver: True [None, None, None]",
        "driver: True",
    ]


@each_mpi
def test_an_executor_works(python):
    lines, _ = drive(
        python,
        """
from klyng_mp.futures import WorldExecutor

with world(2) as w:
    with WorldExecutor(world=w) as executor:
        futures = [executor.submit(pow, 2, number) for number in range(5)]
        print("driver:", [future.result() for future in futures], list(executor.map(abs, [-1, -2])))
    for _ in range(50):  # a worker may not have come yet when there is nothing left to do
        with WorldExecutor(world=w) as executor:
            assert executor.submit(abs, -1).result() == 1
    print("driver:", w.run(ring, "a"))
""",
    )
    assert lines == ["driver: [1, 2, 4, 8, 16] [1, 2]", "driver: [('a', 1), ('a', 0)]"]


@each_mpi
def test_a_rank_that_dies_ends_the_world_and_its_pool_with_its_error(python):
    lines, _ = drive(
        python,
        """
def never_look_up():
    sum(iter(int, 1))  # no signal handler of Python's gets its turn

def die(number):
    if number == 5:
        os._exit(3)
    return number

with world(2) as w:
    pids = w.run(os.getpid)
    with w.Pool() as pool:
        for attempt in (lambda: pool.map(die, range(10), chunksize=1), lambda: pool.apply(abs, (1,))):
            try:
                attempt()
            except mp.WorldError as error:
                print("driver:", "has died, and with it the World, as MPI has it" in str(error))
    print("driver:", w.run(ring, "a"), {*pids} & {*w.run(os.getpid)})
    process = w.Process(target=time.sleep, args=(60,))
    process.start()
    process.kill()
    process.join()
    print("driver:", process.exitcode, w.run(ring, "b"))
    with w.Pool() as pool:
        pool.apply(abs, (1,))
        pool.apply_async(never_look_up)
    print("driver:", w.run(ring, "c"))
""",
    )
    assert lines == [
        "driver: True",
        "driver: True",
        "driver: [('a', 1), ('a', 0)] set()",
        "driver: -9 [('b', 1), ('b', 0)]",
        "driver: [('c', 1), ('c', 0)]",
    ]


@each_mpi
def test_what_it_cannot_do_is_refused_by_name(python):
    lines, _ = drive(
        python,
        """
with world(2) as w:
    attempts = {
        "retries": lambda: w.Pool(retries=1),
        "workers": lambda: w.Pool(3),
        "queue": lambda: w.Queue(),
        "event": lambda: w.Event(),
        "foreign": lambda: w.run(print, mp.Pipe()[0]),
        "argument": lambda: w.Process(target=print, args=(mp.Pipe()[0],)).start(),
        "places": lambda: [w.Process(target=time.sleep, args=(60,), daemon=True).start() for _ in range(3)],
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except (ValueError, mp.WorldError) as error:
            print("driver:", name, type(error).__name__, str(error).partition(":")[0])
""",
    )
    lock = "a lock, queue, value or pipe of a World with engine='mpi' cannot be had across hosts"
    assert lines == [
        "driver: retries ValueError retries=1 has no meaning with engine='mpi'",
        "driver: workers ValueError its World has places for 2 workers, not for 3",
        f"driver: queue NotAcrossHostsError {lock}",
        f"driver: event NotAcrossHostsError {lock}",
        *lines[4:6],
        "driver: places LaunchError Process-4 cannot be started, since it would have no rank, which it needs where "
        "ranks may be on other hosts",
    ]
    assert lines[4].startswith("driver: foreign NotAcrossHostsError a ")
    assert lines[5].startswith("driver: argument NotAcrossHostsError a ")
