"""network: ranks of different hosts talk as those of one do, encrypted or not; strangers do not get in."""

from __future__ import annotations

import operator
import os
import queue
import select
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
from contracts.collectives import CollectivesContract
from contracts.communicator import CommunicatorContract
from contracts.definitions import DEFINITIONS, LISTS, call
from contracts.ranks import JOINS, LIMIT, ranks
from programs import wait_until

from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.deadline import Deadline
from klyng_mp.errors import PeerLostError
from klyng_mp.remote import network
from klyng_mp.remote.network import RankNetwork, Site
from klyng_mp.remote.preface import PREFACE_SIZE, pack_preface, read_preface
from klyng_mp.remote.proving import OF_ONE
from klyng_mp.remote.security import JobAuthority
from klyng_mp.wire.frames import DRIVER, FIRST_CHANNEL

JOB, KEY = b"j" * 16, b"k" * 32


class Hosts:
    """As many hosts as there are endpoints, one rank on each; a listener stands in for their beacons."""

    def __init__(self, endpoints, *, encrypt=True, change=lambda network, number: None):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        sites = [Site(f"host{one.number}", one.number, 1, "127.0.0.1", self.port) for one in endpoints]
        self.sites = sites
        self.authority = authority = JobAuthority() if encrypt else None
        self.wires = {}
        self.endpoints = endpoints
        self.accepted = []
        for one in endpoints:
            own = None if authority is None else {one.number: authority.issue(one.number)}
            network = RankNetwork(JOB, KEY, sites, own, far_driver=False)
            change(network, one.number)
            self.wires[one.number] = network.attach(one, lambda peer, asker=one.number: self._ask(peer, asker))
            one.use(self.wires[one.number].transport)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def meet(self):
        """Have all connections opened."""
        for one in self.endpoints:
            for peer in range(one.number + 1, len(self.endpoints)):
                with one.lock:
                    self.wires[one.number].dial(peer)
        wait_until(lambda: all(self._knows_all_others(one.number) for one in self.endpoints))

    def _knows_all_others(self, number):
        others = (one.number for one in self.endpoints if one.number != number)
        return all(self.wires[number].transport.is_known(other) for other in others)

    def _ask(self, peer, asker):
        """As the supervisors do, and not with the lock of the one who asks."""
        threading.Thread(target=self._dial, args=(peer, asker)).start()

    def _dial(self, peer, asker):
        with self.endpoints[peer].lock:
            self.wires[peer].dial(asker)

    def _serve(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            preface = read_preface(sock.recv(PREFACE_SIZE, socket.MSG_WAITALL))
            self.accepted.append((preface.source, preface.dest))
            self.wires[preface.dest].accept(preface.source, sock.detach())

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        # Connections are proved in threads that end by themselves.
        wait_until(lambda: not proving())


def by_tls(endpoints):
    hosts = Hosts(endpoints)
    hosts.meet()
    return hosts.close


def by_plain_text(endpoints):
    hosts = Hosts(endpoints, encrypt=False)
    hosts.meet()
    return hosts.close


def by_tls_when_wanted(endpoints):
    return Hosts(endpoints).close


@contextmanager
def ranks_and_hosts(size, **options):
    """Give ranks whose connections are opened when they are wanted, and the hosts that they are on."""
    made = []

    def join(endpoints):
        made.append(Hosts(endpoints, **options))
        return made[0].close

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(JOINS, "these", join)
        with ranks(size, "attended these") as found:
            yield found, made[0]


def proving():
    return [one for one in threading.enumerate() if one.name == "klyng_mp connection"]


@pytest.fixture(autouse=True)
def _joins(monkeypatch):
    monkeypatch.setitem(JOINS, "tls", by_tls)
    monkeypatch.setitem(JOINS, "plain", by_plain_text)
    monkeypatch.setitem(JOINS, "lazy", by_tls_when_wanted)


class _Attended(CommunicatorContract):
    """An attended rank takes in what comes though it does not ask for it, so nothing fills up."""

    test_a_send_can_be_cancelled_until_it_began = None
    test_a_send_that_has_not_begun_in_time_is_withdrawn = test_a_large_send_to_the_lost_is_woken = None


class TestEncrypted(_Attended):
    transport = "attended tls"


@pytest.mark.slow
class TestCollectives(CollectivesContract):
    transport = "attended tls"


@pytest.mark.slow
class TestInPlainText(_Attended):
    transport = "attended plain"


@pytest.mark.slow
class TestPlainCollectives(CollectivesContract):
    transport = "attended plain"


# -- connections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["attended lazy", "lazy"])
def test_a_send_that_waits_for_its_connection_ends_when_it_is_there(transport):
    """The thread that has proved the connection sends what is queued; who waits for that has to be told."""

    def shift(comm):
        right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        return comm.sendrecv(bytes([comm.rank]) * 300_000, right, "shift", left, "shift")[0]

    for _ in range(5):
        with ranks(3, transport) as made:
            assert made.run(shift) == [2, 0, 1]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_collectives_open_the_connections_that_they_need(name):
    """Each call finds none of them open that no call before has needed."""
    given = [[10 * rank + item for item in range(4)] if name in LISTS else rank + 1 for rank in range(4)]
    with ranks(4, "attended lazy") as made:
        for root in range(4):
            expected = DEFINITIONS[name](given, root, operator.add)
            assert made.run(lambda comm, root=root: call(comm, name, given[comm.rank], root)) == expected


def test_each_pair_has_one_connection_whoever_begins():
    with ranks_and_hosts(4) as (made, hosts):
        made.run(lambda comm: comm.alltoall(list(range(4))))
        made.run(lambda comm: comm.alltoall(list(range(4))))
        assert sorted(hosts.accepted) == [(low, high) for low in range(4) for high in range(low + 1, 4)]


# -- ends ------------------------------------------------------------------------------------------


@contextmanager
def connected():
    with ranks_and_hosts(2) as (made, hosts):
        made.run(lambda comm: comm.allgather(comm.rank))
        yield hosts.endpoints[1], hosts.wires[1]


def test_the_end_of_a_peer_waits_for_that_of_its_connection():
    done = []
    with connected() as (endpoint, wires), endpoint.lock:
        assert wires.outlast(0, lambda: done.append("told"))
        assert done == []
        assert wires.ended(0)
        assert done == ["told"]
        assert not wires.ended(0)
    assert done == ["told"]


def test_the_end_of_a_peer_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(network, "_LAST_SECONDS", 0.05)
    done = []
    with connected() as (endpoint, wires):
        with endpoint.lock:
            assert wires.outlast(0, lambda: done.append("told"))
        wait_until(lambda: done == ["told"])


def test_the_end_of_another_occupant_does_not_replace_that_of_the_one_before():
    done = []
    with connected() as (endpoint, wires), endpoint.lock:
        assert wires.outlast(0, lambda: done.append("the first"))
        assert wires.outlast(0, lambda: done.append("the second"))
        assert done == ["the first"]
        assert wires.ended(0)
    assert done == ["the first", "the second"]


def test_nothing_is_waited_for_where_nothing_can_come():
    with ranks_and_hosts(2) as (_made, hosts), hosts.endpoints[1].lock:
        assert not hosts.wires[1].outlast(0, list)


# -- strangers -------------------------------------------------------------------------------------


def stranger(network, number):
    """Another job's certificate, or another key: what a rank has that is none of this job."""
    if number == 0:
        if network.credentials is not None:
            network.credentials = {0: JobAuthority().issue(0)}
        network.join_key = b"x" * 32


@pytest.mark.parametrize("encrypt", [True, False], ids=["tls", "plain"])
def test_who_is_not_of_the_job_is_not_let_in(encrypt):
    with ranks_and_hosts(2, encrypt=encrypt, change=stranger) as (made, hosts):
        sender, receiver = made.comms
        sender.isend("x", 1)
        with pytest.raises(PeerLostError, match="could not be reached at host1"):
            sender.recv(1, timeout=LIMIT)
        assert hosts.accepted == [(0, 1)]
        assert receiver.iprobe() is None


@pytest.mark.parametrize("encrypt", [True, False], ids=["tls", "plain"])
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(2000)], ids=["nothing", "text", "noise"])
def test_who_proves_nothing_is_dropped_and_disturbs_nobody(encrypt, said):
    with ranks_and_hosts(2, encrypt=encrypt) as (made, hosts):
        with socket.create_connection(("127.0.0.1", hosts.port), LIMIT) as sock:
            sock.sendall(pack_preface(JOB, 0, 1, KEY) + said)
            with suppress(OSError):  # dropped already, or before all of it was read
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
        wait_until(lambda: not proving())
        assert made.run(lambda comm: comm.allgather(comm.rank)) == [[0, 1]] * 2


