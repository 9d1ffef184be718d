"""login: who knows the secret comes in, nobody else does, and nobody in between; whatever is done to the bytes."""

from __future__ import annotations

import contextlib
import ssl
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klyng_mp.errors import (
    AuthenticationError,
    BeaconBusyError,
    BeaconError,
    LocalProtocolError,
    RemoteProtocolError,
)
from klyng_mp.remote import login
from klyng_mp.remote.login import BeaconLogin, Client, ClientLogin, Guard
from klyng_mp.remote.protocol import KINDS, Conversation
from klyng_mp.remote.schema import write_json
from klyng_mp.remote.security import BeaconIdentity, ClientKey, ClientProof, Verifier, new_code, plain_code, stretch
from klyng_mp.remote.tls import beacon_context, client_context, fingerprint_of

PRINT = "SHA256:abc"
PASSWORD, CODE = "correct-horse", "abcde-fghjk"
KEY = ClientKey.create("ada@box")
METHODS = {
    "password": {"password": PASSWORD},
    "code": {"code": CODE},
    "key": {"key": KEY, "pinned": PRINT},
}


def quick(password, salt):
    return b"%-32b" % (password.encode() + salt)[:32]


@pytest.fixture
def quick_stretch(monkeypatch):
    """Stand in for scrypt, which takes 0.1 s, where a test logs in hundreds of times."""
    monkeypatch.setattr(login, "stretch", quick)


def verifier(password, salt=b"s" * 16, make=quick):
    return Verifier(salt, make(password, salt))


VERIFIERS = {"password": verifier(PASSWORD), "code": verifier(plain_code(CODE)), "nobody": verifier("nobody knows")}


def guard(**changes):
    usual = Guard(
        password=lambda: VERIFIERS["password"],
        code=lambda: VERIFIERS["code"],
        guess=lambda: True,
        redeem=lambda: True,
        authorized=lambda key: "ada" if key == KEY.public_bytes else None,
        nobody=VERIFIERS["nobody"],
    )
    return usual._replace(**changes)


def logins(method="password", *, its_guard=None, **changes):
    return ClientLogin(PRINT, host="lab2", **(METHODS[method] | changes)), BeaconLogin(PRINT, its_guard or guard())


def exchange(client, beacon, there=lambda _step, data: data, back=lambda _step, data: data):
    """Log in and return what both sent; ``there`` and ``back`` are what becomes of the bytes on their way."""
    sent = []
    data = client.start()
    for step in range(4):
        sent.append(data)
        answer = beacon.feed(there(step, data))
        sent.append(answer)
        if not answer:
            break
        data = client.feed(back(step, answer))
        if not data:
            break
    return sent


# -- who comes in ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_stretch")
@pytest.mark.parametrize("method", METHODS)
def test_who_knows_the_secret_comes_in(method):
    client, beacon = logins(method)
    assert len(exchange(client, beacon)) == 4
    assert client.done
    assert beacon.done
    assert beacon.failure == ""
    assert beacon.client == (Client("key", "ada", KEY.public_bytes) if method == "key" else Client(method))
    state = "paired" if method == "code" else "open"
    assert client.conversation.state == beacon.conversation.state == state
    kind = {"paired": ("enrol", {"key": KEY.public_bytes, "name": "ada"}), "open": ("status", {})}[state]
    frames = beacon.conversation.feed(client.conversation.pack(kind[0], **kind[1]))
    assert [frame.kind for frame in frames] == [kind[0]]


def test_with_a_real_password_and_a_real_code_too():
    password, code = "grün", new_code()
    stored = {"password": lambda: Verifier.of(password), "code": lambda: Verifier.of(plain_code(code))}
    for given_ in ({"password": password}, {"code": f" {code.upper()} "}):
        client, beacon = ClientLogin(PRINT, **given_), BeaconLogin(PRINT, guard(**stored))
        exchange(client, beacon)
        assert client.done
        assert beacon.done


@pytest.mark.usefixtures("quick_stretch")
@pytest.mark.parametrize("method", METHODS)
def test_whatever_pieces_it_comes_in(method):
    client, beacon = logins(method)
    data = client.start()
    while data:
        data = b"".join(beacon.feed(data[index : index + 1]) for index in range(len(data)))
        data = b"".join(client.feed(data[index : index + 1]) for index in range(len(data)))
    assert client.done
    assert beacon.done


