"""How a client and a beacon prove themselves to each other, over a control channel whose TLS proves nobody yet.

Layer: remote; sans-IO, over `remote.protocol` and `remote.security`.

``hello`` (method, nonce) → ``challenge`` (nonce, salt, share) → ``proof`` (share, proof) → ``accepted`` (proof). A
password or a code is proved by SPAKE2 over scrypt of it, with the fingerprint of the beacon's certificate as the
beacon's name, and each side confirms the key over every byte that was said: the client first, so a stranger learns
nothing. A key signs the same, which proves no beacon: so it is shown only to one that is pinned. A connection has one
guess. What is wrong, only the beacon's log says; on the wire all failures are one.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import (
    AuthenticationError,
    BeaconBusyError,
    BeaconError,
    LocalProtocolError,
    RemoteProtocolError,
)
from klyng_mp.remote.protocol import Conversation, Frame
from klyng_mp.remote.security import BeaconProof, ClientProof, Verifier, plain_code, stretch, verify_signature

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.remote.security import ClientKey

__all__ = ["ANSWER_SECONDS", "BeaconLogin", "Client", "ClientLogin", "Guard"]

ANSWER_SECONDS = 0.1  # from a proof to its answer, whatever it was: how long it took to judge tells nothing
_NONCE_SIZE = 32
_REFUSAL = "not authenticated"

_HINTS = {
    "password": "check the password; where the beacon keeps it, `klyng-mp beacon status` says there",
    "code": "a code can be used once, and not for long: take a new one from `klyng-mp beacon pair`",
    "key": "the beacon does not know this key: pair with a code (klyng-mp beacon pair), or use the password",
}


def _signed(fingerprint: str, transcript: bytes) -> bytes:
    return b"klyng-mp/1 client key " + fingerprint.encode() + transcript


# -- the client ------------------------------------------------------------------------------------


class ClientLogin:
    """The client's side of one login: send what `start` and `feed` return, until it is `done`.

    Args:
        fingerprint: of the certificate that the beacon has shown on this connection.
        password: or `code`, or `key`: exactly one, to prove.
        pinned: the fingerprint that this beacon is known by, if it is known.
        host: the beacon's name in messages.

    Attributes:
        conversation: goes on when the login is done.
        done: both sides are proved (with a key, the beacon was by its pinned certificate).
        rest: frames that came behind the login.

    Raises:
        AuthenticationError: the beacon is not the pinned one; or a key is to be shown to one that is not pinned.

    Threads: none of its own, and no lock: one caller at a time.
    """

    def __init__(
        self,
        fingerprint: str,
        *,
        password: str | None = None,
        code: str | None = None,
        key: ClientKey | None = None,
        pinned: str | None = None,
        host: str = "",
    ) -> None:
        given = {"password": password, "code": code, "key": key}
        methods = [method for method, value in given.items() if value is not None]
        if len(methods) != 1:
            raise LocalProtocolError(f"one of password, code and key proves a client, not {methods}")
        self._method = methods[0]
        self._words = password if code is None else plain_code(code)
        self._key = key
        self._fingerprint = fingerprint
        self._host = host
        self._proof: ClientProof | None = None
        self._expected = b""
        self.conversation = Conversation("client")
        self.done = False
        self.rest: list[Frame] = []
        self._check_pin(pinned)

    def start(self) -> bytes:
        """Return what the client says first."""
        return self.conversation.pack("hello", method=self._method, nonce=os.urandom(_NONCE_SIZE))

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take bytes of the beacon and return what to send next, which may be nothing.

        Raises:
            AuthenticationError: the beacon refuses this client, or does not prove itself.
            BeaconBusyError: it has no time.
            RemoteProtocolError: it says what cannot be. After each, close the connection.

        Cost: 0.1 s of a processor once, with a password or a code.
        """
        if self.done:
            raise LocalProtocolError("the login is over: feed its conversation")
        frames = self.conversation.feed(data)
        answer = b""
        for index, frame in enumerate(frames):
            if frame.kind == "challenge":
                answer += self._prove(frame)
            elif frame.kind == "refused":
                raise self._refusal(frame.fields["reason"])
            else:
                self._conclude(frame)
                self.rest = frames[index + 1 :]
                break
        return answer

    def _check_pin(self, pinned: str | None) -> None:
        if pinned is None and self._method == "key":
            raise AuthenticationError(
                f"{self._who()} is not known yet, and a key does not prove who it is: "
                f"pair with a code first (klyng-mp beacon pair, there), or use its password once",
                self._host,
            )
        if pinned is not None and pinned != self._fingerprint:
            raise AuthenticationError(
                f"{self._who()} shows the certificate {self._fingerprint}, and is known by {pinned}: somebody may "
                f"stand in between. If it was set up anew, compare with what it prints, and remove its line from "
                f"known_beacons",
                self._host,
            )

    def _prove(self, challenge: Frame) -> bytes:
        salt, share = challenge.fields["salt"], challenge.fields["share"]
        if (salt is None, share is None) != (self._key is not None,) * 2:
            raise RemoteProtocolError(f"the other side's challenge is not one for a {self._method}")
        if self._key is not None:
            signature = self._key.sign(_signed(self._fingerprint, self.conversation.transcript))
            return self.conversation.pack("proof", key=self._key.public_bytes, proof=signature)
        self._proof = ClientProof(stretch(self._words or "", salt), self._method, self._fingerprint)
        self._proof.finish(share)
        proof = self._proof.client_proves(self.conversation.transcript)
        said = self.conversation.pack("proof", share=self._proof.share, proof=proof)
        self._expected = self._proof.beacon_proves(self.conversation.transcript)
        return said

    def _conclude(self, frame: Frame) -> None:
        proof = frame.fields["proof"]
        if (frame.kind == "paired") != (self._method == "code") or (proof is None) != (self._proof is None):
            raise RemoteProtocolError(f"the other side's answer is not one to a {self._method}")
        if self._proof is not None and not hmac.compare_digest(proof, self._expected):
            raise AuthenticationError(
                f"{self._who()} accepted the {self._method} without knowing it, so it is not the beacon: "
                f"check the address",
                self._host,
            )
        self.done = True

    def _refusal(self, reason: str) -> BeaconError:
        # The sentence that came along is not shown: whoever sent it has proved nothing yet.
        if reason == "authentication":
            hint = _HINTS[self._method]
            between = "" if self._method == "key" else "; or somebody stands in between"
            return AuthenticationError(f"{self._who()} refuses the {self._method}: {hint}{between}", self._host)
        if reason in ("busy", "limit"):
            return BeaconBusyError(f"{self._who()} takes no more connections now: try again in a minute", self._host)
        return BeaconError(f"{self._who()} cannot serve: its log says why", self._host)

    def _who(self) -> str:
        return f"the beacon at {self._host}" if self._host else "the beacon"


