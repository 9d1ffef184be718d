"""admission: who is served before anybody is known; attacks are simulated, with a clock of their own."""

from __future__ import annotations

import heapq
import itertools
import random
import tracemalloc

import pytest

from klyng_mp.remote.admission import Admission, AdmissionLimits, source_of

GUESS_CPU_SECONDS = 0.02  # of one guess, as the budget for it has it
CPUS = 2
BORNE = AdmissionLimits(  # everything: what the beacon would be without a doorkeeper
    unauthenticated=10**9,
    of_one=10**9,
    of_one_when_crowded=10**9,
    crowded=10**9,
    free_failures=1e9,
    free_failures_under_attack=1e9,
    strangers_per_second=1e9,
    strangers_at_once=1e9,
)


def fail(admission, address, now, times=1):
    """Let an address guess, as soon as it may."""
    for _ in range(times):
        decision = admission.arrived(address, now)
        while decision.ticket is None:
            now += decision.wait_seconds
            decision = admission.arrived(address, now)
        admission.failed(decision.ticket, now)
    return now


# -- one address -----------------------------------------------------------------------------------


def test_who_mistypes_a_password_need_not_wait():
    admission = Admission(AdmissionLimits(), 0.0)
    for second in range(3):
        admission.failed(admission.arrived("10.0.0.1", second).ticket, second)
    assert admission.arrived("10.0.0.1", 3.0).ticket is not None


def test_each_failure_more_doubles_the_wait_up_to_a_bound():
    decisions = []
    admission = Admission(AdmissionLimits(fade_seconds=1e9, longest_wait_seconds=60.0), 0.0)
    now = fail(admission, "10.0.0.1", 0.0, times=3)
    for _ in range(9):
        now = fail(admission, "10.0.0.1", now)
        decisions.append(admission.arrived("10.0.0.1", now))
    assert [round(decision.wait_seconds) for decision in decisions] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert {decision.ticket for decision in decisions} == {None}
    assert decisions[0].reason == "10.0.0.1 has failed too often: waits 1 s more"


def test_others_do_not_wait():
    admission = Admission(AdmissionLimits(), 0.0)
    now = fail(admission, "10.0.0.1", 0.0, times=8)
    assert admission.arrived("10.0.0.1", now).ticket is None
    assert admission.arrived("10.0.0.2", now).ticket is not None


def test_failures_fade():
    admission = Admission(AdmissionLimits(), 0.0)
    now = fail(admission, "10.0.0.1", 0.0, times=8)
    later = now + 3 * 3600
    for _ in range(3):
        admission.failed(admission.arrived("10.0.0.1", later).ticket, later)
    assert admission.arrived("10.0.0.1", later).ticket is not None


def test_a_login_makes_up_for_failures():
    admission = Admission(AdmissionLimits(), 0.0)
    now = fail(admission, "10.0.0.1", 0.0, times=6) + 60.0
    admission.authenticated(admission.arrived("10.0.0.1", now).ticket, now)
    for _ in range(3):
        admission.failed(admission.arrived("10.0.0.1", now).ticket, now)
    assert admission.arrived("10.0.0.1", now).ticket is not None


def test_looking_whether_the_port_is_open_is_hardly_a_failure():
    admission = Admission(AdmissionLimits(), 0.0)
    for _ in range(20):
        admission.left(admission.arrived("10.0.0.1", 0.0).ticket, 0.0)
    assert admission.arrived("10.0.0.1", 0.0).ticket is not None
    admission = Admission(AdmissionLimits(), 0.0)
    for number in range(60):
        ticket = admission.arrived("10.0.0.1", 0.0).ticket
        if ticket is None:
            break
        admission.left(ticket, 0.0)
    assert 30 <= number < 50


def test_what_nobody_says_is_hardly_a_failure_but_goes_on_no_ticket():
    admission = Admission(AdmissionLimits(), 0.0)
    for _ in range(20):
        admission.strange("10.0.0.1", 0.0)
    assert admission.arrived("10.0.0.1", 0.0).ticket is not None
    for _ in range(20):
        admission.strange("10.0.0.1", 0.0)
    assert admission.unauthenticated == 1
    assert admission.arrived("10.0.0.1", 0.0).ticket is None
    for number in range(10_000):
        admission.strange(f"10.1.{number >> 8}.{number & 255}", 0.0)
    assert admission.remembered == AdmissionLimits().sources


