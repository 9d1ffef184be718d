"""What ranks do with the objects of a World with hosts, in tests; it travels there."""

from __future__ import annotations

import os
import signal
import time

import klyng_mp as mp


def use_all(things):
    """Use each kind of object; return what this rank has seen."""
    lock, semaphore, condition, event, barrier, value, array, requests, answers = things
    comm = mp.comm()
    for _ in range(10):
        with lock:
            value.value += 1
    with semaphore:
        array[comm.rank] = comm.rank * 10
    barrier.wait()
    total = value.value, array[:]
    requests.put(("from", comm.rank))
    answers.get()
    with condition:
        condition.notify_all()
    event.wait()
    return total


def take(queue, count):
    """Take so many objects, in the last rank."""
    comm = mp.comm()
    return [queue.get() for _ in range(count)] if comm.rank == comm.size - 1 else None


def put_each(queue, count):
    for number in range(count):
        queue.put((mp.comm().rank, number))


def compute_while_others_get(queue, seconds):
    """Make the last rank the home, then let it compute without a call while its neighbour takes what is there."""
    comm = mp.comm()
    last, neighbour = comm.size - 1, comm.size - 2
    if comm.rank == last:
        queue.get()
        queue.put("there")
        comm.send("go", neighbour)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return time.monotonic()
    if comm.rank == neighbour:
        comm.recv(last)
        return queue.get(), time.monotonic()
    return None


def hold_and_die(lock, gate):
    """Take a lock in the last rank, which is killed then; the others wait for it."""
    comm = mp.comm()
    if comm.rank == comm.size - 1:
        lock.acquire()
        gate.set()
        os.kill(os.getpid(), signal.SIGKILL)
    gate.wait()
    lock.acquire()


def be_home_and_die(queue, count, taken, die):
    """Take some objects in the last rank, which is killed when it is told to."""
    comm = mp.comm()
    if comm.rank == comm.size - 1:
        taken.put([queue.get() for _ in range(count)])
        die.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    comm.recv(comm.size - 1)


def child(lock, queue, number):
    """The body of a process that is started from the World."""
    with lock:
        queue.put((number, mp.rank()))


def forks(lock):
    """Return what a forked child met that used a lock."""
    pid = os.fork()
    if not pid:
        try:
            lock.acquire()
        except mp.ForkedError:
            os._exit(7)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def echo(connection):
    """Send back what comes, with this process's rank, until None does."""
    while (received := connection.recv()) is not None:
        connection.send((received, mp.rank()))


def say_who(connection):
    with connection:
        connection.send(mp.rank())


def fill(things):
    """Use what a manager has made, from this rank."""
    numbers, by_rank, queue, lock, nested = things
    rank = mp.rank()
    with lock:
        numbers.append(numbers[-1] + 1)
        by_rank[rank] = [rank]
    queue.put(rank)
    nested[0].append(rank)
    return len(by_rank) > 0


def take_block(block):
    return bytes(block.buf)
