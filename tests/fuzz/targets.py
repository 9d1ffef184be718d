"""What reads bytes that others wrote, each as a function of bytes that raises only where there is a fault.

``TARGETS[name](data)`` tells whether the data was taken for what it is to be. Errors that are documented are no fault;
any other exception is, and so is a broken promise, which is an AssertionError. The first bytes of some say in which
state the rest arrives, so that one corpus serves all states.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
import tempfile
import warnings
from pathlib import Path

from klyng_mp.errors import (
    AuthenticationError,
    BeaconError,
    BundleError,
    CodecError,
    KlyngError,
    LocalProtocolError,
    MachinesError,
    RemoteProtocolError,
)
from klyng_mp.remote import bundle, protocol, records
from klyng_mp.remote.home import Home
from klyng_mp.remote.hosts import read_hosts, split_address
from klyng_mp.remote.login import BeaconLogin, ClientLogin, Guard
from klyng_mp.remote.options import BeaconOptions, read_options
from klyng_mp.remote.pairing import Pairing
from klyng_mp.remote.preface import pack_preface, read_preface
from klyng_mp.remote.running import find_beacon
from klyng_mp.remote.schema import read_json
from klyng_mp.remote.security import BeaconIdentity, ClientKey, Verifier, read_public
from klyng_mp.remote.trust import AuthorizedClients, KnownBeacons
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import FrameReader, Limits, Message, pack_frame

__all__ = ["LARGEST", "TARGETS"]

LARGEST = 1 << 13  # bytes of one input
FINGERPRINT = "SHA256:" + "A" * 43
KEY = ClientKey.create()
NOBODY = Verifier.of_nobody()
GUARD = Guard(lambda: None, lambda: None, lambda: False, lambda: False, lambda _key: None, NOBODY)

TARGETS = {}


def target(function):
    TARGETS[function.__name__] = function
    return function


def split(data, count):
    """Return the numbers that the first bytes are, and the rest."""
    head = data[:count].ljust(count, b"\0")
    return (*head, data[count:])


def pieces(data, size):
    """Return bytes in pieces of a size; 0 is all at once."""
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data] * bool(data)


def describe(message):
    return (
        *(getattr(message, name) for name in ("context", "source", "tag", "incarnation", "code")),
        bytes(message.head),
        [bytes(part) for part in message.buffers],
    )


# -- between ranks ---------------------------------------------------------------------------------

FRAME_LIMITS = Limits(parts=512, part_bytes=1 << 20, tag_bytes=1 << 10)


def read_frames(data, size):
    """Return the messages of a stream that comes in pieces, and whether it ended with a fault."""
    reader = FrameReader(limits=FRAME_LIMITS)
    messages = []
    try:
        for piece in pieces(data, size):
            while piece:
                room = reader.buffer()
                assert len(room) > 0
                taken = min(len(room), len(piece))
                room[:taken] = piece[:taken]
                messages += reader.received(taken)
                piece = piece[taken:]  # noqa: PLW2901 - the room may be smaller
        messages += reader.received(0)
    except RemoteProtocolError as error:
        for count in (0, 1):  # it is dead from then on
            try:
                reader.received(count)
            except RemoteProtocolError as again:
                assert count or str(again) in (str(error), "the stream ended in the middle of a frame")
            else:
                raise AssertionError("a reader that met an error went on") from error
        return messages, True
    return messages, False


@target
def frames(data):
    """Frames of messages between ranks, however the stream is cut; what was read can be written, and read again."""
    size, rest = split(data, 1)
    messages, failed = read_frames(rest, size)
    whole, whole_failed = read_frames(rest, 0)
    assert failed == whole_failed
    if not failed:
        assert [*map(describe, messages)] == [*map(describe, whole)]
    again = b"".join(bytes(part) for message in messages for part in pack_frame(message, FRAME_LIMITS))
    assert [*map(describe, read_frames(again, 0)[0])] == [*map(describe, messages)]
    return bool(messages) and not failed


TYPED = 9  # the codes below it never meet pickle or marshal


@target
def heads(data):
    """The head and the buffers of a message whose kind needs no pickle."""
    code, sizes, rest = split(data, 2)
    code %= TYPED
    at = len(rest) * sizes // 255
    codec = Codec(main_by_reference=True)
    try:
        found = codec.decode(code, rest[:at], [bytearray(rest[at:])] if sizes % 2 else [])
    except CodecError:
        return False
    assert type(found) in (type(None), bool, int, float, str, bytes, bytearray)
    encoded = codec.encode(found)
    again = codec.decode(encoded[0], encoded[1], [bytearray(part) for part in encoded[2]])
    assert (type(again), repr(again)) == (type(found), repr(found))
    return True


# -- between a client and a beacon -----------------------------------------------------------------

STATES = ("hello", "greeted", "proving", "judged", "paired", "open", "job")


def hear(side, state, data, size):
    """Return the frames that one side makes of a stream in a state, and whether it ended with a fault."""
    conversation = protocol.Conversation(side)
    conversation._phase = state
    found = []
    try:
        for piece in pieces(data, size):
            found += conversation.feed(piece)
    except RemoteProtocolError as error:
        assert conversation.state == "closed"
        try:
            conversation.feed(b"")
        except RemoteProtocolError as again:
            assert str(again) == str(error)
        else:
            raise AssertionError("a conversation that met an error went on") from error
        return found, True
    return found, False


def say_again(side, state, found):
    """Have the other side say what was heard, and hear it again."""
    other = protocol.Conversation("beacon" if side == "client" else "client")
    other._phase = state
    said = b""
    for kind, fields, content in found:
        if kind == "bye":
            return
        named = {name: value for name, value in fields.items() if value is not None}
        said += other.pack(kind, content, **named)
    assert hear(side, state, said, 0) == (found, False)


@target
def conversation(data):
    """Frames of a control channel, in each state of each side, and the records of a job in them."""
    where, size, rest = split(data, 2)
    side, state = ("client", "beacon")[where % 2], STATES[where // 2 % len(STATES)]
    whole, whole_failed = hear(side, state, rest, 0)
    found, failed = hear(side, state, rest, size)
    assert failed == whole_failed
    if failed:
        return False
    assert found == whole
    say_again(side, state, found)
    for kind, fields, content in found:
        if kind == "record" and fields["name"] not in records.BEGINNING:
            words = {name: value for name, value in fields.items() if name != "name"}
            records.pack_record(records.unpack_record(fields["name"], words, content))
    return bool(found)


@target
def strict_json(data):
    """The JSON of a frame."""
    try:
        read_json(data)
    except ValueError as error:
        assert type(error).__name__ == "MisfitError"
        return False
    return True


@target
def preface(data):
    """The beginning of a connection between ranks; nobody guesses its MAC."""
    try:
        found = read_preface(data)
    except RemoteProtocolError:
        return False
    assert not found.is_from(b"another key")
    same = pack_preface(found.job_id, found.source, found.dest, b"another key")
    assert same[:-16] == data[:-16]
    return True


@target
def beacon_login(data):
    """What a beacon hears of a stranger, who knows nothing: it is refused, whatever it says."""
    size, rest = split(data, 1)
    login = BeaconLogin(FINGERPRINT, GUARD)
    challenged = False
    for piece in pieces(rest, size):
        said = login.feed(piece)
        assert not login.done
        assert login.client is None
        if login.failure:
            assert login.delayed
            assert said[0] == protocol.KINDS["refused"].number
            return challenged
        challenged |= bool(said)
    login.feed_eof()
    assert login.failure
    return challenged


@target
def client_login(data):
    """What a client hears of somebody who is not its beacon."""
    method, size, rest = split(data, 2)
    # A challenge to a password costs a tenth of a second, as it is meant to.
    proof = {"password": "x" * 20} if method == 1 else {"key": KEY, "pinned": FINGERPRINT}
    login = ClientLogin(FINGERPRINT, **proof)
    login.start()
    answered = False
    try:
        for piece in pieces(rest, size):
            answered |= bool(login.feed(piece))
            if login.done:
                break
    except (RemoteProtocolError, BeaconError):
        assert not login.done
    if method == 1:
        assert not login.done  # it has not proved that it knows the password
    return answered


# -- files -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@target
def machines(data):
    """A machines file, in JSON or TOML."""
    kind, rest = split(data, 1)
    with folder() as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = path / ("machines.toml" if kind % 2 else "machines.json")
        file.write_bytes(rest)
        try:
            found = read_hosts(str(file))
        except MachinesError as error:
            assert str(error)
            return False
    for host in found:
        assert host.is_local or 1 <= host.port <= 65535
        assert host.password is None or host.password.reveal() not in repr(host)
    assert read_hosts(found) == found
    return True


@target
def address(data):
    """The name of a host as a user writes it."""
    try:
        name, port = split_address(data.decode(errors="surrogateescape"))
    except ValueError as error:
        assert not isinstance(error, UnicodeError)
        return False
    assert name
    assert port is None or 1 <= port <= 65535
    assert split_address(name) == (name, None)
    return True


@target
def options(data):
    """A beacon's beacon.toml."""
    with folder() as path:
        home = Home(path)
        Path(home.options).write_bytes(data)
        try:
            found = read_options(home)
        except BeaconError:
            return False
    assert isinstance(found, BeaconOptions)
    assert 0 <= found.port <= 65535
    return found != BeaconOptions()


