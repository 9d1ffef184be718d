"""Attacks of who is inside, or on the way: clients that break the rules, and false ranks.

Each prints how much of it there was, and has a control: what it imitates comes through.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import random
import ssl
import threading
import traceback
from pathlib import Path

import attackers
import pytest
from attackers import Intruder, LiveBeacon, Relay, flip, frame, sample
from programs import FACTOR, children_of, still_there, wait_until
from remote.test_attacks import OPEN_DOOR, SCALES, SHARE, WEAKNESSES, knock

import klyng_mp as mp
from klyng_mp.remote import login, tls
from klyng_mp.remote.bundle import Bundle
from klyng_mp.remote.preface import PREFACE_SIZE, pack_preface
from klyng_mp.remote.protocol import KINDS, RECORDS
from klyng_mp.remote.proving import OF_ONE
from klyng_mp.remote.records import BEGINNING
from klyng_mp.remote.security import BeaconIdentity, JobAuthority
from klyng_mp.remote.sources import find_loaded_sources
from klyng_mp.wire.frames import DRIVER

pytestmark = pytest.mark.slow

FAR = 2
LIMITS = "max_ranks = 40\nmax_jobs = 40\nmax_bundle_bytes = 1048576\n"


@pytest.fixture(scope="module")
def beacon(tmp_path_factory):
    with LiveBeacon(tmp_path_factory.mktemp("beacon"), options=LIMITS, hook=OPEN_DOOR) as made:
        made.is_served()
        yield made


@pytest.fixture(scope="module")
def key(beacon):
    return attackers.let_in(beacon)


@pytest.fixture
def world(beacon, monkeypatch, tmp_path):
    """A job of three ranks: 0 and 1 here, and `FAR` at the beacon."""
    monkeypatch.setenv("KLYNG_MP_HOME", str(tmp_path / "client"))
    with mp.World(hosts=[{"host": "local", "max_procs": 2}, beacon.world(max_procs=1)], n=3) as made:
        yield made
    beacon.settle()


def network_of(world):
    """Return what its ranks know of each other: keys, and credentials of all of them."""
    return world._job._network


# -- every state, every frame ----------------------------------------------------------------------------

# What the beacon says to what may be said; where it says nothing, it goes on.
ANSWERS = {
    "hello": "challenge",
    "proof": "refused",  # it is none of a password
    "enrol": "enrolled",
    "ping": "pong",
    "probe": "probe_reply",
    "status": "status_reply",
    "pong": None,
    "job": None,
    "record": "refused",  # "launch" comes too early
    "bye": "bye",
}
SAMPLES = {
    "record": {"name": "launch", "join_key": bytes(32), "incarnations": []},
    "proof": {"share": SHARE, "proof": bytes(32)},
}
NO_KINDS = {"nothing": 0, "none": 8, "the last": 255}
STATES = ("hello", "proving", "paired", "open", "job")


@pytest.mark.parametrize("state", STATES)
def test_every_frame_in_every_state_is_answered_or_ends_the_connection(beacon, key, state, monkeypatch):
    monkeypatch.setattr(login, "stretch", functools.cache(login.stretch))  # of the client: the same each time
    offer = attackers.offer_code(beacon) if state == "paired" else lambda: None

    def try_with(kind):
        """Say it; return whether it was allowed."""
        row = KINDS.get(kind)
        with Intruder(beacon, state, key=key, code=offer()) as client:
            if row is None:
                client.say(frame("ping", as_number=NO_KINDS[kind]))
            else:
                client.say(frame(kind, **SAMPLES.get(kind) or sample(row.fields)))
            if row is None or row.sender == "beacon" or state not in row.moves:
                assert client.hear_the_end() <= {"challenge", "refused", "ping", "bye"}, (state, kind)
                return False
            if ANSWERS[kind] is None:
                client.say(frame("ping"))
            assert client.hear(ANSWERS[kind] or "pong") is not None, (state, kind, client.frames())
            return True

    kinds = [*KINDS, *NO_KINDS]
    # There is one code at a time.
    allowed = list(map(try_with, kinds)) if state == "paired" else attackers.at_once(try_with, kinds)
    beacon.settle()
    print(f"in the state {state!r}: {allowed.count(True)} frames were answered, {allowed.count(False)} ended it")
    assert True in allowed
    assert beacon.is_served()


def test_every_word_of_a_job_that_was_not_described_is_refused(beacon, key):
    def try_with(name):
        row = RECORDS[name]
        with Intruder(beacon, "job", key=key) as client:
            client.say(frame("record", name=name, **sample(row.fields)))
            if row.sender == "beacon":
                assert client.hear_the_end() <= {"ping", "bye"}, name
            elif name == "written":  # which is about what came before
                client.say(frame("ping"))
                assert client.hear("pong") is not None, name
            else:
                assert "both sides must run the same klyng_mp" in client.hear("refused")["sentence"], name

    attackers.at_once(try_with, RECORDS)
    beacon.settle()
    print(f"{len(RECORDS)} words")


@pytest.mark.parametrize(
    "name",
    # Who has its ranks renewed behind its own back waits for those that it had.
    sorted(name for name, row in RECORDS.items() if row.sender == "client" and name != "refill"),
)
def test_every_word_of_a_job_that_runs_hurts_that_job_at_most(beacon, monkeypatch, tmp_path, name):
    monkeypatch.setenv("KLYNG_MP_HOME", str(tmp_path / "client"))
    before = len(beacon.log)
    with contextlib.suppress(mp.KlyngError), mp.World(hosts=[beacon.world(max_procs=1)]) as world:
        assert world.run(os.getpid)
        (session,) = beacon.sessions()
        assert [attackers.name_of(pid) for pid in below(session)].count("klyng zygote") == 1
        link = world._job._sites[0]._link
        with world._job.endpoint.lock:
            link.send("record", name=name, **sample(RECORDS[name].fields))
        if name in BEGINNING:
            wait_until(lambda: "came at the wrong time" in beacon.log[before:])
        assert [attackers.name_of(pid) for pid in below(session)].count("klyng zygote") <= 1
        world.run(os.getpid)
    beacon.settle()
    assert beacon.is_served()


# -- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["hello", "open", "job"])
def test_a_length_that_is_too_large_is_refused_before_a_byte_of_it_comes(beacon, key, state):
    before = attackers.resident_bytes(beacon.pid)

    def lie(headers):
        kind, sizes = headers
        said = SAMPLES.get(kind) or sample(KINDS[kind].fields)
        with Intruder(beacon, state, key=key) as client:
            client.say(frame(kind, **said, **sizes)[: attackers.HEADER.size])
            assert client.hear_the_end() <= {"refused", "ping", "bye"}

    lies = [
        (kind, sizes)
        for kind, row in KINDS.items()
        if row.sender != "beacon" and state in row.moves
        for sizes in (
            {"json_size": row.json_limit + 1},
            {"json_size": 2**32 - 1},
            {"data_size": row.data_limit + 1},
            {"data_size": 2**32 - 1},
        )
    ]
    attackers.at_once(lie, lies)
    beacon.settle()
    grown = attackers.resident_bytes(beacon.pid) - before
    print(f"{len(lies)} lengths in the state {state!r}; the beacon grew by {grown >> 10} KiB")
    assert grown < 4 << 20


def words_of_a_job(beacon, ranks, *, bundle=None, bundle_bytes=None):
    """Return what begins a job of some ranks: the frame, the description, its program, and the last word."""
    program = Bundle.make(find_loaded_sources([]))
    said = sample(RECORDS["describe"].fields)
    said |= {
        "size": ranks,
        "first": 0,
        "count": ranks,
        "sites": [{"name": "x", "first": 0, "size": ranks, "address": "127.0.0.1", "port": beacon.port}],
        "packages": [],
        "argv": ["x"],
        "log_level": None,
        "seed": None,
        "bundle": bundle or bytes.fromhex(program.digest),
        "bundle_bytes": len(program.data) if bundle_bytes is None else bundle_bytes,
        "environment": dict(os.environ),
    }
    return (
        frame("job", id=os.urandom(16), ranks=ranks),
        frame("record", name="describe", **said),
        frame("record", program.data, name="bundle", last=True),
        frame("record", name="launch", join_key=bytes(32), incarnations=[]),
    )


def below(pid):
    """Return all processes below one."""
    found = children_of(pid) if os.path.exists(f"/proc/{pid}") else []
    return found + [one for child in found for one in below(child)]


def test_ranks_over_the_limit_are_never_started_however_they_are_asked_for(beacon, key):
    started = []
    words = words_of_a_job(beacon, 41)
    for number, count in enumerate((1, 2, 3, 4, 4, 4), 1):  # how much is said at once, without a look at the answer
        with Intruder(beacon, "open", key=key) as client:
            (session,) = beacon.sessions()
            client.say(*words[:count])
            assert client.hear("refused") is not None
            client.say(*words[count:])
            while still_there([session], 0.02) and len(started) < 10 * number:
                with contextlib.suppress(OSError):
                    started.append(list(map(attackers.name_of, below(session))))
        beacon.settle()
    assert [names for names in started if names] == []
    # And where it waits for the beacon, they are.
    job, describe, *rest = words_of_a_job(beacon, 4)
    with Intruder(beacon, "open", key=key) as client:
        (session,) = beacon.sessions()
        client.say(job, describe)
        assert client.hear("record") is not None
        client.say(*rest)
        wait_until(lambda: "klyng zygote" in map(attackers.name_of, below(session)))
    beacon.settle()


@pytest.mark.parametrize(
    ("ranks", "changes", "limit"),
    [(41, {}, "max_ranks"), (2**20, {}, "max_ranks"), (1, {"bundle_bytes": (1 << 20) + 1}, "max_bundle_bytes"),
     (1, {"bundle_bytes": 2**63 - 1}, "max_bundle_bytes")],
)  # fmt: skip
def test_a_job_over_a_limit_is_refused_and_the_refusal_names_it(beacon, key, ranks, changes, limit):
    job, describe, *_ = words_of_a_job(beacon, ranks, **changes)
    with Intruder(beacon, "open", key=key) as client:
        client.say(job, describe)
        refused = client.hear("refused")
        assert refused["limit"] == limit
        assert limit in refused["sentence"]
    beacon.settle()


def test_more_of_a_program_than_was_said_is_refused(beacon, key):
    job, describe, *_ = words_of_a_job(beacon, 1, bundle=bytes(32), bundle_bytes=1000)
    with Intruder(beacon, "open", key=key) as client:
        client.say(job, describe)
        assert client.hear("record") is not None
        client.say(frame("record", bytes(600), name="bundle", last=False))
        client.say(frame("record", bytes(600), name="bundle", last=False))
        refused = client.hear("refused")
        assert refused.get("limit") == "max_bundle_bytes", refused
    beacon.settle()
    with Intruder(beacon, "open", key=key) as client:
        client.say(job, describe)
        assert client.hear("record") is not None
        client.say(frame("record", bytes(600), name="bundle", last=True))  # which is none
        refused = client.hear("refused")
        assert refused["reason"] == "bundle", refused
    beacon.settle()


# -- false ranks -------------------------------------------------------------------------------------


def call(beacon, context, preface, dest, said=b""):
    """Connect to a rank as a rank does; return what it says when it accepts, or nothing."""
    with beacon.reach() as sock:
        sock.sendall(preface + said)
        try:
            with context.wrap_socket(sock, server_hostname=tls.rank_name(dest), suppress_ragged_eofs=False) as link:
                link.sendall(bytes(4))  # its incarnation
                return link.recv(1)
        except (OSError, ssl.SSLError):
            return b""


def test_who_says_to_be_a_rank_that_it_is_not_is_not_accepted(beacon, world):
    assert world.run(os.getpid)
    network = network_of(world)
    credentials = network.credentials
    other = JobAuthority()
    unsigned = BeaconIdentity.create()
    nobody = tls.client_context()
    nobody.set_alpn_protocols([tls.DATA])
    somebody = tls.client_context()
    somebody.set_alpn_protocols([tls.DATA])
    tls._load_pair(somebody, unsigned.cert_pem, unsigned.key_pem)
    foreign = tls.client_context()
    foreign.set_alpn_protocols([tls.DATA])
    strange = other.issue(0)
    tls._load_pair(foreign, strange.cert_pem, strange.key_pem)

    def context(number):
        return tls.rank_contexts(credentials[number])[1]

    def preface(source, dest=FAR, key=network.join_key, job=network.job_id):
        return pack_preface(job, source, dest, key)

    impostors = {
        "rank 1 says to be rank 0": (context(1), preface(0)),
        "rank 0 says to be rank 1": (context(0), preface(1)),
        "rank 0 says to be the driver": (context(0), preface(DRIVER)),
        "the driver says to be rank 0": (context(DRIVER), preface(0)),
        "itself": (context(FAR), preface(0)),
        "of another job": (foreign, preface(0)),
        "with a certificate of its own": (somebody, preface(0)),
        "without a certificate": (nobody, preface(0)),
        "with another join key": (context(0), preface(0, key=bytes(32))),
        "to a rank that is elsewhere": (context(0), preface(0, dest=1)),
        "to a job that is not here": (context(0), preface(0, job=bytes(16))),
    }
    assert {name: call(beacon, *made, FAR) for name, made in impostors.items()} == dict.fromkeys(impostors, b"")
    assert len(set(world.run(os.getpid))) == 3  # which goes on
    with pytest.raises(ssl.SSLCertVerificationError):  # nor is a rank taken for another one by who connects to it
        call_strictly(beacon, context(0), preface(0), dest=1)
    assert call(beacon, context(1), preface(1), FAR) == b"\1"  # it is who it says
    print(f"{len(impostors)} kinds of impostors")


def call_strictly(beacon, context, preface, dest):
    with beacon.reach() as sock:
        sock.sendall(preface)
        with context.wrap_socket(sock, server_hostname=tls.rank_name(dest)):
            pass


def test_weak_tls_is_refused_by_a_rank(beacon, world, tmp_path):
    network = network_of(world)
    preface = pack_preface(network.job_id, 1, FAR, network.join_key)

    def try_with(weakness):
        return knock(tmp_path, weakness, beacon.port, preface, network.credentials[1], tls.rank_name(FAR))

    assert {one: try_with(one) for one in WEAKNESSES} == dict.fromkeys(WEAKNESSES, "closed")
    assert try_with("none") == "answered"
    print(f"{len(WEAKNESSES)} kinds of weak TLS refused")


def test_replayed_and_spliced_beginnings_of_connections_come_to_nothing(beacon, monkeypatch, tmp_path):
    monkeypatch.setenv("KLYNG_MP_HOME", str(tmp_path / "client"))
    chance = random.Random(1)
    with Relay(beacon.address, beacon.port) as relay:
        host = {**beacon.world(max_procs=2), "host": f"127.0.0.1:{relay.port}"}
        with mp.World(hosts=[host], n=2) as world, mp.World(hosts=[beacon.world(max_procs=1)]) as other:
            before = world.run(os.getpid)
            assert other.run(os.getpid)
            heard = [bytes(there) for there, _ in relay.carried[1:] if there.startswith(b"KMP1")]
            assert len(heard) == 2  # the driver's to each of its ranks
            theirs = network_of(other).job_id
            attempts = []
            for said in heard:
                preface, rest = said[:PREFACE_SIZE], said[PREFACE_SIZE:]
                attempts += [said, preface, preface + rest[:200], preface + heard[0][PREFACE_SIZE:]]
                attempts += [preface[:4] + theirs + preface[20:] + rest]
                attempts += [preface[:-16] + chance.randbytes(16) + rest for _ in range(4)]
                for at in range(4, PREFACE_SIZE):
                    changed = bytearray(preface)
                    changed[at] ^= 1 << chance.randrange(8)
                    attempts.append(bytes(changed) + rest)

            def replay(said):
                with beacon.reach() as sock:
                    attackers.say(sock, said)
                    attackers.leave(sock)
                    return attackers.ending(sock, 20)

            answers = attackers.at_once(replay, attempts)
            # A rank that has taken one begins a handshake, and is never content: no data but its certificate's.
            assert not [answer for answer in answers if answer.endswith(b"\1") and len(answer) < 100]
            assert world.run(os.getpid) == before
            assert other.run(os.getpid)
    beacon.settle()
    print(f"{len(attempts)} beginnings, {sum(map(bool, answers))} of them were answered by a handshake that failed")


def test_replayed_prefaces_cost_a_rank_few_threads_and_are_counted(world, beacon):
    network, count = network_of(world), 30
    assert world.run(os.getpid)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(beacon.reach())
            sock.sendall(pack_preface(network.job_id, 0, FAR, network.join_key))
        wait_until(lambda: world.statistics().ranks[FAR].connections_dropped == count - OF_ONE)
    assert [one.connections_dropped for one in world.statistics().ranks] == [0, 0, count - OF_ONE]
    assert world.run(os.getpid)
    print(f"{count} prefaces were replayed, and {OF_ONE} connections looked at")


def test_a_replayed_preface_does_not_make_guesses_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("KLYNG_MP_HOME", str(tmp_path / "client"))
    address = attackers.source(7)
    with LiveBeacon(tmp_path) as beacon, mp.World(hosts=[beacon.world(max_procs=1)]) as world:
        assert world.run(os.getpid)
        network = network_of(world)
        for _ in range(4):
            assert attackers.cheap_guess(beacon, SHARE, address) == "refused"
            wait_until(lambda: len(beacon.sessions()) == 1)
        for _ in range(3):
            with beacon.reach(address) as sock:
                sock.sendall(pack_preface(network.job_id, DRIVER, 0, network.join_key))
                attackers.leave(sock)
                attackers.ending(sock)
            assert attackers.cheap_guess(beacon, SHARE, address) == "away"


# -- tampering between ranks -----------------------------------------------------------------------------

PATTERN = bytes(range(256)) * 400


def check_pattern(data):
    return data == PATTERN and PATTERN


@SCALES
def test_a_byte_that_is_flipped_between_hosts_is_an_error_and_never_wrong_data(beacon, monkeypatch, tmp_path, scale):
    monkeypatch.setenv("KLYNG_MP_HOME", str(tmp_path / "client"))

    def run(change):
        """Return what comes back from the rank there, and how many bytes were carried."""
        with Relay(beacon.address, beacon.port, change) as relay:
            host = {**beacon.world(max_procs=1), "host": f"127.0.0.1:{relay.port}"}
            patience = threading.Timer(8 * FACTOR, relay.cut)  # a length that was made larger is waited for
            patience.start()
            try:
                with mp.World(hosts=[host]) as world:
                    return world.run(check_pattern, PATTERN), list(map(len, relay.carried[1]))
            except (mp.KlyngError, OSError):
                return None, []
            finally:
                waited.append(patience.finished.is_set())
                patience.cancel()
                patience.join()
                beacon.settle(30)

    waited = []

    right, sizes = run(None)
    assert right == [PATTERN]
    chance = random.Random(scale)
    came = []
    for towards, size in zip(("beacon", "client"), sizes, strict=True):
        for _ in range(scale):
            at = chance.randrange(PREFACE_SIZE if towards == "beacon" else 0, size - 200)
            came.append(run(flip(1, towards, at, 1 << chance.randrange(8)))[0])
    assert came == [None] * len(came)
    print(f"{len(came)} flipped bytes were errors, {sum(waited)} of them when the connection was cut")


# -- secrets -----------------------------------------------------------------------------------------


def test_no_secret_is_in_a_command_line_an_environment_a_log_or_the_memory_of_a_rank(beacon, world):
    rank = world.run(os.getpid)[FAR]
    network = network_of(world)
    (session,) = beacon.sessions()
    (zygote,) = (pid for pid in below(session) if attackers.name_of(pid) == "klyng zygote")
    assert rank in below(session)
    pem = (beacon.home_path / "identity.pem").read_bytes()
    body = b"".join(pem.split(b"-----BEGIN PRIVATE KEY-----")[1].split(b"-----END")[0].split())
    scalar = base64.b64decode(body)[36:68]
    secrets = {
        "password": beacon.password.encode(),
        "key as PEM": body[40:100],
        "key": scalar,
        "key, its low end first": scalar[::-1],
    }
    pids = {"beacon": beacon.pid, "session": session, "zygote": zygote, "rank": rank}
    for name, pid in pids.items():
        for part in ("cmdline", "environ"):
            data = Path(f"/proc/{pid}/{part}").read_bytes()
            found = [secret for secret, value in secrets.items() if value in data]
            assert found == [], (name, part)
    found = {name: attackers.memory_has(pid, {**secrets, "join key": network.join_key}) for name, pid in pids.items()}
    assert found["beacon"] >= {"password"}  # so they can be found
    assert found["session"] >= {"password", "join key"}
    assert (found["zygote"], found["rank"]) == ({"join key"}, {"join key"})
    log = beacon.log.encode()
    assert [name for name, value in secrets.items() if value in log] == []
    assert "logged in by password" in beacon.log
    links = [os.readlink(f"/proc/{rank}/fd/{fd}") for fd in os.listdir(f"/proc/{rank}/fd")]
    listeners = attackers.listening(beacon.pid)
    assert len(listeners) == 1
    assert attackers.listening(rank) == attackers.listening(zygote) == []
    print(f"{len(links)} descriptors of a rank; {len(secrets)} secrets looked for in {len(pids)} processes")


def test_no_password_is_in_an_error_or_its_traceback(beacon):
    word = beacon.password[::-1]
    with pytest.raises(mp.AuthenticationError) as caught:
        beacon.log_in(password=word)
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(beacon.host(password=word))
    assert "refuses the password" in text
    assert word not in text
    assert word not in beacon.log
