"""TLS as klyng_mp speaks it: 1.3 with AES-256-GCM and nothing else, on the control channel and between ranks.

Layer: remote; the standard library's ssl, no sockets of its own. Makes no keys: those come from `remote.security`.

A rank is known by the name ``rank-N.job`` in a certificate of its job's own authority. The control channel asks for no
certificate that others have signed: the login proves the beacon, bound to the fingerprint of what it showed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import ssl
from typing import NamedTuple

from klyng_mp.errors import AuthenticationError, RemoteProtocolError
from klyng_mp.wire.frames import DRIVER

__all__ = [
    "CIPHER",
    "CONTROL",
    "DATA",
    "Credentials",
    "beacon_context",
    "check_channel",
    "client_context",
    "fingerprint_of",
    "peer_number",
    "rank_contexts",
    "rank_name",
]

CONTROL = "klyng-mp/1"  # ALPN of a control channel; another version of the protocol has another name
DATA = "klyng-mp-data/1"  # and between ranks
CIPHER = "TLS_AES_256_GCM_SHA384"
_VERSION = "TLSv1.3"
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: clocks of hosts differ, and a job's authority dies with it
_NAME = re.compile(r"rank-(0|[1-9][0-9]{0,9})\.job")

Channel = ssl.SSLSocket | ssl.SSLObject


class Credentials(NamedTuple):
    """What makes a rank the rank that it is: its certificate, its key, and the authority that signed; all as PEM."""

    cert_pem: bytes
    key_pem: bytes
    ca_pem: bytes

    def __repr__(self) -> str:
        return "Credentials(...)"  # a key has no business in a traceback or a log


def beacon_context(cert_pem: bytes, key_pem: bytes) -> ssl.SSLContext:
    """Return the context of a beacon's end of control channels."""
    context = _server_context(CONTROL)
    context.verify_mode = ssl.CERT_NONE
    _load_pair(context, cert_pem, key_pem)
    return context


def client_context() -> ssl.SSLContext:
    """Return the context of a client's end of control channels; whose certificate it is, the login proves."""
    context = _client_context(CONTROL)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def rank_contexts(credentials: Credentials) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a rank's contexts, to be connected to and to connect with; both prove and check who is there.

    The second one needs `server_hostname=rank_name(number)` of whom it connects to.
    """
    server, client = _server_context(DATA), _client_context(DATA)
    client.check_hostname = True
    for context in (server, client):
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT | _NO_CHECK_TIME
        context.load_verify_locations(cadata=credentials.ca_pem.decode())
        _load_pair(context, credentials.cert_pem, credentials.key_pem)
    return server, client


def rank_name(number: int) -> str:
    """Return the name of a rank, or of the driver (`wire.frames.DRIVER`), in its certificate."""
    return f"rank-{number}.job"


def check_channel(channel: Channel, protocol: str = CONTROL) -> None:
    """Check what a handshake has come to; before anything is sent or believed, on both sides of every connection.

    Raises:
        RemoteProtocolError: it is not TLS 1.3 with AES-256-GCM, or the other side speaks something else. Nothing
            was sent; close the connection.
    """
    cipher = channel.cipher()
    name = cipher[0] if cipher else "no cipher"
    if channel.version() != _VERSION or name != CIPHER:
        raise RemoteProtocolError(
            f"the other side chose {channel.version()} with {name}, and only {_VERSION} with {CIPHER} will do: "
            f"allow it in the other side's OpenSSL configuration"
        )
    spoken = channel.selected_alpn_protocol()
    if spoken != protocol:
        raise RemoteProtocolError(
            f"the other side speaks TLS, but {spoken or 'not our protocol'} instead of {protocol}: "
            f"check address and port, and that the versions of klyng_mp agree"
        )


def fingerprint_of(der: bytes | None) -> str:
    """Return the fingerprint of a certificate, as users compare and pin it; ``channel.getpeercert(True)`` has the DER.

    Raises:
        AuthenticationError: there is no certificate.
    """
    if not der:
        raise AuthenticationError("the other side showed no certificate: it is no beacon; check address and port")
    return "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def peer_number(channel: Channel) -> int:
    """Return the number of the rank at the other end, which its checked certificate names.

    Raises:
        AuthenticationError: it names none.
    """
    names = (channel.getpeercert() or {}).get("subjectAltName", ())
    match = _NAME.fullmatch(str(names[0][1])) if len(names) == 1 and names[0][0] == "DNS" else None
    if match is None or int(match[1]) > DRIVER:
        raise AuthenticationError(f"the other side's certificate names no rank but {names!r}: it is not of this job")
    return int(match[1])


def _server_context(protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, protocol)
    # A ticket that nobody has read when a client closes makes the kernel reset the connection: what it sent is lost.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def _client_context(protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context, protocol)
    return context


def _harden(context: ssl.SSLContext, protocol: str) -> None:
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([protocol])
    # Python lets a bare FIN pass for an orderly end; here it is a stream that was cut off.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)


def _load_pair(context: ssl.SSLContext, cert_pem: bytes, key_pem: bytes) -> None:
    """Load a certificate and its key; ssl reads them only from files, so from one in memory without a name."""
    with open(os.memfd_create("pem", os.MFD_CLOEXEC), "wb") as file:
        file.write(key_pem + cert_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