def change(home, action):
    """Do what writes a file; where that is refused, the file must be as before."""
    before = {entry.name: entry.read_bytes() for entry in Path(home.path).iterdir() if entry.name != "lock"}
    try:
        action()
    except (BeaconError, AuthenticationError):
        after = {entry.name: entry.read_bytes() for entry in Path(home.path).iterdir() if entry.name != "lock"}
        assert after == before
        return False
    return True


@target
def known_beacons(data):
    """What a client knows beacons by."""
    with folder() as path:
        home = Home(path)
        known = KnownBeacons(home)
        Path(home.known_beacons).write_bytes(data)
        if not change(home, lambda: known.add("new:1", FINGERPRINT, replace=True)):
            return False
        assert known.check("new:1", FINGERPRINT)
        assert known.forget("new:1")
        assert known.lookup("new:1") is None
        return any(True for _ in known._lines())


@target
def authorized_clients(data):
    """Whose keys a beacon takes."""
    with folder() as path:
        home = Home(path)
        clients = AuthorizedClients(home)
        Path(home.authorized_clients).write_bytes(data)
        if not change(home, lambda: clients.add(bytes(32), "fuzz")):
            return False
        assert clients.name_of(bytes(32)) is not None
        others = [client for client in clients.clients() if client.key != bytes(32)]
        assert clients.add(others[0].line if others else bytes(32)).key
        assert clients.revoke(clients.name_of(bytes(32)))
        assert clients.name_of(bytes(32)) is None
        return bool(others)


