"""The first 44 bytes of a connection between two ranks, which a beacon reads to know whom to hand the socket.

Layer: remote; sans-IO.

``magic 4 | job id 16 | source 4 | dest 4 | MAC 16``, in network order. The MAC, under the job's join key, keeps
strangers from costing anybody a TLS handshake; it proves nothing else: who replays a preface still has no certificate.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import NamedTuple

from klyng_mp.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["MAGIC", "PREFACE_SIZE", "Preface", "pack_preface", "read_preface"]

MAGIC = b"KMP1"  # its first byte is none that a TLS connection begins with
_FIELDS = struct.Struct("!4s16sII")
_MAC_SIZE = 16
PREFACE_SIZE = _FIELDS.size + _MAC_SIZE


class Preface(NamedTuple):
    """Who wants to talk to whom, in which job; to be believed only where `is_from` says so."""

    job_id: bytes
    source: int
    dest: int
    mac: bytes

    def is_from(self, join_key: bytes) -> bool:
        """Tell whether it was made by someone with the job's join key."""
        return hmac.compare_digest(self.mac, _mac(join_key, _FIELDS.pack(MAGIC, *self[:3])))


def pack_preface(job_id: bytes, source: int, dest: int, join_key: bytes) -> bytes:
    """Return the preface of a connection from one rank to another; `wire.frames.DRIVER` is the driver.

    Raises:
        LocalProtocolError: an id that is not of 16 bytes, or a number that is none.
    """
    if len(job_id) != 16:
        raise LocalProtocolError(f"a job's id has 16 bytes, not {len(job_id)}")
    try:
        fields = _FIELDS.pack(MAGIC, job_id, source, dest)
    except struct.error as error:
        raise LocalProtocolError(f"no preface leads from {source!r} to {dest!r}: {error}") from None
    return fields + _mac(join_key, fields)


def read_preface(data: bytes) -> Preface:
    """Return what `PREFACE_SIZE` bytes say.

    Raises:
        RemoteProtocolError: they are no preface.
    """
    if len(data) != PREFACE_SIZE or not data.startswith(MAGIC):
        raise RemoteProtocolError(f"a connection began with {data[:8]!r}, which is no preface")
    _magic, job_id, source, dest = _FIELDS.unpack_from(data)
    return Preface(job_id, source, dest, data[_FIELDS.size :])


def _mac(join_key: bytes, fields: bytes) -> bytes:
    return hmac.digest(join_key, b"klyng-mp preface" + fields, hashlib.sha256)[:_MAC_SIZE]
