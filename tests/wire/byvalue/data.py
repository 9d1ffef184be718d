"""Arrays, and functions whose globals are neither ``__main__`` nor a module."""

from __future__ import annotations

import types

import numpy as np
from ring import Ring

table = np.arange(10_000)
same_table = table
dynamic = types.ModuleType("dynamic")
exec("limit = 5\nunused = open\ndef below(x): return x < limit and also(x)\ndef also(x): return x != 3", vars(dynamic))


class Holder:
    rows = table

    def __init__(self, array):
        self.array = array


def first(holder, below):
    assert same_table is table is Holder.rows
    table[0] = -1
    return holder, table[::2], [below(4), below(3), below(9)]


def second(message):
    holder, part, verdicts = message
    assert type(holder) is Holder
    assert table[0] == 0
    holder.array += 1
    return holder, part.sum() + 1, verdicts


with Ring() as ring:
    for _ in range(2):
        holder, total, verdicts = ring.run(first, second, Holder(np.zeros((3, 4), order="F")), dynamic.below)
        assert type(holder) is Holder
        assert holder.array.flags.f_contiguous
        assert (holder.array == 1).all()
        assert total == sum(range(2, 10_000, 2))
        assert verdicts == [True, False, False]
        assert table[0] == 0
