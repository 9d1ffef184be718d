"""Green ranks promise what every communicator does, but for what is about threads, or single ranks that are lost."""

from __future__ import annotations

from contracts.collectives import CollectivesContract
from contracts.communicator import CommunicatorContract
from contracts.probing import ProbingContract
from contracts.ranks import leave_out
from contracts.synchronous import SynchronousContract

_THREADS = "the threads of a green rank's process share one greenlet at a time, and cannot wait beside each other"
_LOST = "no green rank is lost alone: one that fails ends the run"
_AT_ONCE = "what is sent between green ranks of one process is there at once"
_COUNTS = "green ranks count no messages: what is left is looked for in the mailboxes"
_TREE = "up a tree, who only receives encodes nothing, and goes on when it calls"


class TestGreenCommunicator(CommunicatorContract):
    transport = "green"


class TestGreenProbing(ProbingContract):
    transport = "green"


class TestGreenSynchronous(SynchronousContract):
    transport = "green"


class TestGreenCollectives(CollectivesContract):
    transport = "green"


leave_out(
    TestGreenCommunicator, _THREADS, "test_abort_wakes_everybody_until_resume", "test_eight_threads_play_at_once",
    "test_a_closed_endpoint_refuses_everything_and_wakes_who_waits", "test_a_message_to_oneself_wakes_who_waits",
    "test_threads_share_what_comes", "test_a_thread_gives_up_while_others_wait", "test_threads_in_any_mix_of_calls",
)  # fmt: skip
leave_out(
    TestGreenCommunicator, _LOST, "test_what_was_sent_before_the_end_is_received_first",
    "test_who_waits_for_the_lost_is_woken", "test_a_large_send_to_the_lost_is_woken",
    "test_any_source_waits_while_anybody_is_left", "test_requests_to_the_lost_fail",
)  # fmt: skip
leave_out(
    TestGreenCommunicator, _AT_ONCE, "test_a_send_can_be_cancelled_until_it_began",
    "test_a_send_that_has_not_begun_in_time_is_withdrawn",
)  # fmt: skip
leave_out(TestGreenCommunicator, _COUNTS, "test_counts_balance")
leave_out(TestGreenCollectives, _COUNTS, "test_users_messages_and_collectives_do_not_meet")
leave_out(TestGreenCollectives, _LOST, "test_a_lost_rank_ends_the_call")
leave_out(
    TestGreenCollectives, _TREE, "test_what_cannot_travel_is_said_where_it_is_given",
    "test_a_request_that_is_waited_for_in_vain_goes_on",
)  # fmt: skip
leave_out(TestGreenProbing, _LOST, "test_who_waits_for_the_lost_is_woken")
leave_out(TestGreenSynchronous, _LOST, "test_who_waits_for_the_lost_is_woken")
leave_out(
    TestGreenSynchronous, _AT_ONCE, "test_a_message_of_which_nothing_has_left_is_withdrawn",
    "test_it_can_be_cancelled_until_it_began",
)  # fmt: skip
leave_out(TestGreenSynchronous, _COUNTS, "test_only_users_messages_are_counted")
leave_out(TestGreenSynchronous, _THREADS, "test_threads_hand_over_at_once")
