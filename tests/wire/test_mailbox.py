"""Both mailboxes, the pure and the native one, against a list that does the same slowly; and their promises."""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from klyng_mp.native import core
from klyng_mp.wire.frames import OBJECTS, PureMessage, is_collective, make_context, run_of
from klyng_mp.wire.mailbox import ANSWERS, ANY_SOURCE, ANY_TAG, SYNCHRONOUS, PureMailbox, PureReceive

RUN1, RUN1_COLLECTIVE, RUN2 = make_context(1), make_context(1, collective=True), make_context(2)
CONTEXTS = st.sampled_from([0, RUN1, RUN1_COLLECTIVE, RUN2])
SOURCES = st.integers(0, 1)
TAGS = st.sampled_from([0, "0"])


class Kind(NamedTuple):
    """What belongs together: a mailbox takes only its own kind of messages and receives."""

    Mailbox: type
    Message: type
    Receive: type

    def message(self, context=RUN1, source=0, tag=0, head=b"", code=0):
        return self.Message(context, source, tag, 0, code, head, ())


PURE = Kind(PureMailbox, PureMessage, PureReceive)
NATIVE = None if core is None else Kind(core.Mailbox, core.Message, core.Receive)


@pytest.fixture(params=["pure", "native"])
def kind(request):
    if request.param == "native" and NATIVE is None:
        pytest.skip("the native core is not in use")
    return PURE if request.param == "pure" else NATIVE


class Against(RuleBasedStateMachine):
    """Every operation on a mailbox and on a plain list; both must agree at every step."""

    kind = PURE
    receives = Bundle("receives")

    def __init__(self):
        super().__init__()
        self.mailbox = self.kind.Mailbox()
        self.stored = []
        self.posted = []
        self.matched = {}
        self.withdrawn = set()
        self.lowest = 0
        self.dropped = 0
        self.taken = {}
        self.marked = set()  # messages whose senders want to know, and that were not matched yet
        self.unanswered = []

    @staticmethod
    def accepts(context, source, tag, message):
        return (
            context == message.context
            and source in (ANY_SOURCE, message.source)
            and (tag == ANY_TAG or tag == message.tag)
        )

    def first(self, context, source, tag):
        return next((one for one in self.stored if self.accepts(context, source, tag, one)), None)

    def count(self, message):
        if message in self.marked:
            self.marked.remove(message)
            self.unanswered.append(message)
        self.taken[message.context] = self.taken.get(message.context, 0) + 1

    @rule(context=CONTEXTS, source=SOURCES, tag=TAGS, marked=st.booleans())
    def deliver(self, context, source, tag, marked):
        one = self.kind.message(context, source, tag, code=5 | marked * SYNCHRONOUS)
        if marked:
            self.marked.add(one)
        self.mailbox.deliver(one)
        if 0 < context < self.lowest:
            self.dropped += 1
            return
        for receive in self.posted:
            if self.accepts(receive.context, receive.source, receive.tag, one):
                self.posted.remove(receive)
                self.matched[receive] = one
                self.count(one)
                return
        self.stored.append(one)

    @rule(context=CONTEXTS, source=SOURCES | st.just(ANY_SOURCE), tag=TAGS | st.just(ANY_TAG))
    def take(self, context, source, tag):
        expected = self.first(context, source, tag)
        assert self.mailbox.peek(context, source, tag) is expected
        assert self.mailbox.take(context, source, tag) is expected
        if expected is not None:
            self.stored.remove(expected)
            self.count(expected)

    @rule(context=CONTEXTS, source=SOURCES | st.just(ANY_SOURCE), tag=TAGS | st.just(ANY_TAG))
    def take_and_restore(self, context, source, tag):
        taken = self.mailbox.take(context, source, tag)
        assert taken is self.first(context, source, tag)
        if taken is not None:
            self.mailbox.restore(taken)
            if taken in self.marked:  # it counts as matched
                self.marked.remove(taken)
                self.unanswered.append(taken)

    @rule()
    def take_unanswered(self):
        assert self.mailbox.take_unanswered() == self.unanswered
        self.unanswered = []

    @rule(target=receives, context=CONTEXTS, source=SOURCES | st.just(ANY_SOURCE), tag=TAGS | st.just(ANY_TAG))
    def post(self, context, source, tag):
        receive = self.kind.Receive(context, source, tag)
        self.mailbox.post(receive)
        expected = self.first(context, source, tag)
        if 0 < context < self.lowest:
            self.withdrawn.add(receive)
        elif expected is not None:
            self.stored.remove(expected)
            self.matched[receive] = expected
            self.count(expected)
        else:
            self.posted.append(receive)
        return receive

    @rule(receive=receives)
    def withdraw(self, receive):
        assert self.mailbox.withdraw(receive) == (receive in self.posted)
        if receive in self.posted:
            self.posted.remove(receive)
            self.withdrawn.add(receive)

    @rule(context=st.sampled_from([RUN1, RUN1_COLLECTIVE, RUN2]))
    def drop_below(self, context):
        gone = [one for one in self.stored if 0 < one.context < context]
        assert self.mailbox.drop_below(context) == gone
        self.stored = [one for one in self.stored if one not in gone]
        for receive in [one for one in self.posted if 0 < one.context < context]:
            self.posted.remove(receive)
            self.withdrawn.add(receive)
        self.taken = {key: count for key, count in self.taken.items() if not 0 < key < context}
        self.lowest = max(self.lowest, context)

    @rule(low=CONTEXTS, high=CONTEXTS)
    def waiting(self, low, high):
        assert self.mailbox.waiting(low, high) == [one for one in self.stored if low <= one.context < high]
        for tag in (0, 1, 2, 1000):
            below = [one for one in self.stored if one.context == low and type(one.tag) is int and one.tag < tag]
            assert self.mailbox.waiting_below(low, tag) == below

    @invariant()
    def agree(self):
        assert len(self.mailbox) == len(self.stored)
        assert self.mailbox.dropped == self.dropped
        assert self.mailbox.unanswered == len(self.unanswered)
        assert all(one.code == (5 | SYNCHRONOUS if one in self.marked else 5) for one in self.stored)
        assert all(one.code == 5 for one in (*self.unanswered, *self.matched.values()))
        assert self.mailbox.taken(1) == self.taken.get(RUN1, 0)
        assert self.mailbox.taken(2) == self.taken.get(RUN2, 0)
        assert all(receive.message is one and receive.done for receive, one in self.matched.items())
        assert all(receive.message is None and not receive.done for receive in self.posted)
        assert all(receive.withdrawn for receive in self.withdrawn)


