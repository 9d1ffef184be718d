"""Many threads of one process take in the same classes at once, and all get the same ones."""

from __future__ import annotations

import enum
import subprocess
import sys

from klyng_mp.wire.codec import Codec

RECEIVER = """
import pickle, sys, threading
sys.setswitchinterval(1e-6)
from klyng_mp.wire.codec import Codec
message = pickle.load(sys.stdin.buffer)
found, barrier = [], threading.Barrier(8)
def work():
    codec = Codec(main_by_reference=False)
    barrier.wait()
    for _ in range(50):
        function, = codec.decode_run(*message)
        found.append((function, *function(3)))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 400
assert len(set(found)) == 1
"""


class Letter(enum.Enum):
    A = 1


class Box:
    peer = None

    def open(self):
        return Box, Letter.A


def function(n):
    return Box().open() if n == 0 else function(n - 1)


if __name__ == "__main__":
    import pickle

    code, head, _ = Codec(main_by_reference=False).encode_run((function,))
    for _ in range(5):
        subprocess.run([sys.executable, "-c", RECEIVER], input=pickle.dumps((code, head)), check=True)
