"""managers: anything may be an argument, a result or a stored value; and nobody hangs or stays when others die."""

from __future__ import annotations

import array
import multiprocessing.managers
import multiprocessing.pool
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import klyng_mp as mp
from klyng_mp import managers, shared_memory
from klyng_mp.connection import Connection

METHODS = ["fork", "spawn", "forkserver"]
ROOT = Path(mp.__file__).parent.parent


@pytest.fixture(params=METHODS)
def context(request):
    return mp.get_context(request.param)


class Calculator:
    """Something to live in a server."""

    def __init__(self, start=0):
        self.total = start

    def apply(self, function):
        self.total = function(self.total)
        return self.total

    def adder(self, more):
        return lambda value: value + more

    def pid(self):
        return os.getpid()

    def fail(self, error):
        raise error

    def unsendable(self):
        return threading.Lock()

    def wait(self):
        threading.Event().wait()

    def keep(self, value):
        self.kept = value


class Calculators(managers.BaseManager):
    """Makes them."""


Calculators.register("Calculator", Calculator)


class Rebuilt:
    """Cannot be rebuilt in another process than the one that made it."""

    def __init__(self, pid, error):
        self.pid, self.error = pid, error
        if pid != os.getpid():
            raise error

    def __reduce__(self):
        return type(self), (self.pid, self.error)


class TwoWords(Exception):
    """Plain pickle makes something of it that cannot be opened."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def work(shared, values, results, space):
    shared["sent"] = lambda x: x + 40
    values.append(shared["given"](3))
    space.function = lambda: 9
    results.put(sorted(shared.keys()))
    results.put(lambda: type(shared).__module__)


# -- what travels ----------------------------------------------------------------------------------


def test_lambdas_and_closures_among_processes(context):
    factor = 7
    with context.Manager() as manager:
        assert type(manager) is managers.SyncManager
        assert isinstance(manager._process, context.Process)
        shared, values, results, space = manager.dict(), manager.list(), manager.Queue(), manager.Namespace()
        shared["given"] = lambda x: x * factor
        process = context.Process(target=work, args=(shared, values, results, space))
        process.start()
        process.join()
        assert results.get() == ["given", "sent"]
        assert results.get()() == "klyng_mp.managers"
        assert (shared["sent"](2), values[:], space.function()) == (42, [21], 9)
        process.close()


def test_registered_classes(context):
    class Local(managers.BaseManager):
        pass

    class Thing:
        def get(self):
            return lambda: start

    start = 5
    Local.register("Thing", Thing)
    Local.register("number", lambda: [start])
    with Calculators(ctx=context) as manager, Local(ctx=context) as local:
        calculator = manager.Calculator(1)
        assert (calculator.apply(lambda total: total + start), calculator.adder(2)(3)) == (6, 5)
        assert calculator.pid() == manager._process.pid != os.getpid()
        assert (local.Thing().get()(), str(local.number())) == (5, "[5]")
        assert "Thing" not in managers.BaseManager._registry


def test_each_kind_of_proxy_is_ours_and_the_standard_ones(context):
    made = {
        "Array": ("i", [1, 2]), "Barrier": (1,), "BoundedSemaphore": (), "Condition": (), "Event": (),
        "JoinableQueue": (), "Lock": (), "Namespace": (), "Pool": (1,), "Queue": (), "RLock": (), "Semaphore": (),
        "Value": ("i", 3), "dict": (), "list": (),
    }  # fmt: skip
    with context.Manager() as manager:
        for name, arguments in made.items():
            proxy = getattr(manager, name)(*arguments)
            assert isinstance(proxy, managers.BaseProxy), name
            standard = multiprocessing.managers.SyncManager._registry[name][-1]
            assert name in ("Queue", "JoinableQueue") or isinstance(proxy, standard)
            assert type(proxy).__module__ == "klyng_mp.managers"
    assert {name for name in multiprocessing.managers.SyncManager._registry if name not in made} == {
        "AsyncResult",
        "Iterator",
    }


def test_things_of_the_standard_interface(context):
    with context.Manager() as manager:
        nested = manager.list([manager.dict(a=1), manager.list("xy")])
        assert (nested[0]["a"], nested[1][:], len(nested)) == (1, ["x", "y"], 2)
        assert sorted(manager.dict(a=1, b=2)) == ["a", "b"]
        numbers = manager.Array("i", [1, 2])
        numbers[0] = 5
        assert numbers._getvalue() == array.array("i", [5, 2])
        value = manager.Value("i", 3)
        value.value += 1
        assert value.value == 4
        with manager.Lock() as held:
            assert held
        with manager.Condition() as _:
            pass
        assert manager.Barrier(2).parties == 2
        event = manager.Event()
        event.set()
        assert event.wait(1)
        with manager.Pool(1) as pool:
            assert type(pool) is managers.PoolProxy
            assert pool.map(abs, [-1, 2]) == [1, 2]
            assert list(pool.imap(abs, [-3])) == [3]
            assert pool.apply_async(abs, (-4,)).get() == 4
        with pytest.raises(queue.Empty):
            manager.Queue().get_nowait()
        assert "klyng" not in str(manager.list([1]))
        assert "ListProxy object, typeid 'list'" in repr(manager.list())


def test_a_session_gets_its_own_things_back(run_python):
    code = """
