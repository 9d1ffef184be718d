"""What remote.py starts on its hosts; each prints lines of JSON, and all but the first do what lines of input say.

* ``start MACHINES FOLDER``: a World over the hosts, from a program whose own module in FOLDER is its bundle, until it
  is left; prints the seconds of its parts
* ``world MACHINES KIND``: a World that stays, with data in plain text or by TLS; a line is one exchange, also by
  queues, or one allreduce
* ``first SIDE ADDRESS CERTIFICATE``: the peer of streams.py that measures; a line is one exchange
* ``pool MACHINES``: a Pool over the hosts; a line is one map: of tasks of 1 ms, or of tasks without work
* ``standard``: the same with `multiprocessing.Pool`
* ``retry MACHINES TASKS``: one map; says when some of its results are there, and how many of all were wrong
* ``enter MACHINES``: an honest client; a line is one log-in, from an address
* ``guess MACHINES SOURCE...``: one wrong guess from each address, for each line
* ``attack MACHINES SOURCE...``: wrong guesses from all addresses at once, until there is a line
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from klyng_mp.remote.hosts import Host

__all__: list[str] = []

PAUSE_SECONDS = 0.1  # between two guesses from an address: ten a second, of which most are turned away
LARGE_CALLS = 2


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


def lines() -> Iterator[list[str]]:
    """Say that this one is ready, and yield what is asked of it."""
    say("ready")
    for line in sys.stdin:
        yield line.split()


# Worlds


def start(machines: str, folder: str) -> None:
    sys.path.insert(0, folder)
    importlib.import_module("payload")
    import callables

    import klyng_mp

    marks = [time.perf_counter()]
    from klyng_mp.remote.world_hosts import WorldHosts

    marks.append(time.perf_counter())
    at = WorldHosts(machines, None, files=(), encrypt=True, env={})
    marks.append(time.perf_counter())
    world = klyng_mp.World(hosts=at)
    with world:
        marks.append(time.perf_counter())
        world.run(callables.nothing)
        marks.append(time.perf_counter())
    marks.append(time.perf_counter())
    parts = ("import", "connect, log in", "program, launch", "ranks, run", "leave")
    say({"all": marks[-1] - marks[0], **{part: marks[i + 1] - marks[i] for i, part in enumerate(parts)}})


def world(machines: str, kind: str) -> None:
    import remote_ranks

    import klyng_mp

    with klyng_mp.World(hosts=machines, encrypt=kind == "TLS") as made:
        queues = made.Queue(), made.Queue()
        for what, calls in lines():
            before = messages_of(made)
            if what == "allreduce":
                taken = max(made.run(remote_ranks.allreduces, int(calls)))
            elif what == "queues":
                taken = made.run(remote_ranks.exchange_by_queues, *queues, int(calls))[0]
            else:
                taken = made.run(remote_ranks.exchange, what, int(calls))[0]
            say([taken, messages_of(made) - before])


def messages_of(world: Any) -> int:
    return sum(sum(rank.messages.values()) for rank in world.statistics().ranks)


# Pools


def millisecond(_number: int) -> float:
    began = time.perf_counter()
    time.sleep(0.001)  # a task that takes its time, whatever processors there are
    return time.perf_counter() - began


def same(number: int) -> int:
    return number


def square_late(number: int) -> int:
    time.sleep(0.002)
    return number * number


def serve_maps(pool: Any, workers: int) -> None:
    pool.map(same, range(100), chunksize=1)
    for what, tasks in lines():
        began = time.perf_counter()
        results = pool.map(millisecond if what == "work" else same, range(int(tasks)), chunksize=1)
        taken = time.perf_counter() - began
        say([taken, sum(results) / workers] if what == "work" else taken / int(tasks))


def pool(machines: str) -> None:
    import klyng_mp

    with klyng_mp.World(hosts=machines) as made, made.Pool() as workers:
        serve_maps(workers, made.size)


def standard() -> None:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as workers:
        serve_maps(workers, 2)


def retry(machines: str, tasks: str) -> None:
    import klyng_mp

    count = int(tasks)
    with klyng_mp.World(hosts=machines) as made, made.Pool(retries=2) as workers:
        began = time.perf_counter()
        results = workers.imap(square_late, range(count))
        found = [next(results) for _ in range(count // 4)]
        say("some")
        found += results
        wrong = sum(one != number * number for number, one in enumerate(found)) + abs(count - len(found))
        say([wrong, time.perf_counter() - began])


# Peers


def first(side: str, address: str, certificate: str) -> None:
    import numpy as np
    import streams

    array = np.frombuffer(os.urandom(streams.MIB) * (streams.LARGE_BYTES // streams.MIB), dtype=np.uint8)
    with socket.create_server((address, 0)) as server:
        server.settimeout(60)
        say(server.getsockname()[1])
        sock, _ = server.accept()
    sock.settimeout(None)
    line = streams.make_line(side, sock, certificate, 0)
    for what, calls in lines():
        obj = streams.SMALL if what == "small" else array
        streams.exchange(line, obj, 1)  # uncounted, as that of ranks
        say(streams.exchange(line, obj, int(calls)))


# Log-ins


def host_of(path: str) -> Host:
    from klyng_mp.remote.hosts import read_hosts

    return read_hosts(path)[0]


def log_in(host: Host, source: str) -> bool:
    """Log in from one address and leave; return False where the beacon has turned the connection away.

    Raises:
        AuthenticationError: it has looked at the password, and it is not the one.
    """
    from klyng_mp.deadline import Deadline
    from klyng_mp.errors import AuthenticationError, BeaconBusyError, RemoteProtocolError
    from klyng_mp.remote import client
    from klyng_mp.remote.control import ControlLink
    from klyng_mp.remote.home import Home
    from klyng_mp.remote.tls import client_context

    try:
        with (
            socket.create_connection((host.address, host.port), 30.0, source_address=(source, 0)) as sock,
            client_context().wrap_socket(sock, suppress_ragged_eofs=False) as tls,
        ):
            login = client.log_in(tls, host, Home(), None, Deadline(30.0))
            ControlLink(tls, login.conversation).close(goodbye=True)
    except AuthenticationError:
        raise
    except (OSError, EOFError, RemoteProtocolError, BeaconBusyError):
        return False
    return True


def enter(machines: str) -> None:
    honest = host_of(machines)
    for (source,) in lines():
        began = time.perf_counter()
        tries = 1
        while not log_in(honest, source):
            tries += 1
        say([time.perf_counter() - began, tries])


def guess(machines: str, *sources: str) -> None:
    from klyng_mp.errors import AuthenticationError

    wrong = host_of(machines)
    for _ in lines():
        for source in sources:
            with contextlib.suppress(AuthenticationError):
                if log_in(wrong, source):
                    raise RuntimeError("the beacon took a wrong password")
                raise RuntimeError(f"the beacon did not look at the guess from {source}")
        say(len(sources))


def attack(machines: str, *sources: str) -> None:
    from klyng_mp.errors import AuthenticationError

    wrong, over, counts = host_of(machines), threading.Event(), {"guessed": 0, "turned away": 0}

    def try_again(source: str) -> None:
        while not over.wait(PAUSE_SECONDS):
            try:
                log_in(wrong, source)
                counts["turned away"] += 1
            except AuthenticationError:
                counts["guessed"] += 1

    os.nice(19)  # in earnest it would not be this machine's processors that they guess with
    threads = [threading.Thread(target=try_again, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for _ in lines():
        break
    over.set()
    for thread in threads:
        thread.join()
    say(counts)


if __name__ == "__main__":
    kinds = {one.__name__: one for one in (start, world, pool, standard, retry, first, enter, guess, attack)}
    kinds[sys.argv[1]](*sys.argv[2:])
