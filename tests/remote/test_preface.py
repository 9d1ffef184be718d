"""preface: 44 bytes, of which each counts."""

from __future__ import annotations

import pytest

from klyng_mp.errors import LocalProtocolError, RemoteProtocolError
from klyng_mp.remote.preface import MAGIC, PREFACE_SIZE, pack_preface, read_preface
from klyng_mp.wire.frames import DRIVER

JOB = bytes(range(16))
KEY = b"k" * 32
VECTOR = bytes.fromhex("4b4d5031000102030405060708090a0b0c0d0e0f00000003ffffffffa73549d82bbbc7c7839431edcf26b8ad")


def test_it_is_what_it_was():
    assert pack_preface(JOB, 3, DRIVER, KEY) == VECTOR
    assert len(pack_preface(JOB, 3, DRIVER, KEY)) == PREFACE_SIZE == 44
    assert MAGIC[0] != 0x16  # which a TLS connection begins with


def test_what_was_packed_is_read_and_believed():
    preface = read_preface(pack_preface(JOB, 3, DRIVER, KEY))
    assert (preface.job_id, preface.source, preface.dest) == (JOB, 3, DRIVER)
    assert preface.is_from(KEY)
    assert not preface.is_from(b"K" * 32)
    assert not preface.is_from(b"")


def test_each_changed_bit_is_noticed():
    for bit in range(8 * PREFACE_SIZE):
        position = bit // 8
        changed = bytearray(pack_preface(JOB, 3, 5, KEY))
        changed[position] ^= 1 << bit % 8
        if position < len(MAGIC):
            with pytest.raises(RemoteProtocolError, match="no preface"):
                read_preface(bytes(changed))
        else:
            assert not read_preface(bytes(changed)).is_from(KEY)


def test_another_length_is_none():
    for size in [*range(PREFACE_SIZE), PREFACE_SIZE + 1]:
        with pytest.raises(RemoteProtocolError, match="no preface"):
            read_preface((pack_preface(JOB, 3, 5, KEY) + b"x")[:size])


def test_what_cannot_be_said_is_refused():
    for job_id, source, dest in [(b"short", 0, 1), (JOB + b"x", 0, 1), (JOB, -1, 1), (JOB, 0, 1 << 32)]:
        with pytest.raises(LocalProtocolError):
            pack_preface(job_id, source, dest, KEY)
