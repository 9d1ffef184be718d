"""``klyng-mp beacon``: one made to run here, looked at, ended; and who may enter it.

Layer: cli.
"""

from __future__ import annotations

import getpass
import os
import pwd
import select
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from klyng_mp.cli.beacon_status import ask, running_beacon, show_state, show_status
from klyng_mp.cli.beacon_unit import make_unit
from klyng_mp.deadline import Deadline
from klyng_mp.errors import BeaconError
from klyng_mp.remote.client import connect
from klyng_mp.remote.daemon import Beacon
from klyng_mp.remote.home import Home
from klyng_mp.remote.hosts import DEFAULT_PORT, Host, split_address
from klyng_mp.remote.logfile import LogFile, log_to
from klyng_mp.remote.options import read_options
from klyng_mp.remote.pairing import PAIRING_SECONDS, Pairing
from klyng_mp.remote.running import announce, find_beacon, retract
from klyng_mp.remote.security import BeaconIdentity, ClientKey, Verifier, new_code, new_password, plain_code
from klyng_mp.remote.trust import AuthorizedClients

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from klyng_mp.remote.options import BeaconOptions

__all__ = ["main"]

_START_SECONDS = 15.0
_END_SECONDS = 15.0


def main(options: argparse.Namespace) -> int:
    """Do what the command line says; return the exit code.

    Raises:
        BeaconError: it cannot be done; the message says what to do.
    """
    if options.user is not None:
        _become(options.user)
    elif os.geteuid() == 0 and options.command in {"run", "up"} and not options.allow_root:
        raise BeaconError(
            "a beacon of root would let its clients do everything on this machine: run it as another user, with "
            "--user NAME, or insist with --allow-root"
        )
    commands: dict[str, Callable[[argparse.Namespace, Home], int]] = {
        "run": _run,
        "up": _up,
        "down": _down,
        "status": _status,
        "pair": _pair,
        "authorize": _authorize,
        "revoke": _revoke,
        "passwd": _passwd,
        "unit": _unit,
    }
    return commands[options.command](options, Home())


def _become(name: str) -> None:
    """Be another user from now on."""
    try:
        user = pwd.getpwnam(name)
        if os.geteuid() != user.pw_uid:
            os.setgid(user.pw_gid)
            os.initgroups(name, user.pw_gid)
            os.setuid(user.pw_uid)
    except KeyError:
        raise BeaconError(f"there is no user {name!r} on this machine: create it, or give another one") from None
    except PermissionError:
        raise BeaconError(f"only root can become {name}: start this as root, or as {name} without --user") from None
    os.environ.update(HOME=user.pw_dir, USER=name, LOGNAME=name)


# -- a beacon that runs


def _run(options: argparse.Namespace, home: Home) -> int:
    limits = _limits(options, home)
    if options.password_file is not None:
        home.set_password(_read_password(options.password_file))
    password, is_new = home.ensure_password(new_password)
    log = _open_log(home, limits)

    def reload() -> Verifier:
        log.reopen()
        return Verifier.of(_own_password(home))

    # From here on a signal is an end as any other, so that nothing announces a beacon that is not there.
    beacon = Beacon(home, limits, _identity(home), Verifier.of(password), reload)
    try:
        state = announce(home, beacon.address, beacon.port, beacon.fingerprint)
        log_to(log)
        print(show_state(state, home, made_password=is_new), flush=True)
        beacon.serve()
    finally:
        retract(home)
    return 0


def _limits(options: argparse.Namespace, home: Home) -> BeaconOptions:
    limits = read_options(home)
    if options.host is not None:
        limits = limits._replace(host=options.host)
    if options.port is not None:
        if not 0 <= options.port <= 65535:
            raise BeaconError(
                f"--port {options.port} is none: give a number from 1 to 65535, or 0 for any that is free"
            )
        limits = limits._replace(port=options.port)
    return limits


def _identity(home: Home) -> BeaconIdentity:
    with home.lock():
        try:
            return BeaconIdentity.load(home.identity)
        except FileNotFoundError:
            identity = BeaconIdentity.create()
            identity.save(home.identity)
            return identity


