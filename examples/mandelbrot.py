"""Draw the Mandelbrot set, each rank every size-th row, and write it as a PNG.

    $ klyng-mp run -n 4 examples/mandelbrot.py
    world of 4: mandelbrot.png, 600 x 450, rows a rank: 113, 113, 112, 112

    $ klyng-mp run -n 4 examples/mandelbrot.py picture.png 1200

The arguments are the file and its width. Neighbouring rows cost about the same, so dealing them like
cards gives every rank the same work. The picture is plain Python down to the file: a PNG needs no more
than the standard library's zlib and struct.
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from pathlib import Path

import klyng_mp as mp

LIMIT = 120  # iterations after which a point counts as inside
LEFT, RIGHT, HEIGHT = -2.4, 1.0, 2.55  # the part of the plane that is drawn, centred on the real axis


def colour(point: complex) -> bytes:
    """Return the red, green and blue of `point`: black inside, else by how fast it escapes."""
    z = 0j
    for step in range(LIMIT):
        z = z * z + point
        if z.real * z.real + z.imag * z.imag > 64:
            smooth = step + 1 - math.log2(math.log(abs(z)))
            phase = 0.9 * math.sqrt(max(smooth, 0.0))
            return bytes(int(127.5 * (1 - math.cos(phase - shift))) for shift in (1.0, 0.7, 0.0))
    return b"\0\0\0"


def draw_row(row: int, width: int, height: int) -> bytes:
    """Return one row of pixels."""
    imaginary = HEIGHT * (0.5 - (row + 0.5) / height)
    step = (RIGHT - LEFT) / width
    return b"".join(colour(complex(LEFT + (column + 0.5) * step, imaginary)) for column in range(width))


def write_png(file: Path, width: int, rows: list[bytes]) -> None:
    """Write rows of 8-bit red, green and blue."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))  # a zero before each row: unfiltered
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def main() -> None:
    comm = mp.comm()
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "mandelbrot.png")
    width = int(sys.argv[2]) if len(sys.argv) > 2 else 600
    height = max(1, width * 3 // 4)
    mine = range(comm.rank, height, comm.size)
    shares = comm.gather([draw_row(row, width, height) for row in mine], root=0)
    if comm.rank == 0:
        rows = [shares[row % comm.size][row // comm.size] for row in range(height)]
        write_png(file, width, rows)
        counts = ", ".join(str(len(share)) for share in shares)
        print(f"world of {comm.size}: {file}, {width} x {height}, rows a rank: {counts}")


mp.init(main)
