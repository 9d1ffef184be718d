"""A receiver that runs the same program, by spawn or fork: things of ``__main__`` go as references, both ways."""

from __future__ import annotations

import enum
import multiprocessing

from klyng_mp.wire.codec import Codec


class Color(enum.Enum):
    RED = 1


class Thing:
    lock = multiprocessing.get_context("spawn").Lock  # a bound method, which would drag its context along


counter = 10
codec = Codec(main_by_reference=True)


def bump():
    global counter  # noqa: PLW0603 - what is tested
    counter += 1
    return counter


def make_local():
    class Local:
        thing = Thing

        def get(self):
            return counter, __class__

    return Local


def serve(pipe):
    """Bump the counter, and send everything back as it came, together with what it came to."""
    code, head = pipe.recv()
    things, function, local, instance = codec.decode_run(code, head)
    assert codec.main_module is None
    assert things == [Color.RED, Thing, bump]
    assert things[0] is Color.RED
    value = bump()
    assert function() == value
    assert instance.get() == (value, local)
    assert local.thing is Thing
    answer = codec.encode((value, things, local, instance, lambda: counter))
    pipe.send(answer[:2])
    pipe.close()


def main():
    for method in ("spawn", "fork"):
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        local = make_local()
        with ours:
            process = context.Process(target=serve, args=(theirs,))
            process.start()
            theirs.close()
            code, head, _ = codec.encode_run(([Color.RED, Thing, bump], lambda: counter, local, local()))
            ours.send((code, head))
            value, things, back, instance, function = codec.decode(*ours.recv())
            process.join()
        assert value == 11
        assert things == [Color.RED, Thing, bump]
        assert back is local
        assert type(instance) is local
        assert function() == counter == 10


if __name__ == "__main__":
    main()
