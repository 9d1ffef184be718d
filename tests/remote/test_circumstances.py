"""What else may be the case: the sixth version of IP, streams in slices, resets, daemons, core dumps."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import socket
import ssl
import struct
import subprocess
import sys
from pathlib import Path

import farwork
import pytest
from attackers import LiveBeacon, Relay, shake_hands
from beacons import Beacon
from drivers import Driver
from programs import FACTOR, children_of, environment, parent_of, still_there, wait_until

import klyng_mp as mp

pytestmark = pytest.mark.slow

GONE_SECONDS = 5.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close resets the connection


def here_and(beacon, **changes):
    return ["local", {**beacon.world(max_procs=1), **changes}]


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
def test_a_beacon_may_have_an_address_of_the_sixth_version(tmp_path, client_home):
    with LiveBeacon(tmp_path, words=("--host=::1",)) as beacon:
        host = f"[{beacon.address}]:{beacon.port}"
        assert beacon.address == "::1"
        with mp.World(hosts=here_and(beacon, host=host), n=2) as world:
            assert world.run(farwork.around, "x") == ["x", "x"]
            assert world.run(farwork.wrong_arrays, [0, 1, 100_000]) == [[], []]
        assert "::1 logged in by password" in beacon.log
        with pytest.raises(mp.AuthenticationError, match="refuses the password"):
            mp.World(hosts=here_and(beacon, host=host, passwd="wrong"))


# -- streams ---------------------------------------------------------------------------------------


class Slicer(Relay):
    """Carries all in small pieces, and may reset a connection once so many bytes have come."""

    def __init__(self, address, port, *, most, reset_after=None):
        self._most, self._reset_after = most, reset_after
        self.pieces = self.resets = 0
        super().__init__(address, port)

    def _carry(self, number, towards, from_, to):
        chance = random.Random(f"{number} {towards}")
        carried = 0
        to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            from_.settimeout(None)
            while data := from_.recv(65536):
                at = 0
                while at < len(data):
                    size = chance.randrange(1, self._most + 1)
                    to.sendall(data[at : at + size])
                    at += size
                    self.pieces += 1
                carried += len(data)
                if self._reset_after is not None and carried > self._reset_after:
                    self.resets += 1
                    for sock in (from_, to):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                        sock.close()
                    return
        for sock in (from_, to):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def live(tmp_path, client_home):
    with LiveBeacon(tmp_path) as beacon:
        yield beacon


def test_streams_may_come_in_slices(live):
    with (
        Slicer(live.address, live.port, most=50) as relay,
        mp.World(hosts=here_and(live, host=f"127.0.0.1:{relay.port}"), n=2) as world,
    ):
        assert world.run(farwork.wrong_arrays, [0, 1, 1000, 20_000]) == [[], []]
        assert world.run(farwork.wrong_collectives) == [[], []]
    assert relay.pieces > 1000


def work_for_long(hosts):
    with mp.World(hosts=hosts, n=2) as world:
        for _ in range(40):
            world.run(farwork.wrong_arrays, [100_000])


@pytest.mark.parametrize(
    "after",
    [10, 700, 3000, 20_000, 50_000, 150_000, 400_000],
)
def test_a_stream_that_is_reset_is_an_error_in_time_and_leaves_nothing(live, after):
    live.is_served()
    state = live.state()
    with Slicer(live.address, live.port, most=1 << 16, reset_after=after) as relay:
        with pytest.raises((mp.KlyngError, ConnectionError)):
            work_for_long(here_and(live, host=f"127.0.0.1:{relay.port}"))
        assert relay.resets > 0
    wait_until(lambda: live.state() == state, 20)
    with mp.World(hosts=here_and(live), n=2) as world:
        assert world.run(farwork.wrong_arrays, [100_000]) == [[], []]


@pytest.mark.parametrize("method", ["sendall", "recv"])
@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_ends_a_login_is_said_with_the_beacon(live, monkeypatch, method, error):
    def fails(self, *args):
        raise error

    monkeypatch.setattr(ssl.SSLSocket, method, fails)
    with pytest.raises(mp.BeaconError, match=rf"{live.port} broke off: the connection was cut off \({error.args[1]}\)"):
        live.log_in()


# -- daemons ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "victim",
    ["driver", "rank", "session", "zygote", "beacon"],
)
def test_whoever_is_killed_daemons_below_ranks_are_gone(tmp_path, client_home, victim):
    (tmp_path / "work").mkdir()
    with Beacon(tmp_path / "own") as beacon:
        with Driver(tmp_path / "work", [beacon.entry()], work="daemonises") as driver:
            driver.wait_for_run()
            pids = [int(word) for word in (tmp_path / "work" / "gate").read_text().split()]
            assert len(pids) == 6
            assert still_there(pids, 0) == pids
            zygote = parent_of(pids[0])
            victims = {
                "rank": pids[0],
                "driver": driver.pid,
                "zygote": zygote,
                "session": parent_of(zygote),
                "beacon": beacon.pid,
            }
            os.kill(victims[victim], signal.SIGKILL)
            if victim == "driver":
                assert still_there(pids, GONE_SECONDS) == []
            else:
                kind, _ = driver.error()
                assert kind == ("RankDiedError" if victim == "rank" else "HostLostError")
                driver.process.stdin.close()
                driver.finish()
                assert still_there(pids, GONE_SECONDS) == []
        if victim == "beacon":
            beacon.kill()
        else:
            beacon.check_tidy()


def test_such_daemons_outlive_who_is_not_looked_after(tmp_path):
    script = f"import sys; sys.path[:0] = {sys.path!r}; import farwork; farwork.daemonises({str(tmp_path / 'gate')!r})"
    with subprocess.Popen([sys.executable, "-c", script], env=environment(), stderr=subprocess.DEVNULL) as program:
        wait_until((tmp_path / "gate").exists)
        _, *daemons = map(int, (tmp_path / "gate").read_text().split())
        program.kill()
        program.wait()
    assert still_there(daemons, 0.2) == daemons
    for pid in daemons:
        os.kill(pid, signal.SIGKILL)
    assert still_there(daemons, GONE_SECONDS) == []


# -- core dumps ------------------------------------------------------------------------------------


def dumps_core(pid):
    """Let a process that is to be waited for here abort; tell whether the kernel has written what it had in memory."""
    resource.prlimit(pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os.kill(pid, signal.SIGABRT)
    return os.WCOREDUMP(os.waitpid(pid, 0)[1])


def test_no_core_dump_has_the_secrets_of_a_beacon_or_a_session(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=tmp_path)
    with other.stdin:
        wait_until(lambda: b"input" in Path(f"/proc/{other.pid}/cmdline").read_bytes())
        dumped = dumps_core(other.pid)
        other.returncode = -signal.SIGABRT
    if not dumped:
        pytest.skip("here nobody's core is dumped")
    for path in tmp_path.glob("core*"):
        path.unlink()
    program = LiveBeacon(tmp_path)
    with contextlib.ExitStack() as stack:
        beacon = program.__enter__()
        stack.callback(program.program.__exit__)
        sock = stack.enter_context(beacon.reach())
        stack.enter_context(shake_hands(sock))
        (session,) = beacon.sessions()
        resource.prlimit(session, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.kill(session, signal.SIGABRT)
        wait_until(lambda: children_of(beacon.pid) == [], 10 * FACTOR)
        assert not dumps_core(beacon.pid)
        program.program.process.returncode = -signal.SIGABRT
    assert list(tmp_path.rglob("core*")) == []
