"""process: anything can be a target or an argument, daemonic processes have children, and nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import klyng_mp as mp
from klyng_mp.process import START_METHOD

METHODS = ["fork", "spawn", "forkserver"]
FAMILY = r"""
import os, signal, sys
import klyng_mp as mp

def grandchild():
    os.write(1, f"{os.getpid()}\n".encode())  # at once, also where Python does not buffer
    while True:
        pass

def daemon():
    os.write(1, f"{os.getpid()}\n".encode())  # at once, also where Python does not buffer
    child = mp.get_context(sys.argv[1]).Process(target=grandchild)
    child.start()
    assert child.daemon
    child.join()

if __name__ == "__main__":
    bystander = mp.Process(target=signal.pause)
    process = mp.get_context(sys.argv[1]).Process(target=daemon, daemon=True)
    process.start()
    bystander.start()
    open("bystander", "w").write(str(bystander.pid))
    os.write(1, f"{bystander.pid}\n".encode())
    process.join()
"""


@pytest.fixture(params=METHODS)
def context(request):
    return mp.get_context(request.param)


def add(one, other):
    return one + other


def send(connection, value):
    connection.send(value)


def test_lambdas_beside_locks_and_connections(context):
    here, there = context.Pipe()
    lock = context.Lock()
    number = 20

    def target(connection, lock, function):
        with lock:
            connection.send([function(number), lambda: number + 2, type(connection).__module__])

    process = context.Process(target=target, args=(there, lock, lambda x: x + 1))
    process.start()
    doubled, function, module = here.recv()
    process.join()
    assert (doubled, function(), module, process.exitcode) == (21, 22, "klyng_mp.connection", 0)
    for end in (here, there):
        end.close()


def test_a_connection_that_two_attempts_at_pickling_meet(context):
    here, there = context.Pipe()
    process = context.Process(target=send_result, args=(there, lambda: "once"))
    process.start()
    assert here.recv() == "once"
    process.join()
    for end in (here, there):
        end.close()


def send_result(connection, function):
    connection.send(function())


def test_a_local_class_of_processes(context):
    class Mine(context.Process):
        def __init__(self, connection):
            super().__init__()
            self.connection = connection
            self.function = lambda: 7

        def run(self):
            self.connection.send((self.function(), self.name, mp.current_process() is self))

    here, there = context.Pipe()
    process = Mine(there)
    process.start()
    assert here.recv() == (7, process.name, True)
    process.join()
    here.close()
    there.close()


def test_a_class_with_its_own_state(context):
    class Counted(context.Process):
        def __getstate__(self):
            return {**self.__dict__, "_kwargs": {"value": "given"}}

        def __setstate__(self, state):
            self.__dict__.update(state)
            self.restored = True

    here, there = context.Pipe()
    process = Counted(target=send, args=(there,), kwargs={"value": "own"})
    process.start()
    assert here.recv() == ("own" if context.get_start_method() == "fork" else "given")
    process.join()
    here.close()
    there.close()


@pytest.mark.parametrize("method", METHODS[1:])
def test_what_cannot_travel_is_named_and_nothing_is_started(method):
    process = mp.get_context(method).Process(target=add, args=(1, {"lock": threading.Lock()}))
    before = set(mp.active_children())
    with pytest.raises(mp.CodecError, match=r"_args'\]\[1\]\['lock'\] cannot travel"):
        process.start()
    assert set(mp.active_children()) == before
    assert process.exitcode is None


def test_one_tree_with_the_standard_module(context):
    assert mp.current_process() is multiprocessing.current_process()
    stop = context.Event()
    process = context.Process(target=stop.wait)
    process.start()
    assert process in multiprocessing.active_children()
    assert isinstance(process, multiprocessing.process.BaseProcess)
    stop.set()
    process.join()
    assert process not in mp.active_children()


def test_names_are_counted_together():
    numbers = [int(kind().name.rpartition("-")[2]) for kind in (mp.Process, multiprocessing.Process, mp.Process)]
    assert numbers == list(range(numbers[0], numbers[0] + 3))


def test_the_standard_module_stays_undecided(run_python):
    code = """
import multiprocessing, klyng_mp as mp
def nothing(): pass
if __name__ == "__main__":
    for method in ("spawn", "forkserver", "fork"):
        process = mp.get_context(method).Process(target=nothing)
        process.start()
        process.join()
        assert process.exitcode == 0
    mp.set_start_method("spawn")
    process = mp.Process(target=nothing)
    process.start()
    process.join()
    print(multiprocessing.get_start_method(allow_none=True), mp.get_start_method())
    multiprocessing.set_start_method("forkserver")
    print(multiprocessing.get_start_method(), mp.get_start_method())
"""
    done = run_python("-c", code)
    assert done.stdout == "None spawn\nforkserver spawn\n", done.stderr


def test_a_child_has_its_parents_start_method(context):
    here, there = context.Pipe()
    process = context.Process(target=lambda end: end.send(mp.get_start_method()), args=(there,))
    process.start()
    assert here.recv() == context.get_start_method()
    process.join()
    here.close()
    there.close()
    assert START_METHOD.name != "spawn"


@pytest.mark.parametrize(("wrong", "sentence"), [("twice", "cannot start a process twice"), ("closed", "is closed")])
def test_misuse_is_refused_as_in_the_standard_library(wrong, sentence):
    said = []
    for module in (mp, multiprocessing):
        process = module.Process(target=add, args=(1, 2))
        process.start()
        process.join()
        if wrong == "closed":
            process.close()
        with pytest.raises((AssertionError, ValueError), match=sentence) as caught:
            process.start()
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]


def test_only_its_maker_can_start_it():
    process = mp.Process(target=add, args=(1, 2))
    here, there = mp.Pipe()

    def attempt(end):
        try:
            process.start()
        except AssertionError as error:
            end.send(str(error))

    other = mp.Process(target=attempt, args=(there,))
    other.start()
    assert here.recv() == "can only start a process object created by current process"
    other.join()
    here.close()
    there.close()


@pytest.mark.may_leave("files", why="a forkserver that loses its driver leaves its socket, as the standard one does")
@pytest.mark.parametrize("method", METHODS)
def test_daemons_and_their_children_end_with_a_killed_parent(method, tmp_path, time_limit):
    (tmp_path / "family.py").write_text(FAMILY)
    command = [sys.executable, "family.py", method]
    environment = {**os.environ, "PYTHONPATH": str(Path(mp.__file__).parent.parent)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        pidfds = {pid: os.pidfd_open(pid) for pid in (int(parent.stdout.readline()) for _ in range(3))}
        bystander = int((tmp_path / "bystander").read_text())
        try:
            os.kill(parent.pid, signal.SIGKILL)
            for pid, pidfd in pidfds.items():
                if pid != bystander:
                    assert select.select([pidfd], [], [], time_limit(5))[0], "it lives on"
            assert not select.select([pidfds[bystander]], [], [], 0)[0], "as in the standard library"
        finally:
            os.kill(bystander, signal.SIGKILL)
            for pidfd in pidfds.values():
                os.close(pidfd)
