"""tls: what klyng_mp does not speak is refused, by both sides of both kinds of connection, over real sockets."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from klyng_mp.errors import AuthenticationError, RemoteProtocolError
from klyng_mp.remote.security import BeaconIdentity, JobAuthority
from klyng_mp.remote.tls import (
    CIPHER,
    CONTROL,
    DATA,
    Credentials,
    beacon_context,
    check_channel,
    client_context,
    fingerprint_of,
    peer_number,
    rank_contexts,
    rank_name,
)
from klyng_mp.wire.frames import DRIVER

ROOT = Path(__file__).resolve().parent.parent.parent
PROTOCOLS = {"control": CONTROL, "data": DATA}

# A peer that has what it needs to get in, weakened by one word: argv is the plane, its role, the weakness, a port, the
# folder with its keys. As a server it says its port first. It reads until the other side is gone.
PEER = """
import pathlib, socket, ssl, sys
from klyng_mp.remote.tls import Credentials, beacon_context, client_context, rank_contexts
plane, role, weakness, port, folder = sys.argv[1:]
pems = [pathlib.Path(folder, name).read_bytes() for name in ("cert", "key", "ca")]
if plane == "data":
    context = rank_contexts(Credentials(*pems))[role == "client"]
else:
    context = client_context() if role == "client" else beacon_context(*pems[:2])
if weakness == "TLS 1.2":
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
elif weakness == "no ALPN":
    context.set_alpn_protocols([])
elif weakness == "another ALPN":
    context.set_alpn_protocols(["http/1.1", "h2"])
try:
    if role == "client":
        raw = socket.create_connection(("127.0.0.1", int(port)))
        channel = context.wrap_socket(raw, server_hostname="rank-1.job")
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        channel = context.wrap_socket(listener.accept()[0], server_side=True)
    channel.recv(1)
except OSError:
    pass
