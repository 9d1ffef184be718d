"""The hosts of a World: what a machines file, a mapping or a list says of them.

Layer: remote; opens the files that are named, and no connection.

Nothing is guessed: what is not understood is refused with a sentence that says what to write. No sentence, no
``repr`` and no pickle shows a password.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import stat
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn, TypeAlias

from klyng_mp.errors import MachinesError, MachinesWarning

__all__ = ["DEFAULT_PORT", "LOCAL", "Host", "Hosts", "Secret", "read_hosts", "split_address"]

DEFAULT_PORT = 2222  # klyng's
LOCAL = "local"

_KEYS = ("max_procs", "port", "passwd", "passwd_file", "fingerprint")
_LOCAL_KEYS = ("max_procs",)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_LABEL = re.compile(r"[\w-]{1,63}")
_LIMIT_BYTES = 1 << 20  # of a machines file: ten thousand hosts
_PASSWORD_CHARACTERS = 1024
_MOST_PROCS = 1 << 20  # as many as a job may have


class Secret:
    """Text that does not show itself: not when it is printed, nor when it would travel."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('…')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a password does not travel: reveal it where it is needed")


class Host(NamedTuple):
    """One machine of a World.

    Attributes:
        key: as the user wrote it.
        address: a name or an IP address; ``local`` for this machine, which needs no beacon.
        port: of its beacon; 0 for this machine.
        max_procs: how many ranks it takes before others do; None for as many as it has CPUs.
        password: of its beacon; None where a key is to open it.
        passwd_file: where that password was read, or None.
        fingerprint: that its beacon must have, or None.
    """

    key: str
    address: str
    port: int = DEFAULT_PORT
    max_procs: int | None = None
    password: Secret | None = None
    passwd_file: str | None = None
    fingerprint: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is this machine, without a beacon."""
        return self.address == LOCAL

    @property
    def name(self) -> str:
        """Its address and port, by which its beacon is known; ``local`` for this machine."""
        if self.is_local:
            return LOCAL
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


Hosts: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Iterable[Any]


def read_hosts(hosts: Hosts) -> list[Host]:
    """Return the hosts that a user has named, in the order in which they were written.

    Args:
        hosts: the path of a machines file (TOML where its name ends in ``.toml``, else JSON); a mapping of the same
            shape, from a host to what is said of it; or a list of hosts. A host is ``"name"``, ``"name:port"``,
            ``"[v6]:port"`` or ``"local"``; in a list also a mapping with such a ``"host"`` beside the keys of a
            machines file, or a `Host`.

    Raises:
        MachinesError: there is something wrong with them; the message says where, and what to write.

    Warns:
        MachinesWarning: other users can read a file with passwords.
    """
    reader = _Reader("hosts", os.curdir)
    if isinstance(hosts, (str, os.PathLike)):
        path = os.fspath(hosts)
        reader = _Reader(path, os.path.dirname(path))
        found = _read_file(path, reader)
    elif isinstance(hosts, Mapping):
        found = reader.read(hosts.items())
    elif isinstance(hosts, Iterable) and not isinstance(hosts, (bytes, bytearray)):
        found = reader.read(_pair_of(entry) for entry in hosts)
    else:
        raise MachinesError(
            f"hosts is {type(hosts).__name__}: give the path of a machines file, a list of hosts, "
            f"or a mapping as in a machines file"
        )
    for path in reader.exposed:
        warnings.warn(
            f"other users may read the passwords in {path}: chmod 600 it, and change them if somebody may have",
            MachinesWarning,
            stacklevel=2,
        )
    return found


def split_address(text: str) -> tuple[str, int | None]:
    """Return address and port of ``name``, ``name:port``, ``v6`` or ``[v6]:port``; the port is None if there is none.

    Raises:
        ValueError: it is no such thing; its message is the rest of a sentence that begins with ``text``.
    """
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in address:
            raise ValueError("is no address: write [ADDRESS]:PORT around an IPv6 address")
        return _checked_address(address), _port_of(rest[1:]) if rest else None
    if text.count(":") > 1:
        return _checked_address(text), None
    address, colon, port = text.partition(":")
    return _checked_address(address), _port_of(port) if colon else None


def _port_of(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError("has no port behind its colon: write HOST or HOST:PORT, with a port from 1 to 65535")
    return int(text)


def _checked_address(text: str) -> str:
    labels = text.removesuffix(".").split(".")
    if ":" in text or labels[-1].isdecimal():
        try:
            return ipaddress.ip_address(text).compressed
        except ValueError:
            raise ValueError("is no IP address: check its numbers") from None
    if not text or len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("is neither a host's name nor an IP address: write NAME, NAME:PORT, or [IPV6]:PORT")
    return text.lower()


# -- files -----------------------------------------------------------------------------------------


def _read_file(path: str, reader: _Reader) -> list[Host]:
    data, mode = _read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MachinesError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8 text") from None
    if not text.strip():
        raise MachinesError(f'{path} is empty: name at least one host, as in {{"local": {{"max_procs": 2}}}}')
    table = _parse_toml(path, text) if path.lower().endswith(".toml") else _parse_json(path, text)
    found = reader.read(table.items())
    if mode & 0o077 and any(host.password and not host.passwd_file for host in found):
        reader.exposed.append(path)
    return found


def _read_bytes(path: str) -> tuple[bytes, int]:
    """Return what a file holds, and its mode."""
    try:
        # A fifo would wait for its writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LIMIT_BYTES + 1) if stat.S_ISREG(mode) else b""
    except FileNotFoundError:
        hint = f'; for a host of that name, write hosts=["{path}"]' if os.sep not in path else ""
        raise MachinesError(f"there is no file {path}: give the path of a machines file{hint}") from None
    except OSError as error:
        raise MachinesError(f"{path} cannot be read: {error.strerror}; give a file that this user can read") from error
    except ValueError:  # of characters that no path has
        raise MachinesError(f"{path!r} is no path: give that of a file") from None
    if not stat.S_ISREG(mode) or len(data) > _LIMIT_BYTES:
        raise MachinesError(f"{path} is no file of hosts: it is larger than 1 MiB, or not a file; give another")
    return data, stat.S_IMODE(mode)


def _parse_json(path: str, text: str) -> dict[str, Any]:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise MachinesError(f"{path}: {twice!r} is there twice in the same place: leave one of both")
        return table

    def refuse(word: str) -> NoReturn:
        raise MachinesError(f"{path}: {word} is no number of JSON: leave the key out for no limit of your own")

    try:
        table = json.loads(text, object_pairs_hook=build, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise MachinesError(
            f"{path}, line {error.lineno}, column {error.colno}: this is not JSON ({error.msg}): "
            f"look there and just before it for a missing or needless comma, quote or bracket"
        ) from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, MachinesError):
            raise
        raise MachinesError(f"{path}: this is no machines file: its values are nested too deep, or too long") from None
    if not isinstance(table, dict):
        raise MachinesError(f'{path} is no JSON object: write {{"HOST": {{"max_procs": 4}}, …}}')
    return table


def _parse_toml(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MachinesError(f'{path}: this is not TOML ({error}): write ["HOST"] and below it max_procs = 4') from None
    except (RecursionError, ValueError):  # a number of thousands of digits is a plain ValueError
        raise MachinesError(f"{path}: this is no machines file: its values are nested too deep, or too long") from None


# -- entries ---------------------------------------------------------------------------------------


def _pair_of(entry: Any) -> tuple[Any, Any]:
    """Return an entry of a list as key and value."""
    if isinstance(entry, Mapping):
        rest = {key: value for key, value in entry.items() if key != "host"}
        if len(rest) == len(entry):
            raise MachinesError('hosts: a mapping in the list names no host: write {"host": "NAME", "max_procs": 4}')
        return entry["host"], rest
    return (entry.key if isinstance(entry, Host) else entry), (entry if isinstance(entry, Host) else {})


class _Reader:
    """Makes hosts of pairs; ``source`` is what messages call the place, ``folder`` where its paths begin.

    Attributes:
        exposed: the files with passwords that other users can read.
    """

    def __init__(self, source: str, folder: str) -> None:
        self.exposed: list[str] = []
        self._source = source
        self._folder = folder

    def read(self, pairs: Iterable[tuple[Any, Any]]) -> list[Host]:
        found: dict[str, Host] = {}
        for key, entry in pairs:
            host = entry if isinstance(entry, Host) else self._read_host(key, entry)
            if host.name in found:
                raise self._error(
                    f"{found[host.name].key!r} and {host.key!r} are the same host and port: leave one of both"
                )
            found[host.name] = host
        if not found:
            raise self._error("there is no host: name at least one, as in {'local': {'max_procs': 2}}")
        return list(found.values())

    def _error(self, sentence: str) -> MachinesError:
        return MachinesError(f"{self._source}: {sentence}")

    def _wrong(self, key: str, sentence: str) -> MachinesError:
        return self._error(f"{key!r}: {sentence}")

    def _read_host(self, key: Any, entry: Any) -> Host:
        if not isinstance(key, str):
            raise self._error(f"a host is text, not {_type_name(key)}: write its name or address in quotes")
        if not isinstance(entry, Mapping):
            raise self._wrong(key, f"what is said of a host is {_type_name(entry)}: write {{}} or {{'max_procs': 4}}")
        inner = next((name for name, value in entry.items() if isinstance(value, Mapping)), None)
        if inner is not None:
            raise self._wrong(
                key, f'{inner!r} is a table within a host; in TOML a name with dots needs quotes: write ["10.0.0.5"]'
            )
        try:
            address, port = split_address(key)
        except ValueError as error:
            raise self._error(f"{key!r} {error}") from None
        if address == LOCAL and key != LOCAL:
            raise self._wrong(key, f"this machine is called {LOCAL!r}, and has no port: write that")
        self._check_keys(key, entry, _LOCAL_KEYS if key == LOCAL else _KEYS)
        max_procs = self._read_max_procs(key, entry)
        if key == LOCAL:
            return Host(LOCAL, LOCAL, 0, max_procs)
        port = self._read_port(key, entry, port)
        password, passwd_file = self._read_password(key, entry)
        return Host(key, address, port, max_procs, password, passwd_file, self._read_fingerprint(key, entry))

    def _check_keys(self, key: str, entry: Mapping[Any, Any], allowed: tuple[str, ...]) -> None:
        for name in entry:
            if name in allowed:
                continue
            if name in _KEYS:
                raise self._wrong(key, f"this machine has no beacon, and no {name}: leave it out")
            near = difflib.get_close_matches(str(name), allowed, 1)
            wanted = f"write {near[0]}" if near else f"there are {', '.join(allowed)}"
            raise self._wrong(key, f"{name!r} means nothing here: {wanted}")

    def _read_max_procs(self, key: str, entry: Mapping[str, Any]) -> int | None:
        if "max_procs" not in entry:
            return None
        value = entry["max_procs"]
        if type(value) is not int:
            raise self._wrong(key, f"max_procs is {_shown(value)}, not a whole number: write how many ranks it takes")
        if value < 1:
            raise self._wrong(
                key, f"max_procs is {_shown(value)}, and must be 1 or more: leave the host out to have none"
            )
        if value > _MOST_PROCS:
            raise self._wrong(key, f"max_procs is {_shown(value)}, and can be {_MOST_PROCS}: write how many it takes")
        return value

    def _read_port(self, key: str, entry: Mapping[str, Any], port: int | None) -> int:
        value = entry.get("port", port or DEFAULT_PORT)
        if type(value) is not int or not 1 <= value <= 65535:
            raise self._wrong(key, f"port is {_shown(value)}, not a number from 1 to 65535: write it without quotes")
        if port not in (None, value):
            raise self._wrong(key, f"its name ends with another port than port, {value}: leave one of both")
        return value

    def _read_password(self, key: str, entry: Mapping[str, Any]) -> tuple[Secret | None, str | None]:
        if "passwd" in entry and "passwd_file" in entry:
            raise self._wrong(key, "it has passwd and passwd_file: leave one of both")
        if "passwd" in entry:
            # Never shown, whatever it is: it may be one that lacks its quotes.
            return self._secret(key, entry["passwd"], "passwd"), None
        if "passwd_file" not in entry:
            return None, None
        name = entry["passwd_file"]
        if not isinstance(name, str) or not name or "\0" in name:
            raise self._wrong(key, f"passwd_file is {_shown(name)}, not a path: write it in quotes")
        path = os.path.join(self._folder, os.path.expanduser(name))
        try:
            data, mode = _read_bytes(path)
            text = data.decode().splitlines()[:1]
        except MachinesError as error:
            raise self._wrong(key, f"passwd_file: {error}") from error.__cause__
        except UnicodeDecodeError:
            raise self._wrong(key, f"passwd_file: {path} is not UTF-8 text: give the file with the password") from None
        if mode & 0o077:
            self.exposed.append(path)
        return self._secret(key, text[0] if text else "", f"the first line of {path}"), path

    def _secret(self, key: str, value: Any, what: str) -> Secret:
        if not isinstance(value, str):
            raise self._wrong(key, f"{what} is not text: write the password in quotes")
        if not value:
            raise self._wrong(key, f"{what} is empty, and no beacon has an empty password: write the one that it has")
        if len(value) > _PASSWORD_CHARACTERS or not value.isprintable():
            raise self._wrong(key, f"{what} is no password: it is too long, or has control characters; write it anew")
        return Secret(value)

    def _read_fingerprint(self, key: str, entry: Mapping[str, Any]) -> str | None:
        if "fingerprint" not in entry:
            return None
        value = entry["fingerprint"]
        if not isinstance(value, str) or not _FINGERPRINT.fullmatch(value.rstrip("=")):
            raise self._wrong(key, f"fingerprint is {_shown(value)}: write it as the beacon prints it, SHA256:…")
        return value.rstrip("=")


def _shown(value: Any) -> str:
    try:
        return repr(value) if isinstance(value, (str, int, float)) and len(repr(value)) <= 80 else _type_name(value)
    except ValueError:  # Python does not write numbers of thousands of digits
        return "a number without end"


def _type_name(value: Any) -> str:
    names = {"dict": "a table", "list": "a list", "NoneType": "null", "str": "text", "bool": "true or false"}
    return names.get(type(value).__name__, type(value).__name__)
