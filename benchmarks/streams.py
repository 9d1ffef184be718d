"""What do messages between hosts cost, plain and secured, beside `multiprocessing.connection` and bare sockets?

Four figures, each from the medians of alternating rounds between this process and one peer for each side, over TCP:

    python benchmarks/streams.py [--rounds N] [--calls N] [--host ADDRESS] [--peer-command COMMAND] [--json FILE]

* a small object there and back: at most 1.5 of what `multiprocessing.connection` takes over TCP; 2.5 with TLS 1.3
* an array of 16 MiB there, a small answer back: at most 1 / 0.8 of what bare Python sockets take, plain or with TLS,
  which send from and receive into the same memory every time

Ranks have their attendants, as in a World with hosts. Both ends are on this machine; for two network namespaces:
``--host 10.0.0.1 --peer-command "ip netns exec other"``.
"""

from __future__ import annotations

import os
import shlex
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from common import MIB, Figure, alternate, environment, figure_arguments, median, publish

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

SMALL_LIMITS = {"klyng plain": 1.5, "klyng TLS": 2.5}
LARGE_LIMIT = 1 / 0.8
SMALL = ("a small object", 42)
LARGE_BYTES = 16 * MIB
SIDES = ("connection", "klyng plain", "klyng TLS", "bare plain", "bare TLS")
ACCEPTED = b"k"  # a TLS client believes itself accepted before it is


class Line(Protocol):
    """One end of a connection."""

    def send(self, obj: Any) -> None: ...

    def recv(self) -> Any: ...


class RankLine:
    """One of two ranks."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        from klyng_mp.communicator.communicator import Communicator
        from klyng_mp.communicator.endpoint import Endpoint
        from klyng_mp.transports.secure import SecureSocket
        from klyng_mp.transports.stream import StreamTransport
        from klyng_mp.wire.codec import Codec
        from klyng_mp.wire.frames import make_context

        endpoint = Endpoint(number)
        transport = StreamTransport(endpoint, endpoint.poller, connect=lambda _: None)
        endpoint.use(transport)
        endpoint.mark_present(1 - number, 0)
        transport.adopt(1 - number, SecureSocket(sock) if isinstance(sock, ssl.SSLSocket) else sock)
        endpoint.attend()
        codec = Codec(main_by_reference=True)
        comm = Communicator(endpoint, codec, context=make_context(1), rank=number, members=range(2))
        self._comm, self._other = comm, 1 - number

    def send(self, obj: Any) -> None:
        self._comm.send(obj, self._other)

    def recv(self) -> Any:
        return self._comm.recv(self._other)


class BareLine:
    """A socket, and memory that is used again and again: one byte is an answer, anything else is an array."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self._sock = sock
        self._buffer = memoryview(bytearray(LARGE_BYTES if number else 1))

    def send(self, obj: Any) -> None:
        self._sock.sendall(obj if isinstance(obj, np.ndarray) else b"k")

    def recv(self) -> Any:
        count = 0
        while count < len(self._buffer):
            got = self._sock.recv_into(self._buffer[count:])
            if not got:
                raise EOFError
            count += got
        return None


def make_certificate(path: Path) -> None:
    """Write a certificate that signs itself, and its key."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a benchmark")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(encoding) + private)


def secure(sock: socket.socket, certificate: str, *, is_server: bool) -> ssl.SSLSocket:
    """Do the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    context.load_cert_chain(certificate)
    if is_server:
        context.num_tickets = 0
    made = context.wrap_socket(sock, server_side=is_server, suppress_ragged_eofs=False)
    if is_server:
        made.sendall(ACCEPTED)
    elif made.recv(1) != ACCEPTED:
        raise ConnectionError("the peer refused this certificate")
    return made


def make_line(side: str, sock: socket.socket, certificate: str, number: int) -> Line:
    """Return one end of a side's connection; this process is number 0."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if side.endswith("TLS"):
        sock = secure(sock, certificate, is_server=number == 0)
    if side == "connection":
        return Connection(sock.detach())
    return RankLine(sock, number) if side.startswith("klyng") else BareLine(sock, number)


def serve(side: str, host: str, port: str, certificate: str) -> None:
    """Be the peer of one side: send small objects back, and answer arrays, until the connection ends."""
    from klyng_mp.errors import PeerLostError

    line = make_line(side, socket.create_connection((host, int(port))), certificate, 1)
    try:
        while True:
            got = line.recv()
            line.send(None if isinstance(got, np.ndarray) else got)
    except (EOFError, OSError, PeerLostError):
        return


def exchange(line: Line, obj: Any, calls: int) -> float:
    """Return the seconds of one exchange."""
    began = time.perf_counter()
    for _ in range(calls):
        line.send(obj)
        line.recv()
    return (time.perf_counter() - began) / calls


def measures(lines: dict[str, Line], calls: int) -> dict[str, Callable[[], float]]:
    """Return what is measured, by name."""
    array = np.frombuffer(os.urandom(MIB) * (LARGE_BYTES // MIB), dtype=np.uint8)
    small = {f"{side}: small": (side, SMALL, calls) for side in SIDES if not side.startswith("bare")}
    large = {f"{side}: 16 MiB": (side, array, 2) for side in SIDES if side != "connection"}
    return {
        name: lambda side=side, obj=obj, count=count: exchange(lines[side], obj, count)  # type: ignore[misc]
        for name, (side, obj, count) in {**small, **large}.items()
    }


def connect(host: str, command: list[str], certificate: str, peers: list[subprocess.Popen[bytes]]) -> dict[str, Line]:
    """Start a peer for each side, and return this end of each connection."""
    lines = {}
    with socket.create_server((host, 0)) as server:
        server.settimeout(60)
        for side in SIDES:
            words = [side, host, str(server.getsockname()[1]), certificate]
            program = [*command, sys.executable, __file__, "--serve", *words]
            peers.append(subprocess.Popen(program, env=environment()))
            sock, _ = server.accept()
            sock.settimeout(None)
            lines[side] = make_line(side, sock, certificate, 0)
    return lines


def figures_of(samples: dict[str, list[float]]) -> list[Figure]:
    """Return the four figures."""
    times = {name: median(times) for name, times in samples.items()}
    peer = times["connection: small"]
    figures = [
        Figure(f"small object, {side[6:]}", times[f"{side}: small"], limit, peer, "connection")
        for side, limit in SMALL_LIMITS.items()
    ]
    for kind in ("plain", "TLS"):
        ours, peer = times[f"klyng {kind}: 16 MiB"], times[f"bare {kind}: 16 MiB"]
        figures.append(Figure(f"16 MiB, {kind}", ours, LARGE_LIMIT, peer, f"bare {kind} socket"))
    return figures


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
        return
    parser = figure_arguments(__doc__, rounds=20)
    parser.add_argument("--calls", type=int, default=400, metavar="N", help="small exchanges a round (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (%(default)s)")
    parser.add_argument("--peer-command", default="", metavar="COMMAND", help="what the peers are started with")
    options = parser.parse_args()
    peers: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder, "both.pem")
        make_certificate(certificate)
        try:
            lines = connect(options.host, shlex.split(options.peer_command), str(certificate), peers)
            samples = alternate(measures(lines, options.calls), options.rounds)
        finally:
            for peer in peers:
                peer.terminate()
                peer.wait()
    publish(figures_of(samples), samples, options.json, {"host": options.host, "openssl": ssl.OPENSSL_VERSION})


if __name__ == "__main__":
    main()
