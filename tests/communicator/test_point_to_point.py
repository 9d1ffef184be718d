"""recv_into where ranks share memory: a message lands in the buffer, or is whole all the same."""

from __future__ import annotations

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp import native
from klyng_mp.communicator.buffers import Target, allocate
from klyng_mp.deadline import Deadline
from klyng_mp.errors import DeadlineError, PeerLostError

if native.core is None:
    pytest.skip("the native core is not in use", allow_module_level=True)
numpy = pytest.importorskip("numpy")

COUNT = 500_000  # doubles: more than a ring holds


@pytest.fixture
def pair():
    with ranks(2, "shm") as made:
        yield made


def receive(pair, place, tag=7, timeout=LIMIT):
    """Start to receive in a thread; return when it waits."""
    receiver = pair.comms[1]
    there = when_waiting(receiver.endpoint)
    call = Background(lambda: receiver.recv_into(place, 0, tag, timeout=timeout))
    assert there.wait(LIMIT)
    return call


def test_what_is_waited_for_is_put_where_it_is_wanted(pair):
    sender, _ = pair.comms
    place = numpy.zeros(COUNT)
    for _ in range(3):
        call = receive(pair, place)
        array = numpy.random.default_rng(1).random(COUNT)
        sender.send(array, 1, 7)
        assert call.result() == 8 * COUNT
        assert (place == array).all()
    assert sender.endpoint.port.slab_bytes == 0  # it never was anywhere else


