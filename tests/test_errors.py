"""errors: every error keeps its data and sentence through pickling, and keeps the promises of the tree."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import signal

import pytest

from klyng_mp import errors

# One row an error: how it is made, its sentence, its data.
NOTHING_SHARED = "nothing is shared here: only workers of a Pool(..., shared={...}) have it"
TABLE = [
    (errors.KlyngError("went wrong"), "went wrong", {}),
    (errors.LocalProtocolError("tag -1 is negative"), "tag -1 is negative", {}),
    (errors.RemoteProtocolError("no frame begins like that"), "no frame begins like that", {}),
    (errors.CodecError("a lock cannot travel", path="job._lock"), "a lock cannot travel", {"path": "job._lock"}),
    (errors.CodecError("a lock cannot travel"), "a lock cannot travel", {"path": ""}),
    (errors.CodecTypeError("a lock cannot travel", path="a[0]"), "a lock cannot travel", {"path": "a[0]"}),
    (errors.CodecAttributeError("f cannot travel", path="f"), "f cannot travel", {"path": "f"}),
    (errors.TransportError("stuck"), "stuck", {}),
    (errors.ClosedError("the World is closed: make a new one"), "the World is closed: make a new one", {}),
    (
        errors.PeerLostError(2, "was killed by SIGKILL", doing="recv(source=2)"),
        "rank 2 was killed by SIGKILL; this rank was in recv(source=2)",
        {"rank": 2, "reason": "was killed by SIGKILL"},
    ),
    (errors.PeerLostError(None, "has ended"), "every other rank has ended", {"rank": None, "reason": "has ended"}),
    (errors.ForkedError("not in a forked child"), "not in a forked child", {}),
    (
        errors.MessageTooLargeError(70000, 65536, "tag"),
        "a tag of 70000 bytes is over the limit of 65536: send it in parts",
        {"size_bytes": 70000, "limit_bytes": 65536},
    ),
    (
        errors.BrokenLockError("the Lock made at app.py:12", 41),
        "the Lock made at app.py:12 is broken: process 41 died while holding it; "
        "what it guards may be half-written: make both anew",
        {"lock": "the Lock made at app.py:12", "pid": 41, "ended": False},
    ),
    (
        errors.BrokenLockError("the RLock made at app.py:2", 41, True),
        "the RLock made at app.py:2 is broken: process 41 ended without releasing it, and this wait would have no end; "
        "release it before a process ends",
        {"ended": True},
    ),
    (errors.MachinesError("no such host: lab2"), "no such host: lab2", {}),
    (errors.BeaconError("nobody answers", "lab2"), "nobody answers", {"host": "lab2"}),
    (errors.AuthenticationError("wrong password", "lab2"), "wrong password", {"host": "lab2"}),
    (errors.BundleError("numpy is missing", "lab2"), "numpy is missing", {"host": "lab2"}),
    (errors.BeaconBusyError("8 ranks at most", "lab2"), "8 ranks at most", {"host": "lab2"}),
    (
        errors.HostLostError("lab2", [4, 5], "it was switched off"),
        "the host lab2, with ranks 4 to 5, is lost: it was switched off",
        {"host": "lab2", "ranks": [4, 5], "reason": "it was switched off"},
    ),
    (errors.HostLostError("lab2", [4], "gone"), "the host lab2, with rank 4, is lost: gone", {"ranks": [4]}),
    (
        errors.NotAcrossHostsError("a Pool"),
        "a Pool cannot be had across hosts: run functions there (World.run), or leave hosts= out",
        {"what": "a Pool"},
    ),
    (errors.DeadlineError("recv", 2.5), "recv did not finish within 2.5 s", {"seconds": 2.5}),
    (
        errors.DeadlineError("send", 1, left="nothing was sent"),
        "send did not finish within 1 s; nothing was sent",
        {"seconds": 1},
    ),
    (errors.WorldError("no good end"), "no good end", {}),
    (
        errors.RankFailedError(3, "box", "ValueError: x", "Traceback…\nValueError: x\n"),
        "rank 3 on box failed: ValueError: x\n\nTraceback…\nValueError: x",
        {"rank": 3, "host": "box", "traceback": "Traceback…\nValueError: x\n"},
    ),
    (errors.RankFailedError(0, "box", "KeyError: 1"), "rank 0 on box failed: KeyError: 1", {"traceback": ""}),
    (
        errors.RankDiedError(1, "box", -signal.SIGKILL),
        "rank 1 on box died: it was killed by SIGKILL (the kernel does that when memory runs out)",
        {"rank": 1, "host": "box", "exitcode": -9, "stderr": ""},
    ),
    (
        errors.RankDiedError(1, "box", 3, "bye\n"),
        "rank 1 on box died: it exited with code 3; its last words:\nbye",
        {"exitcode": 3, "stderr": "bye\n"},
    ),
    (
        errors.CollectiveMismatchError(1, ("bcast(root=0) at a.py:3", "gather(root=0) at a.py:5")),
        "this rank called bcast(root=0) at a.py:3, but rank 1 called gather(root=0) at a.py:5: all ranks must agree",
        {"rank": 1, "calls": ("bcast(root=0) at a.py:3", "gather(root=0) at a.py:5")},
    ),
    (errors.DeadlockError("all wait", (0, 1)), "all wait", {"report": "all wait", "cycle": (0, 1)}),
    (errors.RunCancelledError("cancelled"), "cancelled", {}),
    (errors.NothingSharedError(), NOTHING_SHARED, {}),
    (
        errors.WorkerDiedError("task 3 of f", 1234, -9, 3, where="rank 2 on lab", reason="lab is lost"),
        "the worker with pid 1234 (rank 2 on lab) died at task 3 of f: lab is lost",
        {"index": 3, "where": "rank 2 on lab", "reason": "lab is lost"},
    ),
    (
        errors.WorkerDiedError("task 3 of f (with 5)", 1234, -9, 3),
        "the worker with pid 1234 died at task 3 of f (with 5): it was killed by SIGKILL "
        "(the kernel does that when memory runs out)",
        {"task": "task 3 of f (with 5)", "pid": 1234, "exitcode": -9, "index": 3},
    ),
    (errors.LaunchError("no more processes"), "no more processes", {}),
    (errors.WorldBusyError("a run is going on"), "a run is going on", {}),
    (errors.NoRankError("this process has no rank"), "this process has no rank", {}),
]
IDS = [f"{type(error).__name__}: {text[:30]}" for error, text, _ in TABLE]


@pytest.mark.parametrize(("error", "text", "data"), TABLE, ids=IDS)
def test_each_makes_its_own_sentence_and_holds_its_data(error, text, data):
    assert str(error) == text
    assert {name: getattr(error, name) for name in data} == data


@pytest.mark.parametrize("way", [*range(pickle.HIGHEST_PROTOCOL + 1), "copy"])
@pytest.mark.parametrize(("error", "text", "data"), TABLE, ids=IDS)
def test_each_survives_pickling(error, text, data, way):
    again = copy.copy(error) if way == "copy" else pickle.loads(pickle.dumps(error, way))
    assert type(again) is type(error)
    assert str(again) == text
    assert again.args == error.args
    assert vars(again) == vars(error)


@pytest.mark.parametrize(("error", "text", "data"), TABLE, ids=IDS)
def test_what_is_added_to_an_error_travels_too(error, text, data):
    error = copy.copy(error)
    error.add_note("seen in the second step")
    error.more = [1, 2]
    again = pickle.loads(pickle.dumps(error))
    assert again.more == [1, 2]
    assert again.__notes__ == ["seen in the second step"]


def test_a_subclass_of_a_users_survives_pickling():
    again = pickle.loads(pickle.dumps(Users(7, "extra")))
    assert (type(again), str(again), again.extra) == (Users, "7 with extra", "extra")


class Users(errors.WorldError):
    def __init__(self, number, extra):
        super().__init__(f"{number} with {extra}")
        self.extra = extra


def test_every_error_is_in_the_table():
    made = {type(error) for error, _, _ in TABLE}
    named = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert named - made == {errors.ProtocolError, errors.MachinesWarning, errors.UnreceivedMessagesWarning}


@pytest.mark.parametrize(
    ("error", "parents"),
    [
        ("CodecError", [pickle.PicklingError, pickle.UnpicklingError, errors.KlyngError]),
        ("CodecTypeError", [TypeError, errors.CodecError]),
        ("CodecAttributeError", [AttributeError, errors.CodecError]),
        ("PeerLostError", [EOFError, BrokenPipeError, ConnectionError, OSError, errors.TransportError]),
        ("BrokenLockError", [OSError, errors.KlyngError]),
        ("DeadlineError", [TimeoutError, multiprocessing.TimeoutError, errors.KlyngError]),
        ("LocalProtocolError", [errors.ProtocolError]),
        ("RemoteProtocolError", [errors.ProtocolError]),
        ("ClosedError", [errors.TransportError]),
        ("ForkedError", [errors.TransportError]),
        ("MessageTooLargeError", [errors.TransportError]),
        ("RankFailedError", [errors.WorldError]),
        ("RankDiedError", [errors.WorldError]),
        ("RunCancelledError", [errors.WorldError]),
        ("LaunchError", [errors.WorldError]),
        ("WorldBusyError", [errors.WorldError]),
        ("NoRankError", [errors.WorldError]),
        ("NothingSharedError", [LookupError, errors.KlyngError]),
        ("WorkerDiedError", [errors.WorldError]),
        ("HostLostError", [errors.WorldError]),
        ("NotAcrossHostsError", [errors.WorldError]),
        ("MachinesError", [ValueError, errors.KlyngError]),
        ("BeaconError", [errors.KlyngError]),
        ("AuthenticationError", [multiprocessing.AuthenticationError, errors.BeaconError]),
        ("BundleError", [errors.BeaconError]),
        ("BeaconBusyError", [errors.BeaconError]),
        ("MachinesWarning", [RuntimeWarning]),
        ("UnreceivedMessagesWarning", [RuntimeWarning]),
    ],
)
def test_existing_except_clauses_catch(error, parents):
    assert [parent for parent in parents if not issubclass(getattr(errors, error), parent)] == []


def test_every_error_is_a_klyng_error():
    for name in errors.__all__:
        if not name.endswith("Warning"):
            assert issubclass(getattr(errors, name), errors.KlyngError), name


def test_the_abstract_one_cannot_be_raised():
    with pytest.raises(TypeError, match="abstract"):
        errors.ProtocolError("which side?")


def test_every_error_is_explained_and_drawn_in_the_tree():
    for name in errors.__all__:
        docstring = getattr(errors, name).__doc__
        assert docstring, name
        assert docstring.split("\n\n")[0].rstrip().endswith((".", ".\n")), name
        if not name.endswith("Warning"):
            assert name in errors.__doc__, name


@pytest.mark.parametrize(
    ("exitcode", "phrase"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-signal.SIGKILL, "was killed by SIGKILL (the kernel does that when memory runs out)"),
        (-250, "was killed by signal 250"),
    ],
)
def test_an_exit_code_in_words(exitcode, phrase):
    assert errors.describe_exitcode(exitcode) == phrase