def test_one_address_cannot_guess_on_many_connections_at_once():
    admission = Admission(AdmissionLimits(of_one=4), 0.0)
    decisions = [admission.arrived("10.0.0.1", 0.0) for _ in range(5)]
    assert [decision.ticket is None for decision in decisions] == [False] * 4 + [True]
    assert decisions[-1].reason == "10.0.0.1 has 4 connections at logging in"
    admission.failed(decisions[0].ticket, 0.0)
    assert admission.arrived("10.0.0.1", 0.0).ticket is None, "who has failed has one at a time"
    for decision in decisions[1:4]:
        admission.left(decision.ticket, 0.0)
    assert admission.arrived("10.0.0.1", 1000.0).ticket is not None


def test_a_crowd_makes_that_fewer_but_not_for_the_known():
    admission = Admission(AdmissionLimits(crowded=3, of_one_when_crowded=1), 0.0)
    admission.authenticated(admission.arrived("10.0.0.9", 0.0).ticket, 0.0)
    for number in range(3):
        admission.arrived(f"10.0.0.{number}", 1.0)
    assert admission.arrived("10.0.0.0", 1.0).ticket is None
    assert admission.arrived("10.0.0.9", 1.0).ticket is not None
    assert admission.arrived("10.0.0.9", 1.0).ticket is not None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "unix", False),
    ],
)
def test_sources(one, other, same):
    assert (source_of(one) == source_of(other)) is same


# -- room ------------------------------------------------------------------------------------------


def test_beyond_the_cap_the_oldest_leave():
    admission = Admission(AdmissionLimits(unauthenticated=3), 0.0)
    first, *_ = (admission.arrived(f"10.0.0.{number}", float(number)).ticket for number in range(3))
    decision = admission.arrived("10.0.0.9", 3.0)
    assert decision.dropped == (first,)
    assert decision.reason == "more than 3 at logging in"
    assert admission.unauthenticated == 3
    admission.failed(first, 4.0)  # whose end was told before: nothing
    assert admission.unauthenticated == 3


def test_who_is_known_alone_and_without_failures_stays_longest():
    admission = Admission(AdmissionLimits(unauthenticated=5, of_one=4, free_failures=9), 0.0)
    admission.authenticated(admission.arrived("10.0.0.1", 0.0).ticket, 0.0)
    admission.failed(admission.arrived("10.0.0.4", 0.0).ticket, 0.0)
    addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.3", "10.0.0.4"]
    tickets = [admission.arrived(address, 1.0).ticket for address in addresses]
    dropped = [admission.arrived(f"10.0.1.{number}", 2.0).dropped[0] for number in range(5)]
    # The failed; one of two; then strangers, oldest first.
    assert dropped[:4] == [tickets[4], tickets[2], tickets[1], tickets[3]]
    assert dropped[4] not in tickets


def test_what_takes_too_long_is_overdue():
    admission = Admission(AdmissionLimits(grace_seconds=10.0), 0.0)
    assert admission.next_overdue() is None
    tickets = [admission.arrived(f"10.0.0.{number}", float(number)).ticket for number in range(3)]
    assert admission.next_overdue() == 10.0
    assert admission.overdue(9.9) == []
    assert admission.overdue(11.0) == tickets[:2]
    assert admission.next_overdue() == 12.0
    assert admission.unauthenticated == 1


def test_idle_sockets_cost_an_address_its_welcome():
    admission = Admission(AdmissionLimits(), 0.0)
    for _ in range(5):
        admission.arrived("10.0.0.1", 0.0)
    admission.overdue(10.0)
    assert admission.arrived("10.0.0.1", 10.0).ticket is None


