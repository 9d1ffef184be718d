"""Runs tests of the copy in a process of its own, and reports each on a pipe, one line of JSON for each event.

    python worker.py DESCRIPTOR LIMIT

It reads one request a line from its standard input (`module`, `class`, and `tests`, a list, or else a `pattern`), and
answers with the events `tests` (the names that it found), `start`, `end` (outcome, seconds, detail) and `done`.
Who reads them kills this process when a test takes longer than the limit; shortly before, all stacks are printed.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import re
import sys
import time
import traceback
import unittest


class Report(unittest.TestResult):
    """Sends what happens to each test as soon as it is known."""

    def __init__(self, send, limit):
        super().__init__()
        self.send, self.limit = send, limit
        self.outcome, self.detail, self.began = "passed", "", 0.0

    def startTest(self, test):
        super().startTest(test)
        self.outcome, self.detail, self.began = "passed", "", time.perf_counter()
        faulthandler.dump_traceback_later(self.limit)
        self.send(event="start", test=name_of(test))

    def stopTest(self, test):
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        seconds = time.perf_counter() - self.began
        self.send(event="end", test=name_of(test), outcome=self.outcome, seconds=seconds, detail=self.detail)

    def addError(self, test, err):
        if isinstance(test, unittest.TestCase):
            self._failed("error", err)
        else:  # setUpClass and the like: the tests that do not start then have this as their reason
            self.send(event="broken", detail=f"{test}\n{''.join(traceback.format_exception(*err))}")

    def addFailure(self, _test, err):
        self._failed("failed", err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._failed("failed", err, f"{subtest}\n")
        super().addSubTest(test, subtest, err)

    def addSkip(self, test, reason):
        if isinstance(test, unittest.TestCase):
            self.outcome, self.detail = "skipped", reason
        else:
            self.send(event="skipped", detail=reason)

    def addUnexpectedSuccess(self, _test):
        self.outcome, self.detail = "failed", "unexpected success"

    def _failed(self, outcome, err, prefix=""):
        self.outcome = outcome
        self.detail += prefix + "".join(traceback.format_exception(*err))


def name_of(test):
    """Return the class and the method, without the module."""
    return ".".join(test.id().split(".")[-2:])


def run(request, send, limit):
    """Run the tests of one class."""
    cls = getattr(importlib.import_module(request["module"]), request["class"])
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(cls)
    names = request["tests"]
    wanted = [
        test
        for test in tests
        if (re.search(request["pattern"], name_of(test)) if names is None else name_of(test) in names)
    ]
    send(event="tests", tests=[name_of(test) for test in wanted])
    unittest.TestSuite(wanted).run(Report(send, limit))
    send(event="done")


def main():
    """Serve requests until there are no more."""
    descriptor, limit = int(sys.argv[1]), float(sys.argv[2])
    os.set_inheritable(descriptor, False)
    own = os.getpid()

    def send(**event):
        if os.getpid() == own:
            os.write(descriptor, json.dumps(event).encode() + b"\n")

    faulthandler.enable()
    sys.path[0] = os.environ["PYTHONPATH"].partition(os.pathsep)[0]  # the copy, and not the folder of this file
    script_helper = importlib.import_module("test.support.script_helper")
    # Else the programs that tests start would not see PYTHONPATH, and so neither the copy nor its audit.
    vars(script_helper)["__cached_interp_requires_environment"] = True
    for line in sys.stdin:
        run(json.loads(line), send, limit)


if __name__ == "__main__":
    main()