@pytest.mark.parametrize("encrypt", [True, False], ids=["tls", "plain"])
def test_who_replays_a_preface_costs_few_threads_and_keeps_no_other_rank_out(encrypt):
    with ranks_and_hosts(3, encrypt=encrypt) as (made, hosts), ExitStack() as stack:
        wires = hosts.wires[2]
        for _ in range(50):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", hosts.port), LIMIT))
            sock.sendall(pack_preface(JOB, 0, 2, KEY))
        wait_until(lambda: wires.dropped == 50 - OF_ONE)
        assert len(proving()) == OF_ONE
        made.comms[1].isend("though others wait", 2)
        assert made.comms[2].recv(1, timeout=LIMIT) == "though others wait"
        stack.close()
        wait_until(lambda: not proving())
        assert made.run(lambda comm: comm.allgather(comm.rank)) == [[0, 1, 2]] * 3
        assert wires.dropped == 50 - OF_ONE


def test_who_sends_a_byte_now_and_then_gains_no_time(monkeypatch):
    monkeypatch.setattr("klyng_mp.remote.network._SECONDS", 1.0)
    with ranks_and_hosts(2, encrypt=False) as (_, hosts):
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", hosts.port), LIMIT) as sock:
            sock.sendall(pack_preface(JOB, 0, 1, KEY))
            wait_until(proving)
            sent = 0
            while proving():
                with suppress(OSError):  # it was dropped
                    sock.sendall(b"x")
                    sent += 1
                select.select([], [], [], 0.4)
                assert time.monotonic() - began < LIMIT
        assert 2 <= sent <= 5  # of 16