def test_strangers_share_a_budget_and_the_known_do_not_need_it():
    limits = AdmissionLimits(strangers_at_once=10, strangers_per_second=2)
    admission = Admission(limits, 0.0)
    admission.authenticated(admission.arrived("10.9.9.9", 0.0).ticket, 0.0)
    served = [admission.arrived(f"10.0.0.{number}", 0.0).ticket is not None for number in range(12)]
    assert served == [True] * 9 + [False] * 3
    refused = admission.arrived("10.0.1.0", 0.0)
    assert refused.reason == "10.0.1.0 is one of too many strangers"
    assert refused.wait_seconds == pytest.approx(0.5)
    assert admission.arrived("10.9.9.9", 0.0).ticket is not None
    assert admission.arrived("10.0.1.0", 0.5).ticket is not None
    assert admission.arrived("10.0.1.1", 0.5).ticket is None


def test_no_order_of_events_breaks_it():
    random.seed(11)
    limits = AdmissionLimits(unauthenticated=5, of_one=3, crowded=3, sources=12, strangers_per_second=1e6)
    admission, now, at_it = Admission(limits, 0.0), 0.0, {}
    ends = [admission.authenticated, admission.failed, admission.left]
    for _ in range(20_000):
        now += random.random() * 3
        for ticket in admission.overdue(now):
            del at_it[ticket]
        if at_it and random.random() < 0.5:
            ticket = random.choice(list(at_it))
            del at_it[ticket]
            random.choice(ends)(ticket, now)
        else:
            address = f"10.0.0.{random.randrange(40)}"
            decision = admission.arrived(address, now)
            assert (decision.ticket is None) <= bool(decision.reason)
            for ticket in decision.dropped:
                del at_it[ticket]
            if decision.ticket is not None:
                at_it[decision.ticket] = address
        assert admission.unauthenticated == len(at_it) <= limits.unauthenticated
        assert admission.remembered <= limits.sources
        by_address = [list(at_it.values()).count(address) for address in set(at_it.values())]
        assert max(by_address, default=0) <= limits.of_one


# -- attacks ---------------------------------------------------------------------------------------


class Simulation:
    """A beacon whose logins share CPUs, attackers that guess as fast as it lets them, and honest clients."""

    def __init__(self, limits, seconds, attacked_until):
        self.admission = Admission(limits, 0.0)
        self.seconds = seconds
        self.attacked_until = attacked_until
        self.now = 0.0
        self.events = []
        self.order = itertools.count()
        self.work = {}  # of each ticket: CPU seconds left, and what to do when it is done
        self.guesses = []
        self.latencies = []
        self.refused = 0

    def at(self, time, call, *args):
        heapq.heappush(self.events, (time, next(self.order), call, args))

    def run(self):
        while self.events and self.events[0][0] < self.seconds:
            time, _, call, args = heapq.heappop(self.events)
            while self.work and self.now < time:
                self._compute(time)
            self.now = time
            for ticket in self.admission.overdue(self.now):
                self._close(ticket)
            call(*args)

    def _compute(self, until):
        """Let the processors work until then, or until the first that is at it is done; all share them."""
        share = min(1.0, CPUS / len(self.work))
        first = min(self.work, key=lambda ticket: self.work[ticket][0])
        step = min(until - self.now, self.work[first][0] / share)
        for entry in self.work.values():
            entry[0] -= step * share
        self.now += step
        if self.work[first][0] <= 1e-9:
            self.work.pop(first)[1](first)

    def _close(self, ticket):
        if ticket in self.work:
            self.work.pop(ticket)[2]()

    def _connect(self, address, done, closed):
        decision = self.admission.arrived(address, self.now)
        for ticket in decision.dropped:
            self._close(ticket)
        if decision.ticket is None:
            closed()
        else:
            self.work[decision.ticket] = [GUESS_CPU_SECONDS, done, closed]

    def attack(self, address, pause):
        if self.now >= self.attacked_until:
            return

        def done(ticket):
            self.guesses.append(self.now)
            self.admission.failed(ticket, self.now)
            again()

        def again():
            self.at(self.now + pause, self.attack, address, pause)

        self._connect(address, done, again)

    def log_in(self, address, began=None):
        began = self.now if began is None else began

        def done(ticket):
            self.admission.authenticated(ticket, self.now)
            self.latencies.append(self.now - began)

        def closed():
            self.refused += 1
            self.at(self.now + 0.25, self.log_in, address, began)

        self._connect(address, done, closed)