import klyng_mp as mp
class Point:
    def __init__(self, x):
        self.x = x
def double(point):
    return Point(point.x * 2)
for method in ("fork", "spawn", "forkserver"):
    with mp.get_context(method).Manager() as manager:
        values = manager.list([Point(1), double])
        back, function = values[:]
        print(type(back) is Point, function is double, function(back).x)
"""
    done = run_python("-c", code)
    assert done.stdout == "True True 2\n" * 3, done.stderr


def test_proxies_in_a_plain_process(context):
    with context.Manager() as manager:
        values, shared = manager.list(), manager.dict(a=1)
        plain = multiprocessing.get_context(context.get_start_method())
        process = plain.Process(target=append, args=(values, shared))
        process.start()
        process.join()
        assert values[:] == [1, "klyng_mp.managers"]
        process.close()


def append(values, shared):
    values.append(shared["a"])
    values.append(type(values).__module__)


def test_the_standard_module_is_as_it_was():
    standard = multiprocessing.managers
    assert standard.listener_client["pickle"] == (
        multiprocessing.connection.Listener,
        multiprocessing.connection.Client,
    )
    assert managers.listener_client["pickle"][0] is mp.connection.Listener
    assert standard.SyncManager._registry["list"][-1] is standard.ListProxy
    assert standard.SyncManager._registry["Pool"][0] is multiprocessing.pool.Pool
    with multiprocessing.get_context("fork").Manager() as manager:
        assert type(manager.list()) is standard.ListProxy
        assert type(manager.Queue()).__mro__[1] is standard.BaseProxy


# -- what cannot travel ----------------------------------------------------------------------------


def test_an_argument_that_cannot_travel(context):
    with context.Manager() as manager:
        shared = manager.dict()
        with pytest.raises(mp.CodecError, match=r"cannot travel to another process: it is a"):
            shared["lock"] = threading.Lock()
        shared["number"] = 1
        assert shared.copy() == {"number": 1}


@pytest.mark.parametrize("error", [ValueError("no"), AttributeError("no"), ImportError("no"), MemoryError("no")])
def test_what_the_server_cannot_rebuild_is_an_error_here_only(error):
    with Calculators(ctx=mp.get_context("fork")) as manager:
        calculator = manager.Calculator(1)
        wrong = Rebuilt(os.getpid(), error)
        with pytest.raises(managers.RemoteError, match=f"{type(error).__name__}: no"):
            calculator.keep(wrong)
        with pytest.raises(managers.RemoteError, match=f"{type(error).__name__}: no"):
            manager.Calculator(wrong)
        assert calculator.apply(lambda total: total + 1) == 2


def test_results_and_errors_that_cannot_travel(context):
    with Calculators(ctx=context) as manager:
        calculator = manager.Calculator()
        with pytest.raises(managers.RemoteError, match="Unserializable message"):
            calculator.unsendable()
        with pytest.raises(KeyError, match="gone"):
            calculator.fail(KeyError("gone"))
        with pytest.raises(managers.RemoteError, match="exposed"):
            calculator._callmethod("total")
        assert calculator.apply(str) == "0"


def test_an_error_that_cannot_be_rebuilt_here_leaves_the_proxy_in_order(context):
    with Calculators(ctx=context) as manager:
        calculator = manager.Calculator()
        with pytest.raises(TypeError, match="TwoWords"):
            calculator.apply(raise_two_words)
        assert calculator.apply(str) == "0"


def count(shared, results):
    results.append(sorted(shared))
    results.append(next(iter(shared)))


def test_results_that_are_proxies_in_another_process(context):
    with context.Manager() as manager:
        shared, results = manager.dict(one=1, two=2), manager.list()
        process = context.Process(target=count, args=(shared, results))
        process.start()
        process.join()
        assert results[:] == [["one", "two"], "one"]
        process.close()


def raise_two_words(_):
    raise TwoWords("one", "two")


# -- deaths ----------------------------------------------------------------------------------------


def test_a_killed_server_is_told_to_who_waits_and_who_comes(context):
    with Calculators(ctx=context) as manager:
        calculator, told = manager.Calculator(), []

        def wait():
            with pytest.raises((EOFError, ConnectionError)):
                calculator.wait()
            told.append(True)

        thread = threading.Thread(target=wait)
        thread.start()
        pid = calculator.pid()
        os.kill(pid, signal.SIGKILL)
        thread.join()
        assert told == [True]
        with pytest.raises((EOFError, OSError)):
            calculator.pid()
        with pytest.raises(OSError):
            manager.Calculator()
        manager.join()
    Path(manager.address).unlink()


PARENT = """
import sys
import klyng_mp as mp
if __name__ == "__main__":
    manager = mp.get_context(sys.argv[1]).Manager()
    values = manager.list()
    print(manager._process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_server_leaves_no_file_when_its_parent_ends(method, run_python):
    code = f"""
import os, signal, klyng_mp as mp
manager = mp.get_context({method!r}).Manager()
os.kill(manager._process.pid, signal.SIGKILL)
"""
    done = run_python("-c", code)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)  # and no test leaves files