# -- channels --------------------------------------------------------------------------------------


def open_channel(hosts, number, *, name=DRIVER, authority=None, key=KEY):
    """Open a channel to rank 1 as whom the certificate names; return its socket, or None and the reason."""
    endpoint = Endpoint(DRIVER)
    authority = authority or hosts.authority
    credentials = None if authority is None else {DRIVER: authority.issue(name)}
    network = RankNetwork(JOB, key, hosts.sites, credentials, far_driver=False)
    answers = queue.SimpleQueue()
    network.attach(endpoint, lambda peer: None).open_channel(1, number, lambda *answer: answers.put(answer))
    answer = answers.get(timeout=LIMIT)
    endpoint.close()
    return answer


@pytest.mark.parametrize("encrypt", [True, False], ids=["tls", "plain"])
def test_the_driver_opens_a_channel_beside_the_messages(encrypt):
    with ranks_and_hosts(2, encrypt=encrypt) as (made, hosts):
        ours, reason = open_channel(hosts, FIRST_CHANNEL + 5)
        assert reason == ""
        theirs = hosts.wires[1].claim(FIRST_CHANNEL + 5, Deadline(LIMIT))
        ours.setblocking(True)
        theirs.setblocking(True)
        ours.send(b"there")
        with memoryview(bytearray(100)) as buffer:
            assert bytes(buffer[: theirs.recv_into(buffer)]) == b"there"
        ours.close()
        theirs.close()
        assert made.run(lambda comm: comm.allgather(comm.rank)) == [[0, 1]] * 2
        assert not hosts.wires[1].transport.is_known(FIRST_CHANNEL + 5)


@pytest.mark.parametrize(
    ("encrypt", "wrong"),
    [
        (True, {"name": 0}),
        (True, {"authority": JobAuthority()}),
        (False, {"key": b"x" * 32}),
    ],
    ids=["another rank", "another job", "without the key"],
)
def test_nobody_else_opens_one_in_the_drivers_name(encrypt, wrong):
    with ranks_and_hosts(2, encrypt=encrypt) as (made, hosts):
        sock, reason = open_channel(hosts, FIRST_CHANNEL + 5, **wrong)
        assert sock is None
        assert "could not be reached at host1" in reason
        wait_until(lambda: not proving())
        assert hosts.wires[1].claim(FIRST_CHANNEL + 5, Deadline(0)) is None
        assert made.run(lambda comm: comm.allgather(comm.rank)) == [[0, 1]] * 2


def test_where_nobody_listens_the_peer_is_lost():
    with ranks_and_hosts(2, change=misled) as (made, hosts):
        made.comms[0].isend("x", 1)
        with pytest.raises(PeerLostError, match=r"could not be reached at host1 \(127.0.0.1:\d+\): Connection refused"):
            made.comms[0].recv(1, timeout=LIMIT)
        assert hosts.accepted == []


def misled(network, number):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    network.sites = tuple(site._replace(port=port) for site in network.sites)
