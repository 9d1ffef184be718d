"""A namespace that a test process makes for itself: a network, a host's name, mounts, and all that runs there.

The kernel knows it by no name: a thread of the test process has left for it, and starts there whatever is to run
there. So it is gone with its processes; and these are killed when the test process is, however that ends: each
namespace has a keeper, a shell that reads from a pipe which only the test process writes to.

Run as a program, this is what the keeper becomes once the pipe is closed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import functools
import itertools
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWNET = 0x20000, 0x4000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
KEEPER = 'read -r word; [ "$word" = done ] || exec "$0" -I -S "$@"'
OWNER = "KLYNG_MP_NETWORK"  # in the environment of all that runs in a namespace: who made it
PREFIX = "kmp-net-"
KILL_SECONDS = 10.0 * float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))

libc = ctypes.CDLL(None, use_errno=True)


def _check(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source, target, kind=None, flags=0, options=None):
    words = [word if word is None else str(word).encode() for word in (source, target, kind)]
    _check(libc.mount(*words, ctypes.c_ulong(flags), None if options is None else options.encode()))


def _leave(name, hosts_file):
    """Take this thread, and what it starts, to namespaces of their own."""
    _check(libc.unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS))
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    if hosts_file is not None:
        mount(hosts_file, "/etc/hosts", None, MS_BIND)
    if os.path.isdir("/dev/shm"):
        mount("tmpfs", "/dev/shm", "tmpfs")
    socket.sethostname(name)


@functools.cache
def skip_reason():
    """Return why namespaces cannot be made here, or None."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    if shutil.which("ip") is None:
        return "there is no command `ip` (iproute2)"
    try:
        with Namespace("trial") as trial:
            trial.configure("link set lo up", "link add a0 type veth peer name a1", "link add b0 type bridge")
    except (OSError, RuntimeError) as error:
        return f"a network namespace cannot be made here: {error}"
    return None


