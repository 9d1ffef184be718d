"""Hosts on network namespaces: they reach each other, fail as hosts do, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import namespaces
import networks
import pytest
from programs import Program, still_there, wait_until, write_script

pytestmark = pytest.mark.slow

SOON = 0.3  # in which something arrives where nothing is wrong

ECHO = """
import socket, sys
listener = socket.create_server((sys.argv[1], 0))
print("port:", listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
while data := connection.recv(1 << 16):
    connection.sendall(data)
"""

# Leaves two behind that are no children of anybody: one asleep, one that chases on from process to process.
TREE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + 30  # should it escape
for chase in (False, True):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while chase and time.monotonic() < end:
                if os.fork():
                    os._exit(0)
            signal.pause() if not chase else None
        os._exit(0)
os.wait(), os.wait()
print("ready:", os.getpid(), flush=True)
signal.pause()
"""


@pytest.fixture
def stack():
    with contextlib.ExitStack() as made:
        yield made


def connect(stack, source, dest):
    """Return both ends of a connection from a host to another."""
    listener = stack.enter_context(dest.listen())
    near = stack.enter_context(source.connect(listener.getsockname()))
    far, _ = listener.accept()
    stack.enter_context(far)
    far.settimeout(20)
    return near, far


def inhabitants(inode):
    return sorted(set(namespaces.inhabitants(inode)))


def arrives(sock, seconds=SOON):
    return bool(select.select([sock], [], [], seconds)[0])


def start_echo(stack, host, dest):
    """Start an echo on a host; return a connection to it from another, and its program."""
    program = stack.enter_context(Program("-c", ECHO, host.address, cwd=host.home, start=host.run))
    (port,) = program.answer("port")
    return stack.enter_context(dest.connect((host.address, int(port)))), program


def echoes(sock):
    sock.sendall(b"x")
    return arrives(sock, 20) and sock.recv(1) == b"x"


# -- hosts ---------------------------------------------------------------------------------------


def test_hosts_reach_each_other(network, stack):
    laptop, lab = network.add_hosts("laptop", "lab")
    sock, program = start_echo(stack, lab, laptop)
    sock.sendall(b"hello")
    assert sock.recv(5) == b"hello"
    assert sock.getsockname()[0] == laptop.address
    assert lab.processes() == [program.pid]
    assert laptop.processes() == []


def test_hosts_know_each_other_by_name(network):
    laptop, lab = network.add_hosts("laptop", "lab")
    code = "import socket; print(socket.gethostname(), socket.gethostbyname('lab'))"
    assert laptop.output([sys.executable, "-c", code]) == f"laptop {lab.address}\n"
    assert socket.gethostname() != "laptop"


def test_hosts_have_an_address_of_the_sixth_version(network, stack):
    laptop, lab = network.add_hosts("laptop", "lab")
    listener = stack.enter_context(lab.call(socket.create_server, (lab.address6, 0), family=socket.AF_INET6))
    stack.enter_context(laptop.connect(listener.getsockname()[:2]))
    assert arrives(listener, 20)


def test_a_host_cannot_be_reached_from_outside(network, stack):
    (lab,) = network.add_hosts("lab")
    listener = stack.enter_context(lab.listen())
    probe = stack.enter_context(socket.socket())
    probe.settimeout(SOON)
    with pytest.raises(OSError):
        probe.connect(listener.getsockname())
    assert not arrives(listener, 0)


def test_two_networks_do_not_meet(network, stack):
    (lab,) = network.add_hosts("lab")
    other = stack.enter_context(networks.Network())
    first, second = other.add_hosts("first", "second")
    listener = stack.enter_context(lab.listen())
    assert lab.address == first.address
    with pytest.raises(ConnectionRefusedError):  # by the other network's host
        second.connect(listener.getsockname())


def test_a_host_has_its_own_home_and_shared_memory(network):
    laptop, lab = network.add_hosts("laptop", "lab")
    code = "import os; print(os.environ['HOME'], os.environ['KLYNG_MP_HOME'], os.getcwd()); open('/dev/shm/a', 'w')"
    assert lab.output([sys.executable, "-c", code]).split() == [str(lab.home), str(lab.klyng_mp_home), str(lab.home)]
    assert lab.shared_names() == ["a"]
    assert laptop.shared_names() == []
    assert laptop.home != lab.home


def test_a_disk_is_full(network):
    (lab,) = network.add_hosts("lab")
    lab.limit_disk(1 << 20)
    code = "import pathlib\ntry: pathlib.Path('big').write_bytes(bytes(2 << 20))\nexcept OSError as e: print(e.errno)"
    assert lab.output([sys.executable, "-c", code]) == "28\n"


def test_three_hosts_are_quickly_made(network, time_limit):
    seconds = []
    for _ in range(3):  # others may have the machine for a while
        with networks.Network() as other:
            began = time.monotonic()
            other.add_hosts("a", "b", "c")
            seconds.append(time.monotonic() - began)
    assert min(seconds) < time_limit(0.5)


def test_what_cannot_be_done_to_a_link_is_said(network):
    with pytest.raises(RuntimeError, match="nonsense"):
        network.switch.configure("link set nonsense up")


def test_who_is_not_root_is_told():
    code = "import os, namespaces; os.setuid(65534); print(namespaces.skip_reason())"
    words = [sys.executable, "-c", code]
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    done = subprocess.run(
        words, env={"PYTHONPATH": str(Path(networks.__file__).parent)}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("only root makes network namespaces\n", "")


# -- what happens to them ------------------------------------------------------------------------


def test_a_pulled_cable_is_silent_until_it_is_back(network, stack):
    laptop, lab = network.add_hosts("laptop", "lab")
    near, far = connect(stack, laptop, lab)
    for host in (laptop, lab):
        host.cut()
        near.sendall(b"a")
        far.sendall(b"b")
        assert not arrives(far)
        assert not arrives(near, 0)
        host.mend()
        assert far.recv(1) == b"a"
        assert near.recv(1) == b"b"


def test_a_pulled_cable_ends_a_connection_that_has_a_time_limit(network, stack):
    laptop, lab = network.add_hosts("laptop", "lab")
    near, _ = connect(stack, laptop, lab)
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
    lab.cut()
    near.sendall(b"a")
    assert arrives(near, 20)
    with pytest.raises(OSError):
        near.recv(1)


def test_a_split_network(network, stack):
    hosts = a, b, c, d = network.add_hosts(*"abcd")
    pairs = {(x.name, y.name): connect(stack, x, y) for x in hosts for y in hosts if x.name < y.name}
    network.split([a, b])
    for near, _ in pairs.values():
        near.sendall(b"x")
    inside = [pairs["a", "b"][1], pairs["c", "d"][1]]
    assert all(arrives(far, 20) for far in inside)
    fars = {far: names for names, (_, far) in pairs.items()}
    assert {fars[far] for far in select.select(list(fars), [], [], 0)[0]} == {("a", "b"), ("c", "d")}
    network.split([c], [d])
    pairs["c", "d"][0].sendall(b"y")
    assert pairs["c", "d"][1].recv(1) == b"x"
    assert not arrives(pairs["c", "d"][1])
    d.cut()
    network.join()
    d.mend()
    assert all(arrives(far, 20) for far in fars)


def test_a_frozen_host_still_acknowledges(network, stack):
    laptop, lab = network.add_hosts("laptop", "lab")
    sock, _ = start_echo(stack, lab, laptop)
    assert echoes(sock)
    lab.freeze()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
    sock.sendall(b"a")
    assert not arrives(sock, 4 * SOON)
    lab.thaw()
    assert arrives(sock, 20)
    assert sock.recv(1) == b"a"


def test_a_host_without_power_says_no_more(network, stack):
    laptop, lab = network.add_hosts("laptop", "lab")
    sock, program = start_echo(stack, lab, laptop)
    assert echoes(sock)
    lab.power_off()
    assert program.process.returncode == -signal.SIGKILL
    assert not arrives(sock)  # where a killed process's connection would have ended
    lab.power_on()
    with pytest.raises(ConnectionResetError):
        echoes(sock)
    assert echoes(start_echo(stack, lab, laptop)[0])


def test_a_killed_process_does_say_so(network, stack):
    laptop, lab = network.add_hosts("laptop", "lab")
    sock, program = start_echo(stack, lab, laptop)
    assert echoes(sock)
    program.process.kill()
    assert arrives(sock, 20)
    assert sock.recv(1) == b""


def test_power_off_ends_whole_trees(network, stack):
    (lab,) = network.add_hosts("lab")
    program = stack.enter_context(Program("-c", TREE, cwd=lab.home, start=lab.run))
    program.answer("ready")
    inode = lab.namespace.inode
    assert len(lab.processes()) >= 2
    lab.power_off()
    assert inhabitants(inode) == []


# -- nothing is left ------------------------------------------------------------------------------

RUN = """
import sys
sys.path.insert(0, {tests!r})
import badlinks, networks, pathlib
network = networks.Network()
hosts = network.add_hosts("a", "b")
badlinks.BadLink(network, *hosts)
for host in hosts:
    host.python("-c", pathlib.Path(sys.argv[1]).read_text())
spaces = [network.switch, *(host.namespace for host in hosts)]
print("inodes:", *[space.inode for space in spaces], flush=True)
print("keepers:", *[space._keeper.pid for space in spaces], flush=True)
print("folder:", network.folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def killed_run(tmp_path, stack):
    """Give the program that has a network, its namespaces, its keepers and its folder."""
    if (reason := networks.skip_reason()) is not None:
        pytest.skip(reason)
    tree = write_script(tmp_path, TREE, "tree.py")
    script = write_script(tmp_path, RUN.format(tests=str(Path(networks.__file__).parent)))
    program = stack.enter_context(Program(script, tree, cwd=tmp_path, stdin=subprocess.PIPE))
    inodes, keepers = ([int(word) for word in program.answer(key)] for key in ("inodes", "keepers"))
    (folder,) = program.answer("folder")
    wait_until(lambda: all(len(inhabitants(inode)) >= 4 for inode in inodes[1:]))
    return program, inodes, keepers, Path(folder)


def test_a_closed_network_leaves_nothing(stack):
    if (reason := networks.skip_reason()) is not None:
        pytest.skip(reason)
    links, names = os.listdir("/sys/class/net"), subprocess.check_output(["ip", "netns", "list"])
    with networks.Network() as network:
        hosts = network.add_hosts("a", "b")
        for host in hosts:
            host.python("-c", TREE)
        inodes = [network.switch.inode, *(host.namespace.inode for host in hosts)]
        assert all(inhabitants(inode) for inode in inodes)  # keepers at least
    assert [inhabitants(inode) for inode in inodes] == [[], [], []]
    assert not network.folder.exists()
    assert os.listdir("/sys/class/net") == links
    assert subprocess.check_output(["ip", "netns", "list"]) == names


def test_a_killed_run_leaves_nothing(killed_run):
    program, inodes, keepers, folder = killed_run
    there = [pid for inode in inodes for pid in inhabitants(inode)]
    assert set(keepers) < set(there)
    program.process.kill()
    assert still_there(there, 10) == []
    assert [inhabitants(inode) for inode in inodes] == [[], [], []]
    assert not folder.exists()


def test_what_a_run_left_whose_keepers_were_killed_too_goes_with_the_next(killed_run):
    program, inodes, keepers, folder = killed_run
    for keeper in keepers:
        os.kill(keeper, signal.SIGKILL)
    program.process.kill()
    program.process.wait()
    there = [pid for inode in inodes[1:] for pid in inhabitants(inode)]
    assert len(there) >= 6
    assert folder.exists()
    with networks.Network():
        assert still_there(there, 10) == []
    assert not folder.exists()


def test_a_run_that_lives_is_left_alone(killed_run):
    _, inodes, _, folder = killed_run
    before = [set(inhabitants(inode)) for inode in inodes[1:]]
    namespaces.remove_leftovers()
    for there, inode in zip(before, inodes[1:], strict=True):
        assert len(there & set(inhabitants(inode))) >= 3  # all but those who chase on
    assert folder.exists()
