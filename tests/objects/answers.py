"""What a state answers, for tests that ask it."""

from __future__ import annotations

from klyng_mp.objects.orders import NOTHING, Asker, Order, Outcome, Verb, What

__all__ = ["Answers", "names"]

names = {value: name for name, value in vars(Outcome).items() if isinstance(value, int)}


class Answers:
    """Takes answers; asks in the names of threads ``"a"``, ``"b"``, … of which each is a process's only one."""

    def __init__(self, make):
        self.given = []
        self.last = {}
        self.state = make(self._take)

    def _take(self, asker, outcome, first=0, second=0, third=0, content=NOTHING):
        assert isinstance(asker, Asker)
        self.given.append((asker, outcome, (first, second, third), content))

    @staticmethod
    def process(name):
        return ord(name[0]), 1

    def asker(self, name, request):
        return Asker(*self.process(name), len(name), request)

    def ask(self, name, what, *numbers, content=NOTHING):
        """Ask; return what this has brought, as (name, outcome), whose numbers and content are the first one's."""
        asker = self.last[name] = self.asker(name, self.last.get(name, (0, 0, 0, 0))[3] + 1)
        self.state.ask(Order(Verb.ASK, getattr(What, what), asker, *numbers, content=content))
        return self.take()

    def cancel(self, name):
        """Withdraw what was asked last."""
        self.state.cancel(self.last[name])
        return self.take()

    def end(self, name, *, orderly=False):
        """Let a process end."""
        self.state.part(self.process(name), orderly=orderly)
        return self.take()

    def take(self):
        """Return what has been answered since, to whom."""
        given, self.given = self.given, []
        if given:
            self.numbers, self.content = given[0][2:]
        return [(chr(asker.place) + "'" * (asker.thread - 1), names[outcome]) for asker, outcome, _, _ in given]
