"""Scenarios of the core's types and of its mailbox."""

from __future__ import annotations

from functools import partial
from importlib.util import module_from_spec, spec_from_file_location

from memorywork.driver import Outcome, each, scenario

import klyng_mp._core as core

RUN = 1
CONTEXT = RUN << 32


@scenario
def module():
    spec = spec_from_file_location("klyng_mp._core", core.__file__)
    made = module_from_spec(spec)
    got = yield partial(spec.loader.exec_module, made)
    assert got.error is not None or made.Mailbox is not core.Mailbox


@each(
    gate=core.Gate,
    mailbox=core.Mailbox,
    receive=partial(core.Receive, CONTEXT, 0, 7),
    receive_text=partial(core.Receive, CONTEXT, 0, "seven"),
    message=partial(core.Message, CONTEXT, 1, 7, 3, 2, b"head", ()),
    message_text=partial(core.Message, CONTEXT, 1, "seven", 3, 2, b"head", [b"one"]),
)
def make(action):
    got = yield action
    assert got.error is not None or type(got.value) is (action.func if isinstance(action, partial) else action)


@each(wrong_source=(CONTEXT, 2**40, 7, 3, 2, b"", ()), wrong_head=(CONTEXT, 1, 7, 3, 2, "", ()))
def message_refused(arguments):
    got = yield partial(accept, (OverflowError, TypeError), core.Message, *arguments)
    assert got.error is not None or got.value in (OverflowError, TypeError)


def accept(errors, action, *args):
    try:
        action(*args)
    except errors as error:
        return type(error)
    raise AssertionError("it should have been refused")


@scenario
def gate():
    gate = core.Gate()
    got = yield partial(use, gate)
    assert got.error is not None or got.value is True
    assert not gate._is_owned()


def use(gate):
    with gate, gate:
        return gate._is_owned()


@each(repr=repr, nbytes=lambda one: one.nbytes, tag=lambda one: one.tag, arrival=lambda one: one.arrival)
def message_shown(show):
    message = core.Message(2**40, 70_000, 2**40, 3, 2, b"x" * 1000, [b"y" * 1000, bytearray(1000)])
    expected = show(message)
    got = yield partial(show, message)
    assert got.error is not None or got.value == expected
    assert show(message) == expected


# -- the mailbox ---------------------------------------------------------------------------------------


def text(size=5):
    """Return a new word that nothing has looked at."""
    return "".join(["t", "ä" * size])


def message(tag=7, *, source=1, context=CONTEXT, head=b"head"):
    return core.Message(context, source, tag, 3, 2, head, ())


def tags(kind, number):
    """Return that many different tags."""
    return [index if kind == "number" else text(index) for index in range(number)]


FILLED = {f"{kind}_{filled}": (kind, filled) for kind in ("number", "text") for filled in (0, 1, 8, 16)}


@each(**FILLED)
def deliver(case):
    """Stored, beside as many others as fit into the tables, or one more."""
    mailbox = core.Mailbox()
    *others, last = (message(tag) for tag in tags(case[0], case[1] + 1))
    for one in others:
        mailbox.deliver(one)
    got = yield partial(mailbox.deliver, last)
    if got.error is not None:
        assert len(mailbox) == len(others)
        assert mailbox.peek(CONTEXT, 1, last.tag) is None
        mailbox.deliver(last)
    assert mailbox.waiting(0, 2**64 - 1) == [*others, last]
    assert [mailbox.take(CONTEXT, 1, one.tag) for one in (*others, last)] == [*others, last]
    assert len(mailbox) == 0


@each(none=0, some=8)
def deliver_to_another_context(filled):
    mailbox = core.Mailbox()
    *others, last = (message(context=CONTEXT + 2 * number) for number in range(filled + 1))
    for one in others:
        mailbox.deliver(one)
    got = yield partial(mailbox.deliver, last)
    if got.error is not None:
        mailbox.deliver(last)
    assert [mailbox.take(one.context, 1, 7) for one in (*others, last)] == [*others, last]
    assert mailbox.taken(RUN) == filled + 1


@each(exact=(1, 7), any_source=(-1, 7), any_tag=(1, -1), any=(-1, -1))
def deliver_to_a_receive(wanted):
    mailbox, receive, one = core.Mailbox(), core.Receive(CONTEXT, *wanted), message()
    mailbox.post(receive)
    got = yield partial(mailbox.deliver, one)
    if got.error is not None:
        assert not receive.done
        mailbox.deliver(one)
    assert receive.message is one
    assert len(mailbox) == 0


@scenario
def deliver_twice():
    mailbox, one = core.Mailbox(), message()
    mailbox.deliver(one)
    got = yield partial(accept, ValueError, mailbox.deliver, one)
    assert got.error is not None or got.value is ValueError
    assert mailbox.take(CONTEXT, 1, 7) is one


