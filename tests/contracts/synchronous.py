"""What every communicator promises of messages whose sender wants to know: subclass and name the transport."""

from __future__ import annotations

import threading

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.requests import testall, waitall, waitany
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, CodecError, DeadlineError, PeerLostError
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG

SIZES = [1, 2, 3, 4, 7]
WAYS = {
    "recv": lambda c: c.recv(0, 7, timeout=LIMIT),
    "recv_any": lambda c: c.recv(timeout=LIMIT),
    "recv_forever": lambda c: c.recv(0, 7),
    "irecv": lambda c: c.irecv(0, 7).wait(LIMIT),
    "mprobe": lambda c: c.mprobe(0, ANY_TAG, timeout=LIMIT).recv(),
    "probe_improbe": lambda c: (c.probe(0, 7, timeout=LIMIT), c.improbe(0, 7))[1].recv(),
    "sendrecv": lambda c: c.sendrecv("back", 0, 8, 0, 7, timeout=LIMIT),
}
OBJECTS = [None, 5, "text" * 10, [1, {2}], b"x" * 700, bytearray(b"x" * 5000), bytes(300_000), ["word"] * 90_000]


class SynchronousContract:
    """Subclass it, name it Test…, and set `transport`."""

    transport = ""

    @pytest.fixture
    def pair(self):
        with ranks(2, self.transport) as made:
            yield made

    @pytest.mark.parametrize("way", WAYS)
    def test_it_returns_when_somebody_receives(self, pair, way):
        sender, receiver = pair.comms
        for _ in range(3):
            there = when_waiting(sender.endpoint)
            sending = Background(lambda: sender.ssend(["obj"], 1, 7))
            assert there.wait(LIMIT)
            assert receiver.probe(timeout=LIMIT).tag == 7
            assert sending._outcome == []
            assert WAYS[way](receiver) == ["obj"]
            sending.result()

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: f"{type(obj).__name__}-{len(repr(obj))}")
    def test_objects_arrive_equal_and_of_the_same_type(self, pair, obj, way):
        sender, receiver = pair.comms
        sending = Background(lambda: sender.ssend(obj, 1, 7))
        got = WAYS[way](receiver)
        sending.result()
        assert got == obj
        assert type(got) is type(obj)

    @pytest.mark.parametrize("count", [10, 5000, 300_000])
    @pytest.mark.parametrize("first", ["sender", "receiver"])
    def test_arrays_are_received_into_arrays(self, pair, count, first):
        np = pytest.importorskip("numpy")
        sender, receiver = pair.comms
        array, place = np.arange(count), np.zeros(count, dtype=int)
        side = sender if first == "sender" else receiver
        there = when_waiting(side.endpoint)
        calls = [lambda: sender.ssend(array, 1, 7), lambda: receiver.recv_into(place, 0, 7, timeout=LIMIT)]
        other = Background(calls.pop(0 if side is sender else 1))
        assert there.wait(LIMIT)
        calls[0]()
        other.result()
        assert (place == array).all()

    def test_a_receive_that_was_posted_counts_though_nobody_waits_for_it(self, pair):
        sender, receiver = pair.comms
        requests = [receiver.irecv(0, 7), receiver.irecv()]
        sending = Background(
            lambda: (sender.ssend("a", 1, 7), sender.ssend("b", 1, "t"), sender.send("done", 1, "done"))
        )
        assert receiver.recv(0, "done", timeout=LIMIT) == "done"
        sending.result()
        assert waitall(requests, LIMIT) == ["a", "b"]

    def test_a_receive_that_is_posted_counts_before_anything_else_is_called(self, pair):
        sender, receiver = pair.comms
        there = when_waiting(sender.endpoint)
        sending = Background(lambda: sender.ssend("a", 1, 7))
        assert there.wait(LIMIT)
        receiver.probe(0, 7, timeout=LIMIT)
        request = receiver.irecv(0, 7)
        sending.result()
        assert request.wait(LIMIT) == "a"

    @pytest.mark.parametrize("size", SIZES)
    def test_all_start_to_send_and_then_receive(self, size):
        def ring(comm):
            right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
            requests = [comm.issend((comm.rank, number), right, "ring") for number in range(20)]
            got = [comm.recv(left, "ring") for _ in requests]
            waitall(requests, LIMIT)
            comm.barrier(timeout=LIMIT)
            return got == [(left, number) for number in range(20)]

        with ranks(size, self.transport) as made:
            assert made.run(ring) == [True] * size

    @pytest.mark.parametrize("size", SIZES)
    def test_all_post_receives_and_then_send(self, size):
        def ring(comm):
            right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
            requests = [comm.irecv(left, tag) for tag in range(10)]
            for tag in reversed(range(10)):
                comm.ssend(tag * 10, right, tag, timeout=LIMIT)
            comm.barrier(timeout=LIMIT)
            return waitall(requests, LIMIT)

        with ranks(size, self.transport) as made:
            assert made.run(ring) == [list(range(0, 100, 10))] * size

    def test_it_overtakes_nothing_and_is_not_overtaken(self, pair):
        sizes = [10, 300_000, 1, 70_000, 2, 1_000_000] * 3

        def send(comm):
            for number, size in enumerate(sizes):
                (comm.ssend if number % 2 else comm.send)((number, bytes(size)), 1, number % 3)

        def receive(comm):
            return [comm.recv(ANY_SOURCE, ANY_TAG)[0] for _ in sizes]

        assert pair.run(send, receive)[1] == list(range(len(sizes)))

    # -- giving up

    def test_a_message_that_has_left_may_still_be_taken(self, pair):
        sender, receiver = pair.comms
        for timeout in (0, 0.01):
            with pytest.raises(
                DeadlineError, match=r"ssend\(dest=1, tag=7\) .*; the message has left already, so the receiver may"
            ):
                sender.ssend(timeout, 1, 7, timeout=timeout)
        assert receiver.recv(0, 7, timeout=LIMIT) == 0
        # The word that this was received is not taken for that of another one.
        with pytest.raises(DeadlineError):
            sender.ssend("third", 1, 7, timeout=0.01)
        assert receiver.recv(0, 7, timeout=LIMIT) == 0.01
        there = when_waiting(sender.endpoint)
        sending = Background(lambda: sender.ssend("fourth", 1, 7))
        assert there.wait(LIMIT)
        assert [receiver.recv(0, 7, timeout=LIMIT) for _ in range(2)] == ["third", "fourth"]
        sending.result()

    def test_a_message_of_which_nothing_has_left_is_withdrawn(self, pair):
        sender, receiver = pair.comms
        filler = sender.isend(bytes(10_000_000), 1, "filler")
        for timeout in (0, 0.01):
            with pytest.raises(DeadlineError, match=r"ssend\(dest=1, tag='t'\) .*; the message was withdrawn"):
                sender.ssend(bytes(1_000_000), 1, "t", timeout=timeout)
        receiving = Background(lambda: (len(receiver.recv(0)), receiver.recv(0)))
        filler.wait(LIMIT)
        sender.ssend("end", 1, "t", timeout=LIMIT)
        assert receiving.result() == (10_000_000, "end")
        assert sender.endpoint.sent_counts() == {1: 2}

    def test_what_was_put_back_counts_as_received_once(self, pair):
        sender, receiver = pair.comms
        sending = Background(lambda: sender.ssend({"a": 1}, 1, 7))
        with pytest.raises(TypeError, match="neither an array nor bytes"):
            receiver.recv_into(bytearray(9), 0, 7, timeout=LIMIT)
        sending.result()
        assert receiver.recv(0, 7, timeout=LIMIT) == {"a": 1}
        with pytest.raises(DeadlineError):
            sender.ssend("next", 1, 7, timeout=0.01)

    # -- requests

    def test_requests_say_how_they_are(self, pair):
        sender, receiver = pair.comms
        request = sender.issend(["x"], 1, 7)
        assert not request.test()
        assert repr(request) == "<Request issend(dest=1, tag=7): under way>"
        with pytest.raises(DeadlineError, match=r"issend\(dest=1, tag=7\) .*; the message stays on its way"):
            request.wait(0)
        assert not request.cancel()
        assert receiver.recv(0, 7, timeout=LIMIT) == ["x"]
        assert request.wait(LIMIT) is None
        assert request.test()
        assert not request.cancel()
        assert repr(request) == "<Request issend(dest=1, tag=7): done>"

    def test_it_can_be_cancelled_until_it_began(self, pair):
        sender, receiver = pair.comms
        first, second = (sender.issend(bytes(5_000_000), 1, "t") for _ in range(2))
        assert second.cancel()
        assert second.cancelled
        assert second.done
        receiving = Background(lambda: (len(receiver.recv(0, "t")), receiver.recv(0, "t")))
        assert waitall([first, second], LIMIT) == [None, None]
        sender.ssend("end", 1, "t", timeout=LIMIT)
        assert receiving.result() == (5_000_000, "end")
        assert sender.endpoint.sent_counts() == {1: 2}

    def test_waitany_gives_the_one_that_was_received(self, pair):
        sender, receiver = pair.comms
        requests = [sender.issend(tag, 1, tag) for tag in range(3)]
        with pytest.raises(DeadlineError):
            waitany(requests, 0)
        assert receiver.recv(0, 1, timeout=LIMIT) == 1
        assert waitany(requests, LIMIT) == (1, None)
        assert not testall(requests)
        assert [receiver.recv(0, tag, timeout=LIMIT) for tag in (2, 0)] == [2, 0]
        waitall(requests, LIMIT)
        assert testall(requests)

    # -- oneself

    def test_to_oneself_it_returns_where_a_receive_is_posted(self, pair):
        comm = pair.comms[0]
        request = comm.irecv(0, 5)
        comm.ssend(bytearray(b"own"), 0, 5, timeout=LIMIT)
        assert request.wait(0) == b"own"

    def test_to_oneself_it_waits_for_another_thread(self, pair):
        comm = pair.comms[0]
        with pytest.raises(DeadlineError, match="may still take it"):
            comm.ssend("first", 0, 5, timeout=0)
        assert comm.recv(0, 5, timeout=0) == "first"
        there = when_waiting(comm.endpoint)
        sending = Background(lambda: comm.ssend("second", 0, 5))
        assert there.wait(LIMIT)
        assert comm.recv(0, 5, timeout=LIMIT) == "second"
        sending.result()

    # -- errors

    @pytest.mark.parametrize("size_bytes", [10, 50_000_000])
    def test_who_waits_for_the_lost_is_woken(self, pair, size_bytes):
        sender, receiver = pair.comms
        sender.send("hello", 1)
        receiver.recv(0)
        there = when_waiting(sender.endpoint)
        request = sender.issend(bytes(size_bytes), 1, 1)
        sending = Background(lambda: sender.ssend(bytes(size_bytes), 1, 2))
        assert there.wait(LIMIT)
        receiver.endpoint.close()
        with pytest.raises(PeerLostError, match=r"rank 1 closed its connection; this rank was in ssend\(dest=1"):
            sending.result()
        for _ in range(2):
            with pytest.raises(PeerLostError, match=r"this rank was in issend\(dest=1, tag=1\)"):
                request.wait(LIMIT)
        with pytest.raises(PeerLostError):
            request.test()

    def test_to_whom_came_to_the_end_it_fails_where_send_is_accepted(self, pair):
        sender, receiver = pair.comms
        request = sender.issend("x", 1)
        sender.endpoint.mark_lost(1, "has ended", orderly=True)
        sender.send("x", 1)
        with pytest.raises(PeerLostError, match="has ended"):
            request.wait(LIMIT)
        for call in (sender.ssend, sender.issend):
            with pytest.raises(PeerLostError, match=r"rank 1 has ended; this rank was in is?send|ssend"):
                call("x", 1)
        receiver.endpoint.close()

    def test_to_whose_program_is_over_it_fails(self, pair):
        sender, receiver = pair.comms
        context, following = sender.context, sender.context + (1 << 32)
        posted = receiver.irecv(0, "posted")
        requests = [sender.issend("x", 1, tag) for tag in (1, 1, "posted")]
        receiver.probe(0, 1, timeout=LIMIT)
        receiver.endpoint.conclude(context, following)
        requests += [sender.issend("late", 1, tag) for tag in (1, "t")]
        next_run = Communicator(sender.endpoint, sender.codec, context=following, rank=0, members=range(2))
        early = next_run.issend("early", 1, 1)
        there = when_waiting(receiver.endpoint)
        waiting = Background(lambda: receiver.recv(0, "end of the test"))
        assert there.wait(LIMIT)
        for request in (requests[0], requests[1], requests[3], requests[4]):
            for _ in range(2):
                with pytest.raises(PeerLostError, match=r"rank 1 has returned without receiving this message; this"):
                    request.wait(LIMIT)
            assert not request.done
        assert requests[2].wait(LIMIT) is None
        assert posted.wait(0) == "x"
        with pytest.raises(DeadlineError):
            early.wait(0)
        with pytest.raises(PeerLostError):
            sender.ssend("later", 1, 1, timeout=LIMIT)
        sender.send("", 1, "end of the test")
        waiting.result()
        left = receiver.endpoint.unreceived(context, following)
        assert [one.tag for one in left] == [1, 1, 1, "t", 1]
        receiver.endpoint.begin_run(following)
        got = Communicator(receiver.endpoint, receiver.codec, context=following, rank=1, members=range(2))
        assert got.recv(0, 1, timeout=LIMIT) == "early"
        sender.endpoint.begin_run(following)
        assert early.wait(LIMIT) is None

    def test_what_was_received_before_the_end_was_received(self, pair):
        sender, receiver = pair.comms
        request = sender.issend("x", 1)
        receiver.recv(0, timeout=LIMIT)
        receiver.endpoint.flush(Deadline(LIMIT))
        receiver.endpoint.close()
        assert request.wait(LIMIT) is None

    def test_abort_wakes_who_waits(self, pair):
        sender = pair.comms[0]
        there = when_waiting(sender.endpoint)
        sending = Background(lambda: sender.ssend("x", 1))
        assert there.wait(LIMIT)
        sender.endpoint.abort("raised ValueError", 1)
        with pytest.raises(PeerLostError, match=r"rank 1 raised ValueError; this rank was in ssend"):
            sending.result()

    def test_the_end_of_the_run_ends_it(self, pair):
        sender, receiver = pair.comms
        request = sender.issend("x", 1)
        receiver.probe(0, timeout=LIMIT)
        for endpoint in pair.endpoints:
            endpoint.begin_run(sender.context + (1 << 32))
        with pytest.raises(ClosedError, match=r"the run ended before issend\(dest=1, tag=0\) was received"):
            request.wait(LIMIT)

    def test_what_cannot_travel_is_said_to_its_sender(self, pair):
        for call in (pair.comms[0].ssend, pair.comms[0].issend):
            with pytest.raises(CodecError):
                call(threading.Lock(), 1)
        assert pair.comms[0].endpoint.sent_counts() == {}

    # -- counters, threads

    def test_only_users_messages_are_counted(self, pair):
        def exchange(comm):
            requests = [comm.issend(number, 1 - comm.rank, number) for number in range(5)]
            for number in range(5):
                comm.recv(1 - comm.rank, number)
            waitall(requests, LIMIT)
            comm.barrier()
            left = comm.endpoint.unreceived(comm.context, comm.context + (1 << 32))
            return comm.endpoint.sent_counts(), comm.endpoint.mailbox.taken(1), left, len(comm.endpoint.mailbox)

        for sent, taken, left, waiting in pair.run(exchange):
            assert sum(sent.values()) == taken == 5
            assert left == []
            assert waiting == 0

    def test_a_probe_tells_the_size_without_what_is_ours(self, pair):
        sender, receiver = pair.comms
        sender.send("text", 1, 1)
        sender.issend("text", 1, 2)
        assert receiver.probe(0, 1, timeout=LIMIT).count == receiver.probe(0, 2, timeout=LIMIT).count

    def test_threads_hand_over_at_once(self, pair):
        def game(comm, tag):
            for number in range(50):
                if comm.rank:
                    comm.ssend((tag, number), 0, tag)
                    assert comm.recv(0, tag) == number
                else:
                    assert comm.recv(1, tag) == (tag, number)
                    comm.ssend(number, 1, tag)

        calls = [Background(lambda c=c, t=t: game(c, t)) for c in pair.comms for t in range(4)]
        for call in calls:
            call.result()
