"""An endpoint among others: who is there, who is gone, and which run it is."""

from __future__ import annotations

import socket

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, DeadlineError, PeerLostError
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.frames import CONTROL, DRIVER, Message, make_context, pack_frame
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG

RUN = make_context(1)
SOON = Deadline(0)


class Peer:
    """An endpoint under test (number 0), and the bare socket of a peer (number 1)."""

    def __init__(self):
        self.endpoint = Endpoint(0, incarnation=4)
        self.asked = []
        self.transport = StreamTransport(self.endpoint, self.endpoint.poller, connect=self.asked.append)
        self.endpoint.use(self.transport)
        self.verdicts = []
        self.sock = None

    def connect(self, incarnation=0):
        if self.sock is not None:
            self.sock.close()
        ours, self.sock = socket.socketpair()
        self.endpoint.mark_present(1, incarnation)
        self.transport.adopt(1, ours)

    def frame(self, head=b"h", tag=7, context=RUN, incarnation=4):
        self.sock.sendall(b"".join(pack_frame(Message(context, 1, tag, incarnation, 1, head, ()))))

    def receive(self, tag=7, deadline=SOON, context=RUN):
        return self.endpoint.receive(context, 1, tag, deadline=deadline, doing="recv").head

    def send(self, head=b"h", deadline=SOON, context=RUN):
        self.endpoint.send(1, Message(context, 0, 7, 0, 1, head, ()), deadline=deadline, doing="send")


@pytest.fixture
def peer():
    made = Peer()
    made.connect()
    yield made
    made.endpoint.close()
    made.sock.close()


# -- incarnations ----------------------------------------------------------------------------------


class TestAConnectionThatSaysWhoseItIs:
    """It leads to which occupant of its place, and may be there before the news."""

    @pytest.fixture
    def pair(self):
        ours, theirs = socket.socketpair()
        yield ours, theirs  # the transport owns ours
        theirs.close()

    @staticmethod
    def adopt(peer, sock, incarnation):
        return peer.endpoint.mark_present(1, incarnation, lambda: peer.transport.adopt(1, sock))

    def test_it_takes_the_place_of_a_former_one(self, peer, pair):
        ours, theirs = pair
        peer.endpoint.mark_lost(1, "exited with code 0", incarnation=0, orderly=True)
        assert self.adopt(peer, ours, 2)
        assert peer.endpoint.find_loss([1], "recv") is None
        peer.send(b"to the new one")
        assert b"to the new one" in theirs.recv(1000)
        peer.endpoint.mark_lost(1, "exited with code 0", incarnation=0)  # late news of the former one
        peer.endpoint.mark_present(1, 2)  # late news of this one
        peer.send(b"again")
        assert b"again" in theirs.recv(1000)

    def test_what_the_former_one_sent_last_is_received(self, peer, pair):
        peer.frame(b"last words")
        assert self.adopt(peer, pair[0], 1)
        assert peer.receive() == b"last words"

    def test_what_has_waited_for_somebody_to_come_leaves_by_it(self, peer, pair):
        ours, theirs = pair
        peer.transport.disconnect(1, dead=True)
        peer.endpoint.expect(1)
        peer.endpoint.start_send(1, Message(RUN, 0, 7, 0, 1, b"early", ()))
        assert self.adopt(peer, ours, 3)
        assert b"early" in theirs.recv(1000)
        assert peer.asked == []  # no second connection was wanted

    def test_late_news_of_a_former_one_change_nothing(self, peer, pair):
        ours, theirs = pair
        assert self.adopt(peer, ours, 3)
        assert not peer.endpoint.mark_present(1, 2)
        peer.send(b"still there")
        assert b"still there" in theirs.recv(1000)

    def test_a_former_one_is_not_taken(self, peer, pair):
        peer.endpoint.mark_present(1, 5)
        with pair[0]:
            assert not self.adopt(peer, pair[0], 4)
        assert peer.endpoint.incarnations[1] == 5

    def test_the_present_one_may_have_several(self, peer, pair):
        assert self.adopt(peer, pair[0], 0)
        peer.frame(b"by the first")
        assert peer.receive(deadline=Deadline(LIMIT)) == b"by the first"


def test_mail_for_a_former_occupant_is_dropped_and_counted(peer):
    peer.frame(b"for another", incarnation=3)
    peer.frame(b"for this one")
    assert peer.receive() == b"for this one"
    assert peer.endpoint.statistics().dropped == 1


def test_a_new_occupant_gets_a_new_connection_and_the_old_ones_words_stay(peer):
    peer.frame(b"last words")
    peer.endpoint.mark_present(1, 1)
    assert peer.sock.recv(10) == b""
    assert peer.receive() == b"last words"
    assert peer.endpoint.incarnations == {1: 1}
    peer.send(b"for the new one")
    assert peer.asked == [1]


