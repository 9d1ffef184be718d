"""What ranks do in the tests of hangs: wait in vain, each in its own way, or only seem to."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import shared_memory

import klyng_mp as mp
from klyng_mp.launch.state import describe_idle

SECONDS = 1.2  # a hang would be reported after half of that


def compute(seconds=SECONDS):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


# -- in vain -----------------------------------------------------------------------------------------


def cycle_of_two():
    comm = mp.comm()
    if comm.rank < 2:
        comm.recv(1 - comm.rank, 5)


def cycle_of_all():
    comm = mp.comm()
    comm.recv((comm.rank + 1) % comm.size, "next")
    comm.send(None, (comm.rank - 1) % comm.size, "next")


def missing_sender():
    comm = mp.comm()
    if comm.rank == 0:
        comm.recv(2, 7)


def wrong_tag():
    comm = mp.comm()
    if comm.rank == 1:
        comm.send("here", 0, "y")
    if comm.rank == 0:
        comm.recv(1, "x")
    comm.recv(0, "done")


def wrong_source():
    comm = mp.comm()
    if comm.rank == 1:
        comm.send("here", 0, 3)
    if comm.rank == 0:
        comm.recv(2, 3)
    comm.barrier()


def one_in_a_barrier():
    comm = mp.comm()
    if comm.rank == 0:
        comm.barrier()
    else:
        comm.recv(0, 1)


def one_ended():
    comm = mp.comm()
    if comm.rank != 1:
        comm.barrier()


def anyone():
    mp.recv()


def itself():
    comm = mp.comm()
    comm.recv(comm.rank, 4)


def requests():
    comm = mp.comm()
    mp.waitall([comm.irecv(peer, 9) for peer in range(comm.size) if peer != comm.rank])


def probe():
    comm = mp.comm()
    if comm.rank == 0:
        comm.probe(1, 2)
    else:
        comm.recv(0, 2)


def into_memory():
    comm = mp.comm()
    comm.recv_into(bytearray(8), (comm.rank + 1) % comm.size, 8)


def large_messages_unasked():
    """Both send more than any buffer holds, which goes through as both wait, and then wait for another tag."""
    comm = mp.comm()
    peer = 1 - comm.rank
    comm.send(bytes(30_000_000), peer, 1)
    comm.recv(peer, 2)


# -- not in vain -------------------------------------------------------------------------------------


def computing_rank_sends(seconds):
    comm = mp.comm()
    if comm.rank == 0:
        compute(seconds)
        for peer in range(1, comm.size):
            comm.send("late", peer)
        return "late"
    return comm.recv(0)


def all_compute(seconds):
    compute(seconds)
    mp.comm().barrier()


def thread_sends():
    """Rank 0 waits for rank 1, and its thread lets rank 1 go on."""
    comm = mp.comm()
    if comm.rank == 0:
        thread = threading.Timer(SECONDS, comm.send, ("from a thread", 1))
        thread.start()
        answer = comm.recv(1)
        thread.join()
        return answer
    message = comm.recv(0)
    comm.send(message, 0)
    return message


def left_thread_sends():
    """Rank 0 returns at once, and a thread of it goes on."""
    comm = mp.comm()
    if comm.rank == 0:
        threading.Timer(SECONDS, comm.send, ("from a thread", 1)).start()
        return "from a thread"
    return comm.recv(0)


def task_sends():
    """Rank 0 runs a loop, in which a task sends later."""
    comm = mp.comm()
    if comm.rank == 1:
        return comm.recv(0)

    async def main():
        sent = asyncio.Event()

        def send():
            comm.send("from a task", 1)
            sent.set()

        asyncio.get_running_loop().call_later(SECONDS, send)
        await sent.wait()
        return "from a task"

    return asyncio.run(main())


def loop_is_blocked(seconds):
    """Both wait inside of a loop, which is no sign of anything, and are let go by the driver."""

    async def main():
        return mp.recv(1 - mp.rank())

    del seconds
    return asyncio.run(main())


class Woken(Exception):
    """Raised by a handler of these programs."""


def wake(_signum, _frame):
    raise Woken


def _wait_for_signal():
    """Rank 0 is woken by a signal, and then lets rank 1 go on."""
    comm = mp.comm()
    if comm.rank == 1:
        return comm.recv(0)
    try:
        comm.recv(1)
    except Woken:
        comm.send("woken", 1)
        return "woken"


def timer_acts():
    if mp.rank() == 0:
        signal.signal(signal.SIGALRM, wake)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
    return _wait_for_signal()


def handler_acts(folder):
    if mp.rank() == 0:
        signal.signal(signal.SIGUSR2, wake)
        (folder / "pid").write_text(str(os.getpid()))
        (folder / "gate0").write_text("ready")
    return _wait_for_signal()


def child_world_acts():
    comm = mp.comm()
    if comm.rank == 0:
        with mp.World(2) as world:
            world.run(compute)
        comm.send("from a world", 1)
        return "from a world"
    return comm.recv(0)


def child_acts():
    """Rank 0 waits for rank 1, and a child of it sends the signal that ends this."""
    if mp.rank() == 0:
        parent = os.getpid()
        signal.signal(signal.SIGUSR2, wake)
        if os.fork() == 0:
            compute()
            os.kill(parent, signal.SIGUSR2)
            os._exit(0)
    result = _wait_for_signal()
    if mp.rank() == 0:
        os.wait()
    return result


def time_out():
    try:
        mp.comm().recv(1 - mp.rank(), timeout=SECONDS)
    except mp.DeadlineError:
        return "in time"


def ping_pong(seconds):
    """Rank 0 and 1 talk all the time."""
    comm = mp.comm()
    end = time.monotonic() + seconds
    peer = 1 - comm.rank
    count = 0
    going = True
    while going:
        if comm.rank == 0:
            going = time.monotonic() < end
            comm.send(going, peer)
            comm.recv(peer)
        else:
            going = comm.recv(peer)
            comm.send(None, peer)
        count += 1
    return count


def wait_and_compute(folder):
    """Rank 0 waits, rank 1 computes until it is ended, rank 2 returns."""
    comm = mp.comm()
    if comm.rank == 0:
        comm.recv(1, "never")
    elif comm.rank == 1:
        (folder / "gate0").write_text("ready")
        compute(3600)


# -- doubts ------------------------------------------------------------------------------------------


def doubts(kind):
    """Return the doubts of this rank while there is something in it that can act."""
    return {
        "nothing": _doubts,
        "thread": _with_thread,
        "loop": lambda: asyncio.run(_in_loop()),
        "timer": _with_timer,
        "handler": lambda: _with_handler(signal.SIGUSR2),
        "ctrl-c": lambda: _with_handler(signal.SIGINT),
        "child": _with_child,
        "tracker": _with_tracker,
    }[kind]()


def _doubts():
    return describe_idle(0, {}, 0, ended=True).doubts


def _with_thread():
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    found = _doubts()
    end.set()
    thread.join()
    return found


async def _in_loop():
    return _doubts()


def _with_timer():
    signal.setitimer(signal.ITIMER_VIRTUAL, 1000)
    try:
        return _doubts()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _with_handler(signum):
    before = signal.signal(signum, lambda *_: None)
    try:
        return _doubts()
    finally:
        signal.signal(signum, before)


def _with_child():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = _doubts()
        child.communicate(b"\n")
    return found


def _with_tracker():
    """Python's resource tracker is a child, but only cleans up."""
    memory = shared_memory.SharedMemory(create=True, size=10)
    memory.close()
    memory.unlink()
    return _doubts()
