"""transports.mpi_messages: messages as pickles of frames, and what of them is on its way."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klyng_mp.errors import PeerLostError, RemoteProtocolError
from klyng_mp.transports.mpi_messages import (
    Coming,
    Frame,
    LandingPlace,
    Patience,
    Sending,
    content_of,
    open_front,
    pack_message,
    read_frame,
)
from klyng_mp.wire.codec import BARE, PICKLE
from klyng_mp.wire.frames import FrameReader, Message, pack_frame
from klyng_mp.wire.mailbox import ANY_TAG, SYNCHRONOUS

CODE = min(BARE)


class Request:
    """As MPI's: fulfilled at so many looks from now on, or when it is waited for; or cancelled before."""

    def __init__(self, looks=0, *, may_be_cancelled=True):
        self.looks = looks
        self.may_be_cancelled = may_be_cancelled
        self.cancelled = self.awaited = False

    def Test(self):
        self.looks -= 1
        return self.looks < 0

    def Cancel(self):
        self.cancelled = self.may_be_cancelled

    def Wait(self, status=None):
        self.awaited = True
        if status is not None:
            status.Is_cancelled = lambda: self.cancelled


def message(tag=5, head=b"head", buffers=(), source=1, context=9, code=CODE):
    return Message(context, source, tag, 0, code, head, buffers)


# -- frames


@given(st.binary(), st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=5), st.text() | st.just(7))
def test_a_frame_is_a_pickle_and_comes_back(head, number, lengths, tag):
    sent = message(tag, head)
    data = pack_message(number, lengths, pack_frame(sent))
    opened = pickle.loads(data)
    assert type(opened) is Frame
    assert opened == content_of(bytearray(data))
    found, sizes, frame = open_front(opened)
    assert (found, list(sizes)) == (number, lengths)
    got = read_frame(FrameReader(), frame)
    assert (got.context, got.source, got.tag, got.code, got.head) == (9, 1, tag, CODE, head)


def test_one_reader_reads_one_frame_after_the_other():
    reader = FrameReader()
    for size in (0, 10, 300_000, 5):
        frame = memoryview(b"".join(pack_frame(message(head=bytes(size), buffers=[bytes(size)]))))
        got = read_frame(reader, frame)
        assert (len(got.head), [len(one) for one in got.buffers]) == (size, [size])


def test_half_a_frame_is_refused():
    with pytest.raises(RemoteProtocolError):
        read_frame(FrameReader(), memoryview(b"".join(pack_frame(message())))[:-1])


@pytest.mark.parametrize("obj", [None, b"", Frame(b"x"), [Frame(b"x")], "cklyng_mp.transports.mpi_messages\nFrame\n"])
def test_pickles_of_users_objects_are_no_frames(obj):
    for protocol in range(6):
        assert content_of(bytearray(pickle.dumps(obj, protocol))) is None


# -- landings


@pytest.mark.parametrize(
    ("change", "lengths", "lands", "is_over"),
    [
        ({}, [8], True, True),
        ({"code": CODE | SYNCHRONOUS}, [8], True, True),
        ({"head": b"other"}, [8], False, True),
        ({"code": PICKLE}, [8], False, True),
        ({}, [9], False, True),
        ({}, [4, 4], False, True),
        ({"tag": 6}, [8], False, False),
        ({"tag": "text"}, [8], False, False),
        ({"source": 2}, [8], False, False),
        ({"context": 10}, [8], False, False),
    ],
)
def test_the_first_message_that_is_meant_lands_if_it_fits(change, lengths, lands, is_over):
    place = LandingPlace(self, (1, 9), 5, memoryview(bytearray(8)), b"head")
    assert place.accepts(message(**change), lengths) == lands
    assert place.accepts(message(), [8]) == (not is_over)


self = object()


def test_any_tag_takes_texts_too():
    assert LandingPlace(self, (1, 9), ANY_TAG, memoryview(bytearray(8)), None).accepts(message("text"), [8])


# -- what is on its way


def landing(request):
    place = LandingPlace(self, (1, 9), 5, memoryview(bytearray(b"together")), None)
    coming = Coming(0, message(buffers=[place.view]))
    posted = []

    def post(buffer):
        posted.append(buffer)
        return request if len(posted) == 1 else Request()

    coming.receive(post)
    return place, coming, posted


def test_who_gives_up_gets_nothing_written_into_his_memory():
    request = Request(10**9)
    place, coming, posted = landing(request)
    assert not coming.is_here()
    coming.settle_in(place, SimpleNamespace())
    assert request.cancelled
    assert [len(one) for one in posted] == [8, 8]
    assert coming.message.buffers == [posted[1]]
    assert posted[1] is not place.view
    assert coming.is_here()


def test_what_cannot_be_cancelled_any_more_is_awaited_and_copied():
    request = Request(10**9, may_be_cancelled=False)
    place, coming, posted = landing(request)
    coming.settle_in(place, SimpleNamespace())
    assert request.awaited
    assert len(posted) == 1
    assert coming.message.buffers == [b"together"]
    place.view[:] = b"changes!"
    assert coming.message.buffers == [b"together"]
    assert coming.is_here()


def test_what_has_landed_is_copied_and_others_are_left_alone():
    place, coming, _ = landing(Request())
    assert coming.is_here()
    coming.settle_in(place, SimpleNamespace())
    assert coming.message.buffers == [b"together"]
    other = Coming(0, message(buffers=[b"other"]))
    other.settle_in(place, SimpleNamespace())
    assert other.message.buffers == [b"other"]


def test_a_message_is_here_with_its_last_buffer():
    coming = Coming(0, message(buffers=[b"", bytearray(3), bytearray(4)]))
    requests = [Request(1), Request(20_000)]
    coming.receive(lambda one: requests[len(one) - 3])
    looks = 0
    while not coming.is_here():
        looks += 1
    assert 2 <= looks <= 10


def test_a_large_message_is_sent_when_its_buffers_are():
    sending = Sending(1, 7, Request(), 100, counts=True)
    buffer = bytearray(b"buffer")
    sending.take([memoryview(buffer)], 6)
    assert not sending.advance()
    assert sending.size_bytes == 106
    sending.keep()
    buffer[:] = b"change"
    lent = []
    sending.lend(lambda one: lent.append(bytes(one)) or Request())
    assert lent == [b"buffer"]
    assert sending.advance()
    assert sending.done


def test_what_mpi_reads_is_awaited_before_it_is_the_senders_again():
    request = Request(10**9)
    sending = Sending(1, 7, Request(), 100, counts=True)
    sending.take([memoryview(b"buffer")], 6)
    sending.lend(lambda _one: request)
    sending.keep()
    assert request.awaited


def test_a_message_to_the_lost_fails():
    sending = Sending(1, 7, Request(), 100, counts=True)
    sending.take([memoryview(b"buffer")], 6)
    sending.give_up(PeerLostError(1, "is gone"))
    assert isinstance(sending.error, PeerLostError)
    assert not sending.withdraw()
    assert sending.advance()


@pytest.mark.parametrize("spin", [True, False])
def test_who_waits_looks_at_once_for_a_while_and_then_sleeps(spin):
    patience = Patience(spin=spin)
    assert patience.pause(1.0) == 0
    while not (pause := patience.pause(1.0)):
        pass
    assert 0 < pause < 0.01
    assert patience.pause(1e-6) == 1e-6
    patience.renew()
    assert patience.pause(1.0) == 0