def simulate(limits, addresses, *, connections=10, seconds=60.0, attacked_until=1e9):
    """Attack from many addresses with several connections each; meanwhile somebody new logs in, twice a second."""
    simulation = Simulation(limits, seconds, attacked_until)
    for number, address in enumerate(addresses):
        for connection in range(connections):
            simulation.at(0.001 * number, simulation.attack, address, 0.1 + 0.01 * connection)
    for number in range(int(seconds * 2) - 8):
        simulation.at(number / 2 + 0.1, simulation.log_in, f"10.1.{number // 200}.{number % 200}")
    simulation.run()
    return simulation


FIFTY = [f"10.0.0.{number}" for number in range(50)]


def test_honest_logins_are_quick_while_fifty_addresses_guess():
    done = simulate(AdmissionLimits(), FIFTY)
    print(
        f"{len(done.guesses)} guesses of 50 addresses in 60 s; {len(done.latencies)} honest logins of strangers took "
        f"at most {max(done.latencies):.2f} s, with {done.refused} refusals"
    )
    assert len(done.latencies) == 112
    assert max(done.latencies) < 2.0
    assert len(done.guesses) < 1000
    late = sum(guess > 30.0 for guess in done.guesses)
    assert late * GUESS_CPU_SECONDS < 0.1 * 30.0, "of one processor, in the long run"


def test_without_a_doorkeeper_they_are_not():
    done = simulate(BORNE, FIFTY, seconds=30.0)
    print(f"without: {len(done.latencies)} of 52 honest logins, at most {max(done.latencies, default=0):.2f} s")
    assert len(done.latencies) < 52 or max(done.latencies) > 3.0


def test_honest_logins_recover_when_the_attack_ends():
    done = simulate(AdmissionLimits(), FIFTY, seconds=400.0, attacked_until=60.0)
    assert not done.admission.is_attacked(400.0)
    assert max(done.latencies[-200:]) == pytest.approx(GUESS_CPU_SECONDS)
    # Also from an address that has guessed: after the longest wait it is let in.
    assert done.admission.arrived(FIFTY[0], 60.0 + AdmissionLimits().longest_wait_seconds).ticket is not None


def test_addresses_that_all_differ_cannot_take_more_than_the_budget():
    limits = AdmissionLimits()
    admission = Admission(limits, 0.0)
    admission.authenticated(admission.arrived("10.9.9.9", 0.0).ticket, 0.0)
    guesses = 0
    for number in range(100_000):  # 1000 a second
        now = number / 1000
        ticket = admission.arrived(f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}", now).ticket
        if ticket is not None:
            guesses += 1
            admission.failed(ticket, now)
        if number % 500 == 0:
            known = admission.arrived("10.9.9.9", now)
            assert known.ticket is not None
            admission.authenticated(known.ticket, now)
    assert guesses <= limits.strangers_at_once + 100 * limits.strangers_per_second + 1
    assert guesses > 1900


@pytest.mark.slow
def test_a_hundred_thousand_addresses_leave_memory_flat():
    admission = Admission(AdmissionLimits(strangers_per_second=1e9, strangers_at_once=1e9), 0.0)

    def guess(numbers):
        for number in numbers:
            admission.failed(admission.arrived(f"2001:db8:{number >> 16:x}:{number & 65535:x}::1", 1.0).ticket, 1.0)

    tracemalloc.start()
    try:
        guess(range(10_000))
        before = tracemalloc.get_traced_memory()[0]
        guess(range(10_000, 110_000))
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    print(f"{before} bytes after 10 000 addresses, {after} after 110 000")
    assert admission.remembered == AdmissionLimits().sources
    assert after < 1.1 * before
    assert before < 1000 * admission.remembered


def test_the_known_are_remembered_when_many_strangers_come():
    admission = Admission(AdmissionLimits(strangers_per_second=1e9, strangers_at_once=1e9, sources=100), 0.0)
    admission.authenticated(admission.arrived("10.9.9.9", 0.0).ticket, 0.0)
    for number in range(10_000):
        admission.failed(admission.arrived(f"10.0.{number >> 8}.{number & 255}", 1.0).ticket, 1.0)
    admission._limits = admission._limits._replace(strangers_at_once=0.5, strangers_per_second=0.1)
    assert admission.arrived("10.9.9.9", 2.0).ticket is not None
    assert admission.arrived("10.9.9.8", 2.0).ticket is None
