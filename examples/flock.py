"""A flock of ten thousand birds, each of which is a rank and sees only its four neighbours.

Run it with:

    $ python examples/flock.py
    10000 birds agree on a direction by 0.006 at first
    after 5 steps by 0.020
    ...

or smaller, in several processes, or with pictures:

    $ python examples/flock.py --birds 400 --steps 40 --processes 2 --frames frames

Birds fly in a grid whose edges meet. In each step a bird tells its neighbours where it heads, and turns to the mean of
what they say, but for an error of its own. From chaos grow regions that agree; ``--frames`` has a PNG of each step, in
which a direction is a colour. By itself the program makes a World of green ranks; under ``klyng-mp run -n 16``, with or
without ``--green``, each rank that is there is a bird, as many as make a square. The output is the same.
"""

from __future__ import annotations

import argparse
import cmath
import colorsys
import math
import random
import struct
import zlib
from pathlib import Path

import klyng_mp as mp

NOISE = 0.3  # radians, by which a bird errs in each step
SCALE = 4  # pixels of a bird


def fly(steps: int, frames: str | None) -> None:
    """Be one bird."""
    comm = mp.comm()
    side = math.isqrt(comm.size)
    flock = comm.create_cart((side, side), periods=True)
    if flock is None:  # one of those that are too many for a square
        return
    chance = random.Random(flock.rank)  # its own, so that a flock is the same wherever its birds are
    heading = chance.uniform(-math.pi, math.pi)
    show(flock, heading, 0, steps, frames)
    for step in range(1, steps + 1):
        seen = cmath.rect(1, heading)
        for dimension in (0, 1):
            for direction in (-1, 1):
                source, dest = flock.shift(dimension, direction)
                seen += cmath.rect(1, flock.sendrecv(heading, dest, step, source, step))
        heading = cmath.phase(seen) + chance.uniform(-NOISE, NOISE)
        show(flock, heading, step, steps, frames)


def show(flock: mp.Communicator, heading: float, step: int, steps: int, frames: str | None) -> None:
    """Say now and then how well the birds agree, from 0 to 1, and draw them all."""
    if step % max(1, steps // 4) == 0:
        agreement = abs(flock.allreduce(cmath.rect(1, heading))) / flock.size
        if flock.rank == 0 and step == 0:
            print(f"{flock.size} birds agree on a direction by {agreement:.3f} at first", flush=True)
        elif flock.rank == 0:
            print(f"after {step} steps by {agreement:.3f}", flush=True)
    if frames is not None:
        headings = flock.gather(heading)
        if headings is not None:
            draw(headings, Path(frames) / f"flock-{step:04}.png")


def draw(headings: list[float], file: Path) -> None:
    """Write a PNG in which each bird is a square."""
    side = math.isqrt(len(headings))
    rows = []
    for start in range(0, len(headings), side):
        colours = [colorsys.hsv_to_rgb(one / math.tau % 1, 1, 1) for one in headings[start : start + side]]
        row = b"".join(bytes(int(255 * part) for part in colour) * SCALE for colour in colours)
        rows += [b"\0" + row] * SCALE

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side * SCALE, side * SCALE, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--birds", type=int, default=10_000, help="how many, where this makes its own World (default: %(default)s)")
    add("--steps", type=int, default=20, help="(default: %(default)s)")
    add("--processes", type=int, default=0, help="that have the birds, beside this one (default: none)")
    add("--frames", metavar="FOLDER", help="write a PNG of each step")
    options = parser.parse_args()
    if mp.size() > 1:
        fly(options.steps, options.frames)
        return
    green = -(-options.birds // options.processes) if options.processes else True
    with mp.World(options.birds, green=green) as world:
        world.run(fly, options.steps, options.frames)


if __name__ == "__main__":
    main()
