"""What ranks do in the stress tests: messages that carry their own checksums, and accidents among them."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import programs

import klyng_mp as mp

LARGEST = 32 << 20
KINDS = ["bytes", "bytearray", "array", "dict"]
TAGS = [0, 1, 7, 2**40, "seven", "ein Wort", "x" * 300]
HEADER = struct.Struct("<IIQ")  # checksum of what follows it, a random word, the number
MIB = 1 << 20

_block = b""


# -- messages that can be checked ----------------------------------------------------------------------


def prepare():
    """Make the random bytes that all messages are cut from: new ones would take longer than to send them."""
    global _block  # noqa: PLW0603 - made once a process
    if not _block:
        _block = random.Random(os.getpid()).randbytes(LARGEST + MIB)
    return os.getpid()


def payload(numbers, size):
    """Return a view of that many random bytes."""
    start = numbers.randrange(len(_block) - size + 1)
    return memoryview(_block)[start : start + size]


def make(numbers, kind, size, number):
    """Return an object of a kind, with so many random bytes and their checksum."""
    data = payload(numbers, size)
    if kind == "dict":
        cut = numbers.randrange(size + 1)
        first, second = (np.frombuffer(part, np.uint8).copy() for part in (data[:cut], data[cut:]))
        return {"number": number, "crc": zlib.crc32(data), "parts": [first, {"deep": second}], "text": "é" * 20}
    body = bytearray(HEADER.size + size)
    body[HEADER.size :] = data
    HEADER.pack_into(body, 0, 0, numbers.getrandbits(32), number)
    struct.pack_into("<I", body, 0, zlib.crc32(memoryview(body)[4:]))
    if kind == "bytearray":
        return body
    return bytes(body) if kind == "bytes" else np.frombuffer(body, np.uint8).copy()


def check(obj, kind, size):
    """Verify every byte of a message; return its number."""
    if kind == "dict":
        first, second = obj["parts"][0], obj["parts"][1]["deep"]
        assert type(obj) is dict
        assert obj["text"] == "é" * 20
        assert first.nbytes + second.nbytes == size, (first.nbytes, second.nbytes, size)
        assert zlib.crc32(second, zlib.crc32(first)) == obj["crc"], "a byte is wrong"
        first += 1  # it is the receiver's own
        return obj["number"]
    assert type(obj) is {"bytes": bytes, "bytearray": bytearray, "array": np.ndarray}[kind]
    view = memoryview(obj)
    assert len(view) == HEADER.size + size, (len(view), size)
    crc, _, number = HEADER.unpack_from(view)
    assert zlib.crc32(view[4:]) == crc, "a byte is wrong"
    if kind != "bytes":
        view[-1] ^= 1  # it is the receiver's own
    return number


def some_size(numbers, largest=LARGEST):
    """Return 0 B to the largest, each order of magnitude as often as any other."""
    if numbers.random() < 0.02:
        return numbers.choice([0, largest])
    return int(2 ** numbers.uniform(0, largest.bit_length() - 1))


# -- exchanges -----------------------------------------------------------------------------------------


def plan_round(numbers, ranks, count):
    """Return (source, dest, tag, kind, size) of a round's messages: all ranks make the same plan."""
    return [
        (*numbers.sample(range(ranks), 2), numbers.choice(TAGS), numbers.choice(KINDS), some_size(numbers))
        for _ in range(count)
    ]


def receive_round(comm, own, plan, messages):
    """Receive what the plan has for this rank, in one of three ways; return how many bytes came.

    A sender's messages come in their order: all of them where any tag is taken, else those of each tag.
    """
    wanted = [(place, *entry) for place, entry in enumerate(plan) if entry[1] == comm.rank]
    way = own.choice(["source", "tag", "any"])
    if way == "source":
        for place, source, _, _, kind, size in sorted(wanted, key=lambda w: w[1]):
            assert check(comm.recv(source), kind, size) == messages + place
    elif way == "tag":
        for place, source, _, tag, kind, size in sorted(wanted, key=lambda w: (str(w[3]), w[0])):
            assert check(comm.recv(source, tag), kind, size) == messages + place
    else:
        queues = {source: [w for w in wanted if w[1] == source] for source in {w[1] for w in wanted}}
        for _ in wanted:
            status = mp.Status()
            got = comm.recv(status=status)
            place, _, _, tag, kind, size = queues[status.source].pop(0)
            assert status.tag == tag
            assert check(got, kind, size) == messages + place
    return sum(w[-1] for w in wanted)


