"""What ranks make themselves, and what they keep from one run to the next."""

from __future__ import annotations

import builtins
import enum

from ring import Ring

registry = {}


class Early:
    value = 1


def first(n):
    global fresh, Late  # noqa: PLW0603 - what is tested
    fresh = 5

    class Late:
        value = n

    class Mine(Exception):
        pass

    class Own(enum.Enum):
        ONE = 1

    return Late(), Mine("text"), Own.ONE, Own, lambda: (fresh, Late)


def second(message):
    late, mine, member, own, function = message
    assert function() == (5, type(late))
    assert member is own.ONE
    assert late.value == 1
    try:
        raise mine
    except type(mine) as caught:
        assert caught.args == ("text",)  # noqa: PT017 - in a rank there is no pytest
    return message


def count():
    import gc

    from klyng_mp.wire.namespace import REGISTRY

    gc.collect()
    return len(REGISTRY._by_token), len(REGISTRY._by_id)


def make_local():
    class Local:
        pass

    return Local, lambda: Local


def send_round(ring):
    cls, give = make_local()
    made, giver = ring.run(lambda: (cls(), give), lambda value: value)
    assert type(made) is cls is giver()


def keep():
    builtins.kept = Early()
    registry["key"] = 1


def kept():
    return builtins.kept


with Ring() as ring:
    late, mine, member, own, function = ring.run(first, second, 1)
    assert function()[1] is type(late)
    assert member is own.ONE
    (again,) = ring.run(lambda thing: (thing,), lambda value: value, late)
    assert type(again) is type(late)

    # The run that fetches it does not know its class, but the rank does.
    ring.run(keep, lambda value: value)
    assert type(ring.run(kept, lambda value: value)) is Early
    assert registry == {}

    # Local classes do not pile up, here or there.
    sizes = []
    for _ in range(20):
        send_round(ring)
        sizes.append((ring.run(lambda: 1, lambda _: count()), count()))
    assert sizes[5] == sizes[-1], sizes
