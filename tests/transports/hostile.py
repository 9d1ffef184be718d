"""A rank whose peer writes random words into the memory that they share: python hostile.py SEED ROUNDS

It must read nothing outside of that memory, so it must not crash; what it delivers may be nonsense, and its only
other answer is that the peer is lost. Ends with a line that says how much of each there was.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from contracts.transport import Side, message

from klyng_mp.native import core
from klyng_mp.transports.shm import Segment, ShmTransport, ring_size

RANKS = 2
POOL_BYTES = 256 << 20
POOL_TABLE_BYTES = 256 * 64
BODIES = [
    (b"small", []),
    (b"x" * 3000, []),
    (b"h" * 40_000, []),
    (b"h", [bytes(100), bytes(50_000)]),
    (b"h", [bytes(200_000), b"", bytes(40_000)]),
]


def words(chance):
    """Return eight bytes of the kind that does most harm."""
    kind = chance.randrange(5)
    value = (
        chance.getrandbits(64),
        chance.getrandbits(8),
        2**64 - 1 - chance.getrandbits(8),
        chance.getrandbits(20),
        1 << chance.randrange(64),
    )[kind]
    return value.to_bytes(8, "little")


def spoil(memory, chance):
    """Write into headers, records and tables of slabs, rarely elsewhere."""
    size = ring_size(RANKS)
    pages, headers = RANKS * 4096, RANKS * RANKS * 256
    rings = (pages + headers + RANKS * RANKS * size + 4095) // 4096 * 4096
    for _ in range(chance.randrange(1, 12)):
        where = chance.choice(
            [
                chance.randrange(pages, pages + headers),
                chance.randrange(0, pages, 8),
                pages + headers + chance.randrange(RANKS * RANKS) * size + chance.randrange(0, 400, 4),
                pages + headers + chance.randrange(RANKS * RANKS * size - 8),
                rings + chance.randrange(RANKS) * POOL_BYTES + chance.randrange(0, 512, 8),
            ]
        )
        memory[where : where + 8] = words(chance)


def main(seed, rounds):
    chance = random.Random(seed)
    seen = Counter()
    for _ in range(rounds):
        segment = Segment(RANKS)
        sides = [Side(number) for number in range(RANKS)]
        for side in sides:
            place = os.dup(segment.fd), os.dup(segment.bells[side.number]), RANKS, side.number, 3
            side.transport = ShmTransport(
                side, side.poller, place=place, spin=False, call=segment.ring, progress=side.turn
            )
        with mmap.mmap(segment.fd, core.segment_size(RANKS, ring_size(RANKS), True)) as memory:
            for _ in range(chance.randrange(1, 6)):
                head, buffers = chance.choice(BODIES)
                if chance.randrange(4):
                    one, other = sides if chance.randrange(2) else sides[::-1]
                    one.send(other, message(one, head, [memoryview(buffer) for buffer in buffers]), copy=True)
                else:
                    spoil(memory, chance)
                for side in sides:
                    side.turn()
            spoil(memory, chance)
            for side in sides:
                side.turn()
                seen["delivered"] += len(side.messages)
                seen["lost"] += len(side.losses)
                for _, got in side.messages:
                    for buffer in got.buffers:
                        bytes(buffer)
                side.messages.clear()
        for side in sides:
            side.close()
        segment.close()
    print(f"{rounds} rounds: {seen['delivered']} messages delivered, {seen['lost']} peers lost")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
