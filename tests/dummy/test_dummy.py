"""dummy: multiprocessing's interface with threads."""

from __future__ import annotations

import multiprocessing.dummy
import queue
import threading

import klyng_mp.dummy as mp
from klyng_mp.dummy import connection
from klyng_mp.pool import ThreadPool


def test_processes_are_threads():
    process = mp.Process(target=threading.get_ident)
    assert isinstance(process, threading.Thread)
    assert process.exitcode is None
    process.start()
    process.join()
    assert process.exitcode == 0
    assert mp.active_children() == []
    assert mp.current_process is multiprocessing.dummy.current_process


def test_a_pool_of_threads_of_ours():
    with mp.Pool(2, initializer=abs, initargs=(1,)) as pool:
        assert type(pool) is ThreadPool
        assert pool.map(lambda x: x + 1, range(3)) == [1, 2, 3]
        pool.close()
        pool.join()


def test_a_manager_is_the_module():
    manager = mp.Manager()
    assert manager is mp
    assert manager.list([1]) == [1]
    assert manager.dict(a=1) == {"a": 1}
    assert manager.Value("i", 3).value == 3
    assert manager.Array("i", [1, 2])[1] == 2
    assert repr(manager.Namespace(a=1)) == "Namespace(a=1)"
    assert manager.Queue is manager.JoinableQueue is queue.Queue
    assert manager.shutdown() is None


def test_a_pipe_and_a_listener():
    here, there = mp.Pipe()
    here.send("ping")
    assert there.recv() == "ping"
    assert not here.poll()
    with connection.Listener() as listener:
        client = connection.Client(listener.address)
        client.send("hello")
        assert listener.accept().recv() == "hello"


def test_everything_of_the_standard_one():
    assert set(multiprocessing.dummy.__all__) <= set(mp.__all__)
    assert set(multiprocessing.dummy.connection.__all__) <= set(connection.__all__)
