"""Write the corpus that fuzzing begins with, as the real senders write it: python tests/fuzz/seeds.py

What fuzzers have found stays in the corpus: only files whose name begins with ``seed`` are written anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

import targets
from attackers import frame, sample
from cryptography.hazmat.primitives.asymmetric import ed25519

from klyng_mp.objects import orders as orders_of_objects
from klyng_mp.remote import bundle, protocol
from klyng_mp.remote.preface import pack_preface
from klyng_mp.remote.security import BeaconProof, ClientKey, ClientProof
from klyng_mp.remote.sources import Entry, Sources
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import Message, pack_frame

HOSTS = {
    "local": {"max_procs": 2},
    "10.0.0.5:2300": {"max_procs": 4, "passwd": "a secret"},
    "[fd00::1]:22": {"fingerprint": targets.FINGERPRINT, "port": 22},
    "lab.example.org": {},
}
TOML = '[local]\nmax_procs = 2\n["10.0.0.5"]\nport = 2300\npasswd = "a secret"\n'
OPTIONS = """# of a cluster
host = "0.0.0.0"
port = 2222
max_ranks = 64
max_bundle_bytes = "64 MiB"
max_job_seconds = 3600.5
allow_plaintext = true
"""
CLIENT_LINE = f"klyng-ed25519 {'A' * 43}= of somebody"


def frames():
    messages = [
        Message(1 << 32, 0, 7, 1, 3, b"head", ()),
        Message(1 << 32, 1, "a tag", 1, 9, b"h", [b"abc", b"", bytes(100)]),
        Message(0, 0xFFFFFFFF, 1, 0, 0, b"", ()),
        Message(3 << 32, 2, 2**63 - 1, 9, 255, bytes(300), [bytes(70_000)]),
    ]
    packed = [b"".join(map(bytes, pack_frame(one))) for one in messages]
    yield from (b"\0" + one for one in packed)
    yield b"\x11" + b"".join(packed)
    yield b"\x01" + packed[1] + packed[0][:20]


def orders():
    from object_targets import KINDS, ORDER

    what, verb = orders_of_objects.What, orders_of_objects.Verb

    def order(kind, code, process, *numbers, said=verb.ASK, content=b"", request=1):
        first, second, third = (*numbers, 0, 0, 0)[:3]
        front = ORDER.pack(said, code, process, 0, 7, request, first, second, third)
        return bytes((KINDS.index(kind), len(content))) + front + content

    for kind in ("lock", "recursive", "semaphore"):
        yield b"".join(
            order(kind, code, process, 1, request=number)
            for number, (code, process) in enumerate(
                ((what.ACQUIRE, 1), (what.ACQUIRE, 2), (what.COUNT, 3), (what.RELEASE, 1), (what.LET_GO, 2)), 1
            )
        )
    taken = order("lock", what.ACQUIRE, 1, 1)
    yield taken + order("condition", what.WAIT, 1, request=2) + order("condition", what.NOTIFY, 1, 5, request=3)
    yield b"".join(order("event", code, 1, request=code) for code in (what.LOOK, what.WAIT, what.SET, what.CLEAR))
    yield b"".join(order("barrier", what.WAIT, process) for process in (1, 2)) + order("barrier", what.DONE, 2, 1)
    yield order("cell", what.WRITE, 1, 8, -4, 4, content=bytes(8)) + order("cell", what.READ, 1, 0, 8, request=2)
    codes = (what.HOLD, what.PASS, what.RECV, what.SEND, what.PEEK, what.GIVE_BACK, what.DROP)
    yield b"".join(order("pipe", code, 1 + code % 2, code % 2, request=code, content=b"x") for code in codes)
    for kind in ("queue", "joinable"):
        put = order(kind, 0, 1, 0, 0, 0, said=verb.PUT, content=b"item")
        yield put + order(kind, what.GET, 1, 1, request=2) + order(kind, what.SIZE, 2) + order(kind, what.JOIN, 1)
    yield order("queue", what.GET, 1, 1) + order("queue", 0, 1, 0, 2, 5, said=verb.ADOPT)
    yield order("queue", 1, 0, 1, 0, 9, said=verb.HOME, content=bytes(11))


def heads():
    codec = Codec(main_by_reference=True)
    for value in (None, True, -(2**70), 2.5, "Ümläut", b"bytes", bytearray(b"array"), b"x" * 5000, bytearray(5000)):
        code, head, buffers = codec.encode(value)
        body = head + b"".join(map(bytes, buffers))
        sizes = 254 if not buffers else 1 + 255 * len(head) // max(1, len(body)) // 2 * 2
        yield bytes((code, 255 if not buffers else sizes)) + body


def conversation():
    for number, (kind, row) in enumerate(protocol.KINDS.items()):
        if kind in ("record", "bye"):
            continue
        for state in row.moves:
            if state in targets.STATES:
                hears = "client" if row.sender == "beacon" else "beacon"
                fields = sample(row.fields)
                data = b"data" if row.data_limit else b""
                yield f"{kind}-{state}", place(hears, state, number % 5) + frame(kind, data, **fields)
    yield "bye", place("client", "open", 0) + frame("bye", count=0)
    for name, row in protocol.RECORDS.items():
        hears = "client" if row.sender == "beacon" else "beacon"
        data = b"data" if row.data_limit else b""
        yield f"record-{name}", place(hears, "job", 0) + frame("record", data, name=name, **sample(row.fields))


def place(side, state, size):
    return bytes((("client", "beacon").index(side) + 2 * targets.STATES.index(state), size))


def strict_json():
    yield b'{"a":[1,-2,{"b":"c\\u00e4\\"","d":null}],"e":true}'
    yield b"[[[[[[[[1]]]]]]]]"
    yield b"[[[[[[[[[1]]]]]]]]]"
    yield b"1e3"


def preface():
    yield pack_preface(bytes(range(16)), 1, 2, b"key")
    yield pack_preface(bytes(16), 0xFFFFFFFF, 0, b"key")


def beacon_login():
    hello = frame("hello", method="password", nonce=bytes(32))
    by_key = frame("hello", method="key", nonce=bytes(32))
    yield b"\0" + hello
    yield b"\0" + by_key + frame("proof", key=bytes(32), proof=bytes(64))
    share = ClientProof(bytes(32), "password", "").share
    yield b"\x07" + hello + frame("proof", share=share, proof=bytes(32))
    yield b"\0" + frame("hello", method="code", nonce=bytes(32)) + frame("proof", share=share, proof=bytes(32))


def client_login():
    share = BeaconProof(targets.NOBODY, "password", targets.FINGERPRINT).share
    nonce, salt = bytes(32), bytes(16)
    yield b"\0\0" + frame("challenge", nonce=nonce)
    yield b"\0\x05" + frame("challenge", nonce=nonce)
    yield b"\0\0" + frame("challenge", nonce=nonce) + frame("accepted")
    yield b"\0\0" + frame("refused", reason="busy", sentence="no", limit=None)
    yield b"\1\0" + frame("challenge", nonce=nonce, salt=salt, share=share) + frame("accepted", proof=bytes(32))


def machines():
    yield b"\0" + json.dumps(HOSTS).encode()
    yield b"\0" + json.dumps({"a": {"max_proc": 1}}).encode()
    yield b"\1" + TOML.encode()


def address():
    yield from (b"lab", b"10.0.0.5:2300", b"[fd00::1]:22", b"fd00::1%eth0", b"[::1]", b"a" * 64, b"lab:")


def options():
    yield OPTIONS.encode()
    yield b'port = "2222"\n'
    yield b"cache_bytes = 0x10\n[max_jobs]\na = 1979-05-27T07:32:00Z\n"


def known_beacons():
    yield f"# mine\nlab:2222 {targets.FINGERPRINT}\n\n[fd00::1]:22 {targets.FINGERPRINT}\n".encode()
    yield f"new:1 {targets.FINGERPRINT}\n".encode()


def authorized_clients():
    yield f"# them\n{CLIENT_LINE}\nklyng-ed25519 {'B' * 43}=\n".encode()


def kept_files():
    state = {"pid": 1, "start": "1@boot", "address": "127.0.0.1", "port": 2222, "fingerprint": targets.FINGERPRINT}
    yield b"\0" + json.dumps(state).encode()
    yield b"\1" + bytes(48).hex().encode() + b" 100.0 400.0 5\n"
    yield b"\2" + b"abcd-efgh-jkmn-pqrs\n"


def key_files():
    yield b"\0" + CLIENT_LINE.encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        ClientKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))).save(path)  # nobody's
        yield b"\1" + path.read_bytes()
        yield b"\2" + path.read_bytes()


def bundles():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "app.py"
        path.write_text("print('hello')\n")
        path.chmod(0o644)
        entries = tuple(Entry(str(path), f"app/{name}", "") for name in ("a.py", "b.py"))
        made = bundle.Bundle.make(Sources(entries, ("app",), "app", "app/a.py", (), (), ()))
    yield b"\0" + made.data
    yield b"\1" + targets.gzip.decompress(made.data)
    empty = bundle.Manifest((), (), "run", "")
    yield b"\2" + empty.encode()
    yield b"\2" + made.manifest.encode()


def messages():
    yield b"\7a tagits head"


def ring():
    yield bytes((0x00, 0x01, 0x09, 0x18, 0x01, 0x28, 0x09, 0x01))
    yield bytes((0x30, 0x02, 0x10, 0x00)) + b"\xff" * 8 + bytes((0x01, 0x09, 0x40, 0x01))
    yield bytes((0x00, 0x06, 0x00, 0x00)) + (1 << 40).to_bytes(8, "little") + bytes((0x01, 0x09))
    yield bytes((0x30, 0x0A, 0x00, 0x00)) + (48).to_bytes(8, "little") + bytes((0x01, 0x09))


def mailbox():
    yield bytes((0, 0, 3, 0, 2, 0, 0, 0, 0, 13, 7, 13, 5, 2, 2, 1, 4, 0, 6, 0))
    yield bytes((0, 0x85, 3, 0x25, 6, 0, 3, 0x25, 5, 3, 0, 1, 2, 1))


def main():
    import core_targets  # noqa: F401 - they add their own
    import object_targets  # noqa: F401

    for name in targets.TARGETS:
        folder = HERE / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed*"):
            old.unlink()
        for number, data in enumerate(globals()[name]()):
            label, content = (f"{number:03}", data) if isinstance(data, bytes) else data
            (folder / f"seed-{label}").write_bytes(content)


if __name__ == "__main__":
    main()
