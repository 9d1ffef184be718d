"""sharedctypes and heap: values that processes share, in memory without a name, with locks of ours."""

from __future__ import annotations

import ctypes
import multiprocessing.heap
import multiprocessing.sharedctypes
import os
import pickle

import pytest

import klyng_mp as mp
from klyng_mp import heap, sharedctypes, synchronize

pytestmark = pytest.mark.usefixtures("own_heap")

METHODS = ["fork", "spawn", "forkserver"]
COUNT = 200


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_int)]


@pytest.fixture(params=METHODS)
def context(request):
    return mp.get_context(request.param)


def count(number, numbers, text, point, raw):
    for _ in range(COUNT):
        with number.get_lock():
            number.value += 1
        with numbers:
            numbers[0] += 2
    text.value = b"done"
    point.x, point.y = 1.5, 7
    raw[:] = [4, 5]


def test_shared_by_processes(context):
    number, numbers = context.Value("i", 1), context.Array("l", 3)
    text, point, raw = context.Array("c", 10), context.Value(Point), context.RawArray("h", 2)
    processes = [context.Process(target=count, args=(number, numbers, text, point, raw)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    assert (number.value, numbers[:], text.value) == (1 + 2 * COUNT, [4 * COUNT, 0, 0], b"done")
    assert (point.x, point.y, list(raw)) == (1.5, 7, [4, 5])


def test_by_a_plain_process(context):
    number = context.Value("d", 2.5, lock=False)
    text = context.Array("c", b"before")
    process = multiprocessing.get_context(context.get_start_method()).Process(target=change, args=(number, text))
    process.start()
    process.join()
    assert (process.exitcode, number.value, text.value) == (0, 5.0, b"after")
    process.close()


def change(number, text):
    number.value *= 2
    text.value = b"after"


def test_locks_and_classes_are_ours(context):
    value, array, text, point = (
        context.Value("i"),
        context.Array("i", 2),
        context.Array(ctypes.c_char, 2),
        context.Value(Point),
    )
    assert type(value) is sharedctypes.Synchronized
    assert type(array) is sharedctypes.SynchronizedArray
    assert type(text) is sharedctypes.SynchronizedString
    assert type(point).__name__ == "SynchronizedPoint"
    for each in (value, array, text, point):
        assert isinstance(each, multiprocessing.sharedctypes.SynchronizedBase)
        assert isinstance(each, sharedctypes.SynchronizedBase)
        assert type(each.get_lock()) is synchronize.RLock
    assert type(sharedctypes.synchronized(context.RawValue("i")).get_lock()) is synchronize.RLock
    lock = context.Lock()
    assert context.Value("i", lock=lock).get_lock() is lock


def test_without_a_lock():
    assert type(mp.Value("i", 4, lock=False)) is ctypes.c_int
    assert mp.RawValue(ctypes.c_double, 2.5).value == 2.5
    assert list(mp.RawArray("b", [1, 2])) == [1, 2]
    assert list(mp.Array("i", 2, lock=False)) == [0, 0]


def test_what_is_new_is_zero():
    for _ in range(3):
        used = mp.RawArray("i", 10)
        assert list(used) == [0] * 10
        used[:] = [7] * 10
        del used


def test_a_copy():
    point = sharedctypes.RawValue(Point, 0.5, 3)
    copied = sharedctypes.copy(point)
    point.x = 9
    assert (copied.x, copied.y) == (0.5, 3)


@pytest.mark.parametrize("package", [sharedctypes, multiprocessing.sharedctypes])
def test_misuse_is_refused_as_in_the_standard_library(package):
    with pytest.raises(AssertionError, match="already synchronized"):
        package.synchronized(package.synchronized(mp.RawValue("i")))
    with pytest.raises(AttributeError, match="'lock' has no method 'acquire'"):
        package.Value("i", lock="lock")
    with pytest.raises(RuntimeError, match="through inheritance"):
        pickle.dumps(package.Value("i"))
    with pytest.raises(TypeError):
        package.RawArray("i", None)


@pytest.mark.parametrize("size", [-1, 1 << 63])
def test_sizes_out_of_range(size):
    said = []
    for package in (heap, multiprocessing.heap):
        with pytest.raises((ValueError, OverflowError)) as caught:
            package.BufferWrapper(size)
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]


def descriptors():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:  # the one that listed them
            continue
    return [path for path in found if "klyng-heap" in path]


def test_the_memory_has_no_name_and_is_given_back():
    before = set(os.listdir("/dev/shm"))
    block = heap.BufferWrapper(8 << 20)
    view = block.create_memoryview()
    view[-1] = 1
    assert set(os.listdir("/dev/shm")) <= before
    assert descriptors()
    assert all(path == "/memfd:klyng-heap (deleted)" for path in descriptors())
    view.release()
    del block
    assert descriptors() == []


def test_the_standard_heap_stays_as_it_is():
    mp.RawValue("i")
    assert type(multiprocessing.heap.BufferWrapper._heap) is multiprocessing.heap.Heap
    assert all(type(arena) is multiprocessing.heap.Arena for arena in multiprocessing.heap.BufferWrapper._heap._arenas)
    assert multiprocessing.heap.BufferWrapper._heap is not heap.BufferWrapper._heap


def test_an_arena_that_travelled_closes_its_descriptor(monkeypatch):
    first = heap.Arena(4096)
    first.buffer[:5] = b"hello"
    monkeypatch.setattr(heap, "DupFd", Duplicate)
    rebuild, arguments = heap.reduce_arena(first)
    second = rebuild(*arguments)
    assert (type(second), second.size, second.buffer[:5]) == (heap.Arena, 4096, b"hello")
    assert len(descriptors()) == 4
    del first, second
    assert descriptors() == []


class Duplicate:
    """A descriptor that has travelled."""

    def __init__(self, fd):
        self.fd = fd

    def detach(self):
        return os.dup(self.fd)
