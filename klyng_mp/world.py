"""n numbered places and the processes that fill them, as one object.

Layer: above launch, which brings the ranks to life; opens no sockets.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp import native
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, LaunchError, WorldBusyError
from klyng_mp.launch.appmodules import AppModules
from klyng_mp.launch.control import STATISTICS
from klyng_mp.launch.job import flush_standard_streams, report_on_signal
from klyng_mp.launch.spec import RankSpec
from klyng_mp.launch.statistics import RankStatistics, format_table, unknown
from klyng_mp.machine import hostname, usable_cpus
from klyng_mp.objects.leaving import LEAVING
from klyng_mp.objects.passing import gather_ends, promise_ends
from klyng_mp.run import Run
from klyng_mp.wire.codec import Codec
from klyng_mp.world_context import WorldContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self, TypeGuard

    from klyng_mp.launch.driver import Job
    from klyng_mp.remote.hosts import Hosts
    from klyng_mp.remote.world_hosts import WorldHosts
    from klyng_mp.world_job import Maker

__all__ = ["World", "WorldStatistics"]

METHODS = ("zygote", "fork", "spawn", "forkserver")


class WorldStatistics(NamedTuple):
    """What a World is, and what it has done so far.

    Attributes:
        size: how many ranks it has.
        native: whether the C core is in use.
        transport: how messages between its ranks move: "shm" (shared memory), "stream" (sockets) or "mpi".
        runs: how many runs its present ranks have begun.
        ranks: what each rank has done; index = rank.
    """

    size: int
    native: bool
    transport: str
    runs: int
    ranks: list[RankStatistics]

    def table(self) -> str:
        """Return as text how long each rank computed and waited, and for whom, and what it sent to whom."""
        return format_table(self.ranks)

    def save_heat_map(self, path: str | os.PathLike[str]) -> None:
        """Write a PNG that shows who waited for whom, and what went from whom to whom.

        Raises:
            ImportError: matplotlib is not installed.
            OSError: the file cannot be written.
        """
        from klyng_mp.launch.heatmap import save_heat_map  # noqa: PLC0415 - few programs draw

        save_heat_map(self.ranks, os.fspath(path))


class World(WorldContext):
    """n ranks that wait, warm, for functions to run; and a multiprocessing context.

    The ranks are processes of this machine. They start once, clean of everything the driver has done
    (unless ``method`` says otherwise), and stay until the World is closed; a ``with`` statement closes it.

    As a context it has all that `multiprocessing.get_context` offers. A ``Process`` or worker of a ``Pool`` that is
    started from it takes the lowest place that no other one holds, in which a rank that has nothing to do gives way to
    it, and so has a rank; all of them can send to each other. Where no place is free, or a run goes on, it has none
    (NoRankError). There can be no run while places are held.

    Args:
        n: number of ranks; by default the CPUs that this process may use.
        method: how ranks are made. None or "zygote": forked from a clean process. "fork": from a copy of
            this process as it is now, with its globals. "spawn", "forkserver": as in multiprocessing, where
            the ranks import the main module, which therefore needs its ``if __name__ == "__main__"`` guard.
        env: variables to set in the ranks' environment, beside those of this process.
        preload: names of modules to import once, before ranks are forked (method "zygote" or "forkserver").
        seed: makes the numbers of ``random`` and ``numpy.random`` reproducible: each rank gets its own in each run.
        label: begin each line of the ranks' output with ``[rank@host]``.
        hosts: machines with beacons that have the ranks: the path of a machines file, a mapping of the same shape, or a
            list of "host" and "host:port"; "local" is this machine. The program's own modules travel there. ``n`` ranks
            are dealt over them; by default as many as they have places.
        files: patterns of files beside the program that are to travel with it.
        encrypt: whether what ranks say to those of other hosts is encrypted. Plain text needs the beacons' leave.
        green: the ranks are no processes, but take turns in this one, or so many at a time in each of several that are
            brought to life as ranks are otherwise; see ``docs/green.md`` for what they share.
        schedule: a seed, by which chance chooses which green rank goes on wherever several can; the same seed makes
            the same choices. None: they go on in the order in which they could.
        engine: "mpi": the cluster's MPI starts the ranks, and moves their messages; see ``docs/mpi.md``.
        launcher: the words of the command by which it does, with ``{n}`` for the number of ranks; by default
            ``["mpiexec", "-n", "{n}"]``, or srun within a job of Slurm's.

    Raises:
        MachinesError: the hosts are not what they should be; nothing was started.
        BeaconError: a host cannot be used; the message says which, why, and what to do. Nothing is left on any.
        ValueError, TypeError: an argument is not what it should be; nothing was started.
        LaunchError: ranks could not be brought to life; nothing is left.

    Threads: one thread at a time; a second run while one goes on is a WorldBusyError. Processes may be started by any.
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        method: str | None = None,
        env: Mapping[str, str] | None = None,
        preload: Sequence[str] = (),
        seed: int | None = None,
        label: bool = False,
        hosts: Hosts | WorldHosts | None = None,
        files: Iterable[str] = (),
        encrypt: bool = True,
        green: bool | int = False,
        schedule: int | None = None,
        engine: str | None = None,
        launcher: Sequence[str] | None = None,
    ) -> None:
        maker: Maker | None = None
        if engine is not None or launcher is not None:
            from klyng_mp.cluster.engine import Engine  # noqa: PLC0415 - most Worlds have none

            others = {"method": method, "preload": preload, "hosts": hosts, "label": label}
            maker = Engine(engine, launcher, green=green, schedule=schedule, **others)
        elif green is not False or schedule is not None:
            from klyng_mp.green.turns import Turns  # noqa: PLC0415 - most Worlds have processes

            def processes(count: int) -> World:
                return World(count, method=method, env=env, preload=preload, hosts=hosts, files=files, encrypt=encrypt)

            maker = Turns(green, schedule, processes, method=method, env=env, preload=preload, hosts=hosts)
        at: WorldHosts | None = None
        if hosts is not None and maker is None:
            from klyng_mp.remote.world_hosts import WorldHosts  # noqa: PLC0415 - most Worlds have none

            _check_spread(method, preload)
            if isinstance(hosts, WorldHosts):
                at = hosts
            else:
                size = None if n is None else _check_size(n)
                at = WorldHosts(hosts, size, files=files, encrypt=encrypt, env=env or {})
            n = at.size
        try:
            method = _check_method(method, preload)
            spec = _make_spec(_check_size(n), "zygote" if maker is not None else method, env, seed)
        except BaseException:
            if at is not None:
                at.close()
            raise
        modules = (preload,) if isinstance(preload, str) else tuple(preload)
        spec.by_mpi = engine is not None
        spec.main_by_reference = spec.main_by_reference or (maker is not None and not spec.by_mpi)
        super().__init__(spec, method, modules, label=label, hosts=at, maker=maker)
        self._codec = Codec(main_by_reference=spec.main_by_reference)
        self._asked = 0
        self._start_ranks()
        report_on_signal()

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self._spec.size

    # Running

    def run(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> list[Any]:
        """Call ``func(*args, **kwargs)`` in every rank and return what it returned, by rank.

        The function and its arguments are packed now: what it refers to in ``__main__`` goes along with the
        values it has now. In each rank ``klyng_mp.comm()`` is the communicator of this run. A coroutine function
        runs in an event loop in each rank, as by ``asyncio.run``; what it awaits may be a `Request`.

        Returns:
            A list of ``size`` results; index = rank.

        Raises:
            WorldBusyError: another run goes on, or processes hold places.
            CodecError: the function, an argument or a result cannot travel; the message names the culprit.
            RankFailedError: a rank raised; its exception is the cause.
            RankDiedError: a rank's process ended.
            KeyboardInterrupt: Ctrl-C; the ranks were interrupted too.

        After any of these the World can run the next function: ranks that did not return have been replaced.
        """
        try:
            return self.start(func, *args, **kwargs).result()
        except KeyboardInterrupt:
            if self._run is not None and not self._run.finished:  # it came between two lines of ours
                self._run.interrupt()
            raise

    def start(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Run:
        """Begin ``run`` and return at once; ``Run.result`` waits for the results.

        Raises:
            WorldBusyError, CodecError: as in ``run``; nothing was started.
        """
        if not callable(func):
            raise TypeError(f"World.run needs a function and then its arguments, not {type(func).__name__!r}")
        with self._lock:
            job = self._ready_job()
            with gather_ends() as ends, LEAVING if self.is_spread else nullcontext():
                encoded = job.pack_run(self._codec, func, args, kwargs)
            flush_standard_streams()
            self._run_number += 1
            self._run = run = Run(job, self._codec, self._run_number)
            formers = [(rank, present - 1) for rank, present in job.incarnations.items()] if ends else []
            with promise_ends(ends, formers):
                run.submit(encoded)
        return run

    def _ready_job(self) -> Job:
        """Return a job in which all ranks wait for a run; needs the lock."""
        job = self._open_job()
        if self._runs():
            assert self._run is not None  # noqa: S101 - it runs
            raise WorldBusyError(
                f"run {self._run.number} of this World goes on: wait for its result() or cancel() it first"
            )
        self._check_places()
        if job.unreachable:
            self._discard_job()
            self._start_ranks()
            job = self._open_job()
        first = self._session or self._run_number + 1  # in a session those that die are those of its number
        self._bury_idle_dead(job, first)
        self._end_session(job)
        self._bury_idle_dead(job, first)  # who was seen to be dead meanwhile
        if job.is_here or (self._started and self._method == "fork"):
            return job  # ranks can only be as this process was at World(), and restarting would end its processes
        if changed := self._modules.changed():
            _say(f"{', '.join(changed)} changed on disk: the ranks are restarted")
            if not self._started:
                self.restart()
                return self._open_job()
            self._end_session(job, renew=True)  # processes without a place live on
            self._modules = AppModules()
        return job

    def _bury_idle_dead(self, job: Job, first: int) -> None:
        """Go on after ranks that died between two runs: they have been replaced already."""
        for number in range(first, max(job.settled, default=0) + 1):
            if (cause := job.settled.pop(number, None)) is None:
                continue
            self._run_number = max(self._run_number, number)
            if cause.kind == "stillborn":
                job.lost = LaunchError(f"rank {cause.rank} could not start: {cause.detail}\n{cause.text}".rstrip())
                raise job.lost
            _say(f"rank {cause.rank} {cause.detail} while it had nothing to do; it has been replaced")

    # Life

    def _start_ranks(self) -> None:
        self._known = [unknown(rank) for rank in range(self.size)]
        super()._start_ranks()

    def statistics(self, *, timeout: float | None = None) -> WorldStatistics:
        """Return what this World is, and what its ranks have done since they were started.

        Ranks that have nothing to do are asked. While a run goes on, and once the World is closed, nobody is: what its
        ranks have done is then what they had when they were last asked. A rank that was replaced begins afresh.

        Raises:
            DeadlineError: not all answered within ``timeout`` seconds; nothing was changed.
        """
        with self._lock:
            if not self._closed and os.getpid() == self._pid and not self._holders() and _may_ask(self._job, self._run):
                self._asked += 1
                self._end_session(self._job)
                self._known = _ask_ranks(self._job, self._codec, self._asked, Deadline(timeout))
            transport = "mpi" if self._spec.by_mpi else "shm" if self._spec.shares_memory else "stream"
            runs = self._run_number - self._sessions
            return WorldStatistics(self.size, native.core is not None, transport, runs, list(self._known))

    def report(self, timeout: float | None = None) -> str:
        """Return what each rank does now: its call, whom it waits for, since when and where; or where it computes.

        The same is written to standard error when this process gets SIGUSR1, unless the program has a handler for
        it; and ``klyng-mp ps`` shows it from outside. It takes up to half a second, or longer where many ranks compute.

        Raises:
            ClosedError: the World is closed.
            DeadlineError: there was no answer within ``timeout`` seconds.

        Threads: any, also while another one waits for a run.
        """
        job = self._job
        if self._closed or job is None:
            raise ClosedError("this World is closed, so there is nothing to report")
        return f"{self!r}\n{job.render(Deadline(timeout))}"

    def restart(self) -> None:
        """End the ranks at once and start new ones, clean of what earlier runs left in them.

        Raises:
            WorldBusyError: a run goes on, or processes that were started from this World live.
        """
        if self._run is not None and not self._run.done():
            raise WorldBusyError(f"run {self._run.number} of this World goes on: cancel() it before a restart")
        self._check_started()
        if self._closed:
            raise ClosedError("this World is closed; make a new one")
        self._kill_ranks("World.restart()")
        self._start_ranks()

    def close(self) -> None:
        """Let the ranks end as Python programs end once they have nothing to do. Does not wait.

        There are no more runs, and no more processes can be started; those that were go on.
        """
        with self._lock:
            if not self._closed:
                if self._job is not None and self._job.lost is None:
                    self._job.close()
                self._closed = True

    def terminate(self) -> None:
        """End the ranks, and processes that were started, at once, whatever they do, and wait until they have ended."""
        self._closed = True
        if self._run is not None:
            self._run.abandon("its World was terminated")
        self._kill_ranks("World.terminate()")

    def join(self, timeout: float | None = None) -> None:
        """Wait until the ranks of a closed World, and processes that were started, have ended.

        Raises:
            ValueError: the World was not closed.
            DeadlineError: they had not ended in time; they still may.
        """
        if not self._closed:
            raise ValueError("World.join() waits for a World that is closed: call close() or terminate() first")
        job = self._job
        if job is not None:
            job.wait_closed(Deadline(timeout), "World.join()")
            self._discard_job()

    def __enter__(self) -> Self:
        """Return the World; at the end of the block daemonic processes are terminated, and others waited for."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.terminate()
            return
        try:
            if self._run is not None and not self._run.collected:
                self._run.result()
            self._see_all_out()
            self.close()
            self.join()
        except BaseException:
            self.terminate()
            raise

    def __repr__(self) -> str:
        state = (
            "closed" if self._closed else "running" if self._runs() else "with processes" if self._started else "idle"
        )
        return f"<World of {self.size} ranks, {state}>"


def _check_size(n: int | None) -> int:
    if n is None:
        return usable_cpus()
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"World(n) needs the number of ranks, not {n!r}")
    if n < 1:
        raise ValueError(f"World(n) needs at least 1 rank, not {n}; leave n out for one rank a usable CPU")
    return n


def _check_method(method: str | None, preload: Sequence[str]) -> str:
    if not all(isinstance(name, str) for name in preload):
        raise TypeError(f"preload needs names of modules, not {preload!r}")
    if method is None:
        return "zygote"
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if preload and method in {"fork", "spawn"}:
        raise ValueError(f"preload= has no meaning with method={method!r}: nothing clean is there to import into")
    return method


def _check_spread(method: str | None, preload: Sequence[str]) -> None:
    if method not in {None, "zygote"}:
        raise ValueError(
            f"method={method!r} has no meaning with hosts=: ranks of other machines cannot be forks of here"
        )
    if preload:
        raise ValueError("preload= has no meaning with hosts=: import in the function that runs")


def _make_spec(size: int, method: str, env: Mapping[str, str] | None, seed: int | None) -> RankSpec:
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f"seed must be an int or None, not {seed!r}")
    spec = RankSpec(size, hostname())
    if env is not None and not hasattr(env, "items"):
        raise TypeError(f"env needs a mapping of names to values, not {env!r}")
    for name, value in (env or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"env needs names and values that are str, not {name!r}: {value!r}")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"env has what no environment can hold: {name!r}: {value!r}")
        spec.environment[name] = value
    spec.share_cpus(usable_cpus())
    spec.seed = seed
    if method == "fork":
        spec.main_by_reference = True
    elif method in {"spawn", "forkserver"}:
        from multiprocessing.spawn import get_preparation_data  # noqa: PLC0415 - only for ranks that import the main module

        spec.preparation = get_preparation_data("rank")
        spec.preparation["authkey"] = bytes(spec.preparation["authkey"])  # its own type refuses to be pickled
        spec.main_by_reference = any(key.startswith("init_main") for key in spec.preparation)
    return spec


def _ask_ranks(job: Job, codec: Codec, number: int, deadline: Deadline) -> list[RankStatistics]:
    """Ask ranks that are idle for their statistics; ``number`` is another one each time."""
    tag = f"{STATISTICS} {number}"
    found: dict[int, RankStatistics] = {}
    ended = len(job.settled)

    def answered() -> bool:
        while (message := job.answer(tag)) is not None:
            found[message.source] = codec.decode(message.code, message.head, message.buffers)
        return len(found) == job.spec.size or len(job.settled) > ended  # one has died since, and is replaced

    job.submit(tag, (0, b"", []))
    job.wait(answered, deadline, "World.statistics()")
    return [found.get(rank) or unknown(rank) for rank in range(job.spec.size)]


def _say(sentence: str) -> None:
    print(f"klyng_mp: {sentence}", file=sys.stderr)


def _may_ask(job: Job | None, run: Run | None) -> TypeGuard[Job]:
    """Whether the ranks have nothing to do but to answer."""
    if job is None or job.lost is not None or job.unreachable or job.endpoint.poisoned:
        return False
    return run is None or run.done()
