"""Which connections a beacon serves before it knows who is there, so that strangers keep nobody out.

Layer: remote; sans-IO (of `socket` only how addresses are written): callers say what happened and when, and do what is
decided.

An address is scored by its failures, and each failure more than a few doubles the time for which it is turned away;
both fade. Addresses of others do not wait for it. While failures come from everywhere, one is enough. Addresses from
which somebody has logged in lately go before strangers. What is remembered is bounded: what was not heard of for
longest is forgotten first, and strangers that nothing is known about share a budget. Who shares an address with one
that guesses waits with it.
"""

from __future__ import annotations

import math
import socket
from collections import OrderedDict
from typing import NamedTuple

__all__ = ["Admission", "AdmissionLimits", "Decision", "source_of"]


class AdmissionLimits(NamedTuple):
    """How much of what is borne.

    Attributes:
        unauthenticated: connections at logging in, at once.
        grace_seconds: how long each of them may take.
        of_one: how many of them may come from one source.
        of_one_when_crowded: the same, once `crowded` are at logging in; a source with failures has one in any case.
        crowded: see there.
        free_failures: how many failures of a source make it wait for nothing.
        free_failures_under_attack: the same, once there are `attack_failures` lately, of whomever.
        attack_failures: see there.
        first_wait_seconds: for how long a source is turned away after one failure more than those; then twice that…
        longest_wait_seconds: …up to this.
        fade_seconds: in this time a source's failures count half.
        attack_fade_seconds: in this time all failures together count half.
        strangers_per_second: how many connections of strangers there may be, in the long run.
        strangers_at_once: how many before that holds.
        known_seconds: how long after a login no stranger is whoever comes from there.
        sources: how many are remembered.
    """

    unauthenticated: int = 100
    grace_seconds: float = 10.0
    of_one: int = 16
    of_one_when_crowded: int = 2
    crowded: int = 24
    free_failures: float = 3.0
    free_failures_under_attack: float = 0.5
    attack_failures: float = 20.0
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 300.0
    fade_seconds: float = 300.0
    attack_fade_seconds: float = 30.0
    strangers_per_second: float = 20.0
    strangers_at_once: float = 200.0
    known_seconds: float = 86400.0
    sources: int = 4096


# What a connection adds to its source's failures. One that leaves before it has guessed may be a look at whether the
# port is open, or a broken network.
_FAILED = 1.0
_OVERDUE = 1.0
_LEFT = 0.1


_MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address in an IPv6 socket
_FAILING = 0.5  # failures of a source, faded, that are worth a difference
_SPARED_AT_ONCE = 64  # sources looked at before one of the known is forgotten


class Decision(NamedTuple):
    """What is to be done with a connection that has arrived.

    Attributes:
        ticket: its number from now on; None: close it, without a word.
        dropped: the tickets of others that are to be closed now, to make room; they are known no more.
        reason: why, for the log; empty where it is served and nobody is dropped.
        wait_seconds: how long such a connection will be turned away, as far as is known.
    """

    ticket: int | None
    dropped: tuple[int, ...] = ()
    reason: str = ""
    wait_seconds: float = 0.0


class _Fading:
    """A number that halves in some time."""

    __slots__ = ("_at", "_half", "_value")

    def __init__(self, half_seconds: float, now: float) -> None:
        self._half = half_seconds
        self._value = 0.0
        self._at = now

    def value(self, now: float) -> float:
        return self._value * math.exp2(-max(0.0, now - self._at) / self._half)

    def add(self, more: float, now: float) -> float:
        self._value = self.value(now) + more
        self._at = now
        return self._value


class _Source:
    """What is remembered of one address, or of one IPv6 network."""

    __slots__ = ("closed_until", "connections", "failures", "known_until")

    def __init__(self, fade_seconds: float, now: float) -> None:
        self.failures = _Fading(fade_seconds, now)
        self.closed_until = -math.inf
        self.known_until = -math.inf
        self.connections = 0  # at logging in


class _Ticket(NamedTuple):
    source: _Source
    arrived: float