"""

SUITES = {"AES-128": "TLS_AES_128_GCM_SHA256", "ChaCha20": "TLS_CHACHA20_POLY1305_SHA256"}
CONFIGURATION = """
openssl_conf = start
[start]
ssl_conf = parts
[parts]
system_default = defaults
[defaults]
Ciphersuites = {}
"""
WEAKNESSES = {  # and what is said of it
    "TLS 1.2": "",
    "AES-128": "TLS_AES_128_GCM_SHA256, and only TLSv1.3 with TLS_AES_256_GCM_SHA384",
    "ChaCha20": "TLS_CHACHA20_POLY1305_SHA256, and only TLSv1.3 with TLS_AES_256_GCM_SHA384",
    "no ALPN": "not our protocol instead of klyng-mp",
    "another ALPN": "not our protocol instead of klyng-mp",
}


@pytest.fixture(scope="module")
def authority():
    return JobAuthority()


@pytest.fixture(scope="module")
def ranks(authority):
    return {number: authority.issue(number) for number in (0, 1, 2, DRIVER)}


@pytest.fixture(scope="module")
def identity():
    return BeaconIdentity.create()


@pytest.fixture
def keys(tmp_path, ranks, identity):
    """Write the keys of a peer on each plane; return its folder."""

    def write(plane):
        credentials = ranks[0] if plane == "data" else Credentials(identity.cert_pem, identity.key_pem, b"")
        for name, pem in zip(("cert", "key", "ca"), credentials, strict=True):
            (tmp_path / name).write_bytes(pem)
        return tmp_path

    return write


@contextlib.contextmanager
def peer_process(plane, role, weakness, port, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if weakness in SUITES:
        (folder / "openssl.cnf").write_text(CONFIGURATION.format(SUITES[weakness]))
        environment["OPENSSL_CONF"] = str(folder / "openssl.cnf")
    words = [sys.executable, "-c", PEER, plane, role, weakness, str(port), str(folder)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as peer:
        try:
            yield peer
        finally:
            peer.kill()


def meet(plane, role, weakness, folder, contexts):
    """Return what this side comes to, in its role, with a peer in the other one."""
    server, client = contexts
    if role == "server":
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            peer_process(plane, "client", weakness, listener.getsockname()[1], folder),
        ):
            listener.settimeout(30)
            return settle(server, listener.accept()[0], plane, server_side=True)
    with peer_process(plane, "server", weakness, 0, folder) as peer:
        raw = socket.create_connection(("127.0.0.1", int(peer.stdout.readline())), 30)
        return settle(client, raw, plane, server_hostname="rank-0.job")


def settle(context, raw, plane, **how):
    raw.settimeout(30)
    with raw, context.wrap_socket(raw, suppress_ragged_eofs=False, **how) as channel:
        check_channel(channel, PROTOCOLS[plane])
        return channel.version(), channel.cipher()[0], channel.selected_alpn_protocol()


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("plane", PROTOCOLS)
def test_only_what_klyng_mp_speaks_is_spoken(plane, role, keys, ranks, identity):
    contexts = (beacon_context(identity.cert_pem, identity.key_pem), client_context())
    contexts = rank_contexts(ranks[1]) if plane == "data" else contexts
    folder = keys(plane)
    assert meet(plane, role, "none", folder, contexts) == ("TLSv1.3", CIPHER, PROTOCOLS[plane])
    for weakness, sentence in WEAKNESSES.items():
        with pytest.raises((RemoteProtocolError, ssl.SSLError)) as caught:
            meet(plane, role, weakness, folder, contexts)
        if sentence:
            assert caught.type is RemoteProtocolError, weakness
            assert sentence in str(caught.value)


@pytest.mark.parametrize("weakness", SUITES)
def test_without_the_check_a_weak_cipher_would_do(weakness, keys, identity):
    """The positive control of the test above."""
    contexts = (beacon_context(identity.cert_pem, identity.key_pem), client_context())
    folder = keys("control")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        peer_process("control", "client", weakness, listener.getsockname()[1], folder),
    ):
        listener.settimeout(30)
        raw = listener.accept()[0]
        raw.settimeout(30)
        with raw, contexts[0].wrap_socket(raw, server_side=True) as channel:
            assert channel.cipher()[0] == SUITES[weakness]


# -- in memory: who is at the other end ------------------------------------------------------------


class Wire:
    """Two ends of TLS in one process: a handshake, and bytes from one to the other."""

    def __init__(self, server, client, name=None):
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.bios = there, back
        self.server = server.wrap_bio(there, back, server_side=True)
        self.client = client.wrap_bio(back, there, server_hostname=name)

    def shake(self):
        for _ in range(4):
            for end in (self.client, self.server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.read(1)  # TLS 1.3 tells a client of its certificate's refusal at its first read
        return self


def test_ranks_know_each_other_by_number(ranks):
    wire = Wire(rank_contexts(ranks[1])[0], rank_contexts(ranks[DRIVER])[1], rank_name(1)).shake()
    assert (peer_number(wire.server), peer_number(wire.client)) == (DRIVER, 1)
    check_channel(wire.server, DATA)
    check_channel(wire.client, DATA)
    for end in (wire.server, wire.client):
        with pytest.raises(RemoteProtocolError, match=f"{DATA} instead of {CONTROL}"):
            check_channel(end)


def test_another_rank_than_the_one_that_was_called_is_refused(ranks):
    for called in (0, 2, 10, 11, DRIVER):
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            Wire(rank_contexts(ranks[1])[0], rank_contexts(ranks[0])[1], rank_name(called)).shake()


def test_a_rank_of_another_job_is_refused(ranks):
    stranger = JobAuthority().issue(1)
    with pytest.raises(ssl.SSLCertVerificationError):
        Wire(rank_contexts(stranger)[0], rank_contexts(ranks[0])[1], rank_name(1)).shake()
    with pytest.raises(ssl.SSLError):
        Wire(rank_contexts(ranks[0])[0], rank_contexts(stranger)[1], rank_name(0)).shake()
    # who believes the job's authority, but has no certificate of it
    mixed = stranger._replace(ca_pem=ranks[0].ca_pem)
    with pytest.raises(ssl.SSLError):
        Wire(rank_contexts(ranks[0])[0], rank_contexts(mixed)[1], rank_name(0)).shake()


def test_a_rank_without_a_certificate_is_refused(ranks):
    anonymous = client_context()
    anonymous.set_alpn_protocols([DATA])
    with pytest.raises(ssl.SSLError, match=r"PEER_DID_NOT_RETURN_A_CERTIFICATE|CERTIFICATE_REQUIRED"):
        Wire(rank_contexts(ranks[0])[0], anonymous).shake()


def test_a_rank_cannot_sign_for_another(ranks, authority):
    """Its certificate is no authority's: what it signs is refused."""
    forger = JobAuthority()
    forged = forger.issue(2)
    chain = Credentials(forged.cert_pem + ranks[1].cert_pem, forged.key_pem, ranks[1].ca_pem)
    with pytest.raises(ssl.SSLCertVerificationError):
        Wire(rank_contexts(chain)[0], rank_contexts(ranks[0])[1], rank_name(2)).shake()


def test_who_is_not_checked_has_no_number(identity):
    wire = Wire(beacon_context(identity.cert_pem, identity.key_pem), client_context()).shake()
    for end in (wire.client, wire.server):
        with pytest.raises(AuthenticationError, match="names no rank"):
            peer_number(end)


class Checked:
    """A channel whose checked certificate has some names."""

    def __init__(self, *names):
        self.names = names

    def getpeercert(self):
        return {"subjectAltName": self.names}


def test_only_one_name_of_one_rank_is_a_number():
    assert peer_number(Checked(("DNS", "rank-0.job"))) == 0
    assert peer_number(Checked(("DNS", f"rank-{DRIVER}.job"))) == DRIVER
    for name in ("rank-00.job", "rank-+1.job", "rank-.job", "rank-1.jobs", "xrank-1.job", "rank-1.job\n", "*.job"):
        with pytest.raises(AuthenticationError, match="names no rank"):
            peer_number(Checked(("DNS", name)))
    for names in [
        (),
        (("DNS", f"rank-{DRIVER + 1}.job"),),
        (("DNS", "rank-1.job"), ("DNS", "rank-2.job")),
        (("URI", "rank-1.job"),),
    ]:
        with pytest.raises(AuthenticationError, match="names no rank"):
            peer_number(Checked(*names))