@pytest.mark.usefixtures("quick_stretch")
def test_what_comes_behind_a_login_is_kept():
    client, beacon = logins()
    sent = exchange(client, beacon, back=lambda step, data: data + (beacon.conversation.pack("ping") if step else b""))
    assert client.done
    assert len(sent) == 4
    assert [frame.kind for frame in client.rest] == ["ping"]
    for one in (client, beacon):
        with pytest.raises(LocalProtocolError, match="the login is over"):
            one.feed(b"")


@pytest.mark.usefixtures("quick_stretch")
def test_only_the_answer_to_a_proof_waits():
    client, beacon = logins()
    challenge = beacon.feed(client.start())
    assert not beacon.delayed
    assert beacon.feed(client.feed(challenge))
    assert beacon.delayed
    assert login.ANSWER_SECONDS == 0.1


# -- who does not ----------------------------------------------------------------------------------

REFUSED = "refuses the {}: "


@pytest.mark.usefixtures("quick_stretch")
def test_twenty_wrong_passwords_are_refused():
    for number in range(20):
        client, beacon = logins(password=f"guess {number}")
        with pytest.raises(AuthenticationError, match="refuses the password: check the password") as caught:
            exchange(client, beacon)
        assert caught.value.host == "lab2"
        assert not client.done
        assert not beacon.done
        assert beacon.failure == "a wrong password"


@pytest.mark.usefixtures("quick_stretch")
def test_all_failures_are_one_on_the_wire():
    unknown = ClientKey.create()
    failures = {
        "a wrong password": logins(password="guess"),
        "a wrong code": logins("code", code="guess"),
        "a code that was used before": logins("code", its_guard=guard(redeem=lambda: False)),
        "an unknown key": logins("key", key=unknown),
        "an authorized key, but a wrong signature": logins("key", key=Impostor()),
    }
    failures |= {
        f"no {method} here": logins(method, its_guard=guard(password=lambda: None, code=lambda: None))
        for method in ("password", "code")
    }
    answers = set()
    for why, (client, beacon) in failures.items():
        sent = []
        with pytest.raises(AuthenticationError, match=REFUSED.format("")[:8]):
            exchange(client, beacon, back=lambda _step, data, sent=sent: sent.append(data) or data)
        assert beacon.failure == why or why.startswith("no ")
        assert beacon.delayed
        answers.add(sent[-1])
    beacon = BeaconLogin(PRINT, guard())
    answers.add(beacon.feed(b"GET / HTTP/1.1\r\n"))
    assert beacon.delayed
    assert beacon.failure
    assert len(answers) == 1
    assert b"not authenticated" in answers.pop()


class Impostor:
    """Says that it has ada's key."""

    public_bytes = KEY.public_bytes

    def sign(self, data):
        return ClientKey.create().sign(data)


@pytest.mark.usefixtures("quick_stretch")
def test_a_connection_has_one_guess():
    client, beacon = logins(password="guess")
    with pytest.raises(AuthenticationError):
        exchange(client, beacon)
    with pytest.raises(LocalProtocolError, match="the login is over"):
        beacon.feed(logins()[0].start())
    assert beacon.conversation.state == "closed"


@pytest.mark.usefixtures("quick_stretch")
def test_a_code_is_asked_for_once_and_only_when_it_was_proved():
    asked = []
    its_guard = guard(redeem=lambda: not asked and not asked.append(1))
    with pytest.raises(AuthenticationError):
        exchange(*logins("code", its_guard=its_guard, code="guess"))
    assert asked == []
    exchange(*logins("code", its_guard=its_guard))
    with pytest.raises(AuthenticationError, match="a code can be used once"):
        exchange(*logins("code", its_guard=its_guard))


@pytest.mark.usefixtures("quick_stretch")
def test_a_guess_at_a_code_is_counted_when_it_has_come_and_before_it_is_looked_at():
    guesses = []
    its_guard = guard(guess=lambda: len(guesses) < 2 and not guesses.append(1))
    for _ in range(20):
        client, beacon = logins("code", its_guard=its_guard)
        beacon.feed(client.start())
        beacon.feed_eof()
    assert guesses == []
    with pytest.raises(AuthenticationError):
        exchange(*logins("code", its_guard=its_guard, code="guess"))
    assert len(guesses) == 1
    exchange(*logins("code", its_guard=its_guard))
    assert len(guesses) == 2
    client, beacon = logins("code", its_guard=its_guard)
    with pytest.raises(AuthenticationError):  # though it is right
        exchange(client, beacon)
    assert beacon.failure == "a guess at a code that is not valid any more, or where there is none"
    exchange(*logins("password", its_guard=its_guard))  # which nobody counts


