from __future__ import annotations

import os

from klyng_mp.pooling.trays import HALF_BYTES, HEAD_BYTES, TRAY_BYTES, make_tray, map_tray, read_tray


def test_its_memory_is_shared():
    fd = make_tray()
    with map_tray(fd) as tray:
        assert len(tray) == TRAY_BYTES
        tray[:8] = (7).to_bytes(8, "little")
        assert read_tray(os.pread(fd, TRAY_BYTES, 0)) == (7, [])
    os.close(fd)


def words(*values):
    return b"".join(value.to_bytes(8, "little") for value in values)


def test_halves_are_read_in_the_order_of_their_answers():
    data = bytearray(TRAY_BYTES)
    data[:40] = words(9, 6, 2 << 32 | 3, 5, 1 << 32 | 2)
    data[HEAD_BYTES : HEAD_BYTES + 3] = b"abc"
    data[HEAD_BYTES + HALF_BYTES : HEAD_BYTES + HALF_BYTES + 2] = b"de"
    assert read_tray(bytes(data)) == (9, [(5, 1, b"de"), (6, 2, b"abc")])


def test_nonsense_is_nothing():
    assert read_tray(b"") == (0, [])
    data = words(3, 0, 1 << 32 | HALF_BYTES + 1, 0, 0)
    assert read_tray(data) == (3, [])
