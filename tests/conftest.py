"""What every test has: a check that it left nothing behind, times that scale, and a Python to start."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing.forkserver
import multiprocessing.heap
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import pytest

import klyng_mp.heap

ROOT = Path(__file__).resolve().parent.parent
FACTOR = float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))
COOKIE = "KLYNG_MP_TEST_COOKIE"
GRACE_SECONDS = 2.0  # what a killed driver's ranks may take to notice
SLOW_COLLECTION_SECONDS = 0.02


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "may_leave(*kinds, why): the test may leave 'fds', 'threads', 'processes' or 'files' behind"
    )


def pytest_collection_finish():
    """Let the collection after each test look at what the tests make, and not at the suite itself."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def time_limit():
    """Give a bound in seconds, longer where KLYNG_MP_TEST_TIMEOUT_FACTOR says that the machine is slow."""
    return lambda seconds: seconds * FACTOR


@pytest.fixture
def run_python(tmp_path, time_limit):
    """Run ``python`` with the given words in a folder of its own; return what it wrote and its exit code."""

    def run(*words, cwd=None, env=None, stdin=None, timeout=30.0):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        return subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=cwd or tmp_path,
            env=environment,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=time_limit(timeout),
            check=False,
        )

    return run


@pytest.fixture
def own_heap(monkeypatch):
    """Give the test heaps of its own for shared values: one keeps its arenas, with their descriptors."""
    for package in (klyng_mp.heap, multiprocessing.heap):
        monkeypatch.setattr(package.BufferWrapper, "_heap", package.Heap())


# -- nothing is left behind ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _session(tmp_path_factory):
    # Both folders are made when they are first asked for, and kept: not in the folder of some test, then.
    tmp_path_factory.getbasetemp()
    multiprocessing.util.get_temp_dir()
    # All that is started from now on carries this, wherever its parent is: forked ranks have their zygote's.
    cookie = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(COOKIE, cookie)
        yield cookie
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


@pytest.fixture(autouse=True)
def _nothing_left(request, _session):
    """Fail a test that leaves descriptors, threads, processes, or names in /dev/shm or its TMPDIR."""
    marker = request.node.get_closest_marker("may_leave")
    allowed = set(marker.args) if marker else set()
    # Its name is short: a unix socket's path has 107 bytes.
    folder = _folders.pop() if _folders else Path(tempfile.mkdtemp(prefix="kmp-"))
    fds, threads, names = open_fds(), set(threading.enumerate()), shared_names()
    processes = descendants(_session)
    with pytest.MonkeyPatch.context() as patch:  # its own: the test's is to be undone before the check
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        yield
    collect_garbage()
    left = {
        "processes": processes_left(processes, _session),
        "threads": threads_left(threads),
        "fds": fds_left(fds),
        "files": files_left(names, folder),
    }
    if any(folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _folders.append(folder)  # for the next test
    found = [f"{kind}: {what}" for kind, what in left.items() if what and kind not in allowed]
    if found:
        pytest.fail("the test left behind " + "; ".join(found), pytrace=False)


_folders = []


def collect_garbage():
    """Collect what the test has left; where that takes long, what it had to look at is not looked at again.

    Those are the modules that tests import, and what these keep; a thousand later tests would pay for them.
    """
    began = time.perf_counter()
    gc.collect()
    if time.perf_counter() - began > SLOW_COLLECTION_SECONDS:
        gc.freeze()


def settle(look, seconds=GRACE_SECONDS):
    """Return what ``look`` finds, once it is nothing or the time is over."""
    end = time.monotonic() + seconds * FACTOR
    pause = threading.Event()
    while (found := look()) and time.monotonic() < end:
        pause.wait(0.02)  # others' names and threads have nothing to wait on
    return found


def open_fds():
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one that listed them
            continue
        if "klyng_mp segment" in fds[int(name)]:  # a bounded number is kept, to be filled again
            del fds[int(name)]
    return fds


def fds_left(before):
    kept = {
        multiprocessing.resource_tracker._resource_tracker._fd,
        multiprocessing.forkserver._forkserver._forkserver_alive_fd,
        *(zygote.channel.fileno() for zygote in zygotes()),
    }
    return [f"{fd} -> {what}" for fd, what in open_fds().items() if before.get(fd) != what and fd not in kept]


def zygotes():
    """Return the zygotes of this process: they stay for its later Worlds, and end with it."""
    module = sys.modules.get("klyng_mp.launch.zygotes")
    return list(module.zygotes.values()) if module else []


def is_spare(pid):
    """Tell whether a zygote keeps this process ready for a next World: it ends with it, or after ten seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # Until it has its own name it has the zygote's.
    named = "(klyng spare)" in fields or "(klyng zygote)" in fields
    return named and int(fields.rpartition(")")[2].split()[1]) in {zygote.pid for zygote in zygotes()}


def threads_left(before):
    return settle(lambda: [thread.name for thread in threading.enumerate() if thread not in before])


def shared_names():
    try:
        return {name for name in os.listdir("/dev/shm") if not name.startswith("mpich")}  # MPICH leaves them itself
    except OSError:
        return set()


def files_left(before, folder):
    shared = settle(
        lambda: [name for name in sorted(shared_names() - before) if not held_by_others(f"/dev/shm/{name}")]
    )
    return [f"/dev/shm/{name}" for name in shared] + sorted(str(path) for path in folder.rglob("*"))


def held_by_others(path):
    """Tell whether another process uses the name: tests that run beside this one have names of their own."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if path in (entry / "maps").read_text() or any(
                    os.readlink(fd) == path for fd in (entry / "fd").iterdir()
                ):
                    return True
            except OSError:  # it ended, or is another user's
                continue
    return False


def children_of(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue
    return found


def descendants(cookie):
    """Return our children, and the processes that carry the cookie in their environment.

    Nobody is looked for while no process or thread was started since the last time, as after most tests.
    """
    global _census  # noqa: PLW0603 - one for all tests
    newest = Path("/proc/loadavg").read_text().split()[4]
    if newest != _census[0]:
        _census = newest, find_descendants(cookie)
    return set(_census[1])


_census = "", frozenset()


def find_descendants(cookie):
    needle = f"{COOKIE}={cookie}".encode()
    found = set(children_of(os.getpid()))
    there = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid()}
    _strangers.intersection_update(there)
    for pid in there - _strangers:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = file.read()
        except OSError:  # it ended, or is another user's
            continue
        if needle in environ:
            found.add(pid)
        elif environ:  # it has none for a moment when it executes another program
            _strangers.add(pid)
    return found


_strangers = set()  # processes that did not carry the cookie: none begins to later


def processes_left(before, cookie):
    kept = {
        *before,
        multiprocessing.resource_tracker._resource_tracker._pid,
        multiprocessing.forkserver._forkserver._forkserver_pid,
        *(zygote.pid for zygote in zygotes()),
    }
    end = time.monotonic() + GRACE_SECONDS * FACTOR
    left = []
    for pid in descendants(cookie) - kept:
        what = describe(pid)
        if what is not None and not is_spare(pid) and not ends_before(pid, end):
            left.append(what)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return left


def describe(pid):
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return f"{pid} (parent {state[1]}, state {state[0]}): {words.strip()[:200] or 'a zombie'}"


def ends_before(pid, end):
    """Wait for a process that is not ours to reap; a zombie child of ours counts as left behind."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        ready, _, _ = select.select([handle], [], [], max(0.0, end - time.monotonic()))
    finally:
        os.close(handle)
    return bool(ready) and pid not in children_of(os.getpid())
