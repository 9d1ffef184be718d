"""world_process: process objects that travel without their World."""

from __future__ import annotations

import abc
import copyreg
import pickle

import pytest

import klyng_mp as mp
from klyng_mp.process import BaseProcess, rebuild, take_apart
from klyng_mp.world_process import WorldProcess, bind


class Nobody:
    """A World that starts nothing."""

    def start_process(self, process_obj, popen):
        raise AssertionError


@pytest.fixture
def bound():
    return bind(Nobody())


def test_a_class_is_found_by_its_name_while_there_is_its_world(bound):
    assert issubclass(bound, WorldProcess)
    assert pickle.loads(pickle.dumps(bound)) is bound
    assert bound.__name__ == "Process"


def test_elsewhere_its_place_is_taken_by_its_base(bound):
    packed = pickle.dumps(bound, 4)
    name = bound.__qualname__
    other = "of_world_" + "0" * (len(name) - len("of_world_"))  # of no World here
    assert pickle.loads(packed.replace(name.encode(), other.encode())) is WorldProcess


def test_there_is_nothing_else_by_magic():
    from klyng_mp import world_process

    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = world_process.other


def test_a_process_object_is_what_it_was(bound):
    made = bound(target=len, args=([],), name="one", daemon=True)
    function, arguments = take_apart(made)
    again = function(*arguments)
    assert (again.name, again.daemon, again._target, again._args) == ("one", True, len, ([],))
    assert type(again) is bound


class Stateful(WorldProcess):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def __getstate__(self):
        return {"value": self.value}

    def __setstate__(self, state):
        self.value = state["value"] + 1


class Reduced(WorldProcess):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def __reduce__(self):
        return Reduced, (self.value * 2,)


@pytest.mark.parametrize(("kind", "value"), [(Stateful, 4), (Reduced, 6)])
def test_it_is_asked_how_it_is_pickled(kind, value):
    function, arguments = take_apart(kind(3))
    assert function(*arguments).value == value


def test_an_object_without_state_can_be_rebuilt():
    assert isinstance(rebuild(copyreg.__newobj__, (WorldProcess,), None, None), WorldProcess)


def test_its_class_can_be_mixed_with_abstract_ones(bound):
    class Mixed(bound, abc.ABC):
        """Neither has a metaclass of its own that the other's is not."""

    assert isinstance(Mixed(), BaseProcess)


def test_without_its_world_it_starts_nothing():
    process = WorldProcess(target=len, name="orphan")
    with pytest.raises(mp.ForkedError, match="orphan cannot be started here: its World belongs to the process"):
        process.start()
