"""A real beacon for tests, and who attacks it: strangers, clients that break the rules, and who stands in between.

Loopback has sixteen million addresses: whoever is to come from many places takes `source(number)`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import select
import signal
import socket
import ssl
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from programs import FACTOR, ROOT, Program, children_of

from klyng_mp.errors import KlyngError
from klyng_mp.remote import schema
from klyng_mp.remote.client import connect
from klyng_mp.remote.home import Home
from klyng_mp.remote.hosts import Host, Secret
from klyng_mp.remote.login import ClientLogin
from klyng_mp.remote.protocol import KINDS, RECORDS
from klyng_mp.remote.security import ClientKey, Verifier, plain_code
from klyng_mp.remote.tls import client_context, fingerprint_of

TESTS = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
HEADER = struct.Struct("!BII")


def source(number):
    """Return one of many addresses of this machine."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


# -- the beacon ------------------------------------------------------------------------------------


class LiveBeacon:
    """A beacon as a process of its own, with a home of its own.

    ``options`` are lines of its beacon.toml; ``hook`` is Python that it and all that it starts run first.
    """

    def __init__(self, folder, *, options="", hook="", words=(), start=None, **popen):
        self.folder = Path(folder)
        self.home_path = self.folder / "home"
        if options:
            self.home_path.mkdir(0o700)
            (self.home_path / "beacon.toml").write_text(options)
        self.tmp = self.folder / "tmp"
        self.tmp.mkdir()
        (self.folder / "hook").mkdir()
        (self.folder / "hook" / "sitecustomize.py").write_text(hook)
        env = {
            "KLYNG_MP_HOME": str(self.home_path),
            "TMPDIR": str(self.tmp),
            "PYTHONPATH": f"{self.folder / 'hook'}{os.pathsep}{ROOT}",
        }
        if start is not None:
            popen["start"] = start
        words = ("-m", "klyng_mp.beacon", "--allow-root", "--port=0", *words)
        self.program = Program(*words, cwd=self.folder, env=env, **popen)

    def __enter__(self):
        try:
            self.program.wait_for("password in")
        except BaseException:
            self.program.__exit__()
            raise
        self.address, port = re.search(r"beacon at \[?([^\]]*?)\]?:(\d+), ", self.program.out).groups()
        self.port = int(port)
        self.fingerprint = re.search(r"fingerprint (\S+)", self.program.out)[1]
        self.password = (self.home_path / "password").read_text().strip()
        self.home = Home(self.home_path)
        self.client_home = Home(self.folder / "client")
        return self

    def __exit__(self, *error):
        try:
            self.program.signal(signal.SIGTERM)
            code = self.program.finish()
            said = self.program.err
        finally:
            self.program.__exit__()
        if error[0] is None:
            assert (code, said) == (0, ""), f"the beacon ended with {code}\n{said}"
            assert os.listdir(self.tmp) == []
            assert "a fault of the session" not in self.log, self.log

    @property
    def pid(self):
        return self.program.pid

    @property
    def log(self):
        return "".join(path.read_text() for path in sorted(self.home_path.glob("beacon*.log*")))

    def host(self, port=None, password=None, fingerprint=None):
        """Return it as a client's machines file names it."""
        port = self.port if port is None else port
        secret = Secret(self.password if password is None else password)
        return Host(f"{self.address}:{port}", self.address, port, password=secret, fingerprint=fingerprint)

    def log_in(self, *, port=None, password=None, timeout=10.0, home=None):
        """Log in as an honest client does; it has not met this beacon before, unless it has a home."""
        home = home or Home(self.folder / f"client{next(_numbers)}")
        return connect(self.host(port, password), home, timeout=timeout * FACTOR)

    def is_served(self, **keywords):
        """Tell whether an honest client is served; how long it took in seconds, that is."""
        began = time.perf_counter()
        self.log_in(**keywords).close(goodbye=True)
        return time.perf_counter() - began

    def try_from(self, address):
        """Log in from some address; return how long it took, or None where the beacon does not let it."""
        began = time.perf_counter()
        try:
            with self.reach(address) as sock, shake_hands(sock) as tls:
                login = ClientLogin(fingerprint_of(tls.getpeercert(True)), password=self.password)
                tls.sendall(login.start())
                while not login.done:
                    tls.sendall(login.feed(tls.recv(65536) or b"?"))
        except (OSError, KlyngError):
            return None
        return time.perf_counter() - began

    def reach(self, address=None, seconds=10.0):
        """Return a connection to it from some address."""
        origin = None if address is None else (address, 0)
        return socket.create_connection((self.address, self.port), seconds * FACTOR, source_address=origin)

    def world(self, **keywords):
        """Return what ``World(hosts=[…])`` takes to have ranks there."""
        return {"host": f"{self.address}:{self.port}", "passwd": self.password, **keywords}

    # -- how it fares

    def sessions(self):
        """Return its session processes."""
        return [pid for pid in children_of(self.pid) if name_of(pid) == "klyng session"]

    def settle(self, seconds=10.0):
        """Wait until it has no session any more."""
        end = time.monotonic() + seconds * FACTOR
        while children_of(self.pid):
            assert time.monotonic() < end, f"sessions stayed: {[(pid, name_of(pid)) for pid in children_of(self.pid)]}"
            pause()

    def cpu_seconds(self, *, settle=True):
        """Return what it has used of processors, with all its sessions that have ended."""
        if settle:
            self.settle()
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICK

    def state(self):
        """Return what must be the same after an attack as before it."""
        self.settle()
        looking = f"/proc/{self.pid}/task/"  # for children that have ended, which it does now and then
        fds = sorted(what for what in descriptors(self.pid) if not what.startswith(looking))
        return self.pid, fds, threads_of(self.pid)


