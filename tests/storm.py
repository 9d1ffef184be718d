"""Many bad connections to a beacon, from many addresses: python storm.py ADDRESS PORT COUNT SEED RATE

RATE is how many begin in a second at most; 0 for as many as can. The last line says how many there were of each kind.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # its own folder is there already

import attackers

from klyng_mp.remote.security import ClientProof

THREADS = 24
ADDRESSES = 20_000
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close resets the connection


class Target:
    """The beacon as an attacker knows it."""

    def __init__(self, address, port):
        self.where = address, int(port)

    def reach(self, address=None, seconds=20.0):
        return socket.create_connection(self.where, seconds, source_address=(address, 0))


def kinds(chance):
    """Return what is said at once, by the kind of it."""
    hello = attackers.client_hello()
    return {
        "random bytes": lambda: chance.randbytes(chance.randrange(1, 300)),
        "handshakes of nobody": lambda: b"\x16\x03" + chance.randbytes(100),
        "mutated ClientHellos": lambda: attackers.mutants(hello, 1, chance)[0],
        "prefaces": lambda: b"KMP1" + chance.randbytes(40),
        "halves of prefaces": lambda: b"KMP1" + chance.randbytes(chance.randrange(39)),
        "banners": lambda: chance.choice(attackers.BANNERS),
        "nothing": lambda: b"",
    }


def throw(target, address, data, *, reset):
    with contextlib.suppress(ConnectionError), target.reach(address) as sock:
        attackers.say(sock, data)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return
        attackers.leave(sock)
        attackers.ending(sock, 30.0)


def inside_tls(target, address, chance):
    """Shake hands and then say what is no login."""
    with contextlib.suppress(OSError), target.reach(address) as sock, attackers.shake_hands(sock) as connection:
        attackers.say(connection, chance.randbytes(chance.randrange(1, 2000)))
        attackers.leave(connection)
        attackers.ending(connection, 30.0)


def work(target, numbers, chance, done, share):
    said = kinds(chance)
    for number, due in numbers:
        threading.Event().wait(max(0.0, due - time.monotonic()))
        address = attackers.source(chance.randrange(ADDRESSES))
        kind = chance.choice((*said, "resets", "inside TLS", "guesses")) if number % 4 else "random bytes"
        if kind in said:
            throw(target, address, said[kind](), reset=False)
        elif kind == "resets":
            throw(target, address, said["random bytes"](), reset=True)
        elif kind == "inside TLS":
            inside_tls(target, address, chance)
        else:
            assert attackers.cheap_guess(target, share, address, chance) != "let in"
        done[kind] += 1


class Numbers:
    """The numbers of connections, and when each is due; all threads share them."""

    def __init__(self, count, rate):
        self._numbers = iter(range(count))
        self._pause = 1 / rate if rate else 0.0
        self._began = time.monotonic()

    def __iter__(self):
        return self

    def __next__(self):
        number = next(self._numbers)
        return number, self._began + number * self._pause


def main(address, port, count, seed, rate):
    target = Target(address, port)
    share = ClientProof(bytes(32), "password", "").share
    numbers = Numbers(int(count), float(rate))
    done = [Counter() for _ in range(THREADS)]
    threads = [
        threading.Thread(target=work, args=(target, numbers, random.Random(f"{seed} {at}"), done[at], share))
        for at in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = sum(done, Counter())
    print(f"thrown: {sum(total.values())} {dict(total)}", flush=True)


if __name__ == "__main__":
    os.setpriority(os.PRIO_PROCESS, 0, 5)  # others come from other machines, and take nothing of this one's processors
    main(*sys.argv[1:])
