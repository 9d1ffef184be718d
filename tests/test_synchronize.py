"""synchronize: the standard library's locks, and what becomes of them when processes are killed."""

from __future__ import annotations

import inspect
import math
import mmap
import multiprocessing
import multiprocessing.synchronize
import os
import pickle
import re
import signal
import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import lockwork
import pytest

import klyng_mp
from klyng_mp import native, synchronize
from klyng_mp.errors import BrokenLockError

METHODS = ("fork", "spawn", "forkserver")
KINDS = ("Lock", "RLock", "Semaphore", "BoundedSemaphore")
CLASSES = (*KINDS, "Condition", "Event", "Barrier")
HERE = Path(__file__).resolve().parent
PROMISED_SECONDS = 2.0
robust = pytest.mark.skipif(native.core is None, reason="the standard library's locks do not notice a death")

standard_heap = pytest.mark.may_leave("fds", why="the standard library's barrier keeps its heap")


@pytest.fixture(params=["fork", *(pytest.param(one, marks=pytest.mark.slow) for one in METHODS[1:])])
def ctx(request):
    return klyng_mp.get_context(request.param)


@pytest.fixture
def fork():
    return klyng_mp.get_context("fork")


class Child:
    """A process that does some `lockwork`, and the connection to it."""

    def __init__(self, ctx, work, *args):
        self.connection, theirs = ctx.Pipe()
        self.process = ctx.Process(target=work, args=(*args, theirs))
        self.process.start()
        theirs.close()

    def hear(self, time_limit=30.0):
        assert self.connection.poll(time_limit), "it says nothing"
        return self.connection.recv()

    def kill(self):
        self.process.kill()
        self.process.join()

    def end(self):
        self.process.join()
        assert self.process.exitcode == 0

    def falls_asleep(self):
        """Wait until it sleeps in the core, or the standard library, and not for what we say."""
        pause, channel = threading.Event(), Path(f"/proc/{self.process.pid}/wchan")
        while not channel.read_text().startswith(("futex", "do_futex")):
            pause.wait(0.002)


@contextmanager
def children(ctx, *works, asleep=False):
    """Start processes, and end them; where they are to fall asleep, one after the other."""
    made = []
    try:
        for work in works:
            made.append(Child(ctx, *work))
            if asleep:
                assert made[-1].hear() == "waiting"
                made[-1].falls_asleep()
        yield made
    finally:
        for child in made:
            child.kill()
            child.process.close()
            child.connection.close()


def again_and_again(call):
    """Call until it raises: who only tries for a lock need not be told at the first time."""
    while True:
        assert call() is False


@contextmanager
def within(seconds):
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


# -- the same as the standard library --------------------------------------------------------------


def outcome(call):
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


def made_both_ways(name, *args):
    return getattr(multiprocessing.get_context("fork"), name)(*args), getattr(klyng_mp.get_context("fork"), name)(*args)


@standard_heap
@pytest.mark.parametrize("name", CLASSES)
def test_each_is_one_of_the_standard_library(ctx, name):
    made = getattr(ctx, name)(*([2] if name == "Barrier" else []))
    assert type(made) is getattr(synchronize, name)
    assert isinstance(made, getattr(multiprocessing.synchronize, name))


@pytest.mark.parametrize("name", [*CLASSES, "SemLock"])
def test_each_is_made_and_used_with_the_same_arguments(name):
    ours, theirs = getattr(synchronize, name), getattr(multiprocessing.synchronize, name)

    def shape(function):
        return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]

    assert shape(ours) == shape(theirs)
    for method, function in inspect.getmembers(theirs, inspect.isfunction):
        if not method.startswith("_"):
            assert shape(getattr(ours, method)) == shape(function), method


ACQUIRES = [
    ((), {}),
    ((True,), {}),
    ((False,), {}),
    ((0,), {}),
    ((True, 0), {}),
    ((True, -1), {}),
    ((True, 0.01), {}),
    ((False, None), {}),
    ((), {"block": True, "timeout": None}),
    ((), {"timeout": 0.01}),
    ((1.5,), {}),
    (("yes",), {}),
    ((None,), {}),
    ((1 << 40,), {}),
    ((1 << 80,), {}),
    ((True, "soon"), {}),
    ((False, "soon"), {}),
    ((), {"timeout": "soon"}),
    ((True, None, 3), {}),
    ((), {"wait": True}),
    ((True,), {"block": True}),
]