_numbers = itertools.count(1)


def pause(seconds=0.01):
    """Let others go on, where nothing can be waited on."""
    select.select([], [], [], seconds)


def name_of(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it ended
        return ""


def threads_of(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid):
    """Yield what each descriptor of a process is."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def listening(pid):
    """Return the addresses at which a process listens."""
    inodes = set(descriptors(pid))
    found = []
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
            address, port = words[1].split(":")
            found.append((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)))
    return found


def memory_has(pid, needles):
    """Return which of some bytes are somewhere in a process's memory, by their names."""
    found = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            region = re.match(r"([0-9a-f]+)-([0-9a-f]+) r(\S+) \S+ \S+ (\d+)", line)
            if region is None or "[v" in line:  # vvar and vsyscall cannot be read
                continue
            low, high = int(region[1], 16), int(region[2], 16)
            try:
                memory.seek(low)
                data = memory.read(high - low)
            except (OSError, ValueError):
                continue
            found |= {name for name, needle in needles.items() if needle in data}
    return found


# -- strangers -------------------------------------------------------------------------------------


def ending(sock, seconds=10.0):
    """Read until the other side ends the connection, which it must; return what it said."""
    end = time.monotonic() + seconds * FACTOR
    said = b""
    while True:
        sock.settimeout(max(0.01, end - time.monotonic()))
        try:
            data = sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            return said
        except TimeoutError:
            raise AssertionError(f"the connection was not ended within {seconds} s; it said {said!r}") from None
        if not data:
            return said
        said += data


def at_once(function, items):
    """Call a function with each item, some at a time; return what it returned."""
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(function, items))


def leave(sock):
    """Say that nothing more comes, without a farewell of TLS; the other side may be gone."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)


def say(sock, data):
    """Send what the other side may not want to hear to its end."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        sock.sendall(data)


def shake_hands(sock, context=None):
    """Make a TLS connection of one, as a client; whoever is there."""
    return (context or client_context()).wrap_socket(sock, suppress_ragged_eofs=False)


