"""popen_zygote: what is started from a World is a multiprocessing process in every way."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest

import klyng_mp as mp
from klyng_mp.popen_zygote import Popen

UNGUARDED = """
import os, sys
import klyng_mp as mp

class Point:
    pass

w = mp.World(2)

class Mine(w.Process):
    def __init__(self, value):
        super().__init__(name="mine")
        self.value = value
    def run(self):
        print(self.name, mp.rank(), self.value(20), type(self).__name__, flush=True)
        sys.exit(7)

process = Mine(lambda x: x + 1)
process.start()
process.join()
print(process.exitcode)

queue = w.SimpleQueue()
def answer(queue):
    point = queue.get()
    point.seen = isinstance(point, Point)
    queue.put(point)

other = w.Process(target=answer, args=(queue,))
other.start()
queue.put(Point())
other.join()
point = queue.get()
print(point.seen, isinstance(point, Point))
"""
AT_THE_END = """
import signal, sys, time
import klyng_mp as mp

def work(connection):
    connection.recv()
    print("worked", flush=True)

w = mp.World(2)
ours, theirs = w.Pipe()
daemon = w.Process(target=signal.pause, daemon=True)
daemon.start()
process = w.Process(target=work, args=(theirs,))
process.start()
ours.send(1)
print("the end", flush=True)
"""
INTERRUPTED = """
import signal, sys
import klyng_mp as mp

def work(connection):
    try:
        connection.send("works")
        signal.pause()
    except KeyboardInterrupt:
        print("interrupted", flush=True)

w = mp.World(1)
ours, theirs = w.Pipe()
process = w.Process(target=work, args=(theirs,))
process.start()
print(ours.recv(), flush=True)
if sys.argv[1] == "join":
    process.join()
else:
    signal.pause()
"""
KILLED = """
import os, signal
import klyng_mp as mp

def work():
    print(os.getpid(), flush=True)
    while True:
        pass

w = mp.World(2)
for _ in range(3):
    w.Process(target=work).start()
signal.pause()
"""
LOCKED = """
import threading

lock = threading.Lock()
held = threading.Event()

def hold():
    with lock:
        held.set()
        threading.Event().wait()

def use(x=0):
    with lock:
        return x
"""
HELD_LOCK = """
import sys, threading
import klyng_mp as mp
from locked import held, hold, use

threading.Thread(target=hold, daemon=True).start()
held.wait()
if sys.argv[1] == "fork":
    context = mp.get_context("fork")
else:
    context = mp.World(2)
