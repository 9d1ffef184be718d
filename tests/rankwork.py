"""What ranks do in the tests; light to import, since every rank that is asked for something of it does so."""

from __future__ import annotations

import ctypes
import io
import logging
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import klyng_mp as mp

counter = 0


# -- harmless ----------------------------------------------------------------------------------------


def rank():
    return mp.rank()


def whoami():
    return mp.rank(), mp.size(), os.getpid()


def pid():
    return os.getpid()


def arguments(*args, **kwargs):
    return args, kwargs


def count():
    global counter  # noqa: PLW0603 - what stays in a rank is the point
    counter += 1
    return counter


def returns(value):
    return value


def by_rank(values):
    return values[mp.rank()]


def get(name):
    """Return a module's attribute, or what it returns: ``os.getcwd``, ``sys.path``."""
    module, _, attribute = name.rpartition(".")
    value = getattr(sys.modules.get(module) or __import__(module), attribute)
    return value() if callable(value) else value


def random_numbers():
    import numpy as np

    return random.random(), float(np.random.random())


def ring(value):
    comm = mp.comm()
    comm.send(value, (comm.rank + 1) % comm.size, tag="ring")
    return comm.recv((comm.rank - 1) % comm.size, "ring")


def all_to_all():
    comm = mp.comm()
    for dest in range(comm.size):
        comm.send((comm.rank, dest), dest)
    received = sorted(comm.recv(source) for source in range(comm.size))
    return received == [(source, comm.rank) for source in range(comm.size)], len(os.listdir("/proc/self/fd"))


def swap(size_bytes, rounds=1):
    """Two ranks send each other something big at once and only then receive."""
    comm = mp.comm()
    other = 1 - comm.rank
    for _ in range(rounds):
        comm.send(bytes([comm.rank]) * size_bytes, other)
    got = [comm.recv(other) for _ in range(rounds)]
    return all(len(data) == size_bytes and data[0] == data[-1] == other for data in got)


class Adder:
    """An object whose method, or which itself, can be run."""

    def __init__(self, base):
        self.base = base

    def add(self, number):
        return self.base + number + mp.rank()

    __call__ = add


# -- waiting -----------------------------------------------------------------------------------------


def block():
    mp.recv(timeout=3600)


def send_to_a_sleeper(times):
    """Rank 0 wakes rank 1 by each message, and never looks whether something has come for itself."""
    comm = mp.comm()
    for number in range(times):
        if comm.rank:
            comm.recv(0)
            continue
        end = time.perf_counter() + 0.0005
        while time.perf_counter() < end:  # longer than a rank spins
            pass
        comm.send(number, 1)


def compute_while_others_wait(seconds):
    """Rank 0 computes, then sends one message to each; rank 1 waits for it, and the others for anybody."""
    comm = mp.comm()
    if comm.rank == 0:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        comm.send(bytes(1000), 1)
        for dest in range(2, comm.size):
            comm.send(None, dest)
    else:
        comm.recv(0 if comm.rank == 1 else mp.ANY_SOURCE)


def come_late(call, seconds):
    comm = mp.comm()
    if comm.rank == 0:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
    getattr(comm, call)(*([1] if call == "allgather" else []))


def send_known_numbers():
    """Three ranks: 4 messages of all kinds from 0 to 1, 2 from 0 to 2, 1 on each other way; and one to all at last."""
    comm = mp.comm()
    if comm.rank == 0:
        for tag, thing in ((0, 1), ("word", 2), (1, bytes(100_000)), (2, bytearray(5_000_000))):
            comm.send(thing, 1, tag)
        requests = [comm.isend(number, 2) for number in range(2)]
        mp.waitall(requests)
    for dest in {1: (0, 2), 2: (0, 1)}.get(comm.rank, ()):
        comm.send(comm.rank, dest)
    for _ in range((2, 5, 3)[comm.rank]):
        comm.recv()
    comm.alltoall([None] * 3)


def ring_behind_gates(folder):
    pass_gate(folder)
    return ring("x")


def count_descriptors():
    return len(os.listdir("/proc/self/fd"))


def pass_gate(folder):
    """Wait until the test opens this rank's gate (a named pipe)."""
    with open(Path(folder) / f"gate{mp.rank()}") as gate:
        gate.read()
    return mp.rank()


