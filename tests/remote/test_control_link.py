"""remote.control: frames over a TLS connection, without waiting, with a deadline, and to the end."""

from __future__ import annotations

import threading

import pytest
from transports.secured import secure, tcp_pair

from klyng_mp.deadline import Deadline
from klyng_mp.errors import DeadlineError, LocalProtocolError, RemoteProtocolError
from klyng_mp.remote.control import ControlLink
from klyng_mp.remote.protocol import Conversation

NEVER = Deadline(None)


@pytest.fixture
def links():
    """Give a client's and a beacon's end of a channel that is open, with small buffers."""
    made = []
    for side, sock in zip(("client", "beacon"), secure(tcp_pair(send_buffer=8192)), strict=True):
        conversation = Conversation(side)
        conversation._phase = "open"
        made.append(ControlLink(sock, conversation))
    yield made
    for link in made:
        link.close()


def hear_out(link, heard):
    while True:
        heard += [frame.kind for frame in link.receive()]


def send_many(link):
    for _ in range(20):
        link.send_now(Deadline(0.05), "probe", b"x" * 1_000_000)


def test_a_frame_there_and_an_answer_back(links):
    client, beacon = links
    assert client.receive() == []
    client.send("probe", b"data")
    (frame,) = [beacon.receive_now(NEVER, "probe")]
    assert (frame.kind, frame.data) == ("probe", b"data")
    beacon.send("probe_reply", frame.data)
    assert client.receive_now(NEVER, "probe_reply", "refused").data == b"data"


def test_what_the_kernel_does_not_take_waits_and_nobody_is_held_up(links):
    client, beacon = links
    sent = [bytes([number]) * 1_000_000 for number in range(5)]
    for data in sent:
        client.send("probe", data)
    assert client.blocked
    assert client.backlog_bytes > 1_000_000
    got = []
    while len(got) < len(sent):
        client.flush()
        got += [frame.data for frame in beacon.receive()]
    assert got == sent
    assert not client.blocked
    assert client.backlog_bytes == 0


def test_waiting_until_it_has_left(links):
    client, beacon = links
    sender = threading.Thread(target=client.send_now, args=(NEVER, "probe", b"x" * 1_000_000))
    sender.start()
    assert len(beacon.receive_now(NEVER, "probe").data) == 1_000_000
    sender.join(30)
    assert not sender.is_alive()


def test_deadlines(links):
    client, _ = links
    with pytest.raises(DeadlineError, match="waiting for status_reply"):
        client.receive_now(Deadline(0.05), "status_reply")
    with pytest.raises(DeadlineError, match="sending 'probe'"):
        send_many(client)


def test_a_ping_is_answered_while_something_else_is_awaited(links):
    client, beacon = links
    beacon.send("ping")
    beacon.send("probe_reply", b"1")
    assert client.receive_now(NEVER, "probe_reply").data == b"1"
    assert [frame.kind for frame in beacon.receive()] == ["pong"]
    beacon.send("status_reply", **STATUS)
    with pytest.raises(RemoteProtocolError, match="sent 'status_reply' where probe_reply was due"):
        client.receive_now(NEVER, "probe_reply")


STATUS = {"versions": {}, "cpus": 2, "ranks": 0, "max_ranks": 8, "load_percent": 5, "jobs": [], "ended": []}


def test_a_goodbye_is_an_end_and_anything_else_is_not(links):
    client, beacon = links
    client.send("ping")
    client.close(goodbye=True)
    heard = []
    with pytest.raises(EOFError):
        hear_out(beacon, heard)
    assert heard == ["ping", "bye"]


def test_a_stream_that_is_cut_off_says_so(links):
    client, beacon = links
    client.close()
    with pytest.raises((RemoteProtocolError, OSError), match=r"goodbye|farewell"):
        hear_out(beacon, [])


def test_what_may_not_be_said_is_not_sent(links):
    client, beacon = links
    with pytest.raises(LocalProtocolError):
        client.send("enrolled")
    client.send("ping")
    assert [frame.kind for frame in beacon.receive()] == ["ping"]