MARKED = 0x80 | 2


@each(taken=lambda box: box.take(CONTEXT, 1, 7), posted=lambda box: box.post(core.Receive(CONTEXT, 1, 7)))
def unanswered(match):
    mailbox = core.Mailbox()
    marked = [core.Message(CONTEXT, 1, 7, 3, MARKED, b"%d" % number, ()) for number in range(20)]
    for one in marked:
        mailbox.deliver(one)
        match(mailbox)
    got = yield mailbox.take_unanswered
    if got.error is not None:
        assert mailbox.unanswered == 20
        got = Outcome(mailbox.take_unanswered())
    assert got.value == marked
    assert all(one.code == 2 for one in marked)
    assert (mailbox.unanswered, mailbox.take_unanswered()) == (0, [])


@each(**FILLED)
def post(case):
    mailbox = core.Mailbox()
    *others, last = (core.Receive(CONTEXT, 1, tag) for tag in tags(case[0], case[1] + 1))
    for one in others:
        mailbox.post(one)
    got = yield partial(mailbox.post, last)
    if got.error is not None:
        assert not last.done
        assert not last.withdrawn
        mailbox.post(last)
    for one in (*others, last):
        mailbox.deliver(message(one.tag))
    assert all(one.done for one in (*others, last))
    assert len(mailbox) == 0


@scenario
def post_twice():
    mailbox, receive = core.Mailbox(), core.Receive(CONTEXT, 1, 7)
    mailbox.post(receive)
    got = yield partial(accept, ValueError, mailbox.post, receive)
    assert got.error is not None or got.value is ValueError
    mailbox.deliver(message())
    assert receive.done


@scenario
def post_finds_a_message():
    mailbox, receive, one = core.Mailbox(), core.Receive(CONTEXT, -1, -1), message(text())
    mailbox.deliver(one)
    got = yield partial(mailbox.post, receive)
    if got.error is not None:
        mailbox.post(receive)
    assert receive.message is one


@scenario
def withdraw():
    mailbox, receive, one = core.Mailbox(), core.Receive(CONTEXT, 1, 7), message()
    mailbox.post(receive)
    got = yield partial(mailbox.withdraw, receive)
    assert got.value is True or mailbox.withdraw(receive)
    mailbox.deliver(one)
    assert mailbox.take(CONTEXT, 1, 7) is one


@each(exact=(1, 7), any_source=(-1, 7), any_tag=(1, -1), other=(2, 7))
def take(wanted):
    mailbox, one = core.Mailbox(), message()
    mailbox.deliver(one)
    got = yield partial(mailbox.take, CONTEXT, *wanted)
    if got.error is not None:
        got = Outcome(mailbox.take(CONTEXT, *wanted))
    assert got.value is (None if wanted[0] == 2 else one)


@scenario
def peek():
    mailbox, one = core.Mailbox(), message()
    mailbox.deliver(one)
    got = yield partial(mailbox.peek, CONTEXT, -1, -1)
    assert got.error is not None or got.value is one
    assert mailbox.take(CONTEXT, 1, 7) is one


@scenario
def restore():
    mailbox, one, later = core.Mailbox(), message(text()), message(8)
    mailbox.deliver(one)
    mailbox.deliver(later)
    assert mailbox.take(CONTEXT, 1, -1) is one
    got = yield partial(mailbox.restore, one)
    if got.error is not None:
        assert mailbox.taken(RUN) == 1
        mailbox.restore(one)
    assert mailbox.taken(RUN) == 0
    assert [mailbox.take(CONTEXT, 1, -1) for _ in range(3)] == [one, later, None]


@each(waiting=("waiting", CONTEXT, CONTEXT + 99), drop_below=("drop_below", CONTEXT + 99))
def listed(case):
    mailbox, receive = core.Mailbox(), core.Receive(CONTEXT, 5, 5)
    some = [message(text(number), context=CONTEXT + 2 * (number % 3)) for number in range(20)]
    for one in some:
        mailbox.deliver(one)
    mailbox.post(receive)
    action = partial(getattr(mailbox, case[0]), *case[1:])
    got = yield action
    if got.error is not None:
        assert len(mailbox) == 20
        assert not receive.withdrawn
        got = Outcome(action())
    assert got.value == some
    assert receive.withdrawn is (case[0] == "drop_below")
    assert len(mailbox) == (0 if receive.withdrawn else 20)


@scenario
def taken():
    mailbox = core.Mailbox()
    for _ in range(300):
        mailbox.deliver(message())
        mailbox.take(CONTEXT, 1, 7)
    got = yield partial(mailbox.taken, RUN)
    assert got.error is not None or got.value == 300
