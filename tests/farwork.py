"""What ranks do in the tests of other machines; it travels there, and so do the definitions that it compares with."""

from __future__ import annotations

import array
import hashlib
import importlib
import itertools
import operator
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from contracts.definitions import DEFINITIONS, LISTS, REDUCTIONS, call

import klyng_mp as mp


def around(value):
    """Pass a value on to the next rank, and return what came from the one before."""
    comm = mp.comm()
    comm.send(value, (comm.rank + 1) % comm.size)
    return comm.recv(source=(comm.rank - 1) % comm.size)


def total():
    comm = mp.comm()
    return comm.allreduce(comm.rank)


def wrong_collectives():
    """Return the collectives whose result here is not what their definition says, for every root."""
    comm = mp.comm()
    numbers = [rank * 10 + 1 for rank in range(comm.size)]
    lists = [[source * 100 + dest for dest in range(comm.size)] for source in range(comm.size)]
    wrong = []
    for name, definition in DEFINITIONS.items():
        given = lists if name in LISTS else numbers
        for root in range(comm.size):
            result = call(comm, name, given[comm.rank], root)
            if result != definition(given, root, operator.add)[comm.rank]:
                wrong.append((name, root, result))
    assert set(DEFINITIONS) >= REDUCTIONS
    return wrong


def wrong_arrays(sizes):
    """Exchange arrays of so many bytes with every other rank; return what arrived otherwise than it was sent."""
    comm = mp.comm()
    wrong = []
    for size in sizes:
        sent = bytes([comm.rank + 1]) * size
        for step in range(1, comm.size):
            dest, source = (comm.rank + step) % comm.size, (comm.rank - step) % comm.size
            request = comm.isend(bytearray(sent), dest, tag=size)
            came = comm.recv(source=source, tag=size)
            request.wait()
            if type(came) is not bytearray or came != bytes([source + 1]) * size:
                wrong.append((source, size, len(came)))
    return wrong


def groups():
    """Split by parity and duplicate; return what each new communicator says of itself and computes."""
    comm = mp.comm()
    odd = comm.split(comm.rank % 2, -comm.rank)
    copy = comm.dup()
    copy.send("in the copy", (comm.rank + 1) % comm.size, tag=1)
    comm.send("in the first", (comm.rank + 1) % comm.size, tag=1)
    last = (comm.rank - 1) % comm.size
    words = comm.recv(source=last, tag=1), copy.recv(source=last, tag=1)
    return odd.rank, odd.size, odd.allgather(comm.rank), words


def rendezvous():
    """Have the last rank wait for a message that it only looks for once the first has sent it, and see who waits."""
    comm = mp.comm()
    last = comm.size - 1
    if comm.rank == 0:
        try:
            comm.ssend("too early", last, tag=1, timeout=0.2)
            outcome = "taken"
        except mp.TimeoutError:
            outcome = "nobody took it"
        comm.send("now", last, tag=2)
        comm.ssend("met", last, tag=3)
        return outcome
    if comm.rank == last:
        first = comm.recv(source=0, tag=2)
        status = comm.probe(source=0, tag=3)
        return (
            first,
            status.source,
            status.tag,
            comm.recv(source=0, tag=3),
            comm.recv(source=0, tag=1),
            comm.iprobe(source=0),
        )
    return None


def gives_up(seconds):
    """Wait for a message that nobody sends; return how long that took."""
    comm = mp.comm()
    began = time.monotonic()
    with suppress(mp.TimeoutError):
        comm.recv(source=(comm.rank + 1) % comm.size, tag=9, timeout=seconds)
        return None
    return time.monotonic() - began


def computes(seconds, size):
    """Rank 0 sends so many bytes to the last rank, which computes meanwhile; return how long the send took."""
    comm = mp.comm()
    comm.barrier()
    if comm.rank == 0:
        began = time.monotonic()
        comm.send(array.array("B", bytes(size)), comm.size - 1)
        return time.monotonic() - began
    if comm.rank == comm.size - 1:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(1000))
        return len(comm.recv(source=0))
    return None


def fails(rank):
    comm = mp.comm()
    if comm.rank == rank:
        raise ValueError("this is wrong")
    comm.barrier()


def dies(rank):
    comm = mp.comm()
    if comm.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.recv(source=rank)


def hangs(gate=None):
    """Wait for long, all in a ring, which is no deadlock yet; rank 0 writes a file when it is about to."""
    comm = mp.comm()
    comm.barrier()
    if gate is not None and comm.rank == 0:
        Path(gate).touch()
    comm.recv(source=(comm.rank + 1) % comm.size, tag=77, timeout=600)


def bystander(gate):
    """As `hangs`, but half of the ranks wait in no call of ours."""
    comm = mp.comm()
    comm.barrier()
    if comm.rank == 0:
        Path(gate).touch()
    if comm.rank % 2:
        signal.pause()
    comm.recv(source=comm.size - 1, tag=77)


def surroundings(*names):
    return {name: os.environ.get(name) for name in names}


def prints(text):
    print(f"{mp.rank()}: {text}", flush=True)


def prints_much(lines):
    for number in range(lines):
        print(f"{mp.rank()}:{number}:{'x' * 100}")


def place():
    """Return where this rank is: its process, that of its zygote, its working directory and its TMPDIR."""
    return os.getpid(), os.getppid(), os.getcwd(), os.environ.get("TMPDIR")


def allocates(size):
    """Take so much memory; return how much there is then."""
    return len(bytearray(size))


def draws():
    return [random.random() for _ in range(3)]


def imports(name):
    """Import a module that is found, or not, where this runs."""
    return importlib.import_module(name).__name__


# -- processes -------------------------------------------------------------------------------------