process = context.Process(target=use)
process.start()
process.join(3)
print(process.exitcode)
process.kill()
"""


def start(world, target, *args, **kwargs):
    process = world.Process(target=target, args=args, **kwargs)
    process.start()
    return process


def end(process):
    process.join(30)
    return process.exitcode


@pytest.fixture
def world():
    world = mp.World(2)
    yield world
    world.terminate()


# -- an ordinary process ---------------------------------------------------------------------------------


def test_it_has_everything_that_a_process_has(world):
    ours, theirs = world.Pipe()
    process = world.Process(target=theirs.recv, name="one")
    assert (process.is_alive(), process.exitcode, process.pid, process.daemon) == (False, None, None, False)
    process.start()
    assert isinstance(process._popen, Popen)
    assert process.is_alive()
    assert process in mp.active_children()
    assert process in multiprocessing.active_children()
    assert process.exitcode is None
    process.join(0)
    assert process.is_alive()
    assert multiprocessing.connection.wait([process.sentinel], 0) == []
    with pytest.raises(ValueError, match="still running"):
        process.close()
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()
    os.kill(process.pid, 0)
    ours.send("go on")
    assert multiprocessing.connection.wait([process.sentinel], 30) == [process.sentinel]
    assert end(process) == 0
    assert not process.is_alive()
    assert process not in mp.active_children()
    process.close()
    with pytest.raises(ValueError, match="closed"):
        process.is_alive()


@pytest.mark.parametrize(
    ("target", "args", "code"),
    [
        (len, ((),), 0),
        (len, (), 1),
        (sys.exit, (), 0),
        (sys.exit, (3,), 3),
        (sys.exit, ("a reason",), 1),
        (os._exit, (5,), 5),
        (os.abort, (), -signal.SIGABRT),
    ],
)
def test_exit_codes(world, target, args, code):
    assert end(start(world, target, *args)) == code


@pytest.mark.parametrize(("method", "signum"), [("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)])
def test_signals(world, method, signum):
    process = start(world, signal.pause)
    getattr(process, method)()
    assert end(process) == -signum
    getattr(process, method)()  # of no consequence


def test_a_failure_is_printed_as_the_standard_library_does(world, capfd):
    def fail():
        raise ValueError("no good")

    assert end(start(world, fail, name="Failing")) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "Process Failing:"
    assert lines[-1] == "ValueError: no good"


def test_what_cannot_be_rebuilt_there_is_said(world, capfd, monkeypatch):
    class Broken:
        def __reduce__(self):
            return os.listdir, ("/no/such/folder",)

    assert end(start(world, len, Broken(), name="Broken")) == 1
    error = capfd.readouterr().err
    assert error.startswith("Process Broken:\n")
    assert "/no/such/folder" in error


def test_the_child_knows_its_family(world):
    ours, theirs = world.Pipe()

    def tell():
        own, parent = mp.current_process(), mp.parent_process()
        theirs.send((own.name, own.pid, bytes(own.authkey), own.daemon, parent.pid, parent.name, parent.is_alive()))

    process = start(world, tell, daemon=True)
    authkey = bytes(mp.current_process().authkey)
    assert ours.recv() == (process.name, process.pid, authkey, True, os.getpid(), "MainProcess", True)
    assert end(process) == 0


def test_functions_of_the_end_are_called(world, capfd):
    def register():
        atexit.register(os.write, 1, b"at the end\n")
        multiprocessing.util.Finalize(None, os.write, (1, b"finalized\n"), exitpriority=1)
        threading.Thread(target=os.write, args=(1, b"thread\n")).start()

    assert end(start(world, register)) == 0
    assert sorted(capfd.readouterr().out.split("\n")) == ["", "at the end", "finalized", "thread"]


def test_the_logger_is_set_up_as_here(world, capfd):
    logger = mp.get_logger()
    level = logger.level
    logger.setLevel("INFO")
    try:
        ours, theirs = world.Pipe()
        assert end(start(world, lambda: theirs.send(mp.get_logger().level))) == 0
        assert ours.recv() == 20
    finally:
        logger.setLevel(level)


def test_it_may_have_children_of_its_own(world):
    ours, theirs = world.Pipe()

    def parent():
        for method in ("fork", "spawn"):
            child = mp.get_context(method).Process(target=os._exit, args=(4,))
            child.start()
            child.join()
            theirs.send((mp.get_start_method(), child.exitcode))

    process = start(world, parent)
    assert [ours.recv() for _ in range(2)] == [(mp.get_start_method(), 4)] * 2
    assert end(process) == 0


def test_it_cannot_start_processes_of_its_world(world):
    ours, theirs = world.Pipe()

    def again():
        try:
            type(mp.current_process())(target=len).start()
        except mp.ForkedError as error:
            theirs.send(str(error))

    assert end(start(world, again)) == 0
    assert "its World belongs to the process that made it" in ours.recv()


def test_there_need_be_no_guard(run_python, tmp_path):
    (tmp_path / "app.py").write_text(UNGUARDED)
    done = run_python("app.py")
    assert (done.stdout.splitlines(), done.stderr) == (["mine 0 21 Mine", "7", "True True"], "")


# -- what goes along -------------------------------------------------------------------------------------


def test_descriptors_go_along(world):
    ours, theirs = world.Pipe()
    one, other = socket.socketpair()
    with ours, theirs, one, other:
        process = start(world, lambda: (theirs.send(3), other.sendall(b"by socket")))
        assert ours.recv() == 3
        assert one.recv(100) == b"by socket"
        assert end(process) == 0


def test_what_nobody_asked_for_is_closed(world):
    """The writing end went along, but nothing that is pickled holds it any more: so its reader sees the end."""
    reading, writing = world.Pipe(duplex=False)

    class Forgetful:
        def __reduce__(self):
            return len, ((writing,),)

    process = start(world, _wait_for, Forgetful(), reading)
    writing.close()
    assert end(process) == 0


def _wait_for(_, reading):
    with pytest.raises(EOFError):
        reading.recv()


def test_too_many_descriptors_are_refused(world):
    before = len(os.listdir("/proc/self/fd"))
    ends = [end for _ in range(130) for end in world.Pipe()]
    with pytest.raises(ValueError, match="260 descriptors: 240 at most"):
        start(world, len, ends)
    for one in ends:
        one.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert mp.active_children() == []


def test_large_arguments_go_along(world):
    numpy = pytest.importorskip("numpy")
    ours, theirs = world.Pipe()
    array = numpy.arange(1_000_000)

    def change(array):
        array += 1
        theirs.send(int(array.sum()))

    process = start(world, change, array)
    assert ours.recv() == sum(range(1_000_001))
    assert end(process) == 0
    assert array[0] == 0


def test_what_cannot_travel_is_named(world):
    with pytest.raises(mp.CodecError, match=r"lock"):
        start(world, len, {"a": [threading.Lock()]})
    assert mp.active_children() == []
    assert world.run(mp.rank) == [0, 1]


# -- how it ends -----------------------------------------------------------------------------------------


def test_a_program_that_ends_joins_its_processes(run_python):
    done = run_python("-c", AT_THE_END)
    assert (done.stdout, done.stderr, done.returncode) == ("the end\nworked\n", "", 0)


@pytest.mark.parametrize("where", ["join", "elsewhere"])
def test_ctrl_c_is_passed_on(tmp_path, where, time_limit):
    (tmp_path / "app.py").write_text(INTERRUPTED)
    command = [sys.executable, "app.py", where]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        assert driver.stdout.readline() == "works\n"
        driver.send_signal(signal.SIGINT)
        out, error = driver.communicate(timeout=time_limit(20))
    assert out == "interrupted\n"
    assert error.endswith("KeyboardInterrupt\n")
    assert error.count("Traceback") == 1, "the process was interrupted once"
    assert driver.returncode == -signal.SIGINT


def test_a_killed_driver_takes_its_processes_along(time_limit):
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as driver:
        handles = [os.pidfd_open(int(driver.stdout.readline())) for _ in range(3)]
        driver.kill()
        for handle in handles:
            assert select.select([handle], [], [], time_limit(5))[0]
            os.close(handle)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code"), [("fork", "None"), ("world", "0")])
def test_a_lock_that_a_thread_holds_here_is_free_there(run_python, tmp_path, kind, code):
    """python/cpython#84559: a fork has a copy of the lock, but not the thread that would release it."""
    (tmp_path / "locked.py").write_text(LOCKED)
    (tmp_path / "app.py").write_text(HELD_LOCK)
    assert run_python("app.py", kind).stdout.split() == [code]


def test_threads_may_wait_for_the_same_process(world):
    ours, theirs = world.Pipe()
    process = start(world, theirs.recv)
    codes = []
    threads = [threading.Thread(target=lambda: codes.append(process._popen.wait())) for _ in range(4)]
    for thread in threads:
        thread.start()
    ours.send(None)
    for thread in threads:
        thread.join()
    assert codes == [0] * 4
    assert end(process) == 0
