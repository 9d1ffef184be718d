"""A driver and two ranks, each a process of its own, joined by pipes: what the programs beside this file run on.

The driver packs a run of two functions. Rank 0 calls the first with the arguments and sends what it returns to rank 1,
which calls the second with that and sends the answer home.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import traceback

from klyng_mp.wire.codec import Codec, install_main

NUMBER = struct.Struct("<Q")


def write(pipe, code, head, buffers):
    for value in (code, 1 + len(buffers)):
        pipe.write(NUMBER.pack(value))
    for part in (head, *buffers):
        data = memoryview(part).cast("B")
        pipe.write(NUMBER.pack(data.nbytes))
        pipe.write(data)
    pipe.flush()


def read_number(pipe):
    return NUMBER.unpack(pipe.read(NUMBER.size))[0]


def read(pipe):
    code = read_number(pipe)
    parts = [bytearray(pipe.read(read_number(pipe))) for _ in range(read_number(pipe))]
    return code, bytes(parts[0]), parts[1:]


def serve():
    """Be a rank, until the driver closes the pipe."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    codec = Codec(main_by_reference=False)
    functions = ()
    with source, sink:
        while kind := source.read(1):
            message = read(source)
            try:
                if kind == b"R":
                    functions = codec.decode_run(*message)
                    if functions[2] and codec.main_module is not None:
                        install_main(codec.main_module)
                    answer = codec.encode(None)
                elif kind == b"0":
                    answer = codec.encode(functions[0](*codec.decode(*message)))
                else:
                    answer = codec.encode(functions[1](codec.decode(*message)))
                sink.write(b"+")
            except Exception:
                sink.write(b"-")
                answer = codec.encode(traceback.format_exc())
            write(sink, *answer)


class Ring:
    """The driver's side; ``install`` says whether the ranks take its ``__main__`` for theirs."""

    def __init__(self, *, install=True):
        self.install = install
        self.codec = Codec(main_by_reference=False)
        command = [sys.executable, "-W", "error", "-c", "import ring; ring.serve()"]
        self.ranks = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for rank in self.ranks:
            rank.stdin.close()
            rank.wait()
            rank.stdout.close()

    def ask(self, number, kind, message):
        rank = self.ranks[number]
        rank.stdin.write(kind)
        write(rank.stdin, *message)
        verdict = rank.stdout.read(1)
        answer = read(rank.stdout)
        if verdict != b"+":
            raise RuntimeError(f"rank {number} says:\n{self.codec.decode(*answer)}")
        return answer

    def run(self, first, second, *args):
        run = self.codec.encode_run((first, second, self.install))
        for number in (0, 1):
            self.ask(number, b"R", run)
        passed_on = self.ask(0, b"0", self.codec.encode(args))
        return self.codec.decode(*self.ask(1, b"1", passed_on))


def pack_up(*things):
    """Return what it is given: a first function for programs that only send things round."""
    return things


if __name__ == "__main__":
    serve()
