"""remote.printer: what ranks print is written in order, in a thread of its own."""

from __future__ import annotations

import sys
import threading

import pytest

from klyng_mp.remote.printer import Printer


class Stream:
    """A stream whose writes wait until they may."""

    def __init__(self):
        self.may_write = threading.Event()
        self.text = ""

    def write(self, text):
        assert self.may_write.wait(30)
        self.text += text

    def flush(self):
        pass


@pytest.fixture
def printer():
    printer = Printer()
    yield printer
    printer.stop()
    printer._thread.join(30)


def test_a_slow_reader_holds_up_nobody_and_what_follows_has_its_turn(printer, monkeypatch):
    stream, sizes, done = Stream(), [], threading.Event()
    monkeypatch.setattr(sys, "stdout", stream)
    printer.write("stdout", "grün\n".encode(), sizes.append)
    printer.write("stdout", b"two\n", sizes.append)
    printer.then(done.set)
    assert (stream.text, sizes, done.is_set()) == ("", [], False)
    stream.may_write.set()
    assert done.wait(30)
    assert (stream.text, sizes) == ("grün\ntwo\n", [6, 4])


def test_a_reader_that_is_gone_is_no_fault(printer, monkeypatch):
    class Gone(Stream):
        def write(self, text):
            raise BrokenPipeError

    sizes, done = [], threading.Event()
    monkeypatch.setattr(sys, "stderr", Gone())
    printer.write("stderr", b"lost\n", sizes.append)
    monkeypatch.setattr(sys, "stdout", None)
    printer.write("stdout", b"nowhere\n", sizes.append)
    printer.then(done.set)
    assert done.wait(30)
    assert sizes == [5, 8]
