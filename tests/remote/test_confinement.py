"""confinement: who serves a stranger has little, for a while; and who has secrets shows nobody its memory."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path

import pytest

from klyng_mp.launch.surroundings import show_in_ps
from klyng_mp.remote.confinement import Confinement, keep_to_itself

KINDS = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE)
ENOUGH = 1 << 30  # bytes
NOBODY = 65534


def in_a_child(function):
    """Call a function in a forked child; return how that ended, as `os.waitpid` says it."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def limits():
    return [resource.getrlimit(kind) for kind in KINDS]


def use_memory():
    bytearray(ENOUGH)


def use_files():
    for _ in range(100):
        os.open("/dev/null", os.O_RDONLY)


def use_time():
    while True:
        pass


def work_as_usual():
    bytearray(1 << 20)
    os.close(os.open("/dev/null", os.O_RDONLY))


@pytest.mark.parametrize("use", [use_memory, use_files])
def test_much_memory_and_many_files_are_not_to_be_had_until_it_is_lifted(use):
    def confined():
        Confinement(60)
        work_as_usual()
        with pytest.raises((MemoryError, OSError)):
            use()

    def lifted():
        before = limits()
        confinement = Confinement(60)
        assert limits() != before
        confinement.lift()
        assert limits() == before
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        use()

    assert (in_a_child(confined), in_a_child(lifted)) == (0, 0)


def test_it_ends_when_its_time_is_over():
    def wait():
        Confinement(0.05)
        signal.pause()

    assert os.WTERMSIG(in_a_child(wait)) == signal.SIGALRM


def test_it_ends_when_it_has_used_its_processor_time(monkeypatch):
    monkeypatch.setattr("klyng_mp.remote.confinement._CPU_SECONDS", 1)

    def work():
        Confinement(60)
        use_time()

    assert os.WTERMSIG(in_a_child(work)) == signal.SIGXCPU


def test_limits_that_are_lower_already_stay():
    def work():
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        confinement = Confinement(60)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (32, 32)
        confinement.lift()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (32, 32)

    assert in_a_child(work) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("hidden", [False, True])
def test_another_process_of_its_user_cannot_look_into_it(hidden):
    ready, told = os.pipe()

    def have_secrets():
        os.setresuid(NOBODY, NOBODY, NOBODY)
        _let_be_looked_at()
        if hidden:
            keep_to_itself()
            show_in_ps("secretive")  # which it still can
            assert Path("/proc/self/comm").read_text() == "secretive\n"
            assert os.listdir("/proc/self/fd")
        os.write(told, b"x")
        signal.pause()

    def look():
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))

    pid = os.fork()
    if pid == 0:
        try:
            have_secrets()
        finally:
            os._exit(99)
    os.read(ready, 1)
    try:
        assert in_a_child(look) == (99 << 8 if hidden else 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)


def _let_be_looked_at():
    """Undo what changing the user has done: an ordinary process has begun as that user."""
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