def gathers():
    comm = mp.comm()
    print(f"rank {comm.rank} of {comm.size} has {comm.gather(comm.rank)}", flush=True)


def hears_last_words():
    """Receive from all, though their connections are there only after the news that they have ended."""
    from programs import wait_until

    from klyng_mp.remote import network

    adopt = network._Wires._adopt

    def late(wires, peer, *args, **keywords):
        wait_until(lambda: peer in wires._ends)
        adopt(wires, peer, *args, **keywords)

    network._Wires._adopt = late
    comm = mp.comm()
    print("heard:", *(comm.recv(rank) for rank in range(1, comm.size)), flush=True)


def says_last_words():
    mp.comm().send(mp.rank(), 0)


def gathers_late():
    """Gather once the last rank has called, whoever was there before."""
    comm = mp.comm()
    if comm.rank == comm.size - 1:
        for peer in range(comm.rank):
            comm.send("here", peer, tag=7)
    else:
        comm.recv(tag=7)
    gathers()


def sends_on(rank):
    """Each sends to all after it, whether they are there or not."""
    comm = mp.comm()
    assert comm.rank == rank
    for peer in range(rank + 1, comm.size):
        comm.isend(rank, peer)
    print("sent", flush=True)
    if rank == comm.size - 1:
        print(f"rank {rank} has all of {[comm.recv(source) for source in range(rank)]}")
    comm.barrier()


def leaves(peers, size):
    """Send what is to be received when this process is no more."""
    comm = mp.comm()
    for peer in peers:
        comm.isend(bytes(size), peer, tag="left")
        comm.isend("last", peer)


def finds(sender, size):
    comm = mp.comm()
    assert len(comm.recv(sender, tag="left", timeout=10)) == size
    assert comm.recv(sender, timeout=10) == "last"
    print("rank", comm.rank, "has found it", flush=True)


def fails_here():
    return 1 / 0


def checks(data, total):
    assert sum(data) == total


def waits_for(rank):
    print("waits", flush=True)
    try:
        mp.comm().recv(rank)
    except mp.PeerLostError as error:
        print(f"{type(error).__name__}: {error}", flush=True)


def checks_its_process(parent, authkey):
    import multiprocessing

    process = multiprocessing.current_process()
    assert bytes(process.authkey) == authkey
    assert process.name.startswith("Process-")
    assert multiprocessing.parent_process().pid == parent


def numbered(rank, number, seed):
    """Return the message of a rank with a number: mostly short, some long, with one of three tags."""
    chance = random.Random(f"{seed} {rank} {number}")
    size = chance.randrange(80_000) if number % 500 == 499 else chance.randrange(200)
    return chance.choice((0, 1, "text")), chance.randbytes(size)


def exchange_numbered(count, seed, window):
    """Send so many messages to the other of two ranks, ``window`` ahead, which does the same; return what came.

    Returns:
        (what came other than it was to come, at most ten), the digest of all that was sent, of all that came.
    """
    comm = mp.comm()
    other = 1 - comm.rank
    sent, came, wrong = hashlib.sha256(), hashlib.sha256(), []
    status = mp.Status()
    for first in range(0, count, window):
        numbers = range(first, min(first + window, count))
        for number in numbers:
            tag, data = numbered(comm.rank, number, seed)
            sent.update(data)
            comm.send((number, data), other, tag=tag)
        for number in numbers:
            got, data = comm.recv(source=other, status=status)
            came.update(data)
            expected = (number, *numbered(other, number, seed))
            if (got, status.tag, data) != expected and len(wrong) < 10:
                wrong.append((number, got, status.tag, len(data)))
    comm.barrier()
    left = comm.iprobe()
    return wrong + ([("more", str(left))] if left else []), sent.hexdigest(), came.hexdigest()


def soaks(seed):
    """Exchange random messages with all others, one collective call after each; return how many ranks there are."""
    comm = mp.comm()
    chance = random.Random(seed)
    for _ in range(chance.randrange(1, 20)):
        size = int(10 ** chance.uniform(0, 5))
        step = chance.randrange(1, comm.size)
        dest, source = (comm.rank + step) % comm.size, (comm.rank - step) % comm.size
        request = comm.isend(bytes([comm.rank]) * size, dest, tag=size)
        assert comm.recv(source=source, tag=size) == bytes([source]) * size
        request.wait()
        assert comm.allreduce(1) == comm.size
    return comm.size


def daemonises(gate, rounds=2):
    """Start daemons below this rank, as daemons are made, and wait for ever; rank 0 writes who they are."""
    comm = mp.comm()
    reading, writing = os.pipe()
    for _ in range(rounds):
        if not os.fork():
            os.setsid()
            if not os.fork():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.write(writing, b"%d\n" % os.getpid())
                while True:
                    signal.pause()
            os._exit(0)
        os.wait()
    with open(reading) as told:
        mine = [int(told.readline()) for _ in range(rounds)]
    everybody = comm.gather([os.getpid(), *mine])
    if comm.rank == 0:
        part = Path(f"{gate}.part")
        part.write_text(" ".join(str(pid) for pids in everybody for pid in pids))
        part.rename(gate)
    comm.recv(source=(comm.rank + 1) % comm.size, tag=77)


def sends_much(gate):
    """Send large messages to each other without end; rank 0 writes a file once some have arrived."""
    comm = mp.comm()
    data = bytearray(8 << 20)
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    for number in itertools.count():
        request = comm.isend(data, right)
        comm.recv(source=left)
        request.wait()
        if number == 2 and comm.rank == 0:
            Path(gate).touch()


def reduces_much(gate):
    """Call a collective operation without end; rank 0 writes a file once some are done."""
    comm = mp.comm()
    for number in itertools.count():
        comm.allreduce(number)
        if number == 100 and comm.rank == 0:
            Path(gate).touch()
