"""What this machine lets this process use: CPUs, memory, and the limits of its kernel and container.

Layer: leaf; imports nothing of klyng_mp.

Every function reads, none remembers: limits change while a process lives. ``root`` is where the
file system begins, so that a test can show another machine. What cannot be read counts as no limit:
a machine that says nothing restricts nothing.
"""

from __future__ import annotations

import functools
import math
import os
from typing import NamedTuple

__all__ = [
    "CpuBudget",
    "MemoryBudget",
    "cpu_budget",
    "hostname",
    "kernel",
    "memory_budget",
    "resource_limits",
    "shared_memory_bytes",
    "usable_cpus",
]


class CpuBudget(NamedTuple):
    """How many CPUs this process may keep busy, and what says so.

    Attributes:
        usable: the number of ranks that makes good use of them; at least 1.
        affinity: CPUs the scheduler lets it run on (cpusets are in this number).
        quota: CPU time per second that its control groups allow, in CPUs; ``None`` for no limit.
        quota_from: the folder of the group with the tightest quota, or ``""``.
    """

    usable: int
    affinity: int
    quota: float | None
    quota_from: str


class MemoryBudget(NamedTuple):
    """How much memory this process may use, and what says so.

    Attributes:
        total_bytes: memory of the machine; ``None`` where it does not tell.
        limit_bytes: the tightest limit of its control groups below that; ``None`` for no limit.
        limit_from: the folder of the group with that limit, or ``""``.
    """

    total_bytes: int | None
    limit_bytes: int | None
    limit_from: str


def usable_cpus(*, root: str = "/") -> int:
    """Return the number of CPUs that this process may keep busy: the default size of a World."""
    return cpu_budget(root=root).usable


def cpu_budget(*, root: str = "/", affinity: int | None = None) -> CpuBudget:
    """Return the usable CPUs and why they are that many.

    Args:
        root: where the file system begins.
        affinity: CPUs the scheduler allows; asked of the kernel if ``None``.
    """
    if affinity is None:
        affinity = _affinity()
    quotas = [(quota, path) for path in _group_folders(root, "cpu") if (quota := _quota_of(path)) is not None]
    if not quotas:
        return CpuBudget(affinity, affinity, None, "")
    quota, path = min(quotas)
    # Rounded up: with a quota of 2.5, three ranks get 2.5 CPUs of work done and two only 2.
    return CpuBudget(max(1, min(affinity, math.ceil(quota))), affinity, quota, path)


def memory_budget(*, root: str = "/") -> MemoryBudget:
    """Return the memory of the machine and the tightest limit that control groups set below it."""
    total = _memory_total(root)
    limits = [(limit, path) for path in _group_folders(root, "memory") if (limit := _memory_limit_of(path)) is not None]
    # Version 1 writes "no limit" as a number near 2**63; anything beyond the machine limits nothing.
    limits = [(limit, path) for limit, path in limits if limit < (total or 2**62)]
    if not limits:
        return MemoryBudget(total, None, "")
    return MemoryBudget(total, *min(limits))


def resource_limits() -> dict[str, tuple[int | None, int | None]]:
    """Return (soft, hard) of the limits that ranks run into first; ``None`` means unlimited."""
    import resource  # noqa: PLC0415 (a shared library that only this function needs)

    names = ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_AS", "RLIMIT_MEMLOCK", "RLIMIT_STACK", "RLIMIT_CORE")
    limits: dict[str, tuple[int | None, int | None]] = {}
    for name in names:
        if hasattr(resource, name):
            soft, hard = resource.getrlimit(getattr(resource, name))
            unlimited = resource.RLIM_INFINITY
            limits[name] = (None if soft == unlimited else soft, None if hard == unlimited else hard)
    return limits


def shared_memory_bytes(*, root: str = "/") -> tuple[int, int] | None:
    """Return (size, free) of /dev/shm in bytes, or ``None`` where there is none."""
    try:
        state = os.statvfs(os.path.join(root, "dev/shm"))
    except OSError:
        return None
    return state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize


def hostname() -> str:
    """Return the name of this machine, as it calls itself."""
    return os.uname().nodename or "localhost"


def kernel() -> str:
    """Return the kernel's name, release and processor architecture."""
    system = os.uname()
    return f"{system.sysname} {system.release} {system.machine}"


# -- files -----------------------------------------------------------------------------------------


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _read_int(path: str) -> int | None:
    try:
        return int(_read(path))
    except ValueError:
        return None


def _memory_total(root: str) -> int | None:
    for line in _read(os.path.join(root, "proc/meminfo")).splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


# -- control groups --------------------------------------------------------------------------------
#
# /proc/self/cgroup names the group of this process in each hierarchy, as a path from the root of that
# hierarchy; /proc/self/mountinfo says which part of a hierarchy is mounted, and where. A limit of any
# group on the way up holds for all below it, so all of them are read, up to the mount point: what lies
# above that, a container cannot see. A hybrid machine has version 1 controllers beside a version 2
# hierarchy that has none: then only one of the two has the files.


@functools.cache  # a process stays in its groups; their limits may change and are read each time
def _group_folders(root: str, controller: str) -> list[str]:
    """Return the folders, innermost first, whose files may limit what ``controller`` rules."""
    folders: list[str] = []
    memberships = _memberships(root)
    for kind, controllers, mounted, mount_point in _mounts(root):
        group = memberships.get(controller if kind == "cgroup" else "")
        if group is None or (kind == "cgroup" and controller not in controllers):
            continue
        top = os.path.join(root, mount_point.lstrip("/"))
        folders += _walk_up(top, _below(group, mounted))
    return folders


def _memberships(root: str) -> dict[str, str]:
    """Return the group of this process by controller; that of version 2 has the name ``""``."""
    groups: dict[str, str] = {}
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or controllers:
            groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _mounts(root: str) -> list[tuple[str, list[str], str, str]]:
    """Return (file system type, its options, part that is mounted, mount point) of each cgroup mount."""
    mounts = []
    for line in _read(os.path.join(root, "proc/self/mountinfo")).splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if kind[0] in ("cgroup", "cgroup2") and len(fields) >= 5:
            mounts.append((kind[0], kind[-1].split(","), _unescape(fields[3]), _unescape(fields[4])))
    return mounts


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def _below(group: str, mounted: str) -> str:
    """Return where ``group`` is below the mount point, or ``""`` if it lies outside what is mounted."""
    mounted = mounted.rstrip("/")
    if group == mounted or not group.startswith(f"{mounted}/"):
        return ""
    below = group[len(mounted) + 1 :]
    return "" if ".." in below.split("/") else below


def _walk_up(top: str, below: str) -> list[str]:
    folders = []
    while below:
        folders.append(os.path.join(top, below))
        below = os.path.dirname(below)
    return [*folders, top]


def _quota_of(folder: str) -> float | None:
    pair = _read(os.path.join(folder, "cpu.max")).split()
    if not pair:
        pair = [_read(os.path.join(folder, f"cpu.cfs_{name}_us")) for name in ("quota", "period")]
    try:
        quota, period = (int(word) for word in pair)
    except ValueError:  # "max", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _memory_limit_of(folder: str) -> int | None:
    limit = _read_int(os.path.join(folder, "memory.max"))
    return _read_int(os.path.join(folder, "memory.limit_in_bytes")) if limit is None else limit
