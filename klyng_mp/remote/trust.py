"""Whom this user trusts: the beacons that a client knows, and the clients that a beacon lets in.

Layer: remote; two files of `Home`, for people to read: a line for each, ``#`` before a comment.

Each call reads the file anew, so what one process changes holds for the next login in any other. A line that is not
understood is an error, never skipped: it may be the one that should have been found.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import AuthenticationError, BeaconError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from klyng_mp.remote.home import Home

__all__ = ["AuthorizedClient", "AuthorizedClients", "KnownBeacons", "key_fingerprint"]

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_NAME = re.compile(r"\S{1,300}")  # of a beacon
_KEY_WORD = "klyng-ed25519"
_KEY_BYTES = 32
_NAME_CHARACTERS = 64  # of a client
_MAX_CLIENTS = 4096  # so that one that may enrol cannot fill the disk


class KnownBeacons:
    """What a client knows beacons by: lines of ``HOST:PORT SHA256:…``.

    Threads: any; processes too.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._path = home.known_beacons

    def lookup(self, name: str) -> str | None:
        """Return the fingerprint that a beacon (``Host.name``) is known by; None if it is not known.

        Raises:
            BeaconError: the file cannot be read, or is damaged.
        """
        return next((known for line, known in self._lines() if line == name), None)

    def check(self, name: str, fingerprint: str) -> bool:
        """Tell whether a beacon that shows this fingerprint is known; False where its name was never seen.

        Raises:
            AuthenticationError: it is known by another one.
            BeaconError: the file cannot be read, or is damaged.
        """
        known = self.lookup(name)
        if known is not None and known != fingerprint:
            raise self._changed(name, known, fingerprint)
        return known is not None

    def add(self, name: str, fingerprint: str, *, replace: bool = False) -> None:
        """Know a beacon by this fingerprint from now on: when it has proved itself, or the user says so.

        Args:
            name: as `Host.name`.
            fingerprint: of its certificate.
            replace: the user wants another fingerprint forgotten.

        Raises:
            AuthenticationError: it is known by another one; nothing was changed.
            BeaconError: the file is damaged or cannot be written; nothing was changed.
        """
        if not _NAME.fullmatch(name) or name.startswith("#") or not _FINGERPRINT.fullmatch(fingerprint):
            raise BeaconError(f"{name!r:.100} {fingerprint!r:.100} is no beacon: write HOST:PORT SHA256:…", name)
        with self._home.lock():
            known = self.lookup(name)
            if known == fingerprint:
                return
            if known is not None and not replace:
                raise self._changed(name, known, fingerprint)
            text = _without(self._home.read(self._path), lambda words: words[0] == name)
            self._home.write(self._path, f"{text}{name} {fingerprint}\n")

    def forget(self, name: str) -> bool:
        """Know a beacon no more; tell whether it was known.

        Raises:
            BeaconError: the file is damaged or cannot be written; nothing was changed.
        """
        with self._home.lock():
            if self.lookup(name) is None:
                return False
            self._home.write(self._path, _without(self._home.read(self._path), lambda words: words[0] == name))
            return True

    def _lines(self) -> Iterator[tuple[str, str]]:
        for number, line in _entries(self._home.read(self._path)):
            words = line.split()
            if len(words) != 2 or not _FINGERPRINT.fullmatch(words[1]):
                raise BeaconError(f"{self._path}, line {number} is not HOST:PORT SHA256:…: correct or remove it")
            yield words[0], words[1]

    def _changed(self, name: str, known: str, shown: str) -> AuthenticationError:
        return AuthenticationError(
            f"the beacon at {name} shows {shown}, and is known by {known}: somebody may stand in between, or it was "
            f"set up anew. If its `klyng-mp beacon status` says the same, remove the line of {name} in {self._path}",
            name,
        )


class AuthorizedClient(NamedTuple):
    """A client that a beacon lets in.

    Attributes:
        name: what people call it.
        key: its public key, 32 bytes.
    """

    name: str
    key: bytes

    @property
    def fingerprint(self) -> str:
        """Of its key, as `klyng-mp beacon revoke` takes it."""
        return key_fingerprint(self.key)

    @property
    def line(self) -> str:
        """How it stands in ``authorized_clients``."""
        return f"{_KEY_WORD} {base64.b64encode(self.key).decode()} {self.name}"


