"""What every communicator promises of messages that are taken out before they are received, and of PROC_NULL."""

from __future__ import annotations

import pytest
from contracts.ranks import LIMIT, Background, ranks, together, when_waiting

from klyng_mp.communicator.requests import Status, testall, waitall, waitany
from klyng_mp.errors import ClosedError, CodecError, DeadlineError, LocalProtocolError, PeerLostError
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG, PROC_NULL

SIZES = [1, 2, 3, 4, 7]


class Unbuildable:
    """Travels, and cannot be rebuilt."""

    def __reduce__(self):
        return int, ("no number",)


class ProbingContract:
    """Subclass it, name it Test…, and set `transport`."""

    transport = ""

    @pytest.fixture
    def pair(self):
        with ranks(2, self.transport) as made:
            yield made

    # -- mprobe

    @pytest.mark.parametrize(
        "obj", [None, "text", [1, {2}], bytes(300_000), bytearray(5000)], ids=lambda o: str(type(o))
    )
    @pytest.mark.parametrize("dest", [0, 1])
    def test_what_was_taken_out_is_received_once(self, pair, obj, dest):
        sending = Background(lambda: pair.comms[0].send(obj, dest, "t"))
        receiver = pair.comms[dest]
        taken = receiver.mprobe(0, "t", timeout=LIMIT)
        assert receiver.iprobe() is None
        assert receiver.improbe() is None
        assert (taken.status.source, taken.status.tag) == (0, "t")
        assert "not received" in repr(taken)
        assert taken.recv() == obj
        assert repr(taken).endswith(": received>")
        with pytest.raises(LocalProtocolError, match="a matched message is received once"):
            taken.recv()
        sending.result()

    def test_the_size_is_that_of_a_probe(self, pair):
        sender, receiver = pair.comms
        sender.send(b"x" * 5000, 1)
        status = receiver.probe(timeout=LIMIT)
        assert receiver.mprobe(timeout=LIMIT).status.count == status.count >= 5000

    def test_improbe_takes_what_is_there(self, pair):
        sender, receiver = pair.comms
        assert receiver.improbe() is None
        for tag in (1, 2):
            sender.send(tag, 1, tag)
        receiver.probe(0, 2, timeout=LIMIT)
        assert receiver.improbe(0, 3) is None
        assert receiver.improbe(0, 2).recv() == 2
        assert receiver.improbe(ANY_SOURCE, ANY_TAG).recv() == 1
        assert receiver.improbe() is None
        assert receiver.endpoint.mailbox.taken(1) == 2

    def test_mprobe_gives_up_and_takes_nothing(self, pair):
        sender, receiver = pair.comms
        for timeout in (0, 0.01):
            with pytest.raises(DeadlineError, match=r"mprobe\(source=0, tag=7\) did not finish within"):
                receiver.mprobe(0, 7, timeout=timeout)
        sender.send("x", 1, 7)
        assert receiver.recv(timeout=LIMIT) == "x"

    def test_who_waits_for_the_lost_is_woken(self, pair):
        sender, receiver = pair.comms
        there = when_waiting(receiver.endpoint)
        call = Background(lambda: receiver.mprobe(0))
        assert there.wait(LIMIT)
        sender.endpoint.close()
        with pytest.raises(PeerLostError, match="mprobe"):
            call.result()

    def test_what_cannot_be_rebuilt_is_gone(self, pair):
        sender, receiver = pair.comms
        sender.send(Unbuildable(), 1)
        taken = receiver.mprobe(timeout=LIMIT)
        with pytest.raises(CodecError):
            taken.recv()
        with pytest.raises(LocalProtocolError):
            taken.recv()

    def test_each_of_many_threads_gets_what_it_has_seen(self, pair):
        sender, receiver = pair.comms

        def take():
            got = []
            for _ in range(50):
                taken = receiver.mprobe(0)
                got.append(taken.recv())
                assert got[-1][0] == taken.status.tag
            return got

        for number in range(200):
            sender.isend((number % 3, number), 1, number % 3)
        got = [number for part in together([take] * 4) for _, number in part]
        assert sorted(got) == list(range(200))

    # -- PROC_NULL

    def test_what_is_sent_to_nobody_is_gone(self, pair):
        comm = pair.comms[0]
        comm.send("x", PROC_NULL)
        comm.ssend("x", PROC_NULL, "t")
        requests = [comm.isend("x", PROC_NULL), comm.issend("x", PROC_NULL, 3)]
        assert repr(requests[1]) == "<Request issend(dest=-2, tag=3): done>"
        assert waitany(requests) == (0, None)
        assert testall(requests)
        assert waitall(requests) == [None, None]
        assert not requests[0].cancel()
        assert comm.endpoint.sent_counts() == {}

    def test_from_nobody_comes_none(self, pair):
        comm = pair.comms[0]
        comm.send("own", 0, 5)

        def seen():
            assert (status.source, status.tag, status.count) == (PROC_NULL, ANY_TAG, 0)
            return Status()

        status = Status()
        assert comm.recv(PROC_NULL, 5, status=status, timeout=0) is None
        status = seen()
        assert comm.recv(PROC_NULL) is None
        request = comm.irecv(PROC_NULL, 5, status=status)
        assert request.done
        assert request.test()
        assert request.wait() is None
        status = seen()
        place = bytearray(b"as it was")
        assert comm.recv_into(place, PROC_NULL, status=status) == 0
        assert place == b"as it was"
        status = seen()
        assert comm.sendrecv("x", PROC_NULL, 0, PROC_NULL, status=status) is None
        status = seen()
        for status in (comm.probe(PROC_NULL), comm.iprobe(PROC_NULL)):
            seen()
        for taken in (comm.mprobe(PROC_NULL, 5), comm.improbe(PROC_NULL)):
            status = taken.status
            seen()
            assert taken.recv() is None
            with pytest.raises(LocalProtocolError):
                taken.recv()
        assert comm.recv(0, 5) == "own"

    @pytest.mark.parametrize("size", SIZES)
    def test_a_chain_has_ends(self, size):
        def shift(comm):
            right = comm.rank + 1 if comm.rank + 1 < comm.size else PROC_NULL
            left = comm.rank - 1 if comm.rank else PROC_NULL
            return comm.sendrecv(comm.rank, right, "shift", left, "shift", timeout=LIMIT)

        with ranks(size, self.transport) as made:
            assert made.run(shift) == [None, *range(size - 1)]

    def test_a_number_of_another_kind_is_nobody_too(self, pair):
        numpy = pytest.importorskip("numpy")
        pair.comms[0].send("x", numpy.int32(PROC_NULL))
        assert pair.comms[0].recv(numpy.int8(PROC_NULL)) is None

    @pytest.mark.parametrize(
        ("misuse", "error", "words"),
        [
            (lambda c: c.send("x", PROC_NULL, -1), ValueError, "send: ANY_TAG is for receiving"),
            (lambda c: c.ssend(1, 5), ValueError, "ssend: dest must be from 0 to 1, not 5"),
            (lambda c: c.issend(1, -1), ValueError, "issend: dest must be from 0 to 1, not -1"),
            (lambda c: c.mprobe(2), ValueError, "mprobe: source must be from 0 to 1, not 2"),
            (lambda c: c.improbe(-3), ValueError, "improbe: source must be from 0 to 1, not -3"),
            (lambda c: c.recv(-2.0), TypeError, "recv: source must be the number of a rank, not -2.0"),
            (lambda c: c.bcast(1, PROC_NULL), ValueError, "bcast: root must be from 0 to 1, not -2"),
        ],
    )
    def test_misuse_is_refused_by_name(self, pair, misuse, error, words):
        with pytest.raises(error) as caught:
            misuse(pair.comms[0])
        assert words in str(caught.value)
        assert pair.comms[0].endpoint.sent_counts() == {}

    def test_a_closed_communicator_refuses_everything(self, pair):
        comm = pair.comms[0]
        comm.close()
        for call in (
            lambda: comm.ssend(1, 1), lambda: comm.issend(1, 1), comm.mprobe, comm.improbe,
            lambda: comm.send(1, PROC_NULL), lambda: comm.recv(PROC_NULL),
        ):  # fmt: skip
            with pytest.raises(ClosedError, match="this communicator is closed, so"):
                call()
