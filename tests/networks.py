"""Hosts for tests: real processes on network namespaces that a switch joins, and what happens to such hosts.

Each network has a switch of its own, so that all may use the same addresses and none is seen from outside: what is
to reach a host must run in one (`Host.run`), or be opened in one (`Host.call`, `Host.connect`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from namespaces import OWNER, PREFIX, Namespace, mount, own_mark, remove_leftovers, send, skip_reason, stop_all
from programs import state_of, wait_until

__all__ = ["Host", "Network", "skip_reason"]

ROOT = Path(__file__).resolve().parent.parent
FACTOR = float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))
READY_SECONDS = 5.0


class Host:
    """A machine: its own addresses, name, /dev/shm, HOME and KLYNG_MP_HOME; it is made by `Network.add_hosts`."""

    def __init__(self, network, number, name):
        self._network = network
        self._number = number
        self.name = name
        self.address = f"10.77.0.{number}"
        self.address6 = f"fd77::{number:x}"
        self.home = network.folder / name
        self.klyng_mp_home = self.home / ".klyng_mp"
        self.tmp = self.home / "tmp"
        self.tmp.mkdir(parents=True)
        self.is_on = False

    def __repr__(self):
        return f"<host {self.name} at {self.address}>"

    def run(self, words, *, env=None, **popen):
        """Start a program there, in its HOME unless told; the network kills it, waits for it and closes its pipes.

        ``env`` replaces this process's environment, as Popen's does; what makes a host is added to either.
        """
        values = {**(os.environ if env is None else env), **self.environment}
        return self.namespace.start(list(map(str, words)), env=values, **{"cwd": self.home, **popen})

    def python(self, *words, **popen):
        """Start a Python there that can import klyng_mp; it is as `run` otherwise."""
        return self.run([sys.executable, *words], **popen)

    def output(self, words, *, seconds=30.0, **popen):
        """Run a program there that must end well; return what it wrote, as text."""
        process = self.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)
        out, err = process.communicate(timeout=seconds * FACTOR)
        assert process.returncode == 0, f"{words} on {self.name}: exit code {process.returncode}\n{out}\n{err}"
        return out

    @property
    def environment(self):
        """What differs from host to host."""
        return {
            "HOME": str(self.home),
            "KLYNG_MP_HOME": str(self.klyng_mp_home),
            "TMPDIR": str(self.tmp),
            "HOSTNAME": self.name,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            OWNER: self._network.mark,
        }

    def call(self, function, *args, **keywords):
        """Call a function of this process as if it were there: its sockets are the host's, and its /dev/shm."""
        return self.namespace.call(function, *args, **keywords)

    def listen(self, port=0):
        """Return a listening TCP socket of this host."""
        return self.call(socket.create_server, (self.address, port))

    def connect(self, address, seconds=10.0):
        """Return a TCP connection from this host."""
        return self.call(socket.create_connection, address, seconds * FACTOR)

    def processes(self):
        """Return the process ids of all that runs there."""
        return sorted(set(self.namespace.processes()))

    def shared_names(self):
        """Return the names in its /dev/shm."""
        return sorted(self.call(os.listdir, "/dev/shm"))

    def limit_disk(self, size_bytes):
        """Let HOME have so much room and no more; it is empty then, and only what runs there sees what is in it."""

        def make():
            mount("tmpfs", self.home, "tmpfs", options=f"size={size_bytes}")
            os.mkdir(self.tmp)

        self.call(make)

    # -- what happens to hosts

    def cut(self):
        """Pull the cable: nothing leaves or arrives, and nobody is told; only the host's own card notices."""
        self._network.switch.configure(f"link set {self._port} down")
        self.is_cut = True

    def mend(self):
        """Put the cable back."""
        self._network.switch.configure(f"link set {self._port} up")
        self.is_cut = False
        self._network._wait_for_links(self)

    def freeze(self):
        """Stop all that runs there; its kernel goes on, and acknowledges what arrives."""
        stopped = stop_all(self.namespace.processes, time.monotonic() + READY_SECONDS * FACTOR)
        wait_until(lambda: all(is_stopped(pid) for pid in stopped))

    def thaw(self):
        """Let all that was frozen go on."""
        for pid in self.processes():
            send(pid, signal.SIGCONT)

    def power_off(self):
        """Take its power: nothing more leaves it, not even that connections have ended, and all there is gone.

        Sockets that this process opened there remain, and lead nowhere.
        """
        self._network.switch.configure(f"link del {self._port}")
        self.namespace.configure(*(f"link del {device}" for device in self.devices))
        self._close()

    def power_on(self):
        """Start it again with its files and addresses; it knows no connection from before."""
        self._network._open(self)

    # -- how it is made

    @property
    def _port(self):
        return f"port{self._number}"

    def _make(self):
        """Make its namespace; return what the switch is to do for its link."""
        self.namespace = Namespace(self.name, hosts_file=self._network.hosts_file)
        self.is_on = True
        self.is_cut = False
        self.devices = []  # of links laid to it, which end with its power
        card = f"name eth0 address 02:77:00:00:00:{self._number:02x} netns /proc/{os.getpid()}/fd/{self.namespace.fd}"
        return [
            f"link add name {self._port} type veth peer {card}",
            f"link set {self._port} master bridge0 up",
        ]

    def _configure(self):
        self.namespace.configure(
            "link set lo up",
            f"address add {self.address}/24 broadcast + dev eth0",
            f"address add {self.address6}/64 dev eth0 nodad",
            "link set eth0 up",
        )

    def _has_link(self):
        (card,) = json.loads(self.namespace.configure("link show eth0"))
        return card["operstate"] == "UP"

    def _close(self):
        if self.is_on:
            self.is_on = False
            self.namespace.close()


