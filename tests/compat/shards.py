"""Runs all tests of a copy in a few worker processes, each test with its own time limit.

A worker (`worker.py`) takes one class of tests after the other. One in which a test did anything but pass is not used
again, so that no test suffers from another's remains; one whose test hangs is killed with all that it started, the
test is noted as hung, and another worker goes on with the rest of the class.
"""

from __future__ import annotations

import ast
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import construction_audit, suite
from .workers import Outcome, Request, Worker

FURTHER_TRIES = 2  # some of CPython's tests are races


@dataclass
class Run:
    """The outcomes of a run of one copy, and what its audit saw."""

    outcomes: dict[str, Outcome]
    audit: list[dict[str, Any]]
    seconds: float

    def named(self, *outcomes: str) -> set[str]:
        """Return the tests with one of these outcomes."""
        return {one.test for one in self.outcomes.values() if one.outcome in outcomes}

    def foreign(self) -> list[dict[str, Any]]:
        """Return the notes about objects that were of no class of klyng_mp, one for each place that made them."""
        notes = {(line["class"], *line["stack"].splitlines()[-4:]): line for line in self.audit if not line["ours"]}
        return list(notes.values())

    def kinds(self, *, ours: bool) -> set[str]:
        """Return the kinds of objects that were made of classes of klyng_mp, or of others."""
        return {line["kind"] for line in self.audit if line["ours"] == ours}


# -- what there is to run --------------------------------------------------------------------------


def classes_of(copy: Path, method: str) -> list[Request]:
    """Return a request for each class of tests, the longest first as far as one can know."""
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    module = f"test.test_multiprocessing_{method}"
    code = (
        f"import unittest, {module} as module\n"
        "print([name for name, one in vars(module).items() if isinstance(one, type)"
        " and issubclass(one, unittest.TestCase)])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the copy cannot be imported:\n{done.stderr}")
    names = sorted(ast.literal_eval(done.stdout.splitlines()[-1]), key=lambda name: ("Pool" not in name, name))
    main = Request(f"test.{suite.MAIN_HANDLING}", suite.MAIN_CLASSES[method])
    return [main, *(Request(module, name) for name in names)]


# -- all of them -----------------------------------------------------------------------------------


class Shards:
    """A few workers that share the requests."""

    def __init__(self, copy: Path, *, jobs: int = 4, limit: float = 60.0, on_outcome=None):
        self.copy, self.jobs, self.limit = copy, jobs, limit
        self.on_outcome = on_outcome or (lambda outcome: None)
        self.audit = copy / "audit.jsonl"
        scratch = copy / "tmp"
        scratch.mkdir()
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(copy),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(scratch),
            construction_audit.FILE_VARIABLE: str(self.audit),
        }
        self._places = iter(range(1 << 30))

    def run(self, requests: list[Request], jobs: int | None = None) -> dict[str, Outcome]:
        """Run all requests, and return the outcomes by test."""
        waiting, outcomes = deque(requests), {}
        workers: list[Worker] = []
        try:
            while waiting or workers:
                while waiting and len(workers) < (jobs or self.jobs):
                    workers.append(self._start(waiting.popleft()))
                self._wait(workers)
                for worker in list(workers):
                    self._look(worker, workers, waiting, outcomes)
        finally:
            for worker in workers:
                worker.clean = False
                worker.end()
        return outcomes

    def notes(self) -> list[dict[str, Any]]:
        """Return what the audit has written."""
        return [json.loads(line) for line in self.audit.read_text().splitlines()] if self.audit.exists() else []

    def _start(self, request: Request) -> Worker:
        worker = Worker(suite.make_place(self.copy, f"place-{next(self._places)}"), self.limit, self.environment)
        worker.begin(request)
        return worker

    @staticmethod
    def _wait(workers: list[Worker]) -> None:
        soonest = min(worker.deadline for worker in workers) - time.monotonic()
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                selector.register(worker.ended, selectors.EVENT_READ)
                selector.register(worker.reports, selectors.EVENT_READ, worker)
            for key, _ in selector.select(max(0.0, soonest)):
                if key.data is not None:
                    key.data.read()

    def _look(self, worker: Worker, workers: list[Worker], waiting: deque[Request], outcomes: dict[str, Outcome]):
        """See whether a worker is done, dead or late, and give it its next request."""
        if not worker.done:
            if not worker.dead() and time.monotonic() < worker.deadline:
                return
            if rest := worker.give_up("crashed" if worker.dead() else "hung"):
                waiting.appendleft(rest)
        for outcome in worker.request.outcomes.values():
            outcomes[outcome.test] = outcome
            self.on_outcome(outcome)
        if worker.clean and waiting:
            worker.begin(waiting.popleft())
        else:
            workers.remove(worker)
            worker.end()


def run_suite(
    method: str,
    package: str,
    *,
    pattern: str = "",
    again: bool = True,
    standard: list[str] | None = None,
    keep: bool = False,
    **options: Any,
) -> Run:
    """Run the tests of one start method, of a copy that is removed afterwards.

    Args:
        method: the start method.
        package: what the copy's text says, or the standard library's own name.
        pattern: a regular expression, to be found in the names of the tests.
        again: whether what fails may try again, alone.
        standard: modules whose names stay.
        keep: leave the copy and the logs, and print where they are.
        options: of `Shards`.
    """
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="kmpc-"))  # short: sockets have their names below it
    try:
        shards = Shards(suite.make_copy(folder / "copy", package, standard), **options)
        requests = classes_of(shards.copy, method)
        for request in requests:
            request.pattern = pattern
        outcomes = shards.run(requests)
        modules = {request.name: request.module for request in requests}
        for _ in range(FURTHER_TRIES if again else 0):
            failed = [Request(modules[name.split(".")[0]], name.split(".")[0], tests=[name]) for name in bad(outcomes)]
            outcomes |= shards.run(failed, jobs=1)
        return Run(outcomes, shards.notes(), time.monotonic() - began)
    finally:
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def bad(outcomes: dict[str, Outcome]) -> list[str]:
    """Return the tests that did not pass, and were not skipped."""
    return sorted(name for name, one in outcomes.items() if not one.good)
