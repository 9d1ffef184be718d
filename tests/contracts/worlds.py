"""Ranks of several sizes for tests that try many examples: each made when it is first needed, all closed in the end."""

from __future__ import annotations

from contextlib import ExitStack

from contracts.ranks import ranks

__all__ = ["Worlds"]


class Worlds(ExitStack):
    """Ranks by their number.

    Args:
        transport: what moves their messages.
    """

    def __init__(self, transport="memory"):
        super().__init__()
        self._made = {}
        self._transport = transport

    def __getitem__(self, size):
        if size not in self._made:
            self._made[size] = self.enter_context(ranks(size, self._transport))
        return self._made[size]
