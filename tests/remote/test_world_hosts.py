"""world_hosts: a World on other machines does what one here does; what cannot be is said, and leaves nothing there."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import farwork
import pytest
from beacons import Beacon

import klyng_mp as mp
from klyng_mp.errors import AuthenticationError, BeaconBusyError, BeaconError, MachinesError
from klyng_mp.remote.hosts import read_hosts
from klyng_mp.remote.world_hosts import WorldHosts, reach

pytestmark = pytest.mark.slow

MIB = 1 << 20
SENTENCE_SECONDS = 5.0


@pytest.fixture(scope="module")
def spread(beacons, tmp_path_factory):
    """A World on both beacons, for all tests that leave it as it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KLYNG_MP_HOME", str(tmp_path_factory.mktemp("client") / "home"))
        with mp.World(hosts=[beacon.entry() for beacon in beacons]) as world:
            world.run(farwork.wrong_collectives)  # then all connections are there
            yield world


# -- the communicator between hosts ----------------------------------------------------------------


@pytest.mark.parametrize("local", [False, True], ids=["2 hosts", "local and 2 hosts"])
def test_ranks_of_all_hosts_are_one_world(hosts, local, time_limit):
    with mp.World(hosts=[{"host": "local", "max_procs": 2}] * local + hosts) as world:
        assert world.size == (6 if local else 4)
        assert world.run(farwork.around, "x") == ["x"] * world.size
        assert world.run(farwork.total) == [sum(range(world.size))] * world.size


def test_every_collective_is_what_its_definition_says(spread):
    assert spread.run(farwork.wrong_collectives) == [[]] * 4


def test_whatever_its_size_a_message_arrives_as_it_was(spread):
    assert spread.run(farwork.wrong_arrays, [0, 1, 1000, 65_536, MIB + 1]) == [[]] * 4


def test_large_messages_arrive_as_they_were(hosts):
    with mp.World(hosts=[*hosts, {"host": "local", "max_procs": 1}]) as world:
        assert world.run(farwork.wrong_arrays, [16 * MIB, 64 * MIB]) == [[]] * 5


def test_communicators_are_split_and_duplicated(spread):
    words = ("in the first", "in the copy")
    assert spread.run(farwork.groups) == [
        (1, 2, [2, 0], words),
        (1, 2, [3, 1], words),
        (0, 2, [2, 0], words),
        (0, 2, [3, 1], words),
    ]


def test_a_synchronous_send_waits_and_a_probe_looks(spread):
    first, *_, last = spread.run(farwork.rendezvous)
    assert (first, last) == ("nobody took it", ("now", 0, 3, "met", "too early", None))


def test_a_wait_has_its_timeout(spread, time_limit):
    assert all(0.2 <= took < time_limit(2) for took in spread.run(farwork.gives_up, 0.2))


def test_a_send_does_not_wait_for_a_peer_that_computes(spread, time_limit):
    seconds = time_limit(1)
    for size in (10, 64 * 1024):  # more, while Python holds its lock, comes in at a few MB a second
        took, *_, size_there = spread.run(farwork.computes, seconds, size)
        assert size_there == size
        assert took < seconds * 0.75


def test_a_send_from_here_does_not_wait_either(hosts, time_limit):
    seconds = time_limit(1)
    with mp.World(hosts=[{"host": "local", "max_procs": 1}, {**hosts[0], "max_procs": 1}]) as world:
        for size in (10, 64 * 1024):
            took, size_there = world.run(farwork.computes, seconds, size)
            assert size_there == size
            assert took < seconds * 0.75


# -- what cannot be --------------------------------------------------------------------------------


@contextmanager
def refused(error, *words, seconds=SENTENCE_SECONDS):
    """Expect an error that has these words, in time."""
    began = time.monotonic()
    with pytest.raises(error) as caught:
        yield caught
    assert time.monotonic() - began < seconds
    for word in words:
        assert word in str(caught.value)