class Namespace:
    """A network, a host's name, mounts and a /dev/shm of their own, with a thread of ours that lives there."""

    def __init__(self, name, *, folder=None, hosts_file=None):
        """Make it; ``folder`` is what its keeper removes, should this process be killed."""
        self._thread = concurrent.futures.ThreadPoolExecutor(1, f"in {name}")
        self._keeper = None
        self.started = []
        try:
            self.call(_leave, name, hosts_file)
            self.fd = self.call(os.open, "/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.inode = os.fstat(self.fd).st_ino
            try:
                self._keeper = self.call(_start_keeper, folder)
            except BaseException:
                os.close(self.fd)
                raise
        except BaseException:
            self._thread.shutdown()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def call(self, function, *args, **keywords):
        """Call a function where the namespace is; what it opens there it keeps: sockets, files, mounts."""
        return self._thread.submit(function, *args, **keywords).result()

    def start(self, words, **popen):
        """Start a program there; it is killed and waited for when the namespace is closed."""
        process = self.call(subprocess.Popen, words, **popen)
        self.started.append(process)
        return process

    def configure(self, *commands):
        """Give commands to ``ip``, which does all or says which it could not; return what it wrote."""
        done = self.call(
            subprocess.run,
            ["ip", "-json", "-details", "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        if done.returncode != 0:
            raise RuntimeError(f"ip refused one of {commands}: {done.stderr.strip()}")
        return done.stdout

    def processes(self):
        """Yield the process ids of all that runs there, as `inhabitants` does."""
        return (pid for pid in inhabitants(self.inode) if pid != self._keeper.pid)

    def kill(self):
        """Kill all that runs there, however fast it forks, and wait until it has ended."""
        kill_all(self.processes)

    def close(self):
        """Kill all that runs there and give up what we hold of it; the kernel removes the rest."""
        try:
            self.kill()
        finally:
            for process in self.started:
                process.wait()
                for stream in (process.stdin, process.stdout, process.stderr):
                    if stream is not None:
                        with contextlib.suppress(BrokenPipeError):  # what it was still to read
                            stream.close()
            self._keeper.communicate(b"done\n")
            self._thread.shutdown()
            os.close(self.fd)


def _start_keeper(folder):
    words = ["/bin/sh", "-c", KEEPER, sys.executable, __file__]
    return subprocess.Popen(
        [*words, *([] if folder is None else [str(folder)])],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is not for it
        cwd="/",
    )


# -- processes -------------------------------------------------------------------------------------


def everybody():
    """Yield the number of each process, and of those processes and threads that start meanwhile.

    So nobody is overlooked who was there at the end, even where each process only starts the next and ends. To
    stop such a chase, a process is to be stopped at once when it is yielded.
    """
    latest = newest_pid()
    yield from (int(name) for name in os.listdir("/proc") if name.isdigit())
    while (newest := newest_pid()) != latest:
        yield from numbers_between(latest, newest)
        latest = newest


def inhabitants(inode):
    """Yield the processes that are in a network namespace, without our own; as `everybody` does."""
    return (pid for number in everybody() if (pid := inhabitant(number, inode)))


def newest_pid():
    return int(Path("/proc/loadavg").read_text().split()[4])


def numbers_between(before, last):
    """Return the numbers that processes were given after one and until another; they begin again after the last."""
    if before <= last:
        return range(before + 1, last + 1)
    largest = int(Path("/proc/sys/kernel/pid_max").read_text())
    return itertools.chain(range(before + 1, largest + 1), range(last + 1))


def inhabitant(number, inode):
    """Return the process that has this number, or a thread with it, if that is in the network; else None."""
    if network_of(number) != inode:
        return None
    try:
        status = Path(f"/proc/{number}/status").read_text()
    except OSError:  # it ended
        return None
    pid = int(status.partition("\nTgid:")[2].split()[0])
    return None if pid == os.getpid() else pid


def network_of(pid):
    """Return the number of the network that a process is in; None where there is none, or only a zombie."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    with contextlib.suppress(OSError):  # its first thread has ended: perhaps there are others
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                return os.stat(f"/proc/{pid}/task/{thread}/ns/net").st_ino
    return None


def stop_all(look, end):
    """Stop all processes that ``look`` yields, until it yields no more that run, or at the end; return them."""
    stopped = set()
    found = True
    while found and time.monotonic() < end:
        found = False
        for pid in look():
            if pid not in stopped:
                send(pid, signal.SIGSTOP)
                stopped.add(pid)
                found = True
    return stopped


def kill_all(look):
    """Stop all processes that ``look`` yields, so that they start no more, and then kill them."""
    end = time.monotonic() + KILL_SECONDS
    while pids := stop_all(look, end):
        for pid in pids:
            send(pid, signal.SIGKILL)
        for pid in pids:
            wait_for_end(pid, end)
        if time.monotonic() >= end:
            raise RuntimeError(f"what cannot be killed, or starts more faster than it is: {list(look())}")


def send(pid, signum):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def wait_for_end(pid, end):
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            select.select([handle], [], [], max(0.0, end - time.monotonic()))
        finally:
            os.close(handle)


# -- what a killed run has left ----------------------------------------------------------------------


def born(pid):
    """Return when a process began, which tells it from a later one with its number; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def own_mark():
    return f"{os.getpid()}.{born(os.getpid())}"


def is_alive(mark):
    pid, _, began = mark.partition(".")
    return born(pid) == began


def remove_leftovers():
    """Kill what a run has left whose process and whose keepers were killed, and remove its folders."""
    needle, own = f"\0{OWNER}=".encode(), network_of("self")
    for pid in everybody():
        if (inode := network_of(pid)) not in (own, None):
            with contextlib.suppress(OSError):  # it ended
                values = b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
                mark = values.partition(needle)[2].partition(b"\0")[0].decode(errors="replace")
                if mark and not is_alive(mark):
                    kill_all(functools.partial(inhabitants, inode))
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not is_alive(folder.name.removeprefix(PREFIX).partition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)


def _keep(folder=None):
    """Kill all that is in our namespace but ourselves, and remove the folder."""
    kill_all(functools.partial(inhabitants, network_of("self")))
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _keep(*sys.argv[1:])
