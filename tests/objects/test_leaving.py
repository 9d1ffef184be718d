"""leaving: what means nothing on another machine is refused while it is pickled for one, and only then."""

from __future__ import annotations

import os
import pickle
from multiprocessing.context import get_spawning_popen, set_spawning_popen

import pytest

import klyng_mp as mp
from klyng_mp import native, shared_memory
from klyng_mp.errors import NotAcrossHostsError
from klyng_mp.objects.leaving import LEAVING
from klyng_mp.objects.passing import begin_passing, end_passing
from klyng_mp.reduction import ForkingPickler


@pytest.fixture
def block():
    made = shared_memory.SharedMemory(create=True, size=16)
    yield made
    made.close()
    made.unlink()


def test_shared_memory_says_that_it_cannot_leave(block):
    values = shared_memory.ShareableList([1, "two"])
    try:
        for one, remedy in ((block, "send what is in it"), (values, "send its values")):
            with LEAVING, pytest.raises(NotAcrossHostsError, match=remedy):
                ForkingPickler.dumps([one])
            pickle.loads(ForkingPickler.dumps(one))  # on this machine it can
    finally:
        values.shm.close()
        values.shm.unlink()


def test_shared_memory_is_not_looked_for_on_another_machine(block, monkeypatch):
    data = pickle.dumps(block)
    found = pickle.loads(data)
    found.buf[0] = 7
    assert block.buf[0] == 7
    found.close()
    monkeypatch.setattr(shared_memory, "_memory", lambda: "another machine")
    with pytest.raises(NotAcrossHostsError, match=rf"{block.name} of another machine .* send what is in it"):
        pickle.loads(data)


def test_what_has_descriptors_is_refused():
    queue, (reader, writer) = mp.get_context("spawn").SimpleQueue(), mp.Pipe(duplex=False)
    with reader, writer:
        for one in (reader, queue):
            with LEAVING, pytest.raises(NotAcrossHostsError, match=r"of this machine .* use what the World itself"):
                ForkingPickler.dumps(one)
    queue.close()


@pytest.mark.skipif(native.core is None, reason="without the core, locks are the standard library's")
def test_locks_say_what_to_use_instead():
    lock = mp.get_context("spawn").Lock()
    with LEAVING, pytest.raises(NotAcrossHostsError):
        ForkingPickler.dumps(lock)
    with pytest.raises(RuntimeError):
        ForkingPickler.dumps(lock)  # as ever where nothing leaves


def test_a_tasks_arguments_and_a_runs_leave_too(block):
    from klyng_mp.pooling.encoding import Encoder

    with pytest.raises(NotAcrossHostsError):
        Encoder(forks=False, leaves=True).encode(block)
    assert Encoder(forks=False).encode(block)
    assert os.path.exists(f"/dev/shm/{block.name}")


def test_it_may_be_entered_within():
    popen = object()
    set_spawning_popen(popen)
    try:
        with LEAVING:
            with pytest.raises(KeyError), LEAVING:
                raise KeyError
            assert get_spawning_popen() is LEAVING
        assert get_spawning_popen() is popen
    finally:
        set_spawning_popen(None)
    assert begin_passing()  # nobody notes the ends of pipes any more
    end_passing(sent=True)