@pytest.mark.parametrize(("args", "words"), ACQUIRES)
@pytest.mark.parametrize("kind", KINDS)
def test_acquire_takes_the_same(kind, args, words):
    endless = (args, words) in (((), {}), ((True,), {}), ((), {"block": True, "timeout": None}))
    for times in range(2 if kind != "RLock" and endless else 3):
        results = []
        for made in made_both_ways(kind):
            for _ in range(times - 1):
                assert made.acquire(False) is (kind == "RLock" or made._semlock._count() == 1)
            results.append(
                [outcome(lambda made=made: made.acquire(*args, **words)), repr(made), made._semlock._count()]
            )
        assert results[0] == results[1]


BAD = [
    lambda ctx: ctx.Semaphore(-1),
    lambda ctx: ctx.Semaphore("a"),
    lambda ctx: ctx.Semaphore(1.5),
    lambda ctx: ctx.Semaphore(None),
    lambda ctx: ctx.Semaphore(1 << 31),
    lambda ctx: ctx.Semaphore((1 << 31) - 1).release(),
    lambda ctx: ctx.BoundedSemaphore(-1),
    lambda ctx: ctx.BoundedSemaphore(0).release(),
    lambda ctx: ctx.BoundedSemaphore(0).acquire(False),
    lambda ctx: ctx.BoundedSemaphore(3).release(),
    lambda ctx: ctx.Lock().release(),
    lambda ctx: ctx.Lock().release(1),
    lambda ctx: ctx.RLock().release(),
    lambda ctx: ctx.Lock().__exit__(None, None, None),
    lambda ctx: ctx.Lock()._semlock.__exit__(1, 2, 3, 4),
    lambda ctx: ctx.Condition(5),
    lambda ctx: ctx.Condition().wait(),
    lambda ctx: ctx.Condition().wait(1),
    lambda ctx: ctx.Condition().notify(),
    lambda ctx: ctx.Condition().notify_all(),
    lambda ctx: ctx.Condition().release(),
    lambda ctx: ctx.Event().wait("soon"),
    lambda ctx: ctx.Event().wait(-1),
    lambda ctx: ctx.Barrier(2).wait("soon"),
    lambda ctx: ctx.Barrier(2).wait(0.01),
    lambda ctx: ctx.Barrier(1).wait(),
    lambda ctx: pickle.dumps(ctx.Lock()),
    lambda ctx: pickle.dumps(ctx.RLock()),
    lambda ctx: pickle.dumps(ctx.Semaphore()),
    lambda ctx: pickle.dumps(ctx.BoundedSemaphore()),
    lambda ctx: pickle.dumps(ctx.Condition()),
]


@standard_heap
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("act", BAD, ids=range(len(BAD)))
def test_what_cannot_be_is_refused_in_the_same_words(act, method):
    theirs = outcome(lambda: act(multiprocessing.get_context(method)))
    assert outcome(lambda: act(klyng_mp.get_context(method))) == theirs


def with_condition(condition, call):
    with condition:
        return outcome(lambda: call(condition))


@pytest.mark.parametrize(
    "call",
    [
        lambda condition: condition.wait("soon"),
        lambda condition: condition.wait(0),
        lambda condition: condition.notify("many"),
        lambda condition: condition.notify(-1),
        lambda condition: condition.notify(0.5),
        lambda condition: condition.wait_for(lambda: 7),
        lambda condition: condition.wait_for(lambda: 0, timeout=0.01),
        lambda condition: condition.wait_for(lambda: 1 / 0),
        repr,
    ],
)
def test_a_condition_answers_the_same(call):
    theirs, ours = made_both_ways("Condition")
    assert with_condition(ours, call) == with_condition(theirs, call)
    assert repr(ours) == repr(theirs)