def test_saying_it_twice_changes_nothing(peer):
    peer.endpoint.mark_present(1, 0)
    peer.frame()
    assert peer.receive() == b"h"


# -- losses ----------------------------------------------------------------------------------------


def test_without_an_owner_the_connections_end_is_the_reason(peer):
    peer.frame(b"last words")
    peer.sock.close()
    assert peer.receive(deadline=Deadline(LIMIT)) == b"last words"
    with pytest.raises(PeerLostError, match="rank 1 closed its connection; this rank was in recv"):
        peer.receive(deadline=Deadline(LIMIT))


def test_the_owner_is_asked_once_and_all_wait_for_its_verdict(peer):
    peer.endpoint.on_lost = lambda number, reason: peer.verdicts.append((number, reason))
    request = peer.endpoint.start_send(1, Message(RUN, 0, 7, 0, 1, bytes(5_000_000), ()))
    peer.sock.close()
    waiting = when_waiting(peer.endpoint, 3)
    calls = [
        Background(lambda: peer.receive(deadline=Deadline(None))),
        Background(lambda: peer.send(deadline=Deadline(None))),
        Background(lambda: peer.endpoint.wait_sent(request, 1, deadline=Deadline(None), doing="isend")),
    ]
    assert waiting.wait(LIMIT)
    with pytest.raises(DeadlineError, match="nothing of the message was sent"):
        peer.send()
    assert peer.verdicts == [(1, "closed its connection")]
    peer.endpoint.mark_lost(1, "was killed by SIGSEGV")
    for call, doing in zip(calls, ("recv", "send", "isend"), strict=True):
        with pytest.raises(PeerLostError, match=f"rank 1 was killed by SIGSEGV; this rank was in {doing}"):
            call.result()
    assert len(peer.verdicts) == 1


def test_the_verdict_may_be_that_it_was_meant_to_go(peer):
    peer.endpoint.on_lost = lambda number, _: peer.endpoint.mark_lost(number, "has returned", orderly=True)
    request = peer.endpoint.start_send(1, Message(RUN, 0, 7, 0, 1, bytes(5_000_000), ()))
    peer.frame(b"result")
    peer.sock.close()
    assert peer.receive(deadline=Deadline(LIMIT)) == b"result"
    with pytest.raises(PeerLostError, match="rank 1 has returned; this rank was in recv"):
        peer.receive(deadline=Deadline(LIMIT))
    for _ in range(3):
        peer.send()
    peer.endpoint.wait_sent(request, 1, deadline=SOON, doing="isend")
    assert peer.endpoint.sent_counts() == {1: 4}
    assert peer.asked == []


def test_the_verdict_may_be_a_new_occupant(peer):
    peer.endpoint.on_lost = lambda *_: None
    peer.sock.close()
    waiting = when_waiting(peer.endpoint, 1)
    call = Background(lambda: peer.receive(deadline=Deadline(None)))
    assert waiting.wait(LIMIT)
    peer.connect(incarnation=1)
    peer.frame(b"from the new one")
    assert call.result() == b"from the new one"


def test_a_verdict_on_a_former_occupant_comes_too_late(peer):
    peer.endpoint.mark_present(1, 1)
    peer.connect(incarnation=1)
    peer.endpoint.mark_lost(1, "was killed", incarnation=0)
    peer.frame(b"alive")
    assert peer.receive() == b"alive"
    peer.endpoint.mark_lost(1, "was killed", incarnation=1)
    with pytest.raises(PeerLostError):
        peer.receive()


def test_what_has_arrived_is_taken_in_before_a_peer_is_marked_lost(peer):
    peer.frame(b"last words")
    peer.endpoint.mark_lost(1, "was killed")
    assert peer.receive() == b"last words"
    with pytest.raises(PeerLostError):
        peer.receive()
    with pytest.raises(PeerLostError):
        peer.send()
    assert peer.endpoint.sent_counts() == {}


# -- runs ------------------------------------------------------------------------------------------


def test_a_new_run_forgets_the_former_ones(peer):
    second = make_context(2)
    peer.frame(b"of run 1", tag=1)
    peer.frame(b"early for run 2", context=second)
    peer.frame(b"for the rank itself", context=CONTROL)
    assert peer.receive(tag=1, deadline=Deadline(LIMIT)) == b"of run 1"
    peer.send()
    peer.frame(b"nobody wants it", tag=2)
    peer.endpoint.progress()
    posted = peer.endpoint.start_receive(RUN, 1, 99)
    peer.endpoint.abort("x", None)
    assert [message.head for message in peer.endpoint.begin_run(second)] == [b"nobody wants it"]
    assert peer.endpoint.sent_counts() == {}
    assert peer.endpoint.mailbox.taken(1) == 0
    assert posted.withdrawn
    peer.frame(b"too late", tag=3)
    assert peer.receive(context=second) == b"early for run 2"
    assert peer.receive(context=CONTROL) == b"for the rank itself"
    peer.endpoint.progress()
    assert peer.endpoint.statistics().dropped == 1
    for action in (peer.send, peer.receive, lambda: peer.endpoint.peek(RUN, 1, 7, doing="iprobe")):
        with pytest.raises(ClosedError, match="belongs to a run that has ended"):
            action()


