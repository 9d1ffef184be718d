"""Over MPI everything keeps its contract; run by test_suites.py in a process of its own, as MPI never leaves one."""

from __future__ import annotations

from cluster.mpijoin import close_inboxes, make_transport, open_inboxes
from contracts import ranks
from contracts.awaiting import AwaitingContract
from contracts.collectives import CollectivesContract
from contracts.communicator import CommunicatorContract
from contracts.probing import ProbingContract
from contracts.ranks import leave_out
from contracts.synchronous import SynchronousContract
from contracts.transport import TransportContract

_AT_ONCE = "the front of a message is with MPI at once, whatever is before it"
_KEPT = "a large message stays where it is until its receiver comes to it"
_ASLEEP = "MPI wakes nobody: who sleeps looks every millisecond"
_UNBUFFERED = "what a process sends to itself MPI keeps where it is"


def by_mpi(endpoints):
    inboxes = open_inboxes([endpoint.number for endpoint in endpoints])
    for endpoint in endpoints:
        endpoint.use(make_transport(endpoint, endpoint.poller, inboxes))
    return lambda: close_inboxes(inboxes)


ranks.JOINS["mpi"] = by_mpi


class TestTransport(TransportContract):
    def join(self, one, other):
        inboxes = open_inboxes([one.number, other.number])
        for side in (one, other):
            side.transport = make_transport(side, side.poller, inboxes)


class TestCommunicator(CommunicatorContract):
    transport = "mpi"


class TestCollectives(CollectivesContract):
    transport = "mpi"


class TestProbing(ProbingContract):
    transport = "mpi"


class TestSynchronous(SynchronousContract):
    transport = "mpi"


class TestAwaiting(AwaitingContract):
    transport = "mpi"


leave_out(TestTransport, _UNBUFFERED, "test_small_messages_are_with_the_kernel_at_once")
leave_out(
    TestTransport, _AT_ONCE, "test_what_has_not_begun_can_be_withdrawn", "test_traffic_counts_what_has_left_for_whom"
)
leave_out(
    TestCommunicator, _KEPT, "test_an_array_of_another_shape_is_received_in_its_order",
    "test_recv_into_gives_up_and_takes_nothing", "test_an_array_that_is_given_away_arrives",
    "test_what_is_not_ones_own_to_give_is_copied",
)  # fmt: skip
leave_out(
    TestCommunicator, _AT_ONCE, "test_a_send_can_be_cancelled_until_it_began",
    "test_a_send_that_has_not_begun_in_time_is_withdrawn",
)  # fmt: skip
leave_out(
    TestSynchronous, _AT_ONCE, "test_a_message_of_which_nothing_has_left_is_withdrawn",
    "test_it_can_be_cancelled_until_it_began",
)  # fmt: skip
leave_out(TestAwaiting, _ASLEEP, "test_a_sleeping_loop_is_woken_at_once")
