"""launch.channel: records and descriptors, in order, of any length, and an end that is seen."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import threading

import pytest

from klyng_mp.launch.channel import FDS_PER_RECORD, Channel


@pytest.fixture
def ends():
    """Give both ends of a channel."""
    one, other = Channel.pair()
    two = Channel(other)
    yield one, two
    one.close()
    two.close()


def test_records_arrive_in_order_and_nothing_is_none(ends):
    one, two = ends
    assert two.receive() is None
    one.send("first", 1, [2, 3])
    one.send("second")
    assert two.receive() == (("first", 1, [2, 3]), [])
    assert two.receive() == (("second",), [])
    assert two.receive() is None
    two.send("back")
    assert one.receive_now() == (("back",), [])


@pytest.mark.parametrize("size_bytes", [0, 1, 32_000, 32_768, 33_000, 250_000, 20_000_000])
def test_records_of_any_length(ends, size_bytes):
    one, two = ends
    one.send("data", b"x" * size_bytes)
    (kind, data), fds = two.receive_now()
    assert (kind, len(data), fds) == ("data", size_bytes, [])


@pytest.mark.parametrize("size_bytes", [10, 100_000])
@pytest.mark.parametrize("count", [1, 3, FDS_PER_RECORD])
def test_descriptors_travel_with_a_record(ends, count, size_bytes):
    one, two = ends
    handed = [os.memfd_create(str(number)) for number in range(count)]
    for number, fd in enumerate(handed):
        os.write(fd, str(number).encode())
    one.send("take", bytes(size_bytes), fds=handed)
    for fd in handed:
        os.close(fd)
    record, got = two.receive_now()
    assert record[0] == "take"
    assert [os.pread(fd, 10, 0) for fd in got] == [str(number).encode() for number in range(count)]
    assert not any(os.get_inheritable(fd) for fd in got)
    for fd in got:
        os.close(fd)


def test_a_slow_reader_is_not_waited_for_and_loses_nothing(ends):
    one, two = ends
    read_end, write_end = os.pipe()
    for number in range(1000):
        one.send(number, bytes(number * 50), fds=[read_end] if number % 100 == 0 else [])
    os.close(read_end)
    assert one.blocked
    numbers, fds = [], []
    while len(numbers) < 1000:
        one.flush()
        (number, data), got = two.receive_now()
        assert len(data) == number * 50
        numbers.append(number)
        fds += got
    assert numbers == list(range(1000))
    assert not one.blocked
    os.write(write_end, b"x" * 10)
    assert [os.read(fd, 1) for fd in fds] == [b"x"] * 10
    for fd in (*fds, write_end):
        os.close(fd)


def test_send_now_waits_for_the_reader(ends):
    one, two = ends
    got = []
    thread = threading.Thread(target=lambda: got.extend(two.receive_now()[0][0] for _ in range(1000)))
    for number in range(200):
        one.send(number, bytes(1000))
    thread.start()
    for number in range(200, 1000):
        one.send_now(number, bytes(1000))
    assert not one.blocked
    thread.join()
    assert got == list(range(1000))


def test_the_end_is_seen_after_all_that_was_sent(ends):
    one, two = ends
    one.send("last words")
    one.close()
    assert two.receive() == (("last words",), [])
    for _ in range(2):
        with pytest.raises(EOFError):
            two.receive()
    two.send("into nothing")  # no error: the end is seen when reading
    two.flush()


def test_an_end_with_unread_records_is_an_end(ends):
    one, two = ends
    one.send("never read")
    two.send("nor this")
    two.close()
    assert one.receive() == (("nor this",), [])
    with pytest.raises(EOFError):
        one.receive()


def test_what_was_queued_is_closed_with_the_channel(ends):
    one, two = ends
    read_end, write_end = os.pipe()
    while not one.blocked:
        one.send(bytes(30_000))
    one.send("queued", fds=[write_end])
    os.close(write_end)
    one.close()
    two.close()
    assert os.read(read_end, 1) == b""  # nobody holds the other end any more
    os.close(read_end)


def test_lost_descriptors_are_an_error_that_says_why(ends):
    code = (
        "import resource, socket, sys\n"
        "from klyng_mp.launch.channel import Channel\n"
        "channel = Channel(socket.socket(fileno=int(sys.argv[1])))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))\n"
        "try:\n    channel.receive_now()\nexcept OSError as error:\n    print(error)\n"
    )
    one, two = ends
    fd = two.fileno()
    one.send("many", fds=[one.fileno()] * 20)
    done = subprocess.run(
        [sys.executable, "-c", code, str(fd)],
        pass_fds=[fd],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.dirname(__file__)))},
    )
    assert "too many open files" in done.stdout


def test_a_large_descriptor_number_can_be_waited_on():
    """select() would take none from 1024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1100:
        pytest.skip("this machine allows fewer descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    fillers = []
    try:
        while not fillers or fillers[-1] < 1030:
            fillers.append(os.dup(0))
        one, other = Channel.pair()
        two = Channel(other)
        one.send_now("there")
        assert two.receive_now() == (("there",), [])
        one.close()
        two.close()
    finally:
        for fd in fillers:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_signal_does_not_disturb_waiting(ends):
    one, two = ends
    previous = signal.signal(signal.SIGALRM, lambda *_: one.send("after the signal"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        assert two.receive_now() == (("after the signal",), [])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_it_can_be_polled(ends):
    one, two = ends
    poll = select.poll()
    poll.register(two, select.POLLIN)
    assert poll.poll(0) == []
    one.send("x")
    assert poll.poll(0) == [(two.fileno(), select.POLLIN)]
    two.receive()
