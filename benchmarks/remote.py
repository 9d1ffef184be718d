"""What does it cost to use other machines: to start there, to talk between them, and to keep strangers out?

    python benchmarks/remote.py [--rounds N] [--quick] [--only NAME...] [--json FILE]

Hosts are network namespaces of this machine, as the tests have them (tests/networks.py; Linux, root and the command
`ip`): a laptop, four hosts with beacons, and one that guesses passwords. Each with a beacon has one processor, the
first two not the same one, as it is with machines: else the scheduler puts both ends of a ping-pong on one, where no
message wakes a processor, which between machines each does. The laptop and the stranger use all of them.

* start: connect, authenticate, a bundle of 100 kB, 4 ranks on each of 2 beacons, ``run(nothing)``, leave, in a fresh
  process: at most 1.5 s, 1.0 s when the beacons have the bundle; its parts are told below
* messages: two ranks of a World on two hosts beside two processes there. A small object there and back: at most 1.5 of
  what `multiprocessing.connection` takes over TCP, 2.5 with TLS. An array of 16 MiB there, a small answer back: at most
  1 / 0.8 of what bare sockets take, plain or with TLS. A small object by way of a World's Queue: at most 1.5 of half
  the time that it takes there and back as a message
* guesses: CPU seconds that a wrong one costs the beacon's host: at most 20 ms
* logins: the longest honest log-in while 50 addresses guess, from known and from new addresses: at most 2 s
* pool: a Pool with a worker on each of two hosts. Tasks of 1 ms over links with a round trip of 20 ms: at most 1 / 0.9
  of what is in them; tasks without work, without delay: at most a third of what `multiprocessing.Pool` needs on one
  host; and whether all results are right where one host is killed in the middle
* allreduce: an int over 64 ranks of 4 beacons: as many messages as its Cost line says; and its time, which has no limit
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common import MIB, REPOSITORY, BenchmarkError, Figure, alternate, figure_arguments, median, publish, seconds
from streams import LARGE_LIMIT, SMALL_LIMITS, make_certificate

sys.path[1:1] = [str(REPOSITORY), str(REPOSITORY / "tests")]  # the hosts are those of the tests
from badlinks import BadLink  # noqa: E402 - which are no package
from networks import Network, skip_reason  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from networks import Host

__all__ = ["main"]

PEER = REPOSITORY / "benchmarks" / "remote_peer.py"
PORT = 2222
ROUND_TRIP = 0.020
POOL_LIMITS = {"work": 1.11, "nothing": 0.33}
QUEUE_LIMIT = 1.5
START_LIMITS = {"first": 1.5, "cached": 1.0}
GUESS_LIMIT = 0.020
LOGIN_LIMIT = 2.0
PAYLOAD_BYTES = 100_000
ATTACKERS = 50
PARTS = ("import", "connect, log in", "program, launch", "ranks, run", "leave")


class Size(NamedTuple):
    """How much is measured: whether it works, or how fast."""

    small: int
    large: int
    guesses: int
    logins: int
    attackers: int
    ranks: int  # on each of 4 hosts
    allreduces: int
    tasks: int


FULL = Size(400, 2, 40, 10, ATTACKERS, 16, 50, 2000)
QUICK = Size(10, 1, 2, 1, 3, 1, 3, 200)


class Peer:
    """A process of remote_peer.py on a host, which answers lines with lines."""

    def __init__(self, host: Host, *words: object, ready: bool = True) -> None:
        self._words = words
        # Bytecode may be written, as installing would: else what is imported is compiled within the clock.
        command = ["env", "-u", "PYTHONDONTWRITEBYTECODE", sys.executable, PEER, *words]
        self._process = host.run(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if ready:
            self.read()

    def read(self) -> Any:
        """Return what it says next.

        Raises:
            BenchmarkError: it has ended.
        """
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"{self._words[0]} ended with exit code {self._process.wait()}")
        return json.loads(line)

    def ask(self, *words: object) -> Any:
        """Tell it to do something, and return its answer."""
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self.read()

    def end(self) -> None:
        """Let it end, and wait for that."""
        self._process.stdin.close()
        self._process.wait(60)


class Hosts:
    """The network with its beacons."""

    def __init__(self, network: Network, size: Size) -> None:
        self.size = size
        self.network = network
        self.laptop, self.stranger, *self.labs = network.add_hosts("laptop", "stranger", *(f"lab{n}" for n in range(4)))
        cpus = sorted(os.sched_getaffinity(0))
        for number, lab in enumerate(self.labs):  # what a host's thread starts has the processors of the thread
            lab.call(os.sched_setaffinity, 0, {cpus[number % len(cpus)]})
        self.beacons = {lab.name: start_beacon(lab) for lab in self.labs}
        self._addresses = iter(range(32, 250))
        self._numbers = itertools.count()

    def machines(self, labs: Sequence[Host], ranks: int, *, password: str | None = None) -> Path:
        """Write a machines file, with so many ranks on each host; return its path."""
        said = {
            lab.address: {
                "passwd": password or (lab.klyng_mp_home / "password").read_text().strip(),
                "max_procs": ranks,
            }
            for lab in labs
        }
        path = self.laptop.home / f"machines{next(self._numbers)}.json"
        path.touch(0o600)
        path.write_text(json.dumps(said))
        return path

    def addresses(self, host: Host, count: int) -> list[str]:
        """Give a host so many addresses more."""
        added = [f"10.77.0.{next(self._addresses)}" for _ in range(count)]
        host.namespace.configure(*(f"address add {address}/24 dev eth0" for address in added))
        return added

    def cpu(self, lab: Host) -> float:
        """Return the CPU seconds of a host's beacon and its sessions that have ended."""
        fields = Path(f"/proc/{self.beacons[lab.name].pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def start_beacon(lab: Host, address: str = "") -> subprocess.Popen[str]:
    lab.klyng_mp_home.mkdir(mode=0o700)
    (lab.klyng_mp_home / "beacon.toml").write_text("allow_plaintext = true\n")
    module = ["env", "-u", "PYTHONDONTWRITEBYTECODE", sys.executable, "-m", "klyng_mp.beacon"]
    words = [*module, "--allow-root", f"--host={address or lab.address}", f"--port={PORT}"]
    beacon: subprocess.Popen[str] = lab.run(words, stdout=subprocess.PIPE, text=True)
    assert beacon.stdout is not None
    while line := beacon.stdout.readline():
        if line.startswith("password"):
            return beacon
    raise BenchmarkError(f"the beacon of {lab.name} ended with exit code {beacon.wait()}")


# What is measured; each returns its figures, samples, and lines to be told

Found = tuple[list[Figure], dict[str, list[float]], list[str]]


def measure_start(hosts: Hosts, rounds: int, folder: Path) -> Found:
    machines = hosts.machines(hosts.labs[:2], 4)

    def write_payload() -> None:
        noise = base64.b64encode(os.urandom(PAYLOAD_BYTES)).decode()  # compressed it has its bytes again
        (folder / "payload.py").write_text(f'NOISE = "{noise}"\n')

    def first() -> dict[str, float]:
        write_payload()
        return cached()

    def cached() -> dict[str, float]:
        peer = Peer(hosts.laptop, "start", machines, folder, ready=False)
        parts: dict[str, float] = peer.read()
        peer.end()
        return parts

    readings: dict[str, list[dict[str, float]]] = {"first": [], "cached": []}
    first()  # a warm-up
    for _ in range(rounds):  # never the other way round: the second finds what the first has left
        readings["first"].append(first())
        readings["cached"].append(cached())
    samples = {
        f"start, {name}: {part}": [reading[part] for reading in found]
        for name, found in readings.items()
        for part in ("all", *PARTS)
    }
    figures = [
        Figure(f"8 ranks on 2 beacons, {'bundle of 100 kB' if name == 'first' else 'bundle cached'}", took, limit)
        for name, limit in START_LIMITS.items()
        for took in [median(samples[f"start, {name}: all"])]
    ]
    told = [
        f"start, {name}: " + ", ".join(f"{part} {seconds(median(samples[f'start, {name}: {part}']))}" for part in PARTS)
        for name in START_LIMITS
    ]
    return figures, samples, told


def measure_messages(hosts: Hosts, rounds: int, folder: Path) -> Found:
    certificate = folder / "both.pem"
    make_certificate(certificate)
    here, there = hosts.labs[:2]
    machines = hosts.machines(hosts.labs[:2], 1)
    peers = {f"klyng {kind}": Peer(hosts.laptop, "world", machines, kind) for kind in ("plain", "TLS")}
    others = []
    for side in ("connection", "bare plain", "bare TLS"):
        peers[side] = Peer(here, "first", side, here.address, certificate, ready=False)
        words = [sys.executable, PEER.with_name("streams.py"), "--serve", side, here.address, peers[side].read()]
        others.append(there.run([*words, certificate]))
        peers[side].read()

    def measure(side: str, *words: object) -> Callable[[], float]:
        def ask() -> float:
            answer = peers[side].ask(*words)
            return float(answer[0] if isinstance(answer, list) else answer)

        return ask

    size = hosts.size
    measures = {f"{side}: small": measure(side, "small", size.small) for side in peers if not side.startswith("bare")}
    measures |= {f"{side}: 16 MiB": measure(side, "large", size.large) for side in peers if side != "connection"}
    measures |= {f"{side}: queues": measure(side, "queues", size.small) for side in ("klyng plain", "klyng TLS")}
    samples = alternate(measures, rounds)
    for peer in peers.values():
        peer.end()
    for other in others:
        other.wait(60)
    return message_figures(samples), samples, message_lines(samples)


def message_figures(samples: dict[str, list[float]]) -> list[Figure]:
    times = {name: median(values) for name, values in samples.items()}
    figures = [
        Figure(f"small object, {side[6:]}", times[f"{side}: small"], limit, times["connection: small"], "connection")
        for side, limit in SMALL_LIMITS.items()
    ]
    for kind in ("plain", "TLS"):
        ours, peer = times[f"klyng {kind}: 16 MiB"], times[f"bare {kind}: 16 MiB"]
        figures.append(Figure(f"16 MiB, {kind}", ours, LARGE_LIMIT, peer, f"bare {kind} socket"))
        way, message = (times[f"klyng {kind}: {what}"] / 2 for what in ("queues", "small"))
        figures.append(Figure(f"put until got, {kind}", way, QUEUE_LIMIT, message, "half a ping-pong"))
    return figures


def message_lines(samples: dict[str, list[float]]) -> list[str]:
    rates = [(name, 16 * MIB / median(values) / 1e6) for name, values in samples.items() if name.endswith("16 MiB")]
    return ["bandwidth: " + ", ".join(f"{name.partition(':')[0]} {rate:.0f} MB/s" for name, rate in rates)]


def measure_guesses(hosts: Hosts, rounds: int, folder: Path) -> Found:
    del folder
    lab, count = hosts.labs[2], hosts.size.guesses
    samples: dict[str, list[float]] = {"CPU of a wrong guess": []}
    wrong = hosts.machines([lab], 1, password="wrong")
    for _ in range(min(rounds, 3)):  # an address that guesses often is not listened to
        peer = Peer(hosts.stranger, "guess", wrong, *hosts.addresses(hosts.stranger, count))
        before = hosts.cpu(lab)
        peer.ask("all")
        samples["CPU of a wrong guess"].append((hosts.cpu(lab) - before) / count)
        peer.end()
    took = median(samples["CPU of a wrong guess"])
    return [Figure("a wrong guess, CPU of the beacon", took, GUESS_LIMIT)], samples, []


def measure_logins(hosts: Hosts, rounds: int, folder: Path) -> Found:
    del rounds, folder
    lab, size = hosts.labs[3], hosts.size
    strangers = hosts.addresses(hosts.laptop, size.logins)
    honest = hosts.machines([lab], 1)
    wrong = hosts.machines([lab], 1, password="wrong")
    client = Peer(hosts.laptop, "enter", honest)
    client.ask(hosts.laptop.address)
    quiet = [client.ask(hosts.laptop.address)[0] for _ in range(size.logins)]
    attack = Peer(hosts.stranger, "attack", wrong, *hosts.addresses(hosts.stranger, size.attackers))
    known = [client.ask(hosts.laptop.address) for _ in range(size.logins)]
    new = [client.ask(address) for address in strangers]
    counts = attack.ask("end")
    for peer in (attack, client):
        peer.end()
    samples = {"login, quiet": quiet, "login, known": [took for took, _ in known], "login, new": [t for t, _ in new]}
    figures = [
        Figure(f"longest log-in of {size.logins}, {kind} address", max(samples[f"login, {kind}"]), LOGIN_LIMIT)
        for kind in ("known", "new")
    ]
    tries = max(tries for _, tries in known + new)
    told = f"log-ins: median {seconds(median(quiet))} where nobody guesses, {seconds(median(samples['login, known']))} "
    told += f"while {size.attackers} addresses do ({counts['guessed']} guesses were looked at, {counts['turned away']} "
    return figures, samples, [f"{told}turned away); at most {tries} tries"]


def measure_pool(hosts: Hosts, rounds: int, folder: Path) -> Found:
    tasks, near = hosts.size.tasks, hosts.labs[:2]
    peers = {
        "work": Peer(hosts.laptop, "pool", far_machines(hosts, folder)),
        "nothing": Peer(hosts.laptop, "pool", hosts.machines(near, 1)),
        "standard": Peer(hosts.laptop, "standard"),
    }
    works = [peers["work"].ask("work", tasks) for _ in range(rounds)]
    measures = {
        side: lambda side=side: float(peers[side].ask("nothing", 10 * tasks)) for side in ("nothing", "standard")
    }
    samples = alternate(measures, rounds)
    for peer in peers.values():
        peer.end()
    samples["work"], samples["in tasks"] = ([one[part] for one in works] for part in range(2))
    killed = Peer(hosts.laptop, "retry", hosts.machines(near, 1), tasks, ready=False)
    killed.read()  # some results are there
    hosts.beacons[near[1].name].kill()
    wrong, took = killed.read()
    killed.end()
    times = {name: median(values) for name, values in samples.items()}
    figures = [
        Figure(
            f"{tasks} tasks of 1 ms, 20 ms away", times["work"], POOL_LIMITS["work"], times["in tasks"], "their work"
        ),
        Figure("a task without work", times["nothing"], POOL_LIMITS["nothing"], times["standard"], "multiprocessing"),
        Figure(f"wrong results of {tasks}, a host killed", wrong, 0.0, unit="messages"),
    ]
    return figures, samples, [f"pool: with a host killed, {tasks} tasks of 2 ms took {seconds(took)}"]


def far_machines(hosts: Hosts, folder: Path) -> Path:
    """Return the machines file of two more hosts, which are behind links that delay."""
    said = {}
    for lab in hosts.network.add_hosts("far0", "far1"):
        link = BadLink(hosts.network, hosts.laptop, lab)
        start_beacon(lab, link.address(lab))
        link.set(delay=ROUND_TRIP / 2)
        passwd = (lab.klyng_mp_home / "password").read_text().strip()
        said[link.address(lab)] = {"passwd": passwd, "max_procs": 1}
    path = folder / "far.json"
    path.touch(0o600)
    path.write_text(json.dumps(said))
    return path


def measure_allreduce(hosts: Hosts, rounds: int, folder: Path) -> Found:
    del folder
    size = hosts.size
    ranks = 4 * size.ranks
    world = Peer(hosts.laptop, "world", hosts.machines(hosts.labs, size.ranks), "TLS")
    first, messages = world.ask("allreduce", 1)
    readings = [world.ask("allreduce", size.allreduces) for _ in range(rounds)]
    world.end()
    samples = {"allreduce": [took for took, _ in readings], "allreduce, first": [first]}
    each = max([messages, *(count / size.allreduces for _, count in readings)])
    cost = ranks * (ranks.bit_length() - 1)  # log2 n rounds of n messages, says its Cost line
    figure = Figure(f"allreduce over {ranks} ranks on 4 hosts", each, 1.0, cost, "its Cost line", "messages")
    told = f"allreduce over {ranks} ranks on 4 hosts: {seconds(median(samples['allreduce']))}; "
    return [figure], samples, [f"{told}the first, which opens the connections, {seconds(first)}"]


MEASURES: dict[str, Callable[[Hosts, int, Path], Found]] = {
    "start": measure_start,
    "messages": measure_messages,
    "guesses": measure_guesses,
    "logins": measure_logins,
    "pool": measure_pool,
    "allreduce": measure_allreduce,
}


def measure(names: Sequence[str], rounds: int, size: Size) -> Found:
    """Measure each on hosts of its own."""
    figures: list[Figure] = []
    samples: dict[str, list[float]] = {}
    told: list[str] = []
    for name in names:
        with Network() as network, tempfile.TemporaryDirectory() as folder:
            found = MEASURES[name](Hosts(network, size), rounds, Path(folder))
        figures += found[0]
        samples |= found[1]
        told += found[2]
    return figures, samples, told


def main() -> None:
    """Measure and print."""
    parser = figure_arguments(__doc__, rounds=10)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES), metavar="NAME", help="which")
    parser.add_argument("--quick", action="store_true", help="few calls and ranks: whether it works, not how fast")
    options = parser.parse_args()
    if (reason := skip_reason()) is not None:
        print(f"no figures of other machines: {reason}")
        return
    figures, samples, told = measure(options.only, options.rounds, QUICK if options.quick else FULL)
    publish(figures, samples, options.json, {"hosts": "network namespaces of one machine"})
    print("\n" + "\n".join(told))


if __name__ == "__main__":
    main()
