"""What every communicator promises, whatever moves its messages: subclass and name the transport."""

from __future__ import annotations

import random
import threading

import pytest
from contracts.ranks import LIMIT, Background, ranks, together, when_waiting

from klyng_mp.communicator.buffers import allocate
from klyng_mp.communicator.requests import Status, testall, waitall, waitany, waitsome
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, CodecError, DeadlineError, PeerLostError
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG

SIZES = [1, 2, 3, 4, 7]
OBJECTS = [
    None, True, 0, -(2**100), 1.5, "", "text", b"", b"bytes" * 1000, bytearray(b"x"), (1, [2, {3: {4}}]),
    bytes(200_000), "long" * 50_000, ["word"] * 50_000,
]  # fmt: skip


def play(comm, tag, seed):
    """Exchange 100 messages under one tag, as a dice says that is the same on all ranks."""
    dice = random.Random(f"{seed} {tag}")
    for number in range(100):
        source, dest = dice.sample(range(comm.size), 2)
        expected = number, bytes(dice.choice([0, 10, 1000, 70_000, 300_000]))
        way = dice.randrange(4)
        if comm.rank == source:
            comm.send(expected, dest, tag) if way else comm.isend(expected, dest, tag).wait()
        elif comm.rank == dest:
            got = receive_somehow(comm, source, tag, way)
            assert got == expected, (
                f"{got[0]} of {len(got[1])} for {number} of {len(expected[1])}, {seed=} {tag=} {way=}"
            )
    comm.endpoint.flush(Deadline(LIMIT))


def receive_somehow(comm, source, tag, way):
    if way == 0:
        return comm.recv(source, tag)
    if way == 1:
        comm.probe(source, tag)
        return comm.recv(source, tag, timeout=0)
    request = comm.irecv(source, tag) if way == 2 else None
    while True:
        try:
            if request is not None:
                request.test()
                return request.wait(random.random() * 0.002)
            return comm.recv(source, tag, timeout=random.random() * 0.002)
        except DeadlineError:
            continue