def _read_password(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            password = file.read().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BeaconError(f"--password-file {path} cannot be read: {error}") from None
    if not password.strip():
        raise BeaconError(f"--password-file {path} is empty: a beacon has a password; leave it out to have one made")
    return password


def _own_password(home: Home) -> str:
    return home.ensure_password(new_password)[0]


def _open_log(home: Home, limits: BeaconOptions) -> LogFile:
    try:
        return LogFile(home.log, limits.log_bytes, limits.log_files)
    except OSError as error:
        raise BeaconError(
            f"the log {home.log} cannot be written ({error.strerror}): make room or give leave there"
        ) from error


def _up(options: argparse.Namespace, home: Home) -> int:
    words = [sys.executable, "-m", "klyng_mp.beacon"]
    words += [f"--host={options.host}"] * (options.host is not None)
    words += [f"--port={options.port}"] * (options.port is not None)
    words += [f"--password-file={options.password_file}"] * (options.password_file is not None)
    words += ["--allow-root"] * options.allow_root
    with open(os.devnull, "rb") as nothing:
        process = subprocess.Popen(
            words, stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, cwd="/"
        )
    assert process.stdout is not None  # noqa: S101 - asked for
    said = b""
    deadline = Deadline(_START_SECONDS)
    while said.count(b"\n") < 3:
        ready, _, _ = select.select([process.stdout], [], [], deadline.left())
        more = os.read(process.stdout.fileno(), 65536) if ready else b""
        if not more:
            break
        said += more
    process.stdout.close()
    if said.count(b"\n") >= 3 and process.poll() is None:
        process.returncode = 0  # it is nobody's child from now on
        print(said.decode(errors="replace"), end="")
        return 0
    text = said.decode(errors="replace").strip().removeprefix("klyng-mp: error: ")
    raise BeaconError(text or f"the beacon did not come up within {_START_SECONDS:g} s; see {home.log}")


def _down(options: argparse.Namespace, home: Home) -> int:
    del options
    state = running_beacon(home)
    handle = os.pidfd_open(state.pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not select.select([handle], [], [], _END_SECONDS)[0]:
            raise BeaconError(f"process {state.pid} does not end: kill it (kill -9 {state.pid}), its jobs end with it")
    finally:
        os.close(handle)
    print(f"the beacon, process {state.pid}, has ended, and its jobs with it")
    return 0


def _status(options: argparse.Namespace, home: Home) -> int:
    state = running_beacon(home)
    print(show_status(state, ask(state, home, _own_password(home)), home, as_json=options.json))
    return 0


# -- who may enter


def _pair(options: argparse.Namespace, home: Home) -> int:
    if options.value is not None:
        return _pair_with(options.value, home)
    running_beacon(home)
    code = new_code()
    verifier = Verifier.of(plain_code(code))
    Pairing(home).offer(verifier.salt + verifier.secret)
    print(f"code: {code}")
    print(
        f"good once, for {PAIRING_SECONDS / 60:.0f} minutes: klyng-mp beacon pair HOST, on the other machine",
        flush=True,
    )
    return 0


def _pair_with(name: str, home: Home) -> int:
    """Redeem a code: leave this user's key at a beacon."""
    try:
        address, port = split_address(name)
    except ValueError as error:
        raise BeaconError(f"{name} {error}") from None
    key = _client_key(home)
    code = getpass.getpass(f"code that {name} shows: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    link = connect(Host(name, address, port or DEFAULT_PORT), home, code=code)
    try:
        deadline = Deadline(5.0)
        link.send_now(deadline, "enrol", key=key.public_bytes, name=f"{getpass.getuser()}@{socket.gethostname()}"[:64])
        link.receive_now(deadline, "enrolled")
    finally:
        link.close(goodbye=True)
    print(f"{name} lets this user in by key from now on")
    return 0


def _client_key(home: Home) -> ClientKey:
    with home.lock():
        try:
            return ClientKey.load(home.client_key)
        except FileNotFoundError:
            key = ClientKey.create()
            key.save(home.client_key)
            return key


def _authorize(options: argparse.Namespace, home: Home) -> int:
    if options.value is None:
        key = _client_key(home)
        print(f"{key.public} {getpass.getuser()}@{socket.gethostname()}")
        return 0
    client = AuthorizedClients(home).add(options.value)
    print(f"{client.name} ({client.fingerprint}) is let in from now on")
    return 0


def _revoke(options: argparse.Namespace, home: Home) -> int:
    clients = AuthorizedClients(home)
    if options.value is None:
        for client in clients.clients():
            print(f"{client.name} {client.fingerprint}")
        return 0
    for client in clients.revoke(options.value):
        print(f"{client.name} ({client.fingerprint}) is let in no more; its jobs go on until they end")
    return 0


def _passwd(options: argparse.Namespace, home: Home) -> int:
    password = new_password() if options.password_file is None else _read_password(options.password_file)
    home.set_password(password)
    state = find_beacon(home)
    if state is not None:
        os.kill(state.pid, signal.SIGHUP)
    print(f"the password in {home.password} is new{', and the beacon has been told' * (state is not None)}")
    return 0


def _unit(options: argparse.Namespace, home: Home) -> int:
    command = [sys.executable, "-m", "klyng_mp.beacon"]
    command += [f"--{name}={value}" for name, value in (("host", options.host), ("port", options.port)) if value]
    print(make_unit(command, home.path, options.user), end="")
    return 0