def write_gate(folder, data):
    with open(Path(folder) / f"gate{mp.rank()}", "w") as gate:
        gate.write(str(len(data)))


def never_return(folder=None):
    if folder is not None:
        (Path(folder) / f"up{mp.rank()}").touch()
    while True:
        pass


def block_or_compute(folder):
    """Rank 0 waits for a message, the others compute; each says when it is there by its gate."""
    with open(Path(folder) / f"gate{mp.rank()}", "w") as gate:
        gate.write(str(os.getpid()))
    if mp.rank() == 0:
        mp.recv()
    never_return()


def ask_for_messages(seconds):
    """Return what is there to be received, though nothing was sent in this run."""
    try:
        return mp.recv(timeout=seconds)
    except mp.DeadlineError:
        return "nothing"


# -- ending badly --------------------------------------------------------------------------------------


class OddError(Exception):
    """An exception with data, which pickles as usual."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


class StubbornError(Exception):
    """It pickles, but cannot be unpickled: its constructor wants more than its args."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class HoldingError(Exception):
    """It cannot be pickled: it holds something that cannot travel."""

    def __init__(self, text):
        super().__init__(text)
        self.stream = (number for number in range(3))


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


ERRORS = {
    "ordinary": lambda: ValueError("an ordinary failure"),
    "data": lambda: OddError(13),
    "stubborn": lambda: StubbornError("salt", "pepper"),
    "holding": lambda: HoldingError("held"),
    "mute": MuteError,
    "exit": lambda: SystemExit(3),
    "interrupt": lambda: KeyboardInterrupt("own"),
    "base": lambda: BaseException("base"),
    "stop": lambda: StopIteration(4),
}


def raise_in(who, kind="ordinary"):
    """One rank raises, the others wait for it."""
    if mp.rank() == who:
        raise ERRORS[kind]()  # noqa: RSE102 - they are functions, too
    return mp.recv(source=who)


def fail_then(who, others):
    """One rank raises when all are there; the others wait in some way."""
    if mp.rank() == who:
        for _ in range(mp.size() - 1):
            mp.recv(tag="up")
        raise ValueError("the first cause")
    mp.send(None, who, "up")
    WAITS[others](who)


def send_much(dest):
    for _ in range(20):
        mp.send(bytes(10_000_000), dest)


def wait_in_chain(who):
    """Wait for the neighbour, who waits for its own: only the last of them waits for ``who``."""
    mp.recv(source=(mp.rank() + 1) % mp.size())


def turn_into_other_error(who):
    try:
        mp.recv(source=who)
    except mp.PeerLostError as error:
        raise KeyError("a consequence") from error


def give_in(who):
    try:
        mp.recv(source=who)
    except mp.PeerLostError:
        return "went on"


WAITS = {
    "recv from it": lambda who: mp.recv(source=who),
    "recv from anyone": lambda who: mp.recv(),
    "barrier": lambda who: mp.comm().barrier(),
    "bcast": lambda who: mp.comm().bcast(None, root=who),
    "irecv": lambda who: mp.comm().irecv(who).wait(),
    "probe": lambda who: mp.comm().probe(who),
    "chain": wait_in_chain,
    "send much": send_much,
    "raise a consequence": turn_into_other_error,
    "give in": give_in,
    "return": lambda who: None,
    "sleep": lambda who: time.sleep(60),
    "compute": lambda who: never_return(),
}


def die(how):
    sys.stdout.flush()
    if how == "os._exit(3)":
        os._exit(3)
    elif how == "os._exit(0)":
        os._exit(0)
    elif how == "SIGSEGV":
        ctypes.string_at(0)
    else:
        os.kill(os.getpid(), signal.Signals[how])


def die_in(who, how, others="recv from it", words=""):
    """One rank dies when all are there; the others wait in some way."""
    if mp.rank() == who:
        for _ in range(mp.size() - 1):
            mp.recv(tag="up")
        if words:
            print(words, file=sys.stderr)
        die(how)
    mp.send(None, who, "up")
    WAITS[others](who)


def kill_neighbour():
    """Rank 0 kills rank 1, which computes, and waits for it, as all others do."""
    if mp.rank() == 1:
        mp.send(os.getpid(), 0)
        never_return()
    if mp.rank() == 0:
        os.kill(mp.recv(source=1), signal.SIGKILL)
    mp.recv(source=1)