class CommunicatorContract:
    """Subclass it, name it Test…, and set `transport`."""

    transport = ""

    @pytest.fixture
    def world(self, size):
        with ranks(size, self.transport) as made:
            yield made

    @pytest.fixture
    def pair(self):
        with ranks(2, self.transport) as made:
            yield made

    # -- send and recv

    @pytest.mark.parametrize("size", SIZES)
    def test_ring(self, world):
        def ring(comm):
            comm.send(("from", comm.rank), (comm.rank + 1) % comm.size, "ring")
            return comm.recv((comm.rank - 1) % comm.size, "ring")

        size = len(world.comms)
        assert world.run(ring) == [("from", (rank - 1) % size) for rank in range(size)]

    @pytest.mark.parametrize("size", SIZES)
    def test_everybody_to_everybody(self, world):
        def exchange(comm):
            for dest in range(comm.size):
                comm.send(comm.rank, dest, dest)
            return sorted(comm.recv(ANY_SOURCE, comm.rank) for _ in range(comm.size))

        size = len(world.comms)
        assert world.run(exchange) == [list(range(size))] * size

    @pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: f"{type(obj).__name__}-{len(repr(obj))}")
    @pytest.mark.parametrize("dest", [0, 1])
    def test_objects_arrive_equal_and_of_the_same_type(self, pair, obj, dest):
        sending = Background(lambda: pair.comms[0].send(obj, dest))
        got = pair.comms[dest].recv(0, timeout=LIMIT)
        sending.result()
        assert got == obj
        assert type(got) is type(obj)

    @pytest.mark.parametrize("count", [3, 10_000, 2_000_000])
    def test_arrays_arrive_writable_and_their_own(self, pair, count):
        numpy = pytest.importorskip("numpy")
        array = numpy.arange(count, dtype=float)
        sender, receiver = pair.comms
        receiving = Background(lambda: (receiver.recv(0, "isend"), receiver.recv(0, "send")))
        request = sender.isend(array, 1, "isend")
        array[:] = -1
        request.wait(LIMIT)
        sender.send(array, 1, "send")
        array[:] = 7
        first, second = receiving.result()
        assert (first == numpy.arange(count)).all()
        assert (second == -1).all()
        first[0] = second[0] = 5

    @pytest.mark.parametrize("count", [0, 1, 10, 1000, 5000, 200_000, 1_200_000])
    @pytest.mark.parametrize("first", ["sender", "receiver"])
    def test_arrays_are_received_into_arrays(self, pair, count, first):
        np = pytest.importorskip("numpy")
        sender, receiver = pair.comms
        array, place = np.arange(count, dtype="i8"), np.zeros(count, dtype="i8")
        status = Status()

        def receive():
            return receiver.recv_into(place, 0, 7, timeout=LIMIT, status=status)

        if first == "receiver":
            there = when_waiting(receiver.endpoint)
            waiting = Background(receive)
            there.wait(LIMIT)
            sender.send(array, 1, 7)
            got = waiting.result()
        else:
            sending = Background(lambda: sender.send(array, 1, 7))
            got = receive()
            sending.result()
        assert got == 8 * count
        assert (place == array).all()
        assert (status.source, status.tag) == (0, 7)

    @pytest.mark.parametrize("size", [0, 5, 5000, 3_000_000])
    def test_bytes_are_received_into_what_is_larger(self, pair, size):
        sender, receiver = pair.comms
        for kind in (bytes, bytearray):
            place = bytearray(b"x" * (size + 3))
            sending = Background(lambda kind=kind: sender.send(kind(size), 1))
            assert receiver.recv_into(place, timeout=LIMIT) == size
            assert place == bytes(size) + b"xxx"
            sending.result()

    def test_what_does_not_fit_into_the_buffer_stays(self, pair):
        np = pytest.importorskip("numpy")
        sender, receiver = pair.comms
        place = np.zeros(1000)
        refused = [
            (np.ones(1001), ValueError, "8008 bytes, and the buffer 8000"),
            (np.ones(1000, "f4"), TypeError, "an array of float32, and the buffer one of float64"),
            ({"a": 1}, TypeError, "neither an array nor bytes, but of the type dict"),
            (bytes(8001), ValueError, "8001 bytes"),
        ]
        for obj, kind, words in refused:
            sender.send(obj, 1, 7)
            with pytest.raises(kind, match=words):
                receiver.recv_into(place, 0, 7, timeout=LIMIT)
            assert not place.any()
            got = receiver.recv(0, 7, timeout=LIMIT)
            assert type(got) is type(obj)
            assert np.array_equal(got, obj)
        assert receiver.endpoint.mailbox.taken(1) == len(refused)

    def test_an_array_of_another_shape_is_received_in_its_order(self, pair):
        np = pytest.importorskip("numpy")
        sender, receiver = pair.comms
        array = np.asfortranarray(np.arange(20_000.0).reshape(100, 200))
        place = np.zeros((200, 100))
        sender.send(array, 1)
        assert receiver.recv_into(place, 0, timeout=LIMIT) == 160_000
        assert (place.ravel() == array.ravel()).all()

    @pytest.mark.parametrize("buffer", ["text", 5, b"bytes", None, [1]])
    def test_only_what_can_be_written_to_is_a_buffer(self, pair, buffer):
        with pytest.raises(TypeError, match="something to write to"):
            pair.comms[1].recv_into(buffer, timeout=0)

    def test_a_buffer_is_contiguous(self, pair):
        np = pytest.importorskip("numpy")
        with pytest.raises(ValueError, match="contiguous"):
            pair.comms[1].recv_into(np.zeros((10, 10))[:, :5], timeout=0)

    def test_recv_into_gives_up_and_takes_nothing(self, pair):
        sender, receiver = pair.comms
        place = bytearray(100_000)
        with pytest.raises(DeadlineError, match=r"recv_into\(source=0, tag=7\)"):
            receiver.recv_into(place, 0, 7, timeout=0)
        sender.send(b"x" * 100_000, 1, 7)
        assert receiver.recv_into(place, 0, 7, timeout=LIMIT) == 100_000

    @pytest.mark.parametrize("how", ["send", "isend"])
    @pytest.mark.parametrize("count", [10, 100_000])
    def test_an_array_that_is_given_away_arrives(self, pair, how, count):
        np = pytest.importorskip("numpy")
        sender, receiver = pair.comms
        array = allocate(sender.endpoint.port, count, "f8")
        array[:] = 3
        if how == "send":
            sender.send(array, 1, move=True)
        else:
            sender.isend(array, 1, move=True).wait(LIMIT)
        got = receiver.recv(0, timeout=LIMIT)
        assert type(got) is np.ndarray
        assert got.sum() == 3 * count
        got[:] = 4

    def test_what_is_not_ones_own_to_give_is_copied(self, pair):
        np = pytest.importorskip("numpy")
        sender, receiver = pair.comms
        array = np.arange(10_000)
        for obj in (array, array[::2], {"a": array}, "text"):
            sender.send(obj, 1, move=True)
            got = receiver.recv(0, timeout=LIMIT)
            assert got["a"].sum() == array.sum() if type(obj) is dict else np.array_equal(got, obj)
        array[:] = 0

    def test_one_senders_messages_do_not_overtake_each_other(self, pair):
        sizes = [10, 300_000, 1, 70_000, 2, 3, 1_000_000, 4] * 5

        def send(comm):
            for number, size in enumerate(sizes):
                comm.send((number, bytes(size)), 1, number % 2)

        def receive(comm):
            return [comm.recv(0, ANY_TAG)[0] for _ in sizes]

        assert pair.run(send, receive)[1] == list(range(len(sizes)))

    def test_tags_choose(self, pair):
        sender, receiver = pair.comms
        for tag in (1, "word", 2, "1"):
            sender.send(tag, 1, tag)
        assert [receiver.recv(0, tag) for tag in ("1", 2, "word", 1)] == ["1", 2, "word", 1]

    def test_any_takes_the_first_that_came(self, pair):
        sender, receiver = pair.comms
        sender.send("a", 1, 5)
        receiver.recv(0, 5)
        receiver.send("own", 1, 6)
        status = Status()
        assert receiver.recv(status=status) == "own"
        assert (status.source, status.tag) == (1, 6)
        sender.send("theirs", 1, "t")
        assert receiver.recv(ANY_SOURCE, ANY_TAG, status=status) == "theirs"
        assert (status.source, status.tag) == (0, "t")
        assert status.count > 0

    @pytest.mark.parametrize("size_bytes", [100, 100_000_000])
    def test_both_send_first_and_then_receive(self, pair, size_bytes):
        def exchange(comm):
            comm.send(bytes(size_bytes), 1 - comm.rank)
            return len(comm.recv(1 - comm.rank))

        assert pair.run(exchange) == [size_bytes] * 2

    @pytest.mark.parametrize("size", SIZES)
    def test_sendrecv_around_the_ring(self, world):
        def shift(comm):
            right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
            status = Status()
            got = comm.sendrecv(bytes([comm.rank]) * 300_000, right, "shift", left, "shift", status=status)
            return got[0], status.source

        size = len(world.comms)
        assert world.run(shift) == [((rank - 1) % size,) * 2 for rank in range(size)]

    # -- requests

    def test_posted_receives_match_in_the_order_of_posting(self, pair):
        sender, receiver = pair.comms
        requests = [receiver.irecv(0, 5), receiver.irecv(), receiver.irecv(0, 5), receiver.irecv(ANY_SOURCE, "no")]
        for number in range(4):
            sender.send(number, 1, 5)
        assert receiver.recv(0) == 3
        assert waitall(requests[:3], LIMIT) == [0, 1, 2]
        assert not requests[3].test()
        assert requests[3].cancel()

    def test_requests_say_how_they_are(self, pair):
        sender, receiver = pair.comms
        status = Status()
        request = receiver.irecv(0, 7, status=status)
        assert not request.done
        assert not request.test()
        assert repr(request) == "<Request irecv(source=0, tag=7): under way>"
        with pytest.raises(DeadlineError, match=r"irecv\(source=0, tag=7\) did not finish within 0 s"):
            request.wait(0)
        sender.send(["x"], 1, 7)
        assert request.wait(LIMIT) == ["x"]
        assert request.wait() is request.wait()
        assert request.done
        assert request.test()
        assert not request.cancel()
        assert status.tag == 7
        assert repr(request) == "<Request irecv(source=0, tag=7): done>"

    def test_a_receive_can_be_cancelled_until_it_matched(self, pair):
        sender, receiver = pair.comms
        request = receiver.irecv(0)
        assert request.cancel()
        assert request.cancelled
        assert request.cancel()
        assert request.done
        assert request.wait() is None
        sender.send("x", 1)
        assert receiver.recv(0) == "x"

    def test_a_send_can_be_cancelled_until_it_began(self, pair):
        sender, receiver = pair.comms
        first = sender.isend(bytes(5_000_000), 1, "first")
        second = sender.isend(bytes(5_000_000), 1, "second")
        third = sender.isend(bytes(5_000_000), 1, "third")
        assert third.cancel()
        assert not third.test() or third.cancelled
        receiving = Background(lambda: [len(receiver.recv(0, tag)) for tag in ("first", "second")])
        assert waitall([first, second, third], LIMIT) == [None, None, None]
        assert receiving.result() == [5_000_000] * 2
        assert not first.cancel()
        assert sender.endpoint.sent_counts() == {1: 2}
        assert receiver.iprobe() is None

    def test_waitany_gives_each_once(self, pair):
        sender, receiver = pair.comms
        requests = [receiver.irecv(0, tag) for tag in range(3)]
        with pytest.raises(DeadlineError, match="waitany of 3 requests"):
            waitany(requests, 0)
        for tag in (2, 0, 1):
            sender.send(tag * 10, 1, tag)
        assert sorted(waitany(requests, LIMIT) for _ in range(3)) == [(0, 0), (1, 10), (2, 20)]
        with pytest.raises(ValueError, match="waitany needs a request"):
            waitany(requests)

    def test_waitsome_gives_all_that_are_there(self, pair):
        sender, receiver = pair.comms
        requests = [receiver.irecv(0, tag) for tag in range(4)]
        sender.send("a", 1, 1)
        sender.send("b", 1, 3)
        sender.send("end", 1, "end")
        receiver.recv(0, "end")
        assert waitsome(requests, LIMIT) == [(1, "a"), (3, "b")]
        with pytest.raises(DeadlineError):
            waitsome(requests, 0)
        assert not testall(requests)
        sender.send("c", 1, 0)
        sender.send("d", 1, 2)
        assert waitall(requests, LIMIT) == ["c", "a", "d", "b"]
        assert testall(requests)
        with pytest.raises(ValueError, match="waitsome needs a request"):
            waitsome(requests)

    def test_waitall_of_nothing(self):
        assert waitall([]) == []
        assert testall([])

    def test_a_large_isend_goes_on_while_others_wait(self, pair):
        def exchange(comm):
            requests = [comm.isend(bytes(6_000_000), 1 - comm.rank, tag) for tag in range(5)]
            got = [len(comm.recv(1 - comm.rank, tag)) for tag in reversed(range(5))]
            waitall(requests, LIMIT)
            return got

        assert pair.run(exchange) == [[6_000_000] * 5] * 2

    # -- probe

    def test_probe_leaves_the_message_there(self, pair):
        sender, receiver = pair.comms
        assert receiver.iprobe() is None
        with pytest.raises(DeadlineError, match=r"probe\(source=0, tag=ANY_TAG\)"):
            receiver.probe(0, timeout=0)
        sender.send(b"x" * 100, 1, "t")
        for status in (receiver.probe(timeout=LIMIT), receiver.iprobe(0, "t"), receiver.probe(0, "t")):
            assert (status.source, status.tag) == (0, "t")
            assert status.count >= 100
        assert receiver.iprobe(0, "other") is None
        assert receiver.recv() == b"x" * 100
        assert receiver.iprobe() is None

    # -- timeouts

    def test_recv_gives_up_and_takes_nothing(self, pair):
        sender, receiver = pair.comms
        for timeout in (0, 0.01):
            with pytest.raises(DeadlineError, match=r"recv\(source=ANY_SOURCE, tag=3\) did not finish within"):
                receiver.recv(tag=3, timeout=timeout)
        sender.send("x", 1, 3)
        assert receiver.recv(timeout=LIMIT) == "x"

    def test_recv_at_once_takes_what_is_there(self, pair):
        sender, receiver = pair.comms
        sender.send("x", 1)
        receiver.probe(timeout=LIMIT)
        assert receiver.recv(timeout=0) == "x"

    def test_a_send_that_has_not_begun_in_time_is_withdrawn(self, pair):
        sender, receiver = pair.comms
        filler = sender.isend(bytes(10_000_000), 1, "filler")
        for timeout in (0, 0.01):
            with pytest.raises(DeadlineError, match=r"send\(dest=1, tag='t'\) .*; nothing of the message was sent"):
                sender.send(bytes(1_000_000), 1, "t", timeout=timeout)
        receiving = Background(lambda: len(receiver.recv(0)))
        filler.wait(LIMIT)
        sender.send("end", 1, timeout=LIMIT)
        sender.endpoint.flush(Deadline(LIMIT))
        assert receiving.result() == 10_000_000
        assert receiver.recv(0) == "end"
        assert sender.endpoint.sent_counts() == {1: 2}

    # -- what is lost

    def test_what_was_sent_before_the_end_is_received_first(self, pair):
        sender, receiver = pair.comms
        for number in range(10):
            sender.send(number, 1)
        sender.endpoint.close()
        assert [receiver.recv(0) for _ in range(10)] == list(range(10))
        for source in (0, ANY_SOURCE):
            with pytest.raises(PeerLostError, match="closed its connection") as caught:
                receiver.recv(source, 4)
            assert caught.value.rank == (0 if source == 0 else None)
        assert "this rank was in recv(source=ANY_SOURCE, tag=4)" in str(caught.value)
        with pytest.raises(
            PeerLostError, match=r"rank 0 closed its connection; this rank was in send\(dest=0, tag=0\)"
        ):
            receiver.send("x", 0)

    def test_who_waits_for_the_lost_is_woken(self, pair):
        sender, receiver = pair.comms
        waiting = when_waiting(receiver.endpoint)
        call = Background(lambda: receiver.recv(0))
        assert waiting.wait(LIMIT)
        sender.endpoint.close()
        with pytest.raises(PeerLostError):
            call.result()

    def test_a_large_send_to_the_lost_is_woken(self, pair):
        sender, receiver = pair.comms
        waiting = when_waiting(sender.endpoint)
        sender.isend(bytes(5_000_000), 1)
        call = Background(lambda: sender.send(bytes(50_000_000), 1))
        assert waiting.wait(LIMIT)
        receiver.endpoint.close()
        with pytest.raises(PeerLostError, match=r"rank 1 closed its connection; this rank was in send\(dest=1"):
            call.result()

    def test_any_source_waits_while_anybody_is_left(self):
        with ranks(3, self.transport) as made:
            first, second, third = made.comms
            waiting = when_waiting(third.endpoint)
            call = Background(lambda: (third.recv(), third.recv()))
            assert waiting.wait(LIMIT)
            first.endpoint.close()
            second.send("alive", 2)
            second.endpoint.close()
            with pytest.raises(PeerLostError, match="every other rank is gone; the last one, rank 1, closed"):
                call.result()

    def test_requests_to_the_lost_fail(self, pair):
        sender, receiver = pair.comms
        sender.send("there", 1, 1)
        requests = [receiver.irecv(0, tag) for tag in (1, 2)]
        sender.endpoint.close()
        with pytest.raises(PeerLostError, match=r"irecv\(source=0, tag=2\)"):
            waitall(requests, LIMIT)
        assert requests[0].wait() == "there"
        with pytest.raises(PeerLostError):
            requests[1].test()
        with pytest.raises(PeerLostError):
            testall(requests)

    # -- abort

    def test_abort_wakes_everybody_until_resume(self, pair):
        sender, receiver = pair.comms
        waiting = when_waiting(receiver.endpoint, 3)
        calls = [Background(lambda tag=tag: receiver.recv(0, tag)) for tag in range(3)]
        assert waiting.wait(LIMIT)
        receiver.endpoint.abort("raised ValueError", 0)
        for tag, call in enumerate(calls):
            with pytest.raises(
                PeerLostError, match=rf"rank 0 raised ValueError; this rank was in recv\(source=0, tag={tag}"
            ):
                call.result()
        for action in (lambda: receiver.send(1, 0), lambda: receiver.recv(0), receiver.iprobe, receiver.barrier):
            with pytest.raises(PeerLostError, match="rank 0 raised ValueError"):
                action()
        receiver.endpoint.resume()
        sender.send("again", 1, "again")
        assert receiver.recv(0, "again", timeout=LIMIT) == "again"

    # -- misuse

    @pytest.mark.parametrize(
        ("misuse", "error", "words"),
        [
            (lambda c: c.send(1, 2), ValueError, "send: dest must be from 0 to 1, not 2"),
            (lambda c: c.send(1, -1), ValueError, "send: dest must be from 0 to 1, not -1"),
            (lambda c: c.isend(1, "0"), TypeError, "isend: dest must be the number of a rank, not '0'"),
            (lambda c: c.send(1, True), TypeError, "send: dest must be the number of a rank, not True"),
            (lambda c: c.send(1, 1.0), TypeError, "send: dest must be the number of a rank, not 1.0"),
            (lambda c: c.recv(2), ValueError, "recv: source must be from 0 to 1, not 2"),
            (lambda c: c.irecv(-3), ValueError, "irecv: source must be from 0 to 1, not -3"),
            (lambda c: c.probe(None), TypeError, "probe: source must be the number of a rank, not None"),
            (lambda c: c.iprobe(False), TypeError, "iprobe: source must be the number of a rank, not False"),
            (
                lambda c: c.send(1, 1, -1),
                ValueError,
                "send: ANY_TAG is for receiving; send with an int from 0 or a str",
            ),
            (lambda c: c.send(1, 1, -5), ValueError, "send: tag must be from 0 to 2**63 - 1 or a str, not -5"),
            (lambda c: c.send(1, 1, 2**63), ValueError, "send: tag must be from 0"),
            (lambda c: c.recv(1, -5), ValueError, "recv: tag must be from 0"),
            (lambda c: c.send(1, 1, [1]), TypeError, "send: tag must be an int from 0 or a str, not [1]"),
            (lambda c: c.send(1, 1, 1.5), TypeError, "send: tag must be an int from 0 or a str, not 1.5"),
            (lambda c: c.recv(1, True), TypeError, "recv: tag must be an int from 0 or a str, not True"),
            (lambda c: c.recv(1, None), TypeError, "recv: tag must be an int from 0 or a str, not None"),
            (lambda c: c.send(1, 1, "x" * 65537), ValueError, "is too long; 65536 bytes are allowed"),
            (lambda c: c.send(1, 1, "ü" * 40000), ValueError, "is too long; 65536 bytes are allowed"),
            (lambda c: c.send(1, 1, "\ud800"), ValueError, "is no text that can be sent"),
            (lambda c: c.sendrecv(1, 5), ValueError, "sendrecv: dest must be from 0 to 1"),
            (lambda c: c.sendrecv(1, 1, 0, 5), ValueError, "sendrecv: source must be from 0 to 1"),
            (lambda c: c.bcast(1, 2), ValueError, "bcast: root must be from 0 to 1, not 2"),
            (lambda c: c.gather(1, "x"), TypeError, "gather: root must be the number of a rank, not 'x'"),
            (lambda c: c.recv(1, timeout="1"), TypeError, "timeout must be a number of seconds or None"),
        ],
    )
    def test_misuse_is_refused_by_name_and_changes_nothing(self, pair, misuse, error, words):
        with pytest.raises(error) as caught:
            misuse(pair.comms[0])
        assert words in str(caught.value)
        assert pair.comms[0].endpoint.sent_counts() == {}
        pair.run(lambda comm: comm.barrier(timeout=LIMIT))

    def test_what_cannot_travel_is_said_to_its_sender(self, pair):
        with pytest.raises(CodecError):
            pair.comms[0].send(threading.Lock(), 1)
        assert pair.comms[0].endpoint.sent_counts() == {}

    def test_numbers_of_other_kinds_are_numbers(self, pair):
        numpy = pytest.importorskip("numpy")
        sender, receiver = pair.comms
        sender.send("x", numpy.int64(1), numpy.int32(5))
        status = Status()
        assert receiver.recv(numpy.int8(0), 5, status=status) == "x"
        assert type(status.tag) is int

    def test_a_closed_communicator_refuses_everything(self, pair):
        comm = pair.comms[0]
        comm.close()
        comm.close()
        for action in (
            lambda: comm.send(1, 1), lambda: comm.recv(1), lambda: comm.isend(1, 1), lambda: comm.irecv(1),
            lambda: comm.sendrecv(1, 1), comm.probe, comm.iprobe, comm.barrier, comm.bcast, lambda: comm.gather(1),
        ):  # fmt: skip
            with pytest.raises(ClosedError, match="this communicator is closed, so"):
                action()

    def test_a_closed_endpoint_refuses_everything_and_wakes_who_waits(self, pair):
        comm = pair.comms[0]
        waiting = when_waiting(comm.endpoint, 2)
        calls = [Background(lambda: comm.recv(1)), Background(lambda: comm.probe(1))]
        assert waiting.wait(LIMIT)
        comm.endpoint.close()
        comm.endpoint.close()
        for call in calls:
            with pytest.raises(ClosedError):
                call.result()
        with pytest.raises(ClosedError, match="has closed its communicator, so send"):
            comm.send(1, 1)

    # -- threads

    def test_eight_threads_play_at_once(self, pair):
        def play(comm):
            def game(tag):
                for number in range(100):
                    if comm.rank == 0:
                        comm.send((tag, number), 1, tag)
                        assert comm.recv(1, tag) == (tag, number)
                    else:
                        comm.send(comm.recv(0, tag), 0, tag)

            together([lambda tag=tag: game(tag) for tag in range(8)])

        pair.run(play)

    def test_one_waits_while_another_sends_much(self, pair):
        first, second = pair.comms
        waiting = when_waiting(first.endpoint)
        call = Background(lambda: first.recv(1, "late"))
        assert waiting.wait(LIMIT)
        receiving = Background(lambda: len(second.recv(0, "much")))
        first.send(bytes(20_000_000), 1, "much")
        assert receiving.result() == 20_000_000
        second.send("now", 0, "late")
        assert call.result() == "now"

    def test_a_message_to_oneself_wakes_who_waits(self, pair):
        comm = pair.comms[0]
        waiting = when_waiting(comm.endpoint, 3)
        calls = [Background(lambda tag=tag: comm.recv(0, tag)) for tag in range(3)]
        assert waiting.wait(LIMIT)
        for tag in (1, 2, 0):
            comm.send(tag, 0, tag)
            assert calls[tag].result() == tag

    def test_threads_share_what_comes(self, pair):
        sender, receiver = pair.comms
        waiting = when_waiting(receiver.endpoint, 6)
        calls = [Background(lambda: [receiver.recv() for _ in range(50)]) for _ in range(6)]
        assert waiting.wait(LIMIT)
        for number in range(300):
            sender.send(number, 1, number % 3)
        sender.endpoint.flush(Deadline(LIMIT))
        got = [call.result() for call in calls]
        assert sorted(number for part in got for number in part) == list(range(300))

    def test_a_thread_gives_up_while_others_wait(self, pair):
        sender, receiver = pair.comms
        waiting = when_waiting(receiver.endpoint, 2)
        calls = [Background(lambda tag=tag: receiver.recv(0, tag)) for tag in range(2)]
        assert waiting.wait(LIMIT)
        for timeout in (0, 0.01):
            with pytest.raises(DeadlineError):
                receiver.recv(0, "never", timeout=timeout)
        for tag in (1, 0):
            sender.send(tag, 1, tag)
            assert calls[tag].result() == tag

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(8))
    def test_threads_in_any_mix_of_calls(self, seed):
        with ranks(3, self.transport) as made:
            calls = [lambda c=c, t=t: play(c, t, seed) for c in made.comms for t in range(5)]
            together(calls, made.stop)

    # -- counters

    @pytest.mark.parametrize("size", [2])
    def test_counts_balance(self, world):
        def exchange(comm):
            for tag in range(5):
                comm.send(tag, 1 - comm.rank, tag)
            comm.send("me", comm.rank)
            comm.barrier()
            for tag in range(3):
                comm.recv(1 - comm.rank, tag)
            comm.barrier()
            endpoint = comm.endpoint
            endpoint.take_in()  # a barrier without messages leaves some in the ring
            left = endpoint.unreceived(comm.context, comm.context + (1 << 32))
            return endpoint.sent_counts(), endpoint.mailbox.taken(1), [(one.source, one.tag) for one in left]

        first, second = world.run(exchange)
        assert first[0] == {1: 5, 0: 1}
        assert first[1] == second[1] == 3
        assert sorted(first[2], key=str) == [(0, 0), (1, 3), (1, 4)]
