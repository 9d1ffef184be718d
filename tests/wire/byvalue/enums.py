"""Enum members stay the members that they are, whatever made them."""

from __future__ import annotations

import datetime as dt
import enum

from ring import Ring

GRAVITY = 10


class Color(enum.Enum):
    RED = 1
    GREEN = "green"
    CRIMSON = 1  # noqa: PIE796 - an alias

    def nice(self):
        return self.name.lower()


class Permission(enum.IntFlag):
    READ = 4
    WRITE = 2
    RUN = 1
    CHANGE = 6


class Strict(enum.Flag):
    A = enum.auto()
    B = enum.auto()


class Planet(enum.Enum):
    EARTH = (1.0, 2)
    MARS = (3.0, 4)

    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius

    @property
    def gravity(self):
        return GRAVITY * self.mass / self.radius


class Axis(bytes, enum.Enum):
    def __new__(cls, value, label):
        made = bytes.__new__(cls, [value])
        made._value_ = value
        made.label = label
        return made

    X = (0, "x")
    Y = (1, "y")


class Severity(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Text(enum.StrEnum):
    ONE = enum.auto()


class Day(dt.date, enum.Enum):
    FIRST = 2000, 1, 1


class Lenient(enum.Enum):
    DEFAULT = enum.auto()

    @classmethod
    def _missing_(cls, value):
        return cls.DEFAULT


class Listed(enum.Enum):
    LIST = [1]  # noqa: RUF012 - a value without a hash


MEMBERS = (
    Color.RED,
    Color.GREEN,
    Permission.READ,
    Permission.CHANGE,
    Permission.READ | Permission.RUN,
    Strict.A | Strict.B,
    Planet.MARS,
    Axis.Y,
    Severity.HIGH,
    Text.ONE,
    Day.FIRST,
    Lenient.DEFAULT,
    Listed.LIST,
)


def check_members(members):
    assert members[0] is Color.RED is Color.CRIMSON is Color(1)
    assert Color.RED.nice() == "red"
    assert list(Color) == [Color.RED, Color.GREEN]
    assert members[4] is Permission.READ | Permission.RUN is Permission(5)
    assert members[3] is Permission.READ | Permission.WRITE
    assert members[5] is Strict.A | Strict.B
    assert members[6] is Planet.MARS is Planet((3.0, 4))
    assert Planet.MARS.gravity == 7.5
    assert members[7] is Axis.Y is Axis(1)
    assert (Axis.Y.label, bytes(Axis.Y)) == ("y", b"\1")
    assert members[8] is Severity.HIGH
    assert Severity.HIGH == 2
    assert members[9] is Text.ONE
    assert Text.ONE == "one"
    assert members[10] is Day.FIRST
    assert Day.FIRST.year == 2000
    assert Lenient("?") is Lenient.DEFAULT
    assert members[12] is Listed.LIST is Listed([1])
    for member in members:
        assert type(member)[member.name] is member if "|" not in member.name else True
    try:
        Color.RED = 2
    except AttributeError:
        pass
    else:
        raise AssertionError("a member was replaced")
    return members


def first(*members):
    return check_members(members)


def main():
    with Ring() as ring:
        for _ in range(2):
            back = ring.run(first, check_members, *MEMBERS)
            assert all(one is other for one, other in zip(back, MEMBERS, strict=True))
        # The enum has changed, its members have not.
        Color.note = "changed"
        back = ring.run(first, check_members, *MEMBERS)
        assert all(one is other for one, other in zip(back, MEMBERS, strict=True))


main()