def source_of(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of an IPv6 address, which one machine may fill."""
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:  # an IPv4 address, or that of a socket of another kind
        return address[:64]
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[len(_MAPPED) :])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8)) + "/64"


class Admission:
    """The doorkeeper of one beacon.

    Of those that want to log in: connections between ranks, of which there may be hundreds at once from a host that
    nobody knows, and connections that have not said yet which they are, cost too little to be counted.

    Each connection that is served has a ticket, until its `authenticated`, `failed` or `left`, or until it was dropped
    or is `overdue`. A ticket that is known no more is ignored: its end was told before.

    Args:
        limits: how much of what is borne.
        now: the time, of any clock that does not go back; as in all methods.

    Threads: one.

    Cost: a few microseconds for a connection; a few hundred bytes for each source that is remembered.
    """

    def __init__(self, limits: AdmissionLimits, now: float) -> None:
        self._limits = limits
        self._sources: OrderedDict[str, _Source] = OrderedDict()  # longest not heard of first
        self._tickets: dict[int, _Ticket] = {}  # oldest first
        self._next = 0
        self._failures = _Fading(limits.attack_fade_seconds, now)
        self._budget = limits.strangers_at_once
        self._budget_at = now

    @property
    def unauthenticated(self) -> int:
        """How many connections are at logging in."""
        return len(self._tickets)

    @property
    def remembered(self) -> int:
        """How many sources are remembered."""
        return len(self._sources)

    def arrived(self, address: str, now: float) -> Decision:
        """Decide what to do with a connection from an address whose first byte says that it wants to log in."""
        name = source_of(address)
        source = self._sources.get(name)
        refusal = self._refusal(name, source, now)
        if refusal is not None:
            return refusal
        if source is None:
            source = self._remember(name, now)
        self._sources.move_to_end(name)
        dropped = self._make_room(now)
        self._next += 1
        ticket = self._next
        self._tickets[ticket] = _Ticket(source, now)
        source.connections += 1
        reason = f"more than {self._limits.unauthenticated} at logging in" if dropped else ""
        return Decision(ticket, dropped, reason)

    def authenticated(self, ticket: int, now: float) -> None:
        """Take note that a connection has logged in: its failures are forgotten, and it is no stranger for a while."""
        source = self._close(ticket)
        if source is not None:
            source.failures = _Fading(self._limits.fade_seconds, now)
            source.known_until = now + self._limits.known_seconds

    def failed(self, ticket: int, now: float) -> None:
        """Take note that a connection did not prove itself."""
        self._count(ticket, _FAILED, now)

    def left(self, ticket: int, now: float) -> None:
        """Take note that a connection has ended before it had tried."""
        self._count(ticket, _LEFT, now)

    def strange(self, address: str, now: float) -> None:
        """Take note that a connection without a ticket has said what nobody says, or has ended with nothing said."""
        name = source_of(address)
        source = self._sources.get(name)
        self._blame(self._remember(name, now) if source is None else source, _LEFT, now)

    def overdue(self, now: float) -> list[int]:
        """Return the tickets of those that have taken too long, oldest first: close them; they are known no more."""
        gone = []
        for number, ticket in self._tickets.items():
            if ticket.arrived + self._limits.grace_seconds > now:
                break
            gone.append(number)
        for number in gone:
            self._count(number, _OVERDUE, now)
        return gone

    def next_overdue(self) -> float | None:
        """Return when `overdue` has something to say, unless it ends before; None if there is nothing to wait for."""
        oldest = next(iter(self._tickets.values()), None)
        return None if oldest is None else oldest.arrived + self._limits.grace_seconds

    def is_attacked(self, now: float) -> bool:
        """Tell whether so many have failed lately that one failure is enough to wait."""
        return self._failures.value(now) >= self._limits.attack_failures

    # -- how it is decided

    def _refusal(self, name: str, source: _Source | None, now: float) -> Decision | None:
        limits = self._limits
        if source is not None and now < source.closed_until:
            wait = source.closed_until - now
            return Decision(None, (), f"{name} has failed too often: waits {wait:.0f} s more", wait)
        if source is not None:
            most = limits.of_one
            if source.failures.value(now) >= _FAILING:
                most = 1
            elif len(self._tickets) >= limits.crowded:
                most = limits.of_one_when_crowded
            if now < source.known_until:
                most = limits.of_one
            if source.connections >= most:
                return Decision(None, (), f"{name} has {source.connections} connections at logging in")
            if now < source.known_until:
                return None
        return self._take_from_budget(name, now)

    def _take_from_budget(self, name: str, now: float) -> Decision | None:
        limits = self._limits
        earned = max(0.0, now - self._budget_at) * limits.strangers_per_second
        self._budget = min(limits.strangers_at_once, self._budget + earned)
        self._budget_at = max(now, self._budget_at)
        if self._budget < 1:
            wait = (1 - self._budget) / limits.strangers_per_second
            return Decision(None, (), f"{name} is one of too many strangers", wait)
        self._budget -= 1
        return None

    def _make_room(self, now: float) -> tuple[int, ...]:
        """Return the tickets that leave so that one more fits."""
        dropped = []
        while len(self._tickets) >= self._limits.unauthenticated:
            ticket = self._least(now)
            self._close(ticket)
            dropped.append(ticket)
        return tuple(dropped)

    def _least(self, now: float) -> int:
        """Return the oldest of those whose source is worst: has failed, has several, is a stranger; else of all."""

        def worth(number: int) -> tuple[bool, bool, bool]:
            source = self._tickets[number].source
            return source.failures.value(now) < _FAILING, source.connections == 1, now < source.known_until

        return min(self._tickets, key=worth)  # the first of equals is the oldest

    def _count(self, ticket: int, weight: float, now: float) -> None:
        source = self._close(ticket)
        if source is not None:
            self._blame(source, weight, now)

    def _blame(self, source: _Source, weight: float, now: float) -> None:
        limits = self._limits
        self._failures.add(weight, now)
        failures = source.failures.add(weight, now)
        free = limits.free_failures_under_attack if self.is_attacked(now) else limits.free_failures
        if failures - free >= _FAILING:
            # More doublings than reach the longest wait would overflow, in a source that never stops.
            doublings = min(failures - free - 1, 64.0)
            wait = min(limits.longest_wait_seconds, limits.first_wait_seconds * math.exp2(max(0.0, doublings)))
            source.closed_until = max(source.closed_until, now + wait)

    def _close(self, ticket: int) -> _Source | None:
        closed = self._tickets.pop(ticket, None)
        if closed is None:
            return None
        closed.source.connections -= 1
        return closed.source

    def _remember(self, name: str, now: float) -> _Source:
        if len(self._sources) >= self._limits.sources:
            self._forget(now)
        source = self._sources[name] = _Source(self._limits.fade_seconds, now)
        return source

    def _forget(self, now: float) -> None:
        """Forget the source that was not heard of for longest; the known stay longer, and those with connections."""
        for _ in range(_SPARED_AT_ONCE):
            name, source = next(iter(self._sources.items()))
            if not source.connections and source.known_until <= now:
                del self._sources[name]
                return
            self._sources.move_to_end(name)
        idle = next((name for name, source in self._sources.items() if not source.connections), None)
        if idle is not None:
            del self._sources[idle]
