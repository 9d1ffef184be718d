"""Tokens, items and namespaces of one process; a second Registry plays another."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
import types

import pytest

from klyng_mp.wire import namespace
from klyng_mp.wire.namespace import Definition, Namespaces, Process, Registry, install_main, lookup


def make_holder(name):
    return type(name, (), {})


def fill_holder(cls, state):
    if state == "fails":
        raise ValueError("cannot be filled")
    cls.state = state


def fail(*_):
    raise ValueError("cannot be made")


@pytest.fixture
def namespaces():
    return Namespaces(Process())


@pytest.fixture
def registry(namespaces):
    return Registry(Process(), namespaces)


@pytest.fixture
def here(registry, namespaces, monkeypatch):
    """Make the registry the one that references in pickles find."""
    monkeypatch.setattr(namespace, "REGISTRY", registry)
    monkeypatch.setattr(namespace, "NAMESPACES", namespaces)
    return registry


class Reference:
    """Is pickled as a token."""

    def __init__(self, token):
        self.token = token

    def __reduce__(self):
        return namespace.resolve, (self.token, "name")


def definition(token, *, state="state", local=False, volatile=False, where=0, maker=make_holder):
    return tuple(
        Definition(
            token,
            "Thing",
            where,
            local,
            volatile,
            pickle.dumps((maker, ("Thing",))),
            pickle.dumps((fill_holder, state)),
        )
    )


def build(registry, *definitions, run=True, sender=0):
    built, volatile = registry.build(definitions, sender=sender, run=run)
    registry.refill(volatile)
    return [built[fields[0]] for fields in definitions]


FOREIGN = 7 << 32 | 1


def test_an_item_has_one_token(registry):
    one, other = make_holder("One"), make_holder("Other")
    item = registry.register(one, "One", local=False)
    assert registry.register(one, "One", local=False) is item
    assert registry.find(one) is item
    assert registry.find(other) is None
    assert registry.register(other, "Other", local=False).token != item.token
    assert registry.resolve(item.token, "One") is one


def test_two_processes_never_use_the_same_token():
    owners = {Process().owner for _ in range(100)}
    assert len(owners) == 100


def test_a_local_thing_is_not_kept_alive(registry):
    cls = make_holder("Local")
    token = registry.register(cls, "Local", local=True).token
    del cls
    gc.collect()
    with pytest.raises(LookupError, match="'Local'"):
        registry.resolve(token, "Local")
    assert registry._by_token == {}
    assert registry._by_id == {}


def test_a_thing_without_weak_references_is_kept(registry):
    thing = object()
    item = registry.register(thing, "thing", local=True)
    assert registry.resolve(item.token, "thing") is thing


def test_an_unknown_token_says_so(registry):
    with pytest.raises(LookupError, match="'Thing' of another process"):
        registry.resolve(FOREIGN, "Thing")


def test_what_comes_home_is_the_original(here):
    original = make_holder("Thing")
    item = here.register(original, "Thing", local=False)
    assert build(here, definition(item.token)) == [original]
    assert not hasattr(original, "state")


def test_the_same_definition_builds_once(here):
    (first,) = build(here, definition(FOREIGN))
    (second,) = build(here, definition(FOREIGN))
    assert first is second
    assert first.state == "state"
    assert here.find(first).token == FOREIGN


def test_a_changed_definition_changes_the_object(here):
    (first,) = build(here, definition(FOREIGN))
    (second,) = build(here, definition(FOREIGN, state="changed"))
    assert first is second
    assert first.state == "changed"


@pytest.mark.parametrize(("sender", "state"), [(7, "changed"), (8, "state")], ids=["owner", "another"])
def test_outside_a_run_only_the_owner_changes_a_thing(here, sender, state):
    (cls,) = build(here, definition(FOREIGN))
    build(here, definition(FOREIGN, state="changed"), run=False, sender=sender)
    assert cls.state == state


def test_things_may_refer_to_each_other(here):
    one, other = FOREIGN, FOREIGN + 1
    first, second = build(
        here, definition(one, state={"other": Reference(other)}), definition(other, state={"other": Reference(one)})
    )
    assert first.state["other"] is second
    assert second.state["other"] is first


def test_what_fails_is_built_the_next_time(here):
    good = FOREIGN + 1
    with pytest.raises(ValueError, match="cannot be made"):
        build(here, definition(good), definition(FOREIGN, maker=fail))
    with pytest.raises(LookupError):
        here.resolve(good, "Thing")
    assert build(here, definition(FOREIGN), definition(good))[0].state == "state"


def test_a_change_that_fails_is_made_the_next_time(here):
    (cls,) = build(here, definition(FOREIGN))
    _, late = here.build([definition(FOREIGN, state="fails")], sender=0, run=True)
    with pytest.raises(ValueError, match="cannot be filled"):
        here.refill(late)
    here.take_back(late)
    assert build(here, definition(FOREIGN, state="changed")) == [cls]
    assert cls.state == "changed"


def test_a_local_thing_that_was_received_goes_when_it_is_not_used(here):
    build(here, definition(FOREIGN, local=True))
    gc.collect()
    assert here._by_token == {}
    (again,) = build(here, definition(FOREIGN, local=True))
    gc.collect()
    assert here.resolve(FOREIGN, "Thing") is again


def test_shared_data_are_filled_in_again(here, namespaces):
    class Shared(pickle.Pickler):
        def persistent_id(self, obj):
            return (FOREIGN, "data") if obj == "the data" else None

    import io

    file = io.BytesIO()
    Shared(file).dump((fill_holder, ["the data"]))
    fields = Definition(FOREIGN + 1, "Thing", 0, False, True, pickle.dumps((make_holder, ("Thing",))), file.getvalue())
    built, volatile = here.build([tuple(fields)], sender=0, run=True)
    namespaces.bind(FOREIGN, {"data": [1]}, replace=True)
    here.refill(volatile)
    assert built[FOREIGN + 1].state[0] is namespaces.module(FOREIGN).data


def test_an_item_is_bound_to_its_name(here, namespaces):
    (cls,) = build(here, definition(FOREIGN + 1, where=FOREIGN))
    assert namespaces.module(FOREIGN).Thing is cls


def test_many_threads_build_one_object(here):
    barrier = threading.Barrier(8)
    built = []

    def work():
        barrier.wait()
        built.extend(build(here, definition(FOREIGN, state={"self": Reference(FOREIGN)})))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 8
    assert len(set(built)) == 1
    assert built[0].state == {"self": built[0]}


# Namespaces


def test_a_namespace_is_one_module(namespaces):
    module = namespaces.module(FOREIGN)
    assert module is namespaces.module(FOREIGN)
    assert namespaces.id_of(vars(module)) == FOREIGN
    assert eval("len([])", vars(module)) == 0


def test_main_is_a_namespace_and_other_modules_are_none(namespaces):
    assert namespaces.id_of(vars(sys.modules["__main__"])) == namespaces.main_id()
    assert namespaces.id_of(vars(sys)) is None
    assert (namespaces.main_id(), vars(sys.modules["__main__"])) in namespaces.all()


def test_binding_replaces_or_does_not(namespaces):
    namespaces.bind(FOREIGN, {"a": 1}, replace=True)
    namespaces.bind(FOREIGN, {"a": 2, "b": 2}, replace=False)
    module = namespaces.module(FOREIGN)
    assert (module.a, module.b) == (1, 2)
    namespaces.bind(FOREIGN, {"a": 3}, replace=True)
    assert module.a == 3
    namespaces.unbind(FOREIGN, ["a", "never"])
    assert not hasattr(module, "a")


def test_nobody_replaces_our_own_globals(namespaces, monkeypatch):
    main = types.ModuleType("__main__")
    main.a = 1
    monkeypatch.setitem(sys.modules, "__main__", main)
    number = namespaces.main_id()
    namespaces.bind(number, {"a": 2, "b": 2}, replace=True)
    namespaces.unbind(number, ["a"])
    assert (main.a, main.b) == (1, 2)
    namespaces.bind(0, {"a": 3}, replace=True)
    assert main.a == 1


def test_install_main(monkeypatch):
    former = sys.modules["__main__"]
    monkeypatch.setitem(sys.modules, "__main__", former)
    module = types.ModuleType("__main__")
    assert install_main(module) is former
    assert sys.modules["__main__"] is module


@pytest.mark.parametrize(
    ("dotted", "found"), [("a", 1), ("C.b", 2), ("C.D.c", 3), ("missing", None), ("C.missing.c", None), ("a.b", None)]
)
def test_lookup(dotted, found):
    class C:
        b = 2

        class D:
            c = 3

    assert lookup({"a": 1, "C": C}, dotted) == found


def test_a_forked_child_has_tokens_of_its_own(run_python):
    program = """
import os
from klyng_mp.wire.namespace import PROCESS, REGISTRY
class Before: pass
class After: pass
before = REGISTRY.register(Before, "Before", local=False).token
reader, writer = os.pipe()
child = os.fork()
after = REGISTRY.register(After, "After", local=False).token
if child == 0:
    os.write(writer, f"{REGISTRY.find(Before).token} {after} {PROCESS.owner}".encode())
    os._exit(0)
os.waitpid(child, 0)
same, other, owner = map(int, os.read(reader, 1000).split())
assert same == before and REGISTRY.resolve(same, "") is Before
assert other != after and owner != PROCESS.owner
"""
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr
