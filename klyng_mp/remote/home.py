"""The folder where a user's beacon, and the same user's programs as its clients, keep what must last.

Layer: remote; files only.

The folder and all in it are for its owner alone. A file is replaced whole, so whoever reads it needs no lock; who
changes one holds `Home.lock` from reading it to replacing it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from klyng_mp.errors import BeaconError
from klyng_mp.machine import hostname
from klyng_mp.remote.private import read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HOME_VARIABLE", "Home", "home_path"]

HOME_VARIABLE = "KLYNG_MP_HOME"

_DEFAULT = "~/.klyng_mp"
_PASSWORD_CHARACTERS = 1024
_LIMIT_BYTES = 1 << 20  # of what people write


def home_path() -> str:
    """Return where the folder is: what ``KLYNG_MP_HOME`` says, or ``~/.klyng_mp``; it need not exist."""
    return os.path.abspath(os.path.expanduser(os.environ.get(HOME_VARIABLE) or _DEFAULT))


class Home:
    """The folder, made if it is not there, and the names of what is in it.

    Machines of a cluster may share it: what is true of one machine only has that machine's name.

    Args:
        path: the folder; what `home_path` says if None.

    Attributes:
        path: the folder.
        options: how the beacon was set up (`options.read_options`).
        password: of the beacon.
        identity: its key and certificate.
        authorized_clients: whose keys it takes.
        pairing: the one-time code that is valid now.
        cache: the folder of its bundles.
        state: what says that it runs, on this machine.
        log: its log, of this machine.
        client_key: what this user proves to beacons with.
        known_beacons: what beacons prove to this user.

    Raises:
        BeaconError: it cannot be made, is somebody else's, or others can write to it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = home_path() if path is None else os.path.abspath(path)
        _make_folder(self.path)
        own = hostname().replace(os.sep, "_")
        self.options = self._within("beacon.toml")
        self.password = self._within("password")
        self.identity = self._within("identity.pem")
        self.authorized_clients = self._within("authorized_clients")
        self.pairing = self._within("pairing")
        self.cache = self._within("cache")
        self.state = self._within(f"beacon.{own}.json")
        self.log = self._within(f"beacon.{own}.log")
        self.client_key = self._within("client_key")
        self.known_beacons = self._within("known_beacons")

    def _within(self, name: str) -> str:
        return os.path.join(self.path, name)

    def __repr__(self) -> str:
        return f"Home({self.path!r})"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one, of all processes, that changes files here; a process that is killed lets go.

        Not reentrant. Nothing that waits for another process belongs inside. Do not fork inside.

        Raises:
            BeaconError: the lock cannot be made; nothing is locked.
        """
        try:
            fd = os.open(self._within("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _cannot(self._within("lock"), error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def read(self, path: str, *, secret: bool = False) -> str:
        """Return the text of one of the files, ``""`` if there is none.

        Args:
            path: one of the attributes.
            secret: others must not even be able to read it. What people write with an editor need not be.

        Raises:
            AuthenticationError: it is secret, and others can read or write it.
            BeaconError: others can write it; it cannot be read, or is no text.
        """
        try:
            return (read_private(path) if secret else _read_guarded(path)).decode()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise _cannot(path, error) from error
        except UnicodeDecodeError as error:
            raise BeaconError(f"{path} is damaged (byte {error.start} is not UTF-8): correct or remove it") from None

    def write(self, path: str, text: str) -> None:
        """Replace one of the files; call it with the lock held where what it said before matters.

        Raises:
            BeaconError: it cannot be written; what was there is there still.
        """
        try:
            write_private(path, text.encode())
        except OSError as error:
            raise _cannot(path, error) from error

    def ensure_password(self, make: Callable[[], str]) -> tuple[str, bool]:
        """Return the beacon's password, and whether it was made now; of several that start at once, one makes it.

        Args:
            make: returns a new one.

        Raises:
            AuthenticationError: others can read the file.
            BeaconError: it cannot be read or written, or holds no password.
        """
        with self.lock():
            text = self.read(self.password, secret=True)
            if text:
                return _checked_password(text.removesuffix("\n"), self.password), False
            password = _checked_password(make(), "the new password")
            self.write(self.password, f"{password}\n")
            return password, True

    def set_password(self, password: str) -> None:
        """Replace the beacon's password; beacons that run go on with the old one until they are told.

        Raises:
            BeaconError: it is empty or no line of text, or cannot be written; the old one is there still.
        """
        _checked_password(password, "the password")
        with self.lock():
            self.write(self.password, f"{password}\n")


def _make_folder(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.stat(path)
    except OSError as error:
        raise _cannot(path, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise BeaconError(f"{path} is no folder: set {HOME_VARIABLE} to one of your own")
    if found.st_uid != os.geteuid():
        raise BeaconError(f"{path} belongs to another user: set {HOME_VARIABLE} to a folder of your own")
    if found.st_mode & 0o022:
        raise BeaconError(
            f"other users can write to {path}: `chmod 700 {path}`, and look at what is in it before you trust it"
        )


def _read_guarded(path: str) -> bytes:
    """Return what a file holds that only its owner can have written."""
    # A fifo would wait for its writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LIMIT_BYTES:
            raise BeaconError(f"{path} is no file of 1 MiB at most: remove it, or put the right one there")
        if found.st_mode & 0o022:
            raise BeaconError(f"other users can write to {path}: look at what it says, and `chmod 600` it")
        return file.read(_LIMIT_BYTES)


def _checked_password(password: str, what: str) -> str:
    if not password.strip() or len(password) > _PASSWORD_CHARACTERS or not password.isprintable():
        raise BeaconError(
            f"{what} is no password: one is a line of text that is not empty; set it anew (klyng-mp beacon passwd)"
        )
    return password


def _cannot(path: str, error: OSError) -> BeaconError:
    return BeaconError(
        f"{path} cannot be used ({error.strerror}): make room or give leave there, "
        f"or set {HOME_VARIABLE} to another folder of yours"
    )