def resident_bytes():
    """Return the bytes of this process's own memory, without what it shares with others."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("RssAnon:") + 1]) << 10


def kept_bytes(comm):
    """Return the bytes of others' memory that this rank's objects hold."""
    port = comm.endpoint.port
    return 0 if port is None else port.living_bytes


def exchange_by_plan(seed, seconds):
    """Exchange what random plans say until the time is over.

    Returns:
        rounds, messages, bytes received here, the memory of this rank early and late, bytes kept.
    """
    comm = mp.comm()
    prepare()
    common, own = random.Random(seed), random.Random(f"{seed} {comm.rank}")
    begin = time.monotonic()
    rounds = messages = received = early = 0
    more = True
    while more:
        plan = plan_round(common, comm.size, 5 * comm.size)
        requests = []
        for place, (source, dest, tag, kind, size) in enumerate(plan):
            if source == comm.rank:
                obj = make(own, kind, size, messages + place)
                if own.random() < 0.3:
                    requests.append(comm.isend(obj, dest, tag))
                else:
                    comm.send(obj, dest, tag)
        received += receive_round(comm, own, plan, messages)
        for request in requests:
            request.wait()
        obj = request = None
        requests.clear()  # they hold messages, and memory is measured below
        rounds += 1
        messages += len(plan)
        comm.barrier()
        elapsed, more = comm.bcast((time.monotonic() - begin, time.monotonic() - begin < seconds))
        if not early and elapsed > seconds / 3:
            early = resident_bytes()
    return rounds, messages, received, early, resident_bytes(), kept_bytes(comm)


def exchange_until_loss(seed, folder):
    """Exchange messages of all sizes, all ranks with all, until one is lost; leave a note of when that was heard.

    The sizes end at 8 MiB: a rank that computes a checksum hears nothing meanwhile, and is given half a second.
    """
    comm = mp.comm()
    common, own = random.Random(seed), random.Random(f"{seed} {comm.rank}")
    number = 0
    (Path(folder) / f"begun{comm.rank}").write_text("")
    try:
        while True:
            shift, kind, size, tag = (
                common.randrange(1, comm.size),
                common.choice(KINDS),
                some_size(common, LARGEST // 4),
                common.choice(TAGS),
            )
            dest, source = (comm.rank + shift) % comm.size, (comm.rank - shift) % comm.size
            got = comm.sendrecv(make(own, kind, size, number), dest, tag, source=source, recvtag=tag)
            assert check(got, kind, size) == number
            number += 1
    except mp.PeerLostError:
        (Path(folder) / f"note{comm.rank}").write_text(f"{time.monotonic()} {number}")
        raise


def send_and_die(folder, kind, size):
    """Rank 1 is killed while it is in the middle of a message to rank 0, which only then receives."""
    comm = mp.comm()
    if comm.rank == 1:
        comm.send(os.getpid(), 0)
        body = bytes(size)
        comm.send({"bytes": body, "bytearray": bytearray(size), "tuple": (1, body)}[kind], 0, "large")
        comm.recv()
    pid = comm.recv(1)
    programs.wait_until(lambda: programs.state_of(pid) == "S")  # nothing reads here, so it waits within the message
    os.kill(pid, signal.SIGKILL)
    try:
        got = comm.recv(1, "large")
    except mp.PeerLostError as error:
        (Path(folder) / "note").write_text(f"lost {error.rank}")
        raise
    (Path(folder) / "note").write_text(f"received {len(got)}")


def swap_arrays(size_bytes):
    """Two ranks send each other a large array at once and only then receive."""
    comm = mp.comm()
    other = 1 - comm.rank
    comm.send(np.full(size_bytes, comm.rank, np.uint8), other)
    got = comm.recv(other)
    return got.nbytes == size_bytes and bool((got == other).all())


def talk_to_all():
    """Rank 0 exchanges a message with each other rank; return how many files each has open then."""
    comm = mp.comm()
    if comm.rank == 0:
        for dest in range(1, comm.size):
            comm.send(bytes(20_000), dest)
        assert sorted(comm.recv() for _ in range(1, comm.size)) == list(range(1, comm.size))
    else:
        assert comm.recv(0) == bytes(20_000)
        comm.send(comm.rank, 0)
    comm.barrier()
    return len(os.listdir("/proc/self/fd"))


def wait_in_vain(seconds):
    """Wait for a message that never comes; return the processor time that it took."""
    comm = mp.comm()
    comm.barrier()
    before = time.process_time()
    try:
        comm.recv(timeout=seconds)
    except mp.DeadlineError:
        return time.process_time() - before
    raise AssertionError("a message from nobody")


def pause(numbers):
    """Compute for 0 to 100 microseconds: sometimes the other side sleeps by then, sometimes it spins."""
    end = time.perf_counter() + numbers.random() * 1e-4
    while time.perf_counter() < end:
        pass


def ping_pong(count):
    """Send a number to and fro with random pauses; every thousandth is taken from anyone."""
    comm = mp.comm()
    numbers = random.Random(comm.rank)
    other = 1 - comm.rank
    for number in range(count):
        if number % 2 == comm.rank:
            pause(numbers)
            comm.send(number, other)
        else:
            got = comm.recv() if number % 1000 < 2 else comm.recv(other, 0)
            assert got == number
    return count


def files_and_memory():
    """Return how many files this rank has open, and its own memory in bytes."""
    return len(os.listdir("/proc/self/fd")), resident_bytes()


def shared_bytes():
    """Return the bytes of shared memory that this rank's World uses."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "klyng_mp" in os.readlink(f"/proc/self/fd/{fd}"):
                return os.stat(f"/proc/self/fd/{fd}").st_blocks * 512
        except OSError:  # the one that listed them
            continue
    return 0