@pytest.mark.usefixtures("quick_stretch")
def test_what_the_beacon_cannot_do_is_a_refusal_as_any():
    def fail():
        raise BeaconError("the file is damaged")

    for its_guard in (guard(code=fail), guard(guess=fail), guard(redeem=fail)):
        client, beacon = logins("code", its_guard=its_guard)
        with pytest.raises(AuthenticationError, match="refuses the code"):
            exchange(client, beacon)
        assert beacon.failure == "the file is damaged"


@pytest.mark.usefixtures("quick_stretch")
def test_a_password_is_no_code_and_a_code_no_password():
    same = guard(code=lambda: VERIFIERS["password"])
    with pytest.raises(AuthenticationError):
        exchange(*logins("code", its_guard=guard(), code=PASSWORD))
    client, beacon = logins("password", its_guard=same)
    as_code = wire_says("hello", method="code", nonce=b"n" * 32)
    with pytest.raises(AuthenticationError):
        exchange(client, beacon, there=lambda step, data: data if step else as_code)
    assert beacon.failure == "a wrong code"


def test_a_client_without_exactly_one_proof_is_a_mistake():
    for given_ in ({}, {"password": "a", "code": "b"}, {"password": "a", "key": KEY}):
        with pytest.raises(LocalProtocolError, match="one of password, code and key"):
            ClientLogin(PRINT, **given_)


def test_an_empty_password_is_not_even_tried():
    client, beacon = ClientLogin(PRINT, password=""), BeaconLogin(PRINT, guard())
    with pytest.raises(AuthenticationError, match="empty password"):
        exchange(client, beacon)


def test_a_key_is_shown_only_to_a_beacon_that_is_known():
    with pytest.raises(AuthenticationError, match=r"lab2 is not known yet.*pair with a code.*or use its password once"):
        ClientLogin(PRINT, key=KEY, host="lab2")


@pytest.mark.parametrize("method", METHODS)
def test_another_certificate_than_the_pinned_one_is_refused_before_anything_is_said(method):
    with pytest.raises(AuthenticationError, match=r"shows the certificate SHA256:abc, and is known by SHA256:x: some"):
        ClientLogin(PRINT, **(METHODS[method] | {"pinned": "SHA256:x"}))


def test_a_client_that_leaves_is_a_failure():
    client, beacon = logins()
    beacon.feed(client.start())
    beacon.feed_eof()
    assert beacon.failure == "the client left before it had proved itself"


# -- a beacon that is none -------------------------------------------------------------------------


def wire_says(kind, **fields):
    text = write_json(KINDS[kind].fields.encode(fields, kind))
    return struct.pack("!BII", KINDS[kind].number, len(text), 0) + text


@pytest.mark.usefixtures("quick_stretch")
def test_a_beacon_that_does_not_know_the_password_is_none():
    client, beacon = logins()
    with pytest.raises(AuthenticationError, match="accepted the password without knowing it"):
        exchange(client, beacon, back=lambda step, data: wire_says("accepted", proof=b"x" * 32) if step else data)
    assert not client.done


@pytest.mark.usefixtures("quick_stretch")
@pytest.mark.parametrize("method", METHODS)
def test_an_answer_to_something_else_is_none(method):
    answers = [
        wire_says("accepted", proof=None if method != "key" else b"x" * 32),
        wire_says("accepted", proof=b"x" * 32) if method == "code" else wire_says("paired", proof=b"x" * 32),
    ]
    for answer in answers:
        client, beacon = logins(method)
        with pytest.raises(RemoteProtocolError, match="answer is not one to a"):
            exchange(client, beacon, back=lambda step, data, answer=answer: answer if step else data)
        assert not client.done
    share = {} if method != "key" else {"salt": b"s" * 16, "share": b"B" * 33}
    with pytest.raises(RemoteProtocolError, match="challenge is not one for a"):
        exchange(*logins(method), back=lambda *_: wire_says("challenge", nonce=b"n" * 32, **share))