def healthy(hosts):
    with mp.World(hosts=hosts) as world:
        assert world.run(farwork.total) == [6] * 4


@contextmanager
def service(greet):
    """Give the port of a service that is no beacon: it calls ``greet`` with each connection."""

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                greet(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ssh(connection):
    connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    connection.recv(4096)


def web(connection):
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def hangs_up(connection):
    connection.recv(1)


def says_nothing(connection):
    while connection.recv(4096):
        pass


@pytest.mark.parametrize(
    "greet",
    [ssh, web, hangs_up, says_nothing],
    ids=lambda greet: greet.__name__,
)
def test_another_service_is_no_beacon(hosts, greet, time_limit):
    with service(greet) as port, refused(BeaconError, str(port), seconds=time_limit(SENTENCE_SECONDS)) as caught:
        mp.World(hosts=[*hosts, {"host": f"127.0.0.1:{port}", "passwd": "x", "max_procs": 1}])
    assert caught.value.host == f"127.0.0.1:{port}"
    healthy(hosts)


def test_a_port_where_nobody_listens(hosts):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with refused(BeaconError, f"127.0.0.1 port {port}", "start a beacon there"):
        mp.World(hosts=[*hosts, {"host": f"127.0.0.1:{port}", "passwd": "x", "max_procs": 1}])
    healthy(hosts)


def test_a_host_that_nobody_knows(hosts):
    with refused(BeaconError, "there is no host no-such-host.invalid", "check its name"):
        mp.World(hosts=[*hosts, {"host": "no-such-host.invalid", "passwd": "x", "max_procs": 1}])


def test_a_wrong_password(hosts):
    with refused(AuthenticationError, hosts[1]["host"], "password") as caught:
        mp.World(hosts=[hosts[0], {**hosts[1], "passwd": "wrong"}])
    assert caught.value.host == hosts[1]["host"]
    healthy(hosts)


def test_an_empty_password(hosts):
    with refused(MachinesError, hosts[0]["host"], "passwd"):
        mp.World(hosts=[{**hosts[0], "passwd": ""}])


def test_neither_password_nor_key(hosts):
    del hosts[0]["passwd"]
    with refused(AuthenticationError, "no password is given", "pair with it"):
        mp.World(hosts=hosts)


def test_all_hosts_that_cannot_be_used_are_told(hosts):
    wrong = [{**host, "passwd": "wrong"} for host in hosts]
    with refused(AuthenticationError) as caught:
        mp.World(hosts=wrong)
    told = [str(caught.value), *caught.value.__notes__]
    assert all(any(host["host"] in one for one in told) for host in hosts)


def test_a_fingerprint_that_is_another_ones(hosts, beacons):
    with refused(AuthenticationError, hosts[0]["host"]):
        mp.World(hosts=[{**hosts[0], "fingerprint": beacons[1].fingerprint}])
    with mp.World(hosts=[{**hosts[0], "fingerprint": beacons[0].fingerprint}]) as world:
        assert world.run(farwork.total) == [1, 1]


FILES = {
    "no JSON": ("{", "this is not JSON"),
    "no object": ("[1]", "no JSON object"),
    "no hosts": ("{}", "there is no host"),
    "unknown key": ('{"10.0.0.5": {"max_proc": 2}}', "write max_procs"),
    "no number": ('{"10.0.0.5": {"max_procs": "2"}}', "max_procs"),
    "no ranks": ('{"10.0.0.5": {"max_procs": 0}}', "1 or more"),
    "no port": ('{"10.0.0.5": {"port": 70000}}', "port"),
    "twice": ('{"a": {}, "a": {}}', "there twice"),
    "password of local": ('{"local": {"passwd": "x"}}', "no beacon"),
}


@pytest.mark.parametrize("text", FILES)
def test_a_bad_machines_file(tmp_path, client_home, text):
    path = tmp_path / "machines.json"
    text, words = FILES[text]
    path.write_text(text)
    path.chmod(0o600)
    with refused(MachinesError, words):
        mp.World(hosts=str(path))


def test_a_machines_file_that_is_not_there(tmp_path, client_home):
    with refused(MachinesError, "no.json"):
        mp.World(hosts=str(tmp_path / "no.json"))


def test_more_ranks_than_a_beacon_takes(tmp_path, client_home):
    with Beacon(tmp_path, "max_ranks = 2") as beacon:
        with refused(BeaconBusyError, beacon.key, "max_ranks", "takes 2"):
            mp.World(hosts=[beacon.entry(3)])
        with mp.World(hosts=[beacon.entry(1)]) as world:
            with refused(BeaconBusyError, "max_ranks", "1 run there already"):
                mp.World(hosts=[beacon.entry(2)])
            assert world.run(farwork.total) == [0]
        beacon.check_tidy()


def test_more_jobs_than_a_beacon_takes(tmp_path, client_home):
    with Beacon(tmp_path, "max_jobs = 1") as beacon:
        with mp.World(hosts=[beacon.entry()]) as world:
            with refused(BeaconBusyError, "max_jobs", "1 jobs run there already"):
                mp.World(hosts=[beacon.entry()])
            assert world.run(farwork.total) == [1, 1]
        with mp.World(hosts=[beacon.entry()]) as world:
            assert world.run(farwork.total) == [1, 1]
        beacon.check_tidy()


def test_a_program_that_is_too_large(tmp_path, client_home):
    (tmp_path / "large").write_bytes(bytes(range(256)) * 4096)
    with Beacon(tmp_path, 'max_bundle_bytes = "1 KiB"') as beacon:
        with refused(BeaconBusyError, "max_bundle_bytes", "let less travel"):
            mp.World(hosts=[beacon.entry()])
        beacon.check_tidy()


def test_plain_text_needs_the_beacons_leave(hosts):
    with refused(BeaconBusyError, "allow_plaintext", "leave encrypt=False out"):
        mp.World(hosts=hosts, encrypt=False)
    healthy(hosts)


def test_plain_text_where_it_is_allowed(tmp_path, client_home):
    with (
        Beacon(tmp_path / "a", "allow_plaintext = true") as one,
        Beacon(tmp_path / "b", "allow_plaintext = true") as two,
    ):
        with mp.World(hosts=["local", one.entry(), two.entry()], encrypt=False) as world:
            assert world.run(farwork.wrong_collectives) == [[]] * world.size
            assert world.run(farwork.wrong_arrays, [0, 1000, MIB]) == [[]] * world.size
        one.check_tidy()
        two.check_tidy()


# -- which ranks, where ----------------------------------------------------------------------------


def test_there_are_as_many_ranks_as_places(hosts, beacons):
    at = WorldHosts(hosts, None, files=(), encrypt=True, env={})
    assert at.size == 4
    at.close()
    del hosts[0]["max_procs"]
    at = WorldHosts(hosts, None, files=(), encrypt=True, env={})
    assert at.size == 2 + mp.usable_cpus()
    at.close()


def test_a_host_without_ranks_is_left_alone(hosts):
    for order in ([*hosts, "local"], hosts):
        with mp.World(1, hosts=order) as world:
            assert world.run(farwork.total) == [0]


@pytest.mark.parametrize(
    "wrong", [{"seed": "7"}, {"env": {"A": 1}}, {"method": "fork"}, {"preload": ["json"]}], ids=str
)
def test_a_wrong_argument_leaves_no_session(hosts, wrong):
    with pytest.raises((TypeError, ValueError)):
        mp.World(hosts=hosts, **wrong)


def test_who_cannot_be_reached_is_let_go_of(hosts):
    wrong = read_hosts([hosts[0], {**hosts[1], "passwd": "wrong"}])
    with pytest.raises(AuthenticationError):
        reach(wrong)
