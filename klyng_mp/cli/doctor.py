"""What ``klyng-mp doctor`` finds: versions, limits, what is switched on, and whether two ranks can talk.

Layer: cli; imported only when it is asked for.

`examine` returns plain data, the same that ``--json`` prints; `render` makes text of it.
"""

from __future__ import annotations

import os
import platform
import sys
from time import perf_counter
from typing import Any

from klyng_mp import __version__, machine, native

__all__ = ["examine", "exchange", "installed_version", "render"]

# Seconds. Starting two ranks takes a hundredth of that; a machine that needs more is not healthy.
_TRIAL_SECONDS = 20.0
# Descriptors: a World of n ranks on one host opens a few for each.
_FILES_WANTED = 256


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or ``None``."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (slow to import)

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def examine(*, trial: bool = True, root: str = "/") -> dict[str, Any]:
    """Return what this machine offers, as plain data.

    Args:
        trial: also start two ranks and let them exchange a message.
        root: where the file system begins.

    Returns:
        A dictionary of strings, numbers, lists and dictionaries; ``problems`` is a list of sentences,
        empty if everything that klyng_mp needs works.
    """
    cpus, memory = machine.cpu_budget(root=root), machine.memory_budget(root=root)
    shared = machine.shared_memory_bytes(root=root)
    report: dict[str, Any] = {
        "versions": _versions(),
        "host": machine.hostname(),
        "kernel": machine.kernel(),
        "cpus": cpus._asdict(),
        "memory": memory._asdict(),
        "limits": {name: {"soft": soft, "hard": hard} for name, (soft, hard) in machine.resource_limits().items()},
        "shared_memory": None if shared is None else {"size_bytes": shared[0], "free_bytes": shared[1]},
        "transports": _transports(),
        "native_core": native.core is not None,
        "trial": _try_world() if trial else None,
    }
    report["problems"] = _problems(report)
    return report


def render(report: dict[str, Any]) -> str:
    """Return the report as text, one fact a line, problems last."""
    rows = [(name, version or "not installed") for name, version in report["versions"].items()]
    rows += [("host", report["host"]), ("kernel", report["kernel"])]
    rows += [("usable CPUs", _say_cpus(report["cpus"])), ("memory", _say_memory(report["memory"]))]
    for name, limit in report["limits"].items():
        rows.append((name, f"{_say_limit(limit['soft'])} (hard limit {_say_limit(limit['hard'])})"))
    rows += [("/dev/shm", _say_shared(report["shared_memory"]))]  # noqa: S108 (a label)
    rows += [("transports", ", ".join(report["transports"]) or "none")]
    rows += [("native core", _say_core(report["native_core"])), ("locks", _say_locks(report["native_core"]))]
    if report["trial"] is not None:
        rows.append(("two ranks", _say_trial(report["trial"])))
    lines = [f"{name:<16} {value}" for name, value in rows]
    lines += [f"problem: {problem}" for problem in report["problems"]]
    return "\n".join(lines)


def exchange() -> str:
    """Send a word from rank 0 to rank 1 and back; the trial that both ranks run."""
    from klyng_mp.communicator.current import comm  # noqa: PLC0415 (a doctor must survive what cannot be imported)

    here = comm()
    if here.rank == 0:
        here.send("ping", dest=1, tag="doctor")
        return str(here.recv(source=1, tag="doctor"))
    word = f"{here.recv(source=0, tag='doctor')} pong"
    here.send(word, dest=0, tag="doctor")
    return word


# -- finding out -----------------------------------------------------------------------------------


def _versions() -> dict[str, str | None]:
    return {
        "klyng_mp": __version__,
        "Python": f"{platform.python_version()} ({sys.executable})",
        **{name: installed_version(name) for name in ("dill", "threadpoolctl", "numpy", "mpi4py")},
    }


def _transports() -> list[str]:
    from klyng_mp.transports import TRANSPORTS  # noqa: PLC0415 (only the doctor lists them)

    return sorted(TRANSPORTS)


def _try_world() -> dict[str, Any]:
    start = perf_counter()
    try:
        from klyng_mp.world import World  # noqa: PLC0415 (a doctor must survive what cannot be imported)

        with World(2) as world:
            world.start(exchange).result(timeout=_TRIAL_SECONDS)  # the ranks are there once they have answered
            started = perf_counter()
            answers = world.start(exchange).result(timeout=_TRIAL_SECONDS)
            ended = perf_counter()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is the finding)
        return {"works": False, "error": f"{type(error).__name__}: {error}"}
    if answers != ["ping pong", "ping pong"]:
        return {"works": False, "error": f"the ranks answered {answers!r}"}
    return {"works": True, "start_seconds": started - start, "exchange_seconds": ended - started}


def _problems(report: dict[str, Any]) -> list[str]:
    problems = [
        f"{name} is not installed: pip install {name}"
        for name in ("dill", "threadpoolctl")
        if not report["versions"][name]
    ]
    if not report["transports"]:
        problems.append("no transport is there, so ranks cannot talk: install klyng_mp again")
    files = report["limits"].get("RLIMIT_NOFILE", {}).get("soft")
    if files is not None and files < _FILES_WANTED:
        problems.append(
            f"only {files} files may be open at once, {_FILES_WANTED} are wanted: ulimit -n {_FILES_WANTED}"
        )
    if sys.platform != "linux":
        problems.append(f"{sys.platform} is not supported: klyng_mp is tested on Linux only")
    if report["trial"] is not None and not report["trial"]["works"]:
        problems.append(f"two ranks could not exchange a message: {report['trial']['error']}")
    return problems


# -- saying it -------------------------------------------------------------------------------------


def _say_cpus(cpus: dict[str, Any]) -> str:
    machine_has = f"of {os.cpu_count()} in the machine"
    quota = "no cgroup quota" if cpus["quota"] is None else f"cgroup quota {cpus['quota']:g} in {cpus['quota_from']}"
    return f"{cpus['usable']} (affinity {cpus['affinity']} {machine_has}; {quota})"


def _say_memory(memory: dict[str, Any]) -> str:
    total = "unknown" if memory["total_bytes"] is None else _say_bytes(memory["total_bytes"])
    if memory["limit_bytes"] is None:
        return f"{total} (no cgroup limit)"
    return f"{_say_bytes(memory['limit_bytes'])} by cgroup, {memory['limit_from']} (machine: {total})"


def _say_core(in_use: bool) -> str:
    if in_use:
        return "in use: ranks of one host talk through shared memory"
    why = "it was not built" if native.is_wanted(os.environ.get(native.VARIABLE)) else f"{native.VARIABLE}=0"
    return f"not in use ({why}): ranks talk through sockets, which is slower"


def _say_locks(in_use: bool) -> str:
    if in_use:
        return "notice the death of a process that holds them"
    return "are the standard library's: who waits for a lock whose holder was killed waits for ever"


def _say_limit(value: int | None) -> str:
    return "unlimited" if value is None else str(value)


def _say_shared(shared: dict[str, int] | None) -> str:
    if shared is None:
        return "no /dev/shm (none is needed)"
    return f"{_say_bytes(shared['size_bytes'])}, {_say_bytes(shared['free_bytes'])} free"


def _say_trial(trial: dict[str, Any]) -> str:
    if not trial["works"]:
        return "do not work"
    start, run = trial["start_seconds"] * 1e3, trial["exchange_seconds"] * 1e3
    return f"work: started and answered in {start:.1f} ms; a run with a message there and back took {run:.2f} ms"


def _say_bytes(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