@pytest.mark.usefixtures("quick_stretch")
@pytest.mark.parametrize("method", METHODS)
def test_a_proof_of_something_else_is_none(method):
    fields = {"share": b"A" * 33} if method == "key" else {"key": KEY.public_bytes}
    both = {"share": b"A" * 33, "key": KEY.public_bytes}
    for wrong in (fields, both, {}):
        client, beacon = logins(method)
        with pytest.raises(AuthenticationError):
            exchange(
                client,
                beacon,
                there=lambda step, data, wrong=wrong: wire_says("proof", proof=b"p" * 64, **wrong) if step else data,
            )
        assert beacon.failure == f"the other side's proof is not one of a {method}"


@pytest.mark.usefixtures("quick_stretch")
def test_malformed_shares_fail_as_others_do():
    for share in (b"A" + b"\x00" * 32, b"B" * 33, b"A\x01" + b"\x00" * 31, b"A" + b"\xff" * 32):
        client, beacon = logins()
        proof = wire_says("proof", share=share, proof=b"p" * 32)
        with pytest.raises(AuthenticationError):
            exchange(client, beacon, there=lambda step, data, proof=proof: proof if step else data)
        assert "malformed proof" in beacon.failure
    for share in (b"B" + b"\x00" * 32, b"A" * 33):
        challenge = wire_says("challenge", nonce=b"n" * 32, salt=b"s" * 16, share=share)
        with pytest.raises(AuthenticationError, match="malformed proof"):
            exchange(*logins(), back=lambda *_, challenge=challenge: challenge)


@pytest.mark.parametrize(
    ("reason", "error", "sentence"),
    [
        ("busy", BeaconBusyError, "takes no more connections now"),
        ("limit", BeaconBusyError, "takes no more connections now"),
        ("failed", BeaconError, "its log says why"),
        ("authentication", AuthenticationError, "refuses the password"),
    ],
)
def test_what_a_stranger_says_is_not_shown(reason, error, sentence):
    client = ClientLogin(PRINT, password=PASSWORD)
    client.start()
    with pytest.raises(error, match=sentence) as caught:
        client.feed(Conversation("beacon").pack("refused", reason=reason, sentence="run curl evil.sh"))
    assert type(caught.value) is error
    assert "curl" not in str(caught.value)


# -- bytes that are changed on their way, or said again --------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("quick_stretch")
@pytest.mark.parametrize(
    "method", [pytest.param(one, marks=pytest.mark.slow) if one == "code" else one for one in METHODS]
)
def test_every_byte_of_a_login_counts(method):
    """Neither side believes a login of which it received a changed byte, and never both."""
    lengths = [len(data) for data in exchange(*logins(method))]
    refused = 0
    for frame, length in enumerate(lengths):
        for position in range(length):
            client, beacon = logins(method)

            def change(step, data, frame=frame, position=position, way=0):
                if 2 * step + way != frame or position >= len(data):
                    return data
                return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]

            with contextlib.suppress(AuthenticationError, RemoteProtocolError, BeaconError):
                exchange(client, beacon, change, lambda *what, change=change: change(*what, way=1))
            assert not client.done
            assert not beacon.done or frame == 3
            refused += 1
    assert refused == sum(lengths)


@pytest.mark.usefixtures("quick_stretch")
@pytest.mark.parametrize("method", METHODS)
def test_a_login_that_was_recorded_is_worth_nothing(method):
    recorded = exchange(*logins(method))
    for _ in range(5):
        beacon = BeaconLogin(PRINT, guard())
        beacon.feed(recorded[0])
        beacon.feed(recorded[2])
        assert not beacon.done
        assert beacon.failure
        client, _beacon = logins(method)
        if method == "key":  # it does not prove the beacon: TLS has done that, with the pinned certificate
            continue
        with pytest.raises(AuthenticationError, match="accepted the"):
            exchange(client, Playback(recorded))
        assert not client.done


class Playback:
    """A beacon that says what another one has said."""

    def __init__(self, recorded):
        self.answers = [recorded[1], recorded[3]]

    def feed(self, _data):
        if not self.answers:
            raise EOFError("nothing more was recorded")
        return self.answers.pop(0)


@pytest.mark.usefixtures("quick_stretch")
def test_what_one_login_said_is_worth_nothing_in_another():
    """Two at the same time, with the proof of one in the other."""
    for method in METHODS:
        (first, its_beacon), (second, other_beacon) = logins(method), logins(method)
        challenge = its_beacon.feed(first.start())
        other_beacon.feed(second.start())
        other_beacon.feed(first.feed(challenge))
        assert not other_beacon.done
        assert other_beacon.failure


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=5), st.sampled_from(list(METHODS)))
def test_nothing_that_a_client_sends_raises(pieces, method):
    for start in (b"", ClientLogin(PRINT, **METHODS[method]).start()):
        beacon = BeaconLogin(PRINT, guard())
        for piece in [start, *pieces] if start else pieces:
            beacon.feed(piece)
            if beacon.failure:
                break
        assert not beacon.done