@pytest.mark.parametrize("days", [-3, 3, 40_000])
def test_clocks_may_differ(days, ranks, monkeypatch, run_python, tmp_path):
    """What OpenSSL does with a clock that is wrong is in another process, whose certificates are of another time."""
    code = f"""
import datetime as dt, ssl
from klyng_mp.remote import security, tls
now = dt.datetime.now() + dt.timedelta(days={days})
security._FIRST_DAY, security._LAST_DAY = now, now + dt.timedelta(days=1)
authority = security.JobAuthority()
a, b = authority.issue(0), authority.issue(1)
def meet(flags):
    server, client = tls.rank_contexts(a)[0], tls.rank_contexts(b)[1]
    for context in (server, client):
        context.verify_flags &= flags
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(back, there, server_hostname="rank-0.job"), server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return [tls.peer_number(end) for end in ends]
print(meet(-1))
try:
    meet(~0x200000)
except ssl.SSLCertVerificationError as error:
    print(error.verify_message)
"""
    done = run_python("-c", code)
    why = "certificate has expired" if days < 0 else "certificate is not yet valid"
    assert (done.stdout.splitlines(), done.stderr) == (["[0, 1]", why], "")


# -- what a stream promises ------------------------------------------------------------------------


def sockets(server, client, name=None):
    """Return both ends of one TLS connection over a socket pair; the handshake is done."""
    left, right = socket.socketpair()
    for one in (left, right):
        one.setblocking(False)
    far = server.wrap_socket(left, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False)
    near = client.wrap_socket(right, server_hostname=name, do_handshake_on_connect=False, suppress_ragged_eofs=False)
    for _ in range(4):
        for end in (near, far):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return far, near


def both_planes(ranks, identity):
    yield beacon_context(identity.cert_pem, identity.key_pem), client_context(), None
    yield rank_contexts(ranks[0])[0], rank_contexts(ranks[1])[1], rank_name(0)


def test_a_stream_that_was_cut_off_has_no_orderly_end(ranks, identity):
    for contexts in both_planes(ranks, identity):
        for reader in (0, 1):
            ends = sockets(*contexts)
            with ends[0], ends[1]:
                ends[1 - reader].send(b"x")
                socket.socket.shutdown(ends[1 - reader], socket.SHUT_WR)
                assert ends[reader].recv(10) == b"x"
                with pytest.raises(ssl.SSLEOFError):
                    ends[reader].recv(10)


def test_a_server_sends_nothing_that_was_not_asked_for(ranks, identity):
    """Tickets would be there to be read, and lost data where they were not."""
    for contexts in both_planes(ranks, identity):
        far, near = sockets(*contexts)
        with far, near:
            with pytest.raises(ssl.SSLWantReadError):
                near.recv(1)
            assert contexts[0].num_tickets == 0
            assert near.session is None or not near.session.has_ticket


# -- fingerprints and keys -------------------------------------------------------------------------


def test_both_sides_see_one_fingerprint(identity):
    wire = Wire(beacon_context(identity.cert_pem, identity.key_pem), client_context()).shake()
    assert fingerprint_of(wire.client.getpeercert(True)) == identity.fingerprint
    assert fingerprint_of(b"abc") == "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0"
    with pytest.raises(AuthenticationError, match="showed no certificate"):
        fingerprint_of(wire.server.getpeercert(True))


def test_credentials_travel_and_are_not_shown(ranks):
    assert pickle.loads(pickle.dumps(ranks[0])) == ranks[0]
    assert "PRIVATE" not in f"{ranks[0]!r} {ranks[0]}"
    assert b"PRIVATE" in ranks[0].key_pem


def test_keys_leave_no_file_and_no_descriptor(ranks):
    before = os.listdir("/proc/self/fd")
    rank_contexts(ranks[0])
    assert os.listdir("/proc/self/fd") == before


def test_a_process_that_nobody_may_look_into_can_load_its_keys(ranks, run_python, tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else to try it")
    code = f"""
import ctypes, os
from klyng_mp.remote.tls import Credentials, rank_contexts
os.setgid(65534); os.setuid(65534)
assert ctypes.CDLL(None).prctl(4, 0) == 0  # PR_SET_DUMPABLE
rank_contexts(Credentials(*{tuple(ranks[0])!r}))
print("loaded")
"""
    done = run_python("-c", code)
    assert (done.stdout, done.stderr) == ("loaded\n", "")


def test_a_rank_needs_no_library_of_keys(run_python):
    code = "import sys, klyng_mp.remote.tls, klyng_mp.remote.preface"
    code += "; print({'cryptography', 'spake2'} & set(sys.modules))"
    assert run_python("-S", "-c", code).stdout == "set()\n"