def die_if(gone):
    """Let some ranks die at about the same time, the others wait for one of them."""
    mp.comm().barrier()
    if mp.rank() in gone:
        die("SIGKILL")
    mp.recv(source=gone[0])


def fail_in_turn():
    """Rank 2 fails first; rank 1 has another reason to fail, once it hears of that."""
    if mp.rank() == 2:
        raise ValueError("first")
    try:
        mp.recv(source=2)
    except mp.PeerLostError:
        raise LookupError("second") from None


def fail_or_die():
    mp.comm().barrier()
    if mp.rank() == 0:
        raise ValueError("failed")
    die("SIGKILL")


def start_child(folder):
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    with open(Path(folder) / f"gate{mp.rank()}", "w") as gate:
        gate.write(str(child.pid))
    never_return()


def leave_child_and_die(folder):
    if mp.rank() == 1:
        words = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
        child = subprocess.Popen(words, start_new_session=True)
        (Path(folder) / "child").write_text(str(child.pid))
        os._exit(5)
    mp.recv(source=1)


def work(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def leave_notes(folder, seconds):
    """Rank 0 fails; the others say on the way out what they saw, after some work."""
    if mp.rank() == 0:
        raise ValueError("the first cause")
    try:
        mp.recv(source=0)
    except mp.PeerLostError as error:
        seen = f"{error.rank} {error.reason}"
        raise
    finally:
        work(seconds)
        (Path(folder) / f"note{mp.rank()}").write_text(seen)


class Unbuildable:
    """It pickles, but cannot be unpickled."""

    def __reduce__(self):
        return refuse, ("no such thing here",)


def refuse(why):
    raise LookupError(why)


class Box:
    def __init__(self, **contents):
        self.__dict__.update(contents)


def make_result(kind, who=1):
    if mp.rank() != who:
        return "fine"
    return Unbuildable() if kind == "unbuildable" else Box(config=Box(stream=(number for number in range(3))))


# -- output --------------------------------------------------------------------------------------------


def print_lines(count):
    for number in range(count):
        print(mp.rank(), number, "x" * (number % 90 + 1))


def print_and_touch(count, name):
    print_lines(count)
    Path(f"{name}{mp.rank()}").touch()


def print_to_stderr(text):
    print(text, file=sys.stderr)


def write_below(how):
    if how == "os.write":
        os.write(1, b"from below\n")
    elif how == "subprocess":
        subprocess.run(["echo", "from below"], check=True)
    elif how == "libc":
        libc = ctypes.CDLL(None)
        libc.puts(b"from below")
        libc.fflush(None)
    else:
        sys.stdout.buffer.write(b"from below\n")


def print_and_end(how):
    print("before the end", end="\n" if mp.rank() else "")
    if mp.rank() == 0:
        print()
    mp.comm().barrier()
    if mp.rank() == 1:
        if how == "raise":
            raise ValueError
        if how == "os._exit":
            sys.stdout.flush()
            os._exit(1)
        die(how)
    mp.recv(source=1)


def log(text, *args):
    logging.getLogger("rankwork").warning(text, *args)


def log_much(count):
    for number in range(count):
        log("number %d", number)


def log_and_fail():
    if mp.rank() == 1:
        log("about to fail")
        raise ValueError
    mp.recv(source=1)


# -- messages ------------------------------------------------------------------------------------------


def leave_unreceived(dest, tags):
    comm = mp.comm()
    if comm.rank == 0:
        for tag in tags:
            comm.send("nobody takes this", dest, tag)
    comm.barrier()


def send_and_fail(number):
    """Everybody sends to everybody, then rank 0 fails: messages are still on their way."""
    comm = mp.comm()
    for dest in range(comm.size):
        comm.send(("late", number), dest)
    if comm.rank == 0:
        raise ValueError(number)
    mp.recv(tag="never")


def count_sockets():
    """Count this rank's connections, without talking to anyone."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.lexists(link))


def talk_in_pairs():
    return mp.comm().sendrecv(mp.rank(), mp.rank() ^ 1, source=mp.rank() ^ 1)


def send_in_order(count):
    comm = mp.comm()
    for number in range(count):
        comm.send((number, bytes(number * 37 % 5000)), 1 - comm.rank, number % 3)
    return [comm.recv()[0] for _ in range(count)]


def send_and_compute(folder):
    if mp.rank() == 0:
        mp.send("here", 1)
        never_return()
    heard = mp.recv(source=0) == "here"
    with open(Path(folder) / "gate1", "w") as gate:
        gate.write("heard" if heard else "?")
    mp.recv()


def leave_error(folder):
    if mp.rank() == 1:
        raise ValueError("the first cause")
    try:
        mp.recv(source=1)
    except mp.PeerLostError as error:
        (Path(folder) / "error").write_bytes(pickle.dumps(error))


def use_in_forked_child():
    comm = mp.comm()
    comm.barrier()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            comm.send("from a child", 1 - comm.rank)
            found = "sent"
        except BaseException as error:
            found = type(error).__name__
        os.write(write_end, found.encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(pid, 0)
    with open(read_end) as pipe:
        return pipe.read()


def talk_under_signals(count):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        total = 0
        for number in range(count):
            total += mp.comm().sendrecv((number, bytes(20_000)), 1 - mp.rank())[0]
        return total
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def talk_on_after_loss():
    if mp.rank() == 0:
        raise ValueError("the first cause")
    try:
        mp.recv(source=0)
    except mp.PeerLostError:
        other = 3 - mp.rank()
        mp.send("still here", other)
        mp.recv(source=other)


def interrupt_self():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        mp.recv()
    except KeyboardInterrupt as error:
        return type(error).__name__


# -- state of a rank ---------------------------------------------------------------------------------------

kept = {}


def imported():
    return sorted(sys.modules)


def threads_and_children():
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return len(os.listdir("/proc/self/task")), len(children)


def keep_communicator():
    kept["comm"] = mp.comm()


def use_kept_communicator():
    return "a new one" if kept["comm"] is not mp.comm() else "the old one"


def klyng_program(number):
    """A program in the shape of klyng: an entry function, and an end."""

    def main():
        if mp.size() == 1:
            return number
        if mp.rank() == 0:
            mp.send(number, 1, "subject")
            return mp.recv(tag="answer") + 1
        got = mp.recv(tag="subject")
        mp.send(got, 0, "answer")
        return got

    result = mp.init(main)
    mp.end()
    return result


def start_thread(folder):
    kept["results"] = []
    kept["thread"] = threading.Thread(target=lambda: kept["results"].append(pass_gate(folder)))
    kept["thread"].start()
    return kept["thread"].is_alive()


def thread_is_alive():
    return kept["thread"].is_alive()


def join_thread():
    kept["thread"].join()
    return kept["results"][0]


def talk_in_threads(threads, count):
    """Several pairs of threads, each with its own tag, talk across two ranks."""
    totals = [0] * threads

    def talk(tag):
        for number in range(count):
            mp.send(number, 1 - mp.rank(), tag)
            totals[tag] += mp.recv(tag=tag)

    pool = [threading.Thread(target=talk, args=(tag,)) for tag in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return sum(totals)


def square(number):
    return number * number


def use_pool():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(square, range(3))


def write_without_newline(text):
    sys.stdout.write(text)


def recurse():
    recurse()


def exhaust():
    return bytearray(1 << 62)


def raise_group():
    group = ExceptionGroup("several", [ValueError(1), KeyError(2)])
    group.add_note("a note")
    raise group


def cpu_seconds():
    return time.process_time()


# -- Worlds in ranks -------------------------------------------------------------------------------------


def nest(size, depth=1):
    with mp.World(size) as inner:
        found = inner.run(rank) if depth == 1 else inner.run(nest, size, depth - 1)
    return mp.rank(), found, ring(mp.rank())


def nest_and_wait(folder):
    """Start a World in this rank, write down who lives in it, and wait for ever."""
    inner = mp.World(2)
    pids = inner.run(pid)
    with open(Path(folder) / f"gate{mp.rank()}", "w") as gate:
        gate.write(" ".join(map(str, pids)))
    mp.recv()


class Interrupting(io.StringIO):
    """A stdout at whose flushing somebody types Ctrl-C."""

    def flush(self):
        os.kill(os.getpid(), signal.SIGINT)


def fail_before_an_interrupt():
    """Fail, and be interrupted while the rank leaves its run."""
    sys.stdout = Interrupting()
    raise ValueError("meant")