@target
def kept_files(data):
    """The other files of a home: the state of a beacon that runs, the code that is valid now, the password."""
    kind, rest = split(data, 1)
    with folder() as path:
        home = Home(path)
        file = Path((home.state, home.pairing, home.password)[kind % 3])
        file.write_bytes(rest)
        file.chmod(0o600)
        try:
            if kind % 3 == 0:
                return find_beacon(home) is not None
            if kind % 3 == 1:
                pairing = Pairing(home, lambda: 150.0)
                code = pairing.current()
                if code is None:
                    return False
                return pairing.guess(code.verifier) and pairing.redeem(code.verifier) and pairing.current() is None
            return home.ensure_password(lambda: "made anew")[0] != "made anew"
        except (BeaconError, AuthenticationError):
            return False


@target
def key_files(data):
    """The line of a client's public key, and the files of its private key and of a beacon's identity."""
    kind, rest = split(data, 1)
    with folder() as path:
        file = path / "key.pem"
        file.write_bytes(rest)
        file.chmod(0o600)
        try:
            if kind % 3 == 0:
                key, _ = read_public(rest.decode(errors="surrogateescape"))
                return len(key) == 32
            if kind % 3 == 1:
                return len(ClientKey.load(file).public_bytes) == 32
            return BeaconIdentity.load(file).fingerprint.startswith("SHA256:")
        except AuthenticationError:
            return False


# -- bundles ---------------------------------------------------------------------------------------

BUNDLE_LIMITS = bundle.Limits(files=20, bytes=1 << 16)


def archive(kind, data):
    """Return data as a bundle: it is one, or a tar file to be compressed, or a manifest without files."""
    if kind == 0:
        return data
    if kind == 2:
        member = tarfile.TarInfo("manifest.json")
        member.size, member.mode = len(data), 0o644
        data = member.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512) + bytes(1024)
    return gzip.compress(data, 1, mtime=0)


@target
def bundles(data):
    """The archive of a program: what is taken is unpacked into its folder, and nowhere else."""
    kind, rest = split(data, 1)
    packed = archive(kind % 3, rest)
    try:
        digest, manifest = bundle.inspect(packed, BUNDLE_LIMITS)
    except BundleError:
        digest = None
    with folder() as path:
        try:
            bundle.unpack(io.BytesIO(packed), str(path / "in"), BUNDLE_LIMITS)
        except BundleError as error:
            assert digest is None or isinstance(error.__cause__, OSError)
            assert os.listdir(path) == []
            return False
        assert digest is not None
        assert os.listdir(path) == ["in"]
        assert hashlib.sha256(manifest.encode()).hexdigest() == digest
        for packed_file in manifest.files:
            content = (path / "in" / packed_file.place).read_bytes()
            assert hashlib.sha256(content).hexdigest() == packed_file.sha256
        written = sum(len(files) for _, _, files in os.walk(path))
        assert written == len(manifest.files)
    return True


# -- by mistake ------------------------------------------------------------------------------------


@target
def messages(data):
    """What a user gives to be sent with a tag of his own is refused here, or arrives as it was."""
    code, rest = split(data, 1)
    at = len(rest) // 2
    given = Message(1 << 32, 0, rest[:at].decode(errors="surrogateescape"), 1, code, rest[at:], ())
    try:
        packed = b"".join(map(bytes, pack_frame(given, FRAME_LIMITS)))
    except (LocalProtocolError, KlyngError):
        return False
    ((came,), failed) = read_frames(packed, 0)
    assert not failed
    assert describe(came) == describe(given)
    return True