def client_hello():
    """Return the first bytes of a client's handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = client_context().wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        half.do_handshake()
    return outgoing.read()


def mutants(data, count, chance):
    """Return that many damaged copies of some bytes, which still begin as they did."""
    found = []
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            changed[chance.randrange(1, len(changed))] = chance.randrange(256)
        kind = chance.randrange(4)
        if kind == 1:
            del changed[chance.randrange(1, len(changed)) :]
        elif kind == 2:
            at = chance.randrange(1, len(changed))
            changed[at:at] = chance.randbytes(chance.randrange(1, 300))
        elif kind == 3:
            low = chance.randrange(1, len(changed))
            changed += changed[low:]
        found.append(bytes(changed))
    return found


BANNERS = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x00\x00\x00\x85\xffSMBr\0\0\0\0\x18\x53\xc8",
    b"EHLO there\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
    b"#CHALLENGE#{sha256}" + bytes(40),
    b'{"KLYNG:MSG": true}\n',
    b"\x80\x05\x95",
    b"\x15\x03\x03\x00\x02\x02\x28",
    b"KMP0" + bytes(40),
    b"\n",
]  # of other protocols; klyng's own, multiprocessing's and a TLS alert among them


def say_hello(beacon, method, address=None):
    """Ask for a challenge, and leave."""
    with beacon.reach(address) as sock, shake_hands(sock) as tls:
        _Breaker(tls, method).until("challenge")


def cheap_guess(beacon, share, address=None, chance=random, method="password"):
    """Guess a password as cheaply as can be: without knowing one; tell how it ended.

    ``share`` is any that fits, of one `ClientProof`. Returns "away" where the beacon did not even listen, "refused",
    or "let in".
    """
    try:
        with beacon.reach(address) as sock, shake_hands(sock) as tls:
            login = _Breaker(tls, method)
            login.until("challenge")
            login.send("proof", share=share, proof=chance.randbytes(32))
            said = ending(tls)
    except (OSError, EOFError):
        return "away"
    kind = said[0] if said else 0
    return {KINDS["refused"].number: "refused", KINDS["accepted"].number: "let in"}.get(kind, "away")


# -- clients that break the rules --------------------------------------------------------------------


class _Breaker:
    """The words of a client, without its rules."""

    def __init__(self, tls, method):
        self.tls = tls
        self.heard = b""
        self.send("hello", method=method, nonce=os.urandom(32))

    def send(self, kind, data=b"", **fields):
        self.tls.sendall(frame(kind, data, **fields))

    def until(self, kind):
        while not self.heard.startswith(bytes([KINDS[kind].number])):
            data = self.tls.recv(65536)
            if not data:
                raise EOFError(f"no {kind} came")
            self.heard += data
        return self.heard


def frame(kind, data=b"", /, *, as_number=None, json_size=None, data_size=None, **fields):
    """Return a frame as bytes, whoever may send it and when; its header may lie."""
    row = KINDS[kind]
    record = row.fields
    if kind == "record":
        record = schema.Record({**row.fields.fields, **RECORDS[fields["name"]].fields.fields})
    text = schema.write_json(record.encode(fields, kind))
    sizes = (len(text) if json_size is None else json_size, len(data) if data_size is None else data_size)
    return HEADER.pack(row.number if as_number is None else as_number, *sizes) + text + data


def sample(of):
    """Return a value that fits a field."""
    if isinstance(of, schema.Record):
        return {name: sample(field) for name, field in of.fields.items()}
    if isinstance(of, schema.Maybe):
        return sample(of.of)
    if isinstance(of, schema.Items):
        return [sample(of.of)] * min(of.limit, 3)
    if isinstance(of, schema.Table):
        return {"word": sample(of.of)}
    if isinstance(of, schema.Octets):
        return bytes(range(of.low))
    if isinstance(of, schema.Integer):
        return max(of.low, min(of.high, 1))
    if isinstance(of, schema.Choice):
        return of.words[0]
    return {schema.Flag: True, schema.Text: "1"}[type(of)]


class Intruder:
    """A client that keeps to the protocol as far as a state, and then does as it likes.

    ``state`` is one of "hello", "proving", "paired", "open" and "job"; ``key`` is one that the beacon lets in.
    """

    def __init__(self, beacon, state, *, key=None, code=None, address=None):
        self.sock = beacon.reach(address)
        try:
            self.tls = shake_hands(self.sock)
            self.heard = b""
            if state == "proving":
                _Breaker(self.tls, "password").until("challenge")
            elif state != "hello":
                self._log_in(beacon, state, key, code)
        except BaseException:
            self.sock.close()
            raise

    def _log_in(self, beacon, state, key, code):
        pinned = beacon.fingerprint
        assert fingerprint_of(self.tls.getpeercert(True)) == pinned
        proof = {"code": code} if state == "paired" else {"key": key, "pinned": pinned}
        self.login = ClientLogin(pinned, **proof)
        self.tls.sendall(self.login.start())
        while not self.login.done:
            data = self.tls.recv(65536)
            assert data, "the beacon ended the login"
            self.tls.sendall(self.login.feed(data))
        if state == "job":
            self.tls.sendall(frame("job", id=os.urandom(16), ranks=1))

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.tls.close()
        self.sock.close()

    def say(self, *frames):
        say(self.tls, b"".join(frames))

    def hear(self, kind, seconds=5.0):
        """Return the JSON of a frame of this kind, or None where the end comes before it, or nothing."""
        end = time.monotonic() + seconds * FACTOR
        while kind not in (heard := dict(self.frames())):
            self.tls.settimeout(max(0.001, end - time.monotonic()))
            try:
                data = self.tls.recv(65536)
            except (OSError, ssl.SSLError):
                return None
            if not data:
                return None
            self.heard += data
        return heard[kind]

    def hear_the_end(self, seconds=5.0):
        """Wait for the end of the connection, which must come; return the kinds of what was said before."""
        self.heard += ending(self.tls, seconds)
        return {kind for kind, _ in self.frames()}

    def frames(self):
        names = {row.number: kind for kind, row in KINDS.items()}
        at, frames = 0, []
        while at + HEADER.size <= len(self.heard):
            number, json_size, data_size = HEADER.unpack_from(self.heard, at)
            at += HEADER.size
            if at + json_size + data_size > len(self.heard):
                break  # the rest of it is on its way
            frames.append((names[number], json.loads(self.heard[at : at + json_size] or b"null")))
            at += json_size + data_size
        return frames


def let_in(beacon):
    """Return a key that a beacon lets in."""
    from klyng_mp.remote.trust import AuthorizedClients

    key = ClientKey.create("tester")
    AuthorizedClients(beacon.home).add(key.public_bytes, "tester")
    return key


def offer_code(beacon, code="abcde-fghjk", guesses=10_000):
    """Let a code in, as often as it is offered anew; return what offers it."""
    from klyng_mp.remote.pairing import Pairing

    verifier = Verifier.of(plain_code(code))

    def offer():
        Pairing(beacon.home).offer(verifier.salt + verifier.secret, guesses=guesses)
        return code

    return offer


# -- who stands in between -----------------------------------------------------------------------------


class Relay:
    """Carries bytes between clients and a beacon, each connection in threads of its own.

    ``change(number, towards, offset, data)`` returns what becomes of bytes: of which connection, towards "beacon" or
    "client", and how many have gone before. ``wrap(there, here)`` may make other connections of the two that there are.
    """

    def __init__(self, address, port, change=None, wrap=None):
        self._there = address, port
        self._change = change or (lambda _number, _towards, _offset, data: data)
        self._wrap = wrap or (lambda there, here: (there, here))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.carried = []  # for each connection: [bytes towards the beacon, bytes towards the client]
        self.errors = []
        self._socks = []
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.cut()
        for thread in self._threads[1:]:
            thread.join()
        for sock in (self._listener, *self._socks):
            sock.close()

    def cut(self):
        """End all connections."""
        for sock in list(self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _listen(self):
        for number in itertools.count():
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            self._socks.append(here)
            thread = threading.Thread(target=self._serve, args=(number, here), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, number, here):
        self.carried.append([bytearray(), bytearray()])
        try:
            there = socket.create_connection(self._there, 10 * FACTOR)
            self._socks.append(there)
            there, here = self._wrap(there, here)
            self._socks += [there, here]
        except OSError as error:
            self.errors.append(error)
            here.close()
            return
        back = threading.Thread(target=self._carry, args=(number, "client", there, here), daemon=True)
        back.start()
        self._carry(number, "beacon", here, there)
        back.join()

    def _carry(self, number, towards, from_, to):
        record = self.carried[number][towards == "client"]
        with contextlib.suppress(OSError):
            from_.settimeout(None)
            while data := from_.recv(65536):
                offset = len(record)
                record += data
                to.sendall(self._change(number, towards, offset, data))
        # What has ended here ends there: half a connection would keep the other side waiting.
        for sock in (from_, to):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def flip(number, towards, at, bit=1):
    """Return a relay's change: one bit of one byte, in one direction of one connection."""

    def change(one, way, offset, data):
        if one != number or way != towards or not offset <= at < offset + len(data):
            return data
        changed = bytearray(data)
        changed[at - offset] ^= bit
        return bytes(changed)

    return change