class AuthorizedClients:
    """Whose keys a beacon takes: lines of ``klyng-ed25519 KEY NAME``.

    Threads: any; processes too.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._path = home.authorized_clients

    def clients(self) -> list[AuthorizedClient]:
        """Return them, in the order in which they came.

        Raises:
            BeaconError: the file cannot be read, or is damaged.
        """
        found = []
        for number, line in _entries(self._home.read(self._path)):
            try:
                found.append(_parse_client(line))
            except ValueError as error:
                raise BeaconError(f"{self._path}, line {number} {error}: correct or remove it") from None
        return found

    def name_of(self, key: bytes) -> str | None:
        """Return the name of the client with this key; None if there is none.

        Raises:
            BeaconError: the file cannot be read, or is damaged: then nobody is let in.
        """
        return next((client.name for client in self.clients() if client.key == key), None)

    def add(self, key: bytes | str, name: str = "") -> AuthorizedClient:
        """Let a client in from now on, and return it as it stands there.

        Args:
            key: 32 bytes, or a line of a client (`ClientKey.public`).
            name: what it is to be called; that of the line, or ``client``, if empty. One that is taken gets a number.

        Raises:
            BeaconError: it is no key, or no name; the file is damaged or cannot be written. Nothing was changed.
        """
        try:
            client = _parse_client(key) if isinstance(key, str) else AuthorizedClient("client", key)
            client = AuthorizedClient(_checked_name(name) if name else client.name, client.key)
        except ValueError as error:
            raise BeaconError(f"this {error}: give a line like {_KEY_WORD} KEY NAME") from None
        if len(client.key) != _KEY_BYTES:
            raise BeaconError(f"this key has {len(client.key)} bytes and not {_KEY_BYTES}: give that of a client")
        with self._home.lock():
            others = [other for other in self.clients() if other.key != client.key]
            if len(others) >= _MAX_CLIENTS:
                raise BeaconError(f"{self._path} has {len(others)} clients: revoke some (klyng-mp beacon revoke)")
            client = AuthorizedClient(_free_name(client.name, {other.name for other in others}), client.key)
            text = _without(self._home.read(self._path), lambda words: _parse_client(" ".join(words)).key == client.key)
            self._home.write(self._path, f"{text}{client.line}\n")
        return client

    def revoke(self, which: str) -> list[AuthorizedClient]:
        """Let clients in no more, and return them; jobs that they have go on until they end.

        Args:
            which: a name, or the fingerprint of a key.

        Raises:
            BeaconError: there is none; the file is damaged or cannot be written. Nothing was changed.
        """
        with self._home.lock():
            gone = [client for client in self.clients() if which in (client.name, client.fingerprint)]
            if not gone:
                known = ", ".join(client.name for client in self.clients()) or "nobody"
                raise BeaconError(f"there is no client {which!r:.100}: authorized are {known}")
            keys = {client.key for client in gone}
            text = _without(self._home.read(self._path), lambda words: _parse_client(" ".join(words)).key in keys)
            self._home.write(self._path, text)
        return gone


def key_fingerprint(key: bytes) -> str:
    """Return the fingerprint of a client's public key."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _entries(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, with their numbers."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def _without(text: str, gone: Callable[[list[str]], bool]) -> str:
    """Return a text with its comments and without the lines whose words are ``gone``."""
    kept = [
        line
        for line in text.splitlines()
        if not line.strip() or line.lstrip().startswith("#") or not gone(line.split())
    ]
    return "".join(f"{line}\n" for line in kept)


def _parse_client(line: str) -> AuthorizedClient:
    words = line.split(maxsplit=2)
    if len(words) < 2 or words[0] != _KEY_WORD:
        raise ValueError("is no client's key")
    try:
        key = base64.b64decode(words[1], validate=True)
    except ValueError:  # no base64, or no ASCII
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValueError("has a damaged key")
    return AuthorizedClient(_checked_name(words[2]) if len(words) > 2 else "client", key)


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > _NAME_CHARACTERS or not name.isprintable():
        raise ValueError(f"has no name of 1 to {_NAME_CHARACTERS} printable characters")
    return name


def _free_name(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    numbered = (f"{name[: _NAME_CHARACTERS - 5]}-{number}" for number in range(2, len(taken) + 3))
    return next(candidate for candidate in numbered if candidate not in taken)
