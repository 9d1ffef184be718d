"""launch.balance: what was sent against what was taken."""

from __future__ import annotations

from klyng_mp.launch.balance import count_unreceived, describe_unreceived


def test_what_was_taken_is_not_left():
    reports = {0: ({1: 3, 0: 1}, 1), 1: ({0: 2}, 3), 2: ({}, 0)}
    assert count_unreceived(reports) == {0: 2}


def test_nothing_is_left_where_all_was_taken():
    assert count_unreceived({0: ({1: 5}, 0), 1: ({}, 5)}) == {}
    assert count_unreceived({0: ({}, 0)}) == {}


def test_the_report_is_one_sentence():
    assert describe_unreceived(2, 3, (0, 7)) == "rank 2 ended with 3 unreceived messages, first: source 0, tag 7"
    assert describe_unreceived(0, 1, (1, "a")) == "rank 0 ended with 1 unreceived message, first: source 1, tag 'a'"
    assert describe_unreceived(0, 1, None) == "rank 0 ended with 1 unreceived message"