def test_the_core_refuses_what_no_lock_is_made_of():
    if native.core is None:
        with pytest.raises(ValueError, match="unrecognized kind"):
            synchronize.SemLock(3, 1, 1, ctx=klyng_mp.get_context("fork"))
        return
    for words in ((3, 1, 1, "x", True, True), (-1, 1, 1, "x", True, True)):
        with pytest.raises(ValueError, match="unrecognized kind"):
            native.core.SemLock(*words)
    for rebuild, rest in (
        (native.core.SemLock._rebuild, (1, 1, "x")),
        (native.core.Waiters._rebuild, ()),
        (native.core.Flag._rebuild, ()),
    ):
        reader, writer = os.pipe()
        with pytest.raises(ValueError, match=f"descriptor {reader} is not of such a lock"):
            rebuild(reader, *rest)  # which closes it
        os.close(writer)
        with pytest.raises(OSError, match="Bad file descriptor"):
            rebuild(reader, *rest)
    waiters = native.core.Waiters(False)
    for place in (0, 1 << 31):
        with pytest.raises(ValueError, match="is not of this process"):
            waiters.remove(place)
    with pytest.raises(TypeError):
        waiters.wait("first", None)


@robust
def test_a_timeout_may_be_anything_that_is_a_number(fork):
    lock = fork.Lock()
    lock.acquire()
    for timeout in (0, -5, -math.inf, math.nan, 0.001):
        assert lock.acquire(True, timeout) is False
    lock.release()
    for timeout in (math.inf, 1e300, 2**62):
        assert lock.acquire(True, timeout) is True
        lock.release()