# -- the beacon ------------------------------------------------------------------------------------


class Guard(NamedTuple):
    """What a beacon knows of who may enter; each is asked when it is needed.

    Attributes:
        password: what it keeps of its password, or None where none lets in.
        code: what it keeps of the pairing code that is valid now, if one is; a `Verifier` of its `plain_code`.
        guess: counts a guess at it and says whether it may be looked at: called when a proof has come, once.
        redeem: uses the code up and says whether it was there to be used: called when it was proved, once.
        authorized: the name of the client with this key (32 bytes), or None where nobody has it.
        nobody: is guessed at where there is no password or code; make it once, when the beacon starts.
    """

    password: Callable[[], Verifier | None]
    code: Callable[[], Verifier | None]
    guess: Callable[[], bool]
    redeem: Callable[[], bool]
    authorized: Callable[[bytes], str | None]
    nobody: Verifier


class Client(NamedTuple):
    """Who has logged in: how, and with a key its name and the key itself."""

    method: str
    name: str = ""
    key: bytes = b""


class BeaconLogin:
    """The beacon's side of one login: send what `feed` returns, until it is `done` or has a `failure`.

    Args:
        fingerprint: of the beacon's own certificate.
        guard: who may enter.

    Attributes:
        conversation: goes on when the login is done.
        done: the client is proved.
        client: who it is.
        failure: why not, for the beacon's log only; send what was returned, then close the connection.
        delayed: what was returned last must leave `ANSWER_SECONDS` after what was fed had come, not before.
        rest: frames that came behind the login; there are none, since a client waits for its answer.

    Threads: none of its own, and no lock: one caller at a time.
    """

    def __init__(self, fingerprint: str, guard: Guard) -> None:
        self._fingerprint = fingerprint
        self._guard = guard
        self._method = ""
        self._proof: BeaconProof | None = None
        self._transcript = b""
        self.conversation = Conversation("beacon")
        self.done = False
        self.client: Client | None = None
        self.failure = ""
        self.delayed = False
        self.rest: list[Frame] = []

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take bytes of the client and return what to send next, which may be nothing.

        Nothing that a client can send raises: it is refused, and `failure` says why.

        Cost: 10 ms of a processor for a login.
        """
        if self.done or self.failure:
            raise LocalProtocolError("the login is over: feed its conversation, or close the connection")
        answer = b""
        try:
            for frame in self.conversation.feed(data):
                answer += self._challenge(frame) if frame.kind == "hello" else self._judge(frame)
        except (RemoteProtocolError, BeaconError) as error:  # of which some are this beacon's own, as a damaged file
            return self._refuse(str(error))
        return answer

    def feed_eof(self) -> None:
        """Take note that the client has closed the connection; without a login that is a failure."""
        if not self.done and not self.failure:
            self.failure = "the client left before it had proved itself"

    def _challenge(self, hello: Frame) -> bytes:
        self._method = hello.fields["method"]
        said = {"nonce": os.urandom(_NONCE_SIZE)}
        if self._method != "key":
            stored = self._guard.password() if self._method == "password" else self._guard.code()
            verifier = stored or self._guard.nobody
            self._proof = BeaconProof(verifier, self._method, self._fingerprint)
            said |= {"salt": verifier.salt, "share": self._proof.share}
        answer = self.conversation.pack("challenge", **said)
        self._transcript = self.conversation.transcript
        return answer

    def _judge(self, frame: Frame) -> bytes:
        self.delayed = True
        fields = frame.fields
        if (fields["share"] is None, fields["key"] is None) != (self._proof is None, self._proof is not None):
            raise RemoteProtocolError(f"the other side's proof is not one of a {self._method}")
        if self._proof is None:
            return self._judge_key(fields["key"], fields["proof"])
        if self._method == "code" and not self._guard.guess():
            raise AuthenticationError("a guess at a code that is not valid any more, or where there is none")
        self._proof.finish(fields["share"])
        if not hmac.compare_digest(fields["proof"], self._proof.client_proves(self._transcript)):
            raise AuthenticationError(f"a wrong {self._method}")
        if self._method == "code" and not self._guard.redeem():
            raise AuthenticationError("a code that was used before")
        proof = self._proof.beacon_proves(self.conversation.transcript)
        return self._accept(Client(self._method), "paired" if self._method == "code" else "accepted", proof)

    def _judge_key(self, key: bytes, signature: bytes) -> bytes:
        signed = verify_signature(key, signature, _signed(self._fingerprint, self._transcript))
        name = self._guard.authorized(key)
        if not signed or name is None:
            raise AuthenticationError(
                f"an {'unknown key' if name is None else 'authorized key, but a wrong signature'}"
            )
        return self._accept(Client("key", name, key), "accepted", None)

    def _accept(self, client: Client, kind: str, proof: bytes | None) -> bytes:
        answer = self.conversation.pack(kind, proof=proof)
        self.client = client
        self.done = True
        return answer

    def _refuse(self, why: str) -> bytes:
        self.failure = why
        self.delayed = True
        return self.conversation.pack("refused", reason="authentication", sentence=_REFUSAL)
