"""What collective calls are called, and where they were made."""

from __future__ import annotations

import inspect
from _thread import start_new_thread

import pytest
from contracts.ranks import LIMIT, ranks

from klyng_mp.communicator.calls import CallLog, describe_tag, make_tag, number_of

KINDS = [
    "barrier", "bcast", "scatter", "gather", "allgather", "alltoall", "reduce", "allreduce", "reduce_scatter", "scan",
    "exscan", "split", "dup", "create", "create_cart",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [0, 1, 2**40])
def test_a_tag_tells_what_was_called(kind, number):
    assert number_of(make_tag(number, kind)) == number
    assert describe_tag(make_tag(number, kind)) == f"{kind}()"
    for root in (0, 1, 63, 1000):
        assert number_of(make_tag(number, kind, root)) == number
        assert describe_tag(make_tag(number, kind, root)) == f"{kind}(root={root})"


def test_tags_of_different_calls_differ():
    tags = {make_tag(number, kind, root) for number in range(3) for kind in KINDS for root in range(-1, 5)}
    assert len(tags) == 3 * len(KINDS) * 6
    assert all(0 <= tag < 2**63 for tag in tags)


def line():
    return inspect.currentframe().f_back.f_lineno


def test_a_log_knows_the_lines_of_the_last_calls():
    with ranks(1) as made:
        comm = made.comms[0]
        lines = []
        for _ in range(20):
            lines.append(line() + 1)
            comm.bcast(1)
        comm.allreduce(
            1,
        )
        lines.append(line() - 3)
        (log,) = made.endpoints[0].call_logs.values()
        assert log.find(19) == f"bcast(root=0) at {__file__}:{lines[19]}"
        assert log.find(20) == f"allreduce() at {__file__}:{lines[20]}"
        assert log.find(0) is None  # long ago
        assert log.find(21) is None  # not yet


@pytest.mark.parametrize(
    "call",
    [
        lambda comm: comm.barrier(),
        lambda comm: comm.ibarrier().wait(),
        lambda comm: comm.bcast_into(bytearray(1)),
        lambda comm: comm.allreduce_into(bytearray(1), bytearray(1), max),
        lambda comm: comm.split(0),
        lambda comm: comm.dup(),
        lambda comm: comm.create(comm.group),
        lambda comm: comm.create_cart([1]),
        lambda comm: comm.create_cart([1]).sub([True]),
    ],
)
def test_however_deep_in_the_library_the_line_is_the_users(call):
    with ranks(1) as made:
        comm = made.comms[0]
        call(comm)
        assert f"{__file__}:{call.__code__.co_firstlineno}" in comm.call_log.find(0)


def test_an_empty_log_knows_nothing():
    assert CallLog().find(0) is None


def test_a_call_that_a_thread_begins_with_is_noted():
    with ranks(2, "memory") as made:
        one, other = made.comms
        start_new_thread(one.barrier, ())
        other.barrier(timeout=LIMIT)
        assert one.call_log.made == 1