def is_stopped(pid):
    try:
        return state_of(pid) in "TtZX"
    except OSError:  # it ended
        return True


class Network:
    """Hosts that reach each other, and nothing else; with it end all their processes and files."""

    def __init__(self):
        reason = skip_reason()
        if reason is not None:
            raise RuntimeError(reason)
        remove_leftovers()
        self.mark = own_mark()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{self.mark}-"))
        self._links = itertools.count(1)
        self._bridges = 1
        self.hosts = []
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder)
            self.hosts_file = self.folder / "hosts"
            self.hosts_file.write_text("127.0.0.1 localhost\n::1 localhost\n")
            self.switch = stack.enter_context(Namespace("switch", folder=self.folder))
            self.switch.configure(
                "link add bridge0 type bridge mcast_snooping 0",
                "link set bridge0 up",
            )
            self._stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def add_hosts(self, *names):
        """Add hosts of these names, by which they also find each other; return them."""
        made = []
        for name in names:
            host = Host(self, len(self.hosts) + 1, name)
            self.hosts.append(host)
            self._stack.callback(host._close)
            made.append(host)
        with self.hosts_file.open("a") as file:
            file.writelines(f"{host.address} {host.name}\n" for host in made)
        self._open(*made)
        return made

    def number_link(self):
        """Return the number of one more link between hosts, from 1; it is part of its addresses."""
        return next(self._links)

    def split(self, *groups):
        """Let the hosts of each group reach only each other, though all their links are up; the rest is one group."""
        sides = [[], *map(list, groups)]
        named = {host.name for group in groups for host in group}
        sides[0] = [host for host in self.hosts if host.name not in named]
        commands = []
        for number, side in enumerate(sides):
            if number >= self._bridges:
                commands += [f"link add bridge{number} type bridge mcast_snooping 0", f"link set bridge{number} up"]
            commands += [f"link set {host._port} master bridge{number}" for host in side if host.is_on]
        self._bridges = max(self._bridges, len(sides))
        self.switch.configure(*commands)
        self._wait_for_links(*(host for host in self.hosts if host.is_on and not host.is_cut))

    def join(self):
        """Let all hosts reach each other again."""
        self.split()

    def _open(self, *hosts):
        self.switch.configure(*(command for host in hosts for command in host._make()))
        for host in hosts:
            host._configure()
        self._wait_for_links(*hosts)

    def _wait_for_links(self, *hosts):
        """Wait until the switch forwards what comes from the hosts, and they may send."""
        wanted = {host._port for host in hosts}

        def forwarding():
            links = json.loads(self.switch.configure("link show"))
            ports = {link["ifname"]: link.get("linkinfo", {}).get("info_slave_data", {}) for link in links}
            return all(ports[port].get("state") == "forwarding" for port in wanted)

        wait_until(lambda: forwarding() and all(host._has_link() for host in hosts), READY_SECONDS)
        for host in self.hosts:
            if host.is_on:  # who asked for a card before it had its link is told a second later that there is none
                host.namespace.configure("neigh flush dev eth0")

    def close(self):
        """Kill all processes of all hosts and remove everything."""
        self._stack.close()