@pytest.mark.may_leave("files", why="what a killed driver's temporary folder has, as with the standard module")
@pytest.mark.parametrize("method", METHODS)
def test_a_server_ends_with_its_killed_parent(method, tmp_path, time_limit):
    (tmp_path / "parent.py").write_text(PARENT)
    words = [sys.executable, "parent.py", method]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        server = os.pidfd_open(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        assert select.select([server], [], [], time_limit(5))[0], "it lives on"
        os.close(server)


@pytest.mark.parametrize("initializer", [exit, lambda: 1 / 0])
def test_a_server_that_does_not_begin(initializer, context, capfd):
    manager = Calculators(ctx=context)
    before = set(mp.active_children())
    with pytest.raises(EOFError):
        manager.start(initializer)
    assert set(mp.active_children()) == before
    capfd.readouterr()


def test_an_initializer(context):
    with pytest.raises(TypeError, match="initializer must be a callable"):
        Calculators(ctx=context).start("print")
    manager = Calculators(ctx=context)
    folder = os.getcwd()
    manager.start(os.chdir, ("/",))
    try:
        assert manager.Calculator().apply(lambda _: os.getcwd()) == "/"
    finally:
        manager.shutdown()
    assert os.getcwd() == folder


@pytest.mark.parametrize("package", [managers, multiprocessing.managers])
def test_once_started_and_once_ended_as_in_the_standard_library(package):
    manager = package.SyncManager()
    manager.start()
    with pytest.raises(mp.ProcessError, match="Already started server"):
        manager.start()
    with pytest.raises(mp.ProcessError, match="Already started server"):
        manager.get_server()
    manager.shutdown()
    for call in (manager.start, manager.get_server, manager.__enter__):
        with pytest.raises(mp.ProcessError, match="Manager has shut down"):
            call()


# -- of other programs -----------------------------------------------------------------------------

SERVER = """
import sys
from klyng_mp import managers
class Counter:
    def __init__(self):
        self.kept = []
    def add(self, value):
        self.kept.append(value)
        return len(self.kept)
    def call(self, *arguments):
        return self.kept[-1](*arguments)
class Counters(managers.BaseManager):
    pass
counter = Counter()
Counters.register("counter", callable=lambda: counter)
server = Counters(address=("127.0.0.1", 0), authkey=b"secret", serializer=sys.argv[1]).get_server()
print(server.address[1], flush=True)
server.serve_forever()
"""


class Remote(managers.BaseManager):
    """Asks the server of another program."""


Remote.register("counter")


@pytest.fixture(params=["pickle", "xmlrpclib"])
def remote(request):
    words = [sys.executable, "-c", SERVER, request.param]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as server:
        address = ("127.0.0.1", int(server.stdout.readline()))
        yield lambda authkey=b"secret": Remote(address=address, authkey=authkey, serializer=request.param)
        server.kill()


def test_a_remote_manager(remote):
    manager = remote()
    manager.connect()
    counter = manager.counter()
    assert counter.add("something") == 1
    if manager._serializer == "pickle":
        assert type(counter._tls.connection) is Connection
    else:
        with pytest.raises(TypeError):
            counter.add(len)
    assert counter.add([1, 2]) == 2


REMOTE_CLIENT = """
import sys
from klyng_mp import managers
class Remote(managers.BaseManager):
    pass
Remote.register("counter")
base = 10
class Local:
    def __init__(self, value):
        self.value = value
    def __call__(self, more):
        return Local(self.value + more + base)
manager = Remote(address=("127.0.0.1", int(sys.argv[1])), authkey=b"secret")
manager.connect()
counter = manager.counter()
print(counter.add(lambda value: value + base), counter.call(5))
print(counter.add(Local(1)), type(counter.call(2)) is Local, counter.call(2).value)
"""


@pytest.mark.parametrize("remote", ["pickle"], indirect=True)
def test_a_session_at_a_remote_manager(remote, run_python):
    done = run_python("-c", REMOTE_CLIENT, remote().address[1])
    assert done.stdout == "1 15\n2 True 13\n", done.stderr


def test_a_remote_manager_with_the_wrong_key(remote):
    with pytest.raises(mp.AuthenticationError):
        remote(b"wrong").connect()


def test_nobody_listens():
    manager = Remote(address=("127.0.0.1", 1), authkey=b"secret")
    with pytest.raises(ConnectionRefusedError):
        manager.connect()


# -- shared memory ---------------------------------------------------------------------------------


def exists(name):
    return Path("/dev/shm", name).exists()


def test_blocks_end_with_their_manager(context):
    with managers.SharedMemoryManager(ctx=context) as manager:
        block, values = manager.SharedMemory(size=100), manager.ShareableList([1, "two"])
        assert (type(block), type(values)) == (shared_memory.SharedMemory, shared_memory.ShareableList)
        process = context.Process(target=fill, args=(block, values))
        process.start()
        process.join()
        assert (block.buf[0], values[0]) == (9, 10)
        removed = manager.SharedMemory(size=1)
        removed.unlink()
        names = [block.name, values.shm.name]
        assert all(exists(name) for name in names)
        process.close()
    assert not any(exists(name) for name in names)
    for each in (block, values.shm, removed):
        each.close()


def fill(block, values):
    block.buf[0] = 9
    values[0] = 10


CLIENT = """
import sys
from klyng_mp import managers
manager = managers.SharedMemoryManager(address=sys.argv[1], authkey=b"secret")
manager.connect()
block = manager.SharedMemory(size=10)
block.buf[0] = 3
print(block.name)
"""


def test_blocks_of_another_program_stay_with_the_manager(context, run_python):
    with managers.SharedMemoryManager(authkey=b"secret", ctx=context) as manager:
        done = run_python("-c", CLIENT, manager.address)
        assert done.stderr == ""
        name = done.stdout.strip()
        block = shared_memory.SharedMemory(name)
        assert block.buf[0] == 3
        block.close()
    assert not exists(name)


def test_a_connection_is_kept_for_each_thread_and_closed_at_the_end():
    with mp.get_context("fork").Manager() as manager:
        values = manager.list()
        values.append(1)
        connection = values._tls.connection
        assert type(connection) is Connection
        values.append(2)
        assert values._tls.connection is connection
        del values
        assert connection.closed