def test_who_waits_waits_as_long_as_it_says(ctx, time_limit):
    event, condition = ctx.Event(), ctx.Condition()
    calls = [lambda: event.wait(0.1), lambda: with_condition(condition, lambda one: one.wait(0.1))]
    for kind in KINDS:
        made = getattr(ctx, kind)()
        if kind != "RLock":
            made.acquire()
            calls.append(lambda made=made: made.acquire(timeout=0.1))
    for call in calls:
        begun = time.monotonic()
        assert call() is False
        assert 0.1 <= time.monotonic() - begun < time_limit(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.timeout(300)
def test_cpythons_own_tests_pass(run_python, method):
    code = (
        f"import multiprocessing, unittest; multiprocessing.set_start_method({method!r}); unittest.main('lockcompat')"
    )
    env = {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    done = run_python("-c", code, env=env, timeout=240)
    assert done.returncode == 0, done.stderr[-5000:]
    assert int(re.search(r"Ran (\d+) tests", done.stderr)[1]) >= 26


# -- between processes -----------------------------------------------------------------------------


@pytest.mark.usefixtures("own_heap")
@pytest.mark.parametrize("kind", KINDS)
def test_only_one_at_a_time(ctx, kind):
    lock, counter = getattr(ctx, kind)(), multiprocessing.get_context("spawn").Value("q", 0, lock=False)
    if ctx.get_start_method() == "fork":
        counter = multiprocessing.get_context("fork").Value("q", 0, lock=False)
    workers = [ctx.Process(target=lockwork.count_up, args=(lock, counter, 500, 2)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counter.value == 4000


@pytest.mark.usefixtures("own_heap")
def test_without_a_lock_it_would_be_noticed(fork):
    counter = multiprocessing.get_context("fork").Value("q", 0, lock=False)
    workers = [fork.Process(target=lockwork.count_up, args=(None, counter, 2000, 2)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counter.value < 16000


@pytest.mark.parametrize("kind", KINDS)
def test_one_waits_for_the_other(ctx, kind):
    lock = getattr(ctx, kind)()
    with children(ctx, (lockwork.hold, lock)) as (holder,):
        assert holder.hear() == "held"
        assert lock.acquire(False) is False
        assert lock.acquire(timeout=0.05) is False
        with children(ctx, (lockwork.take_and_tell, lock), asleep=True) as (waiter,):
            holder.connection.send("go")
            assert waiter.hear() is True
            waiter.end()
            holder.end()
    assert lock.acquire(False) is True
    lock.release()


def test_a_lock_may_be_released_by_another_process(ctx):
    for kind in ("Lock", "Semaphore", "BoundedSemaphore"):
        lock = getattr(ctx, kind)()
        lock.acquire()
        with children(ctx, (lockwork.release, lock)) as (other,):
            assert other.hear() == "released"
            other.end()
        assert lock.acquire(False) is True


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_does_not_have_what_its_parent_has(ctx, kind):
    lock = getattr(ctx, kind)()
    lock.acquire()
    with children(ctx, (lockwork.tell_of, lock)) as (child,):
        assert child.hear() == (False, 0, True, False)
    lock.release()


@robust
def test_a_fork_that_python_makes_by_itself_has_nothing_either(fork):
    lock = fork.RLock()
    lock.acquire()
    lock.acquire()
    pid = os.fork()
    if pid == 0:
        made = lock._semlock
        os._exit(int((made._is_mine(), made._count(), lock.acquire(False)) != (False, 0, False)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert lock._semlock._count() == 2
    lock.release()
    lock.release()


def test_threads_of_one_process(fork):
    lock, recursive = fork.Lock(), fork.RLock()
    lock.acquire()
    recursive.acquire()
    seen = []

    def look():
        seen.append((lock._semlock._is_mine(), lock._semlock._count(), lock.acquire(False)))
        seen.append((recursive._semlock._is_mine(), recursive._semlock._count(), recursive.acquire(False)))
        seen.append(outcome(recursive.release))
        lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    refusal = AssertionError, "attempt to release recursive lock not owned by thread"
    assert seen == [(False, 1, False), (False, 1, False), refusal]
    assert lock.acquire(False) is True


def test_thousands_of_locks(fork):
    before = len(os.listdir("/proc/self/fd"))
    locks = [fork.Lock() for _ in range(5000)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert [lock.acquire(False) for lock in locks] == [True] * 5000
    with children(fork, (lockwork.tell_of, locks[4321])) as (child,):
        assert child.hear() == (False, 0, True, False)


def test_a_lock_of_a_fork_context_does_not_go_elsewhere():
    for name in CLASSES:
        made = [getattr(one.get_context("fork"), name) for one in (multiprocessing, klyng_mp)]
        theirs, ours = (one(*([2] if name == "Barrier" else [])) for one in made)
        if name == "Barrier":  # the standard library's would go, if only its condition did
            theirs = theirs._cond
        said = outcome(lambda one=theirs: multiprocessing.get_context("spawn").Process(target=id, args=(one,)).start())
        assert said[0] is RuntimeError
        for method in METHODS[1:]:
            process = klyng_mp.get_context(method).Process(target=id, args=(ours,))
            assert outcome(process.start) == said, (name, method)


def test_event_and_barrier_travel_only_with_a_process(ctx):
    for made in (ctx.Event(), ctx.Barrier(2)):
        with pytest.raises(RuntimeError, match="objects should only be shared between processes through inheritance"):
            pickle.dumps(made)


@robust
def test_a_lock_in_other_than_a_fork_context_is_one_descriptor():
    spawn = klyng_mp.get_context("spawn")
    fds = len(os.listdir("/proc/self/fd"))
    kept = [getattr(spawn, name)() for name in (*KINDS, "Event")]
    assert len(os.listdir("/proc/self/fd")) == fds + 5
    assert not any(os.get_inheritable(one._semlock.handle) for one in kept[:4])


# -- killed while it held --------------------------------------------------------------------------


@pytest.mark.slow
@robust
@pytest.mark.parametrize("reaped", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_for_one_that_is_killed_is_told(ctx, kind, reaped, time_limit):
    lock = getattr(ctx, kind)()
    line = inspect.currentframe().f_lineno - 1
    with children(ctx, (lockwork.hold, lock)) as (holder,):
        assert holder.hear() == "held"
        with children(ctx, *[(lockwork.take_and_tell, lock)] * 2, asleep=True) as waiters:
            os.kill(holder.process.pid, signal.SIGKILL)
            if reaped:
                holder.process.join()
            with within(time_limit(PROMISED_SECONDS)):
                errors = [waiter.hear() for waiter in waiters]
        for error in errors:
            assert type(error) is BrokenLockError
            assert error.pid == holder.process.pid
            assert error.lock == f"the {kind} made at test_synchronize.py:{line}"
        for call in (lock.acquire, lock.__enter__, lambda: lock.acquire(False), lambda: lock.acquire(timeout=0.01)):
            with within(time_limit(PROMISED_SECONDS)), pytest.raises(BrokenLockError, match="died while holding it"):
                again_and_again(call)


@robust
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_broken_lock_stays_broken(fork, kind):
    lock = getattr(fork, kind)()
    with children(fork, (lockwork.hold, lock)) as (holder,):
        holder.hear()
    with pytest.raises(BrokenLockError):
        lock.acquire()
    with pytest.raises(BrokenLockError):
        lock.acquire(False)
    with pytest.raises(BrokenLockError if kind == "Lock" else AssertionError):
        lock.release()
    assert (lock._semlock._get_value(), lock._semlock._is_mine(), lock._semlock._count()) == (0, False, 0)
    with children(fork, (lockwork.take_and_tell, lock)) as (late,):
        assert late.hear() == "waiting"
        assert type(late.hear()) is BrokenLockError


@robust
def test_a_conditions_lock_breaks_as_any_other(ctx, time_limit):
    condition = ctx.Condition()
    with children(ctx, (lockwork.wait_in, condition, None), asleep=True):
        with children(ctx, (lockwork.hold, condition)) as (holder,):
            holder.hear()
        with within(time_limit(PROMISED_SECONDS)), pytest.raises(BrokenLockError, match="the RLock made at"):
            condition.acquire()


@robust
def test_one_with_another_start_time_is_not_the_holder():
    lock = klyng_mp.get_context("spawn").Lock()
    lock.acquire()
    with mmap.mmap(lock._semlock.handle, 4096) as memory:
        (word,) = struct.unpack_from("Q", memory, 16)
        assert word >> 2 & (1 << 22) - 1 == os.getpid()
        struct.pack_into("Q", memory, 16, word + (1 << 24))
    with pytest.raises(BrokenLockError) as caught:
        lock.acquire()
    assert caught.value.pid == os.getpid()


@pytest.mark.slow
@robust
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_who_ends_by_itself_breaks_nothing(ctx, kind):
    lock = getattr(ctx, kind)()
    with children(ctx, (lockwork.hold_and_leave, lock)) as (holder,):
        assert holder.hear() is True
        holder.end()
        pid = holder.process.pid
        assert lock.acquire(False) is False
        assert lock.acquire(timeout=0.5) is False
        with pytest.raises(BrokenLockError, match="ended without releasing it") as caught:
            lock.acquire()
        assert (caught.value.pid, caught.value.ended) == (pid, True)
        assert lock.acquire(False) is False
    if kind == "Lock":
        lock.release()
        assert lock.acquire(False) is True


# -- semaphores ------------------------------------------------------------------------------------


@robust
def test_a_killed_holder_matters_when_no_permit_is_left(ctx, time_limit):
    semaphore = ctx.Semaphore(3)
    with children(ctx, (lockwork.hold, semaphore)) as (holder,):
        holder.hear()
    assert semaphore.acquire(False)
    assert semaphore.acquire()
    with within(time_limit(PROMISED_SECONDS)), pytest.raises(BrokenLockError, match="the Semaphore made at"):
        semaphore.acquire()
    semaphore.release()
    assert semaphore.acquire() is True
    semaphore.release()
    semaphore.release()
    semaphore.release()  # instead of the dead one
    assert [semaphore.acquire(False) for _ in range(4)] == [True, True, True, False]
    assert semaphore.acquire(timeout=0.6) is False


@robust
def test_one_that_is_killed_and_holds_nothing_does_not_matter(fork):
    semaphore = fork.Semaphore(1)
    with children(fork, (lockwork.take_and_tell, semaphore)) as (other,):
        assert (other.hear(), other.hear()) == ("waiting", True)
    assert semaphore.acquire() is True
    assert semaphore.acquire(timeout=1) is False


@robust
def test_one_that_ends_with_a_permit_does_not_break_a_semaphore(ctx):
    semaphore = ctx.Semaphore(1)
    with children(ctx, (lockwork.hold_and_leave, semaphore)) as (holder,):
        assert holder.hear() is True
        holder.end()
        assert semaphore.acquire(timeout=0.6) is False


@robust
def test_a_semaphore_that_is_a_signal_is_never_broken(fork):
    signals = fork.Semaphore(0), fork.Semaphore(2), synchronize.UnownedSemaphore(1, ctx=fork)
    signals[0].release()
    signals[1].acquire()
    with children(fork, (lockwork.release, signals[1])) as (other,):  # it has taken none
        other.hear()
        other.end()
    signals[1].acquire()
    for semaphore in signals:
        with children(fork, (lockwork.hold, semaphore)) as (holder,):
            holder.hear()
        assert semaphore.acquire(timeout=0.6) is False


@robust
def test_more_permits_than_it_began_with_are_counted(fork):
    semaphore = fork.Semaphore(1)
    semaphore.release()
    semaphore.acquire()
    with children(fork, (lockwork.hold, semaphore)) as (holder,):
        holder.hear()
    with pytest.raises(BrokenLockError):
        semaphore.acquire()


@pytest.mark.slow
def test_more_processes_than_are_counted(fork):
    semaphore = fork.Semaphore(1)
    for _ in range(260):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if semaphore.acquire(False) and semaphore.release() is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert semaphore.acquire(False) is True


# -- killed while it waited ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_waiter_stops_nobody(ctx, kind):
    lock = getattr(ctx, kind)()
    lock.acquire()
    waits = [(lockwork.take_and_tell, lock)] * 2
    with children(ctx, *waits, asleep=True) as (killed, other):
        killed.kill()
        lock.release()
        assert other.hear() is True
        other.end()
    assert lock.acquire() is True


@robust
def test_notify_goes_to_one_that_lives(ctx):
    condition = ctx.Condition()
    waits = [(lockwork.wait_in, condition, None)] * 4
    with children(ctx, *waits, asleep=True) as sleepers:
        for killed in sleepers[:2]:
            killed.kill()
        with condition:
            condition.notify()
        assert sleepers[2].hear() is True
        with condition:
            assert len(condition._waiters) == 1
            condition.notify_all()
        assert sleepers[3].hear() is True
        with condition:
            condition.notify()
            assert repr(condition).endswith(", 0)>")
            assert condition.wait(0.01) is False


@robust
def test_first_come_first_called(fork):
    condition = fork.Condition(fork.Lock())
    order, threads = [], []

    def wait(number):
        with condition:
            ready.set()
            assert condition.wait() is True
            order.append(number)

    for number in range(5):
        ready = threading.Event()
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        ready.wait()
        with condition:  # it has let go of it, so it is in line
            assert len(condition._waiters) == number + 1
    for number in range(5):
        with condition:
            condition.notify()
        threads[number].join()
    assert order == [0, 1, 2, 3, 4]


def test_a_recursive_lock_is_released_and_taken_again_as_often(fork):
    condition = fork.Condition()
    with children(fork, (lockwork.wait_in, condition, 0)) as (other,):
        with condition, condition, condition:
            assert condition.wait(0.2) is False
            assert condition._lock._semlock._count() == 3
        assert (other.hear(), other.hear()) == ("waiting", False)


class Interrupted(Exception):
    pass


class CalledAndInterrupted:
    """A condition's waiters whose first is called, and interrupted at the same moment, once another is in line."""

    def __init__(self, condition, other):
        self.waiters, self.condition, self.other = condition._waiters, condition, other
        self.first = threading.current_thread()

    def __getattr__(self, name):
        return getattr(self.waiters, name)

    def wait(self, place, timeout):
        if threading.current_thread() is not self.first:
            return self.waiters.wait(place, timeout)
        self.other.start()
        pause = threading.Event()
        while len(self.waiters) < 2:
            pause.wait(0.002)
        with self.condition:
            self.condition.notify()
        raise Interrupted


@robust
def test_a_call_that_an_interrupted_waiter_got_is_passed_on(fork):
    condition, results = fork.Condition(fork.Lock()), []

    def wait():
        with condition:
            results.append(condition.wait(10))

    other = threading.Thread(target=wait)
    condition._waiters = CalledAndInterrupted(condition, other)
    with pytest.raises(Interrupted), condition:
        condition.wait()
    other.join()
    assert results == [True]


@robust
def test_there_is_an_end_to_those_who_may_wait():
    waiters = native.core.Waiters(False)
    with pytest.raises(RuntimeError, match="threads wait on this Condition, and there is no room for more"):
        again_and_again(lambda: waiters.add(False) is None)
    assert len(waiters) > 8000
    waiters.remove(4321)
    assert waiters.add(False) == 4321


@robust
def test_an_event_outlives_who_waits_for_it(ctx):
    event = ctx.Event()
    waits = [(lockwork.wait_for, event)] * 2
    with children(ctx, *waits, asleep=True) as (killed, other):
        killed.kill()
        event.set()
        assert other.hear() is True
        other.end()
    assert event.wait(0)
    event.clear()
    assert not event.is_set()
    assert event.wait(0.01) is False


@robust
def test_who_waited_for_an_event_learns_of_it_also_when_it_is_cleared_at_once(fork):
    event = fork.Event()
    for _ in range(50):
        with children(fork, (lockwork.wait_for, event), asleep=True) as (child,):
            event.set()
            event.clear()
            assert child.hear() is True


@robust
def test_a_barrier_breaks_when_a_party_is_killed_in_it(ctx, time_limit):
    barrier = ctx.Barrier(3)
    waits = [(lockwork.wait_for, barrier)] * 2
    with children(ctx, *waits, asleep=True) as (killed, other):
        killed.kill()
        with within(time_limit(PROMISED_SECONDS)):
            assert other.hear() == "BrokenBarrierError"
        other.end()
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    assert (barrier.broken, barrier.n_waiting) == (False, 0)
    again = [(lockwork.wait_for, barrier)] * 2
    with children(ctx, *again) as others:
        assert barrier.wait() in range(3)
        assert all(child.hear() == "waiting" for child in others)
        assert all(child.hear() in range(3) for child in others)


@robust
def test_a_party_that_is_killed_after_the_last_has_come_does_not_hold_up_the_next_round(fork, time_limit):
    barrier = fork.Barrier(2)
    with children(fork, (lockwork.wait_for, barrier), asleep=True) as (killed,):
        killed.kill()
        barrier.wait()  # whom it waits for has come, and will not leave
    with children(fork, (lockwork.wait_for, barrier)) as (other,), within(time_limit(PROMISED_SECONDS)):
        assert barrier.wait() in range(2)
        assert (other.hear(), other.hear() in range(2)) == ("waiting", True)


# -- Ctrl-C ----------------------------------------------------------------------------------------


def waits_of(ctx):
    lock, semaphore, condition = ctx.Lock(), ctx.Semaphore(0), ctx.Condition()
    lock.acquire()
    return {
        "Lock": lock.acquire,
        "with": lock.__enter__,
        "timeout": lambda: lock.acquire(timeout=100),
        "Semaphore": semaphore.acquire,
        "Condition": lambda: with_condition(condition, lambda one: one.wait()),
        "Event": ctx.Event().wait,
        "Barrier": ctx.Barrier(2).wait,
    }


@pytest.mark.parametrize("name", ["Lock", "with", "timeout", "Semaphore", "Condition", "Event", "Barrier"])
def test_an_interrupt_ends_a_wait(fork, name, time_limit):
    with children(fork, (lockwork.interrupted, waits_of(fork)[name]), asleep=True) as (child,):
        os.kill(child.process.pid, signal.SIGINT)
        with within(time_limit(1.5)):
            assert child.hear() == "interrupted"


def test_a_signal_whose_handler_returns_does_not_end_a_wait(fork):
    lock, seen = fork.Lock(), []
    lock.acquire()

    def handle(*_):
        seen.append(len(seen))
        if len(seen) == 3:
            lock.release()

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        assert lock.acquire() is True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) >= 3


# -- without the core ------------------------------------------------------------------------------

PLAIN = """
import multiprocessing.synchronize as standard
import klyng_mp
from klyng_mp import synchronize
for method in ("fork", "spawn"):
    ctx = klyng_mp.get_context(method)
    for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore"):
        with getattr(ctx, name)() as held:
            assert held is True
    condition, event, barrier = ctx.Condition(), ctx.Event(), ctx.Barrier(1)
    with condition:
        assert condition.wait(0) is False
    event.set()
    assert event.wait() and barrier.wait() == 0
    assert synchronize.UnownedSemaphore(2, ctx=ctx).acquire()
    assert type(ctx.Lock()._semlock).__module__ == MODULE
print("done")
"""


@pytest.mark.parametrize(("wish", "module"), [("0", "_multiprocessing"), ("1", "klyng_mp._core")])
def test_without_the_core_they_are_the_standard_librarys(run_python, wish, module):
    if wish == "1" and native.core is None:
        pytest.skip("the core is not in use")
    done = run_python("-c", PLAIN.replace("MODULE", repr(module)), env={native.VARIABLE: wish})
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