class AgainstNative(Against):
    kind = NATIVE


for machine in (Against, AgainstNative):
    machine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestPureAgainstAList = Against.TestCase
TestNativeAgainstAList = pytest.mark.skipif(NATIVE is None, reason="the native core is not in use")(
    AgainstNative.TestCase
)


def test_one_senders_messages_keep_their_order(kind):
    mailbox = kind.Mailbox()
    for number in range(100):
        mailbox.deliver(kind.message(source=number % 3, tag=number % 2, head=b"%d" % number))
    assert [mailbox.take(RUN1, 0, ANY_TAG).head for _ in range(34)] == [b"%d" % n for n in range(0, 100, 3)]
    rest = [mailbox.take(RUN1, ANY_SOURCE, ANY_TAG).head for _ in range(66)]
    assert rest == [b"%d" % n for n in range(100) if n % 3]


def test_a_word_and_a_number_are_different_tags(kind):
    mailbox = kind.Mailbox()
    mailbox.deliver(kind.message(tag="1"))
    assert mailbox.take(RUN1, 0, 1) is None
    assert mailbox.take(RUN1, 0, "1") is not None


def test_posted_receives_match_in_the_order_of_posting(kind):
    mailbox = kind.Mailbox()
    wanted = [(ANY_SOURCE, 5), (0, ANY_TAG), (0, 5), (ANY_SOURCE, ANY_TAG), (0, 5)]
    receives = [kind.Receive(RUN1, *one) for one in wanted]
    for receive in receives:
        mailbox.post(receive)
    for number in range(5):
        mailbox.deliver(kind.message(tag=5, head=b"%d" % number))
    assert [receive.message.head for receive in receives] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_mailbox_that_goes_lets_go_of_what_nobody_answered(kind):
    mailbox = kind.Mailbox()
    for _ in range(3):
        mailbox.deliver(kind.message(head=b"x" * 1000, code=SYNCHRONOUS))
        mailbox.take(RUN1, 0, 0)
    one = kind.message(code=SYNCHRONOUS)
    mailbox.deliver(one)
    mailbox.take(RUN1, 0, 0)
    before = sys.getrefcount(one)
    del mailbox
    assert sys.getrefcount(one) == before - 1