def test_who_waits_in_a_run_that_ends_is_woken(peer):
    waiting = when_waiting(peer.endpoint)
    call = Background(lambda: peer.receive(deadline=Deadline(None)))
    assert waiting.wait(LIMIT)
    peer.endpoint.begin_run(make_context(2))
    with pytest.raises(ClosedError, match="the run ended before recv got its message"):
        call.result()


def test_the_driver_is_a_peer_like_any_other():
    peer = Peer()
    ours, theirs = socket.socketpair()
    peer.transport.adopt(DRIVER, ours)
    theirs.sendall(pack_frame(Message(CONTROL, DRIVER, "run", 4, 1, b"function", ()))[0])
    got = peer.endpoint.receive(CONTROL, DRIVER, ANY_TAG, deadline=Deadline(LIMIT), doing="x")
    assert got.head == b"function"
    assert peer.endpoint.sent_counts() == {}
    peer.endpoint.close()
    theirs.close()


def test_unreceived_are_users_messages_only(peer):
    peer.frame(b"user", tag=1)
    peer.frame(b"step", tag=2, context=RUN | 1)
    peer.frame(b"user", tag="word")
    peer.endpoint.progress()
    assert [message.tag for message in peer.endpoint.unreceived(RUN, make_context(2))] == [1, "word"]
    assert peer.endpoint.statistics().waiting == 3


# -- the rest --------------------------------------------------------------------------------------


def test_flush_waits_until_nothing_is_queued():
    with ranks(2) as made:
        sender, receiver = made.comms
        sender.isend(bytes(5_000_000), 1)
        with pytest.raises(DeadlineError, match=r"flush\(\)"):
            sender.endpoint.flush(Deadline(0.01))
        receiving = Background(lambda: len(receiver.recv(0)))
        sender.endpoint.flush(Deadline(LIMIT))
        assert receiving.result() == 5_000_000


def test_flush_does_not_wait_for_the_lost():
    with ranks(2) as made:
        sender, receiver = made.comms
        sender.isend(bytes(5_000_000), 1)
        receiver.endpoint.close()
        sender.endpoint.flush(Deadline(LIMIT))


def test_statistics_count_what_went_over_the_wire():
    with ranks(2) as made:
        made.comms[0].send(bytes(1000), 1)
        made.comms[1].recv(0)
        sent, received = (endpoint.statistics() for endpoint in made.endpoints)
        assert (sent.messages_sent, received.messages_received) == (1, 1)
        assert sent.bytes_sent == received.bytes_received > 1000
        assert sent.connections == received.connections == 1
        assert received.waiting == received.dropped == 0


def test_traffic_and_waits_are_told_by_peer():
    with ranks(3) as made:
        first, second, third = made.comms
        for dest in (1, 1, 2):
            first.send("x", dest)
        with pytest.raises(DeadlineError):
            third.recv(1, timeout=0.01)
        with pytest.raises(DeadlineError):
            third.recv(tag="another", timeout=0)
        assert {peer: messages for peer, (messages, _) in first.endpoint.traffic().items()} == {1: 2, 2: 1}
        assert second.endpoint.traffic() == {}
        assert second.endpoint.waited() == {}
        waited = third.endpoint.waited()
        assert {peer: waits for peer, (_, waits) in waited.items()} == {1: 1, ANY_SOURCE: 1}
        assert waited[1][0] >= 10_000_000


def test_a_blocked_send_is_a_wait_for_its_receiver():
    with ranks(2) as made:
        sender = made.comms[0]
        with pytest.raises(DeadlineError):
            sender.send(bytes(5_000_000), 1, timeout=0.01)
        with pytest.raises(DeadlineError):
            sender.endpoint.wait(lambda: False, Deadline(0.01), "waiting", 1)
        assert {peer: waits for peer, (_, waits) in sender.endpoint.waited().items()} == {1: 2}


def test_an_endpoint_without_transport_is_alone():
    endpoint = Endpoint(0)
    endpoint.flush(Deadline(0))
    assert endpoint.statistics().connections == 0
    with pytest.raises(ClosedError, match="there is no way to 1: this rank is alone"):
        endpoint.send(1, Message(RUN, 0, 7, 0, 1, b"", ()), deadline=SOON, doing="send")
    endpoint.close()