# -- somebody in between ---------------------------------------------------------------------------


class Tunnel:
    """One TLS connection in memory."""

    def __init__(self, identity):
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = beacon_context(identity.cert_pem, identity.key_pem)
        self.server = server.wrap_bio(there, back, server_side=True)
        self.client = client_context().wrap_bio(back, there)
        for _ in range(3):
            for end in (self.client, self.server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()

    def seen(self):
        return fingerprint_of(self.client.getpeercert(True))

    def there(self, data):
        self.client.write(data)
        return self.server.read(1 << 14)

    def back(self, data):
        self.server.write(data)
        return self.client.read(1 << 14)


@pytest.fixture(scope="module")
def identities():
    return BeaconIdentity.create(), BeaconIdentity.create()


def relayed(identities, method, *, bound=True):
    """Log in through a relay with a certificate of its own; with ``bound=False``, without the fingerprints."""
    real, relay = identities
    near, far = Tunnel(relay), Tunnel(real)
    seen, own = (near.seen(), real.fingerprint) if bound else ("", "")
    changes = {"pinned": seen} if method == "key" else {}
    client = ClientLogin(seen, **(METHODS[method] | changes))
    beacon = BeaconLogin(own, guard())
    with contextlib.suppress(AuthenticationError):
        exchange(client, beacon, lambda _, data: far.there(near.there(data)), lambda _, data: near.back(far.back(data)))
    return client.done, beacon.done


@pytest.mark.usefixtures("quick_stretch")
@pytest.mark.parametrize("method", METHODS)
def test_nobody_stands_in_between(identities, method):
    """Though the client has the right password; even a client that took the relay's certificate for the pinned one."""
    refused = [relayed(identities, method) for _ in range(10)]
    assert refused == [(False, False)] * 10
    assert relayed(identities[:1] * 2, method) == (True, True), "without a relay's own certificate all is well"


@pytest.mark.usefixtures("quick_stretch")
@pytest.mark.parametrize("method", METHODS)
def test_without_the_fingerprint_somebody_could(identities, method):
    """The positive control of the test above: the relay itself is fine."""
    assert [relayed(identities, method, bound=False) for _ in range(3)] == [(True, True)] * 3


def test_a_beacon_that_does_not_know_the_password_learns_nothing_to_guess_with():
    """What a fake beacon has after a login fits every password alike: one guess, made before, is all that it had."""
    secret = stretch(PASSWORD, b"s" * 16)
    client = ClientProof(secret, "password", PRINT)
    fake = BeaconLogin(PRINT, guard())
    fake.feed(ClientLogin(PRINT, password="x").start())
    client.finish(fake._proof.share)
    fake._proof.finish(client.share)
    assert fake._proof.client_proves(b"t") != client.client_proves(b"t")


# -- nothing is unpickled --------------------------------------------------------------------------

AUDITED = """
import pickle, sys
sys.path.insert(0, {folder!r})
import test_login as t
found = []
sys.addaudithook(lambda event, args: found.append(args) if event == "pickle.find_class" else None)
t.login.stretch = t.quick
class Canary:
    def __reduce__(self):
        return print, ("CANARY",)
bomb = pickle.dumps(Canary())
count = 0
for method in t.METHODS:
    for step in (0, 1):
        for kind in [*range(24), 128, 255]:
            for body in (bomb, t.write_json({{"method": bomb.hex()}})):
                client, beacon = t.logins(method)
                frame = t.struct.pack("!BII", kind, len(body), len(bomb) if kind % 2 else 0) + body + bomb
                try:
                    t.exchange(client, beacon, lambda at, data: frame if at == step else data)
                except (t.AuthenticationError, t.RemoteProtocolError):
                    pass
                assert not beacon.done
                count += 1
print(count, found)
pickle.loads(bomb)  # the positive control
print(len(found))
"""


@pytest.mark.timeout(120)
def test_nothing_is_unpickled_before_somebody_is_proved(run_python, request):
    code = AUDITED.format(folder=str(request.path.parent))
    done = run_python("-c", code, timeout=100)
    assert (done.stdout.splitlines(), done.stderr) == (["312 []", "CANARY", "1"], "")
