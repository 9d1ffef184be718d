"""TLS connections for tests: certificates made on the spot, and pairs of sockets with the handshake done."""

from __future__ import annotations

import datetime as dt
import functools
import socket
import ssl
import tempfile
import threading
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@functools.cache
def certificate():
    """Return a certificate that signs itself, and its key, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rank of a test")])
    day = dt.timedelta(days=1)
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


@functools.cache
def contexts():
    """Return the contexts of a server and a client that know each other."""
    made, key = certificate()
    pair = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in pair:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=made.decode())
        with tempfile.NamedTemporaryFile() as file:
            file.write(made + key)
            file.flush()
            context.load_cert_chain(file.name)
    pair[0].num_tickets = 0
    return pair


def tcp_pair(*, send_buffer=None):
    """Return two connected TCP sockets, with small buffers where their size is given."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    for sock in (one, other):
        if send_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    return one, other


def secure(pair):
    """Return the two ends of a connection as SSL sockets, with the handshake done and each heard by the other."""
    server, client = contexts()
    ours, theirs = pair
    done = []

    def serve():
        sock = server.wrap_socket(theirs, server_side=True, suppress_ragged_eofs=False)
        sock.sendall(b"k")
        done.append(sock)

    thread = threading.Thread(target=serve)
    thread.start()
    one = client.wrap_socket(ours, suppress_ragged_eofs=False)
    assert one.recv(1) == b"k"
    thread.join()
    return one, done[0]


class Relay:
    """Somebody in the middle of a connection, who passes on what ``pass_on(data)`` makes of it, in a thread each way.

    Args:
        pass_on: is given what came from the one side, and returns the pieces that go to the other.
        piece: how many bytes are read at once.
    """

    def __init__(self, pass_on=lambda data: [data], piece=65536):
        self._pass_on = pass_on
        self._piece = piece
        self._threads = []
        self._sockets = ()

    def between(self):
        """Return the two sockets between which it stands."""
        one, ours = tcp_pair(send_buffer=8192)
        theirs, other = tcp_pair(send_buffer=8192)
        self._sockets = ours, theirs
        for source, target, change in ((ours, theirs, self._pass_on), (theirs, ours, lambda data: [data])):
            self._threads.append(threading.Thread(target=self._carry, args=(source, target, change)))
            self._threads[-1].start()
        return one, other

    def _carry(self, source, target, change):
        with suppress(OSError):  # one of the two has closed
            while data := source.recv(self._piece):
                for piece in change(data):
                    target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self):
        """Wait until both sides have closed, and close."""
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        for sock in self._sockets:
            sock.close()