def test_answers_are_no_users_messages_and_meet_no_collectives():
    for context in (RUN1, make_context(1, 5), make_context(1, 2**29)):
        assert is_collective(context | ANSWERS)
        assert run_of(context | ANSWERS) == 1
        assert context | ANSWERS not in (context, context | 1)


def seconds(action, times):
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            action()
        best = min(best, time.perf_counter() - start)
    return best


@pytest.mark.parametrize("what", ["messages", "receives"])
def test_exact_matches_cost_the_same_with_100_000_others(kind, what):
    empty, full = kind.Mailbox(), kind.Mailbox()
    for number in range(100_000):
        if what == "messages":
            full.deliver(kind.message(source=number % 50, tag=number))
        else:
            full.post(kind.Receive(RUN1, number % 50, number))

    def exchange(mailbox):
        mailbox.deliver(kind.message(source=99, tag="here"))
        assert mailbox.take(RUN1, 99, "here") is not None
        receive = kind.Receive(RUN1, 99, "here")
        mailbox.post(receive)
        mailbox.deliver(kind.message(source=99, tag="here"))
        assert receive.done

    assert seconds(lambda: exchange(full), 500) < 20 * seconds(lambda: exchange(empty), 500)


def test_withdrawing_leaves_nothing_behind(kind):
    mailbox = kind.Mailbox()
    for _ in range(3):
        receives = [kind.Receive(RUN1, 0, number % 7) for number in range(1000)]
        for receive in receives:
            mailbox.post(receive)
        for receive in reversed(receives):
            assert mailbox.withdraw(receive)
    mailbox.deliver(kind.message(tag=3))
    assert len(mailbox) == 1


@pytest.mark.skipif(NATIVE is None, reason="the native core is not in use")
def test_a_message_is_in_one_mailbox_once():
    mailbox, message = NATIVE.Mailbox(), NATIVE.message()
    mailbox.deliver(message)
    for other in (mailbox, NATIVE.Mailbox()):
        for put in (other.deliver, other.restore):
            with pytest.raises(ValueError, match="in a mailbox already"):
                put(message)
    assert mailbox.take(RUN1, ANY_SOURCE, ANY_TAG) is message
    assert len(mailbox) == 0


@pytest.mark.skipif(NATIVE is None, reason="the native core is not in use")
def test_a_word_is_a_tag_by_its_text():
    class Word(str):
        __slots__ = ()

        def __hash__(self):
            raise RuntimeError("nothing of Python runs while messages are matched")

    mailbox, message = NATIVE.Mailbox(), NATIVE.message(tag=Word("here"))
    mailbox.deliver(message)
    assert mailbox.take(RUN1, 0, "here") is message


def test_what_is_for_shared_objects_is_for_no_receive(kind):
    mailbox = kind.Mailbox()
    anything = kind.Receive(OBJECTS, ANY_SOURCE, ANY_TAG)
    mailbox.post(anything)
    mailbox.drop_below(RUN2)
    messages = [kind.message(OBJECTS, tag=tag, code=5) for tag in range(3)]
    for message in messages:
        mailbox.deliver(message)
    assert (mailbox.unanswered, len(mailbox), anything.message) == (3, 0, None)
    assert mailbox.take_unanswered() == messages
    assert (mailbox.unanswered, mailbox.take_unanswered()) == (0, [])