@pytest.mark.parametrize(
    "other", [numpy.zeros(COUNT, "i8"), numpy.zeros((COUNT // 2, 2)), {"a": numpy.zeros(COUNT)}, b"small", [1, 2]]
)
def test_what_is_of_another_kind_does_not_touch_the_buffer(pair, other):
    sender, receiver = pair.comms
    place = numpy.ones(COUNT)
    call = receive(pair, place)
    sending = Background(lambda: sender.send(other, 1, 7))
    if isinstance(other, numpy.ndarray) and other.dtype == place.dtype:
        assert call.result() == 8 * COUNT  # only its shape is another
        assert not place.any()
    elif isinstance(other, bytes):
        assert call.result() == 5
    else:
        with pytest.raises(TypeError, match="not taken"):
            call.result()
        assert place.all()
        receiver.recv(0, 7, timeout=LIMIT)
    sending.result()


def test_other_messages_come_past_a_landing(pair):
    sender, receiver = pair.comms
    place = numpy.zeros(COUNT)
    call = receive(pair, place)
    array = numpy.ones(COUNT)
    sending = [Background(lambda: sender.send(array + 1, 1, 8)), Background(lambda: sender.send(array + 2, 1, "text"))]
    for one in sending:
        one.result()
    assert not place.any()
    sender.send(array, 1, 7)
    assert call.result() == 8 * COUNT
    assert (place == 1).all()
    assert (receiver.recv(0, 8, timeout=LIMIT) == 2).all()
    assert (receiver.recv(0, "text", timeout=LIMIT) == 3).all()


def test_the_second_of_two_is_not_put_over_the_first(pair):
    sender, receiver = pair.comms
    place = numpy.zeros(COUNT)
    call = receive(pair, place)
    sending = Background(lambda: [sender.send(numpy.full(COUNT, number), 1, 7) for number in (1.0, 2.0)])
    assert call.result() == 8 * COUNT
    assert (receiver.recv(0, 7, timeout=LIMIT) == 2).all()
    assert (place == 1).all()
    sending.result()


def test_any_tag_takes_a_text_and_what_follows_does_not_land_over_it(pair):
    sender, receiver = pair.comms
    place = numpy.zeros(20_000)
    there = when_waiting(receiver.endpoint)
    call = Background(lambda: receiver.recv_into(place, 0, timeout=LIMIT))
    assert there.wait(LIMIT)
    with receiver.endpoint.lock:  # so that both are read at once
        for value, tag in ((1.0, "text"), (2.0, 7)):
            sender.send(numpy.full(20_000, value), 1, tag)
    assert call.result() == 160_000
    later = receiver.recv(0, 7, timeout=LIMIT)
    assert (later == 2).all()
    assert (place == 1).all()
    assert not numpy.shares_memory(later, place)


def test_an_interruption_as_a_landing_opens_leaves_the_buffer_alone(pair, monkeypatch):
    sender, receiver = pair.comms
    place = numpy.zeros(COUNT)
    prepare = Target.prepare

    def interrupted(self, port, receive):
        prepare(self, port, receive)
        raise KeyboardInterrupt

    monkeypatch.setattr(Target, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        receiver.recv_into(place, 0, 7)
    monkeypatch.undo()
    sending = Background(lambda: sender.send(numpy.ones(COUNT), 1, 7))
    assert receiver.recv(0, 7, timeout=LIMIT).all()
    assert not place.any()
    sending.result()


def test_arrays_within_other_objects_are_not_given(pair):
    sender, receiver = pair.comms
    array = allocate(sender.endpoint.port, 10_000, "f8")
    array[:] = 1
    sender.send([array], 1, move=True)
    array[:] = 2
    assert (receiver.recv(0, timeout=LIMIT)[0] == 1).all()


def test_a_gift_that_was_sent_in_part_is_read_only_all_the_same(pair):
    sender, receiver = pair.comms
    array = allocate(sender.endpoint.port, 10_000, "f8")
    array[:] = 1
    tag = "t" * 60_000  # which travels before the rest
    for number in range(16):
        sender.isend(bytes(63_000), 1, number)
    with pytest.raises(DeadlineError):
        sender.send(array, 1, tag, move=True, timeout=0)
    assert not array.flags.writeable
    sending = Background(lambda: sender.endpoint.flush(Deadline(LIMIT)))
    for number in range(16):
        receiver.recv(0, number, timeout=LIMIT)
    assert (receiver.recv(0, tag, timeout=LIMIT) == 1).all()
    sending.result()


def test_who_gives_up_within_a_message_gets_it_whole_later(pair):
    """What has landed of it moves to memory of its own, and the buffer is left alone from then on."""
    sender, receiver = pair.comms
    place = numpy.zeros(COUNT)
    target = place.copy()
    head_first = Background(lambda: receiver.recv_into(place, 0, 7, timeout=0.05))
    array = numpy.random.default_rng(2).random(COUNT)
    request = sender.isend(array, 1, 7)  # a part of it: as much as the ring holds
    with pytest.raises(DeadlineError):
        head_first.result()
    target[:] = place
    sending = Background(lambda: request.wait(LIMIT))
    assert (receiver.recv(0, 7, timeout=LIMIT) == array).all()
    assert (place == target).all()
    sending.result()


def test_a_sender_that_is_lost_within_a_message(pair):
    sender, _ = pair.comms
    place = numpy.zeros(COUNT)
    call = receive(pair, place)
    sender.isend(numpy.ones(COUNT), 1, 7)
    sender.endpoint.close()
    with pytest.raises(PeerLostError):
        call.result()


def test_two_threads_receive_into_two_buffers(pair):
    sender, receiver = pair.comms
    places = [numpy.zeros(COUNT), numpy.zeros(COUNT)]
    calls = [
        Background(lambda place=place, tag=tag: receiver.recv_into(place, 0, tag, timeout=LIMIT))
        for tag, place in enumerate(places)
    ]
    for tag in (1, 0):
        sender.send(numpy.full(COUNT, tag + 1.0), 1, tag)
    assert [call.result() for call in calls] == [8 * COUNT] * 2
    assert [place.min() for place in places] == [place.max() for place in places] == [1, 2]


def test_a_gift_is_the_receivers_and_read_only_for_its_giver(pair):
    sender, receiver = pair.comms
    array = allocate(sender.endpoint.port, (1000, 500), "f8")
    array[:] = 3
    sender.send(array, 1, move=True)
    got = receiver.recv(0, timeout=LIMIT)
    assert got.shape == (1000, 500)
    got[0, 0] = 4
    assert array[0, 0] == 4
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 5
    receiver.send(got, 0, move=True)  # and on
    assert sender.recv(1, timeout=LIMIT)[0, 0] == 4


def test_a_gift_that_could_not_be_sent_is_still_the_senders(pair):
    sender, receiver = pair.comms
    sender.isend(bytes(3_000_000), 1, 1)
    array = allocate(sender.endpoint.port, 100_000, "f8")
    array[:] = 3
    with pytest.raises(DeadlineError, match="nothing of the message was sent"):
        sender.send(array, 1, 2, move=True, timeout=0)
    array[:] = 4
    sending = Background(lambda: sender.send(array, 1, 3, move=True))
    assert receiver.recv(0, 3, timeout=LIMIT).sum() == 400_000
    sending.result()
    assert not array.flags.writeable
