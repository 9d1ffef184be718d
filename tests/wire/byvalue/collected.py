"""Local classes arrive wherever the collector comes in between."""

from __future__ import annotations

from ring import Ring


def often(_):
    import gc
    import sys

    gc.collect()
    gc.freeze()
    sys.setprofile(lambda *_: gc.collect())


def make(count):
    def one(number):
        class Local:
            value = number

            def own(self):
                return Local

        class Below(Local):
            other = Local

        return Below

    return [one(number) for number in range(count)]


def check(classes):
    for number, cls in enumerate(classes):
        assert (cls.value, cls().own(), cls.other) == (number, cls.__mro__[1], cls.__mro__[1])
    return classes


with Ring() as ring:
    ring.run(often, often, None)
    for count in range(1, 6):
        check(ring.run(make, check, count))
        fetched = ring.run(make, lambda classes: classes, count)
        check(ring.run(lambda classes: classes, check, fetched))
