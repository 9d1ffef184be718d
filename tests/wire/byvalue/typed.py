"""dataclasses, named tuples, generics, protocols and their like."""

import dataclasses
import typing
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, ClassVar, Generic, NamedTuple, NewType, Protocol, TypedDict, TypeVar, runtime_checkable

from ring import Ring, pack_up

T = TypeVar("T")
Number = TypeVar("Number", int, float)
P = typing.ParamSpec("P")
UserId = NewType("UserId", int)


@dataclass(slots=True, frozen=True)
class Frozen:
    a: int
    b: str = "x"
    ORIGIN: ClassVar[Any] = None


Frozen.ORIGIN = Frozen(0)


@dataclass(order=True)
class Fancy:
    first: int = 0
    second: int = field(default=1, metadata={"unit": "m"})
    _: KW_ONLY
    items: list = field(default_factory=list)
    hidden: int = field(default=3, repr=False)


@dataclass
class Child(Fancy):
    third: int = 9
    init_only: dataclasses.InitVar[int] = 4

    def __post_init__(self, init_only):
        self.seen = init_only


class Pair(NamedTuple):
    x: int
    y: str = "default"

    def both(self):
        return self.x, self.y


class Box(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value


class IntBox(Box[int]):
    pass


@runtime_checkable
class HasBoth(Protocol):
    def both(self) -> tuple: ...


class Keyed(TypedDict, total=False):
    name: str


class Node:
    children: "list[Node]"

    def link(self, other: "Node | None" = None) -> "Node":
        return other or self


def annotated(value: Fancy, *more: Pair) -> dict[str, Box[int]]:
    return {"value": value, "more": more}


def check(things):
    frozen, fancy, child, pair, box, int_box = things
    assert frozen == Frozen(1)
    assert Frozen(0) == Frozen.ORIGIN
    try:
        frozen.a = 2
    except dataclasses.FrozenInstanceError:
        pass
    else:
        raise AssertionError("a frozen dataclass was changed")
    assert fancy == Fancy(5)
    assert fancy < Fancy(6)
    assert Fancy().items is not Fancy().items
    assert [one.name for one in fields(Fancy)] == ["first", "second", "items", "hidden"]
    assert fields(Fancy)[1].metadata["unit"] == "m"
    assert fields(Fancy)[2].default is dataclasses.MISSING
    assert dataclasses.replace(fancy, second=4).second == 4
    assert dataclasses.asdict(frozen) == {"a": 1, "b": "x"}
    assert repr(fancy) == "Fancy(first=5, second=1, items=[])"
    assert child.seen == 4
    assert isinstance(child, Fancy)

    @dataclass
    class Grandchild(Child):
        fourth: int = 8

    assert Grandchild(1, items=[2]).fourth == 8
    assert pair.both() == (5, "default")
    assert pair._replace(x=1) == Pair(1)
    assert Pair._field_defaults == {"y": "default"}
    assert isinstance(pair, HasBoth)
    assert not isinstance(3, HasBoth)
    assert Box.__parameters__ == (T,)
    assert Box[str]("s").value == "s"
    assert (type(box), type(int_box)) == (Box, IntBox)
    assert IntBox.__orig_bases__ == (Box[int],)
    assert Number.__constraints__ == (int, float)
    assert UserId(3) == 3
    assert Keyed(name="x") == {"name": "x"}
    assert {"name"} == Keyed.__optional_keys__
    assert typing.get_type_hints(annotated)["value"] is Fancy
    assert Node().link.__annotations__["return"] == "Node"
    return things, T, Number, P, UserId, HasBoth, Box[int], Keyed, annotated


def main():
    sent = Frozen(1), Fancy(5), Child(), Pair(5), Box(3), IntBox(2)
    with Ring() as ring:
        for _ in range(2):
            back, *names = ring.run(pack_up, check, *sent)
            assert [type(thing) for thing in back] == [type(thing) for thing in sent]
            assert back[:4] == sent[:4]
            assert names == [T, Number, P, UserId, HasBoth, Box[int], Keyed, annotated]


main()
