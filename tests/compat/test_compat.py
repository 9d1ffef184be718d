"""CPython's own tests of multiprocessing pass for klyng_mp, but for those that docs/compatibility.md lists."""

from __future__ import annotations

import faulthandler
import textwrap
from pathlib import Path

import pytest
from compat import construction_audit, listed, shards, suite
from compat.shards import Request, Shards, run_suite

from klyng_mp import native

SHARE = 0.98  # of what passes for the standard library here
SHARED = Path("/dev/shm")
KINDS = {"Process", "Pool", "Queue", "SimpleQueue", "Connection", "Manager"}

needs_suite = pytest.mark.skipif(suite.find_suite() is None, reason=suite.HOW_TO_GET_IT)


@needs_suite
@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("method", suite.METHODS)
def test_the_interpreters_own_tests(method, time_limit):
    faulthandler.cancel_dump_traceback_later()  # pytest's, after a minute: each worker has its own
    limit = time_limit(60)
    before = {path.name for path in SHARED.glob("sem.mp-*")}
    standard = run_suite(method, suite.STANDARD, limit=limit)
    for path in SHARED.glob("sem.mp-*"):  # whose tests kill the tracker that would have removed them
        if path.name not in before:
            path.unlink(missing_ok=True)
    ours = run_suite(method, suite.OURS, limit=limit)

    # The audit sees each kind: else what it says about ours would mean nothing.
    assert standard.kinds(ours=False) == KINDS
    assert [f"{line['class']}\n{line['stack']}" for line in ours.foreign()] == []
    assert ours.kinds(ours=True) == KINDS

    expected, passed = standard.named("passed"), ours.named("passed")
    core = native.core is not None
    told = listed.judge(expected, passed, listed.read_page(listed.PAGE.read_text(), core=core)[method])
    if not core:
        told.pop(listed.NEEDLESS)  # what the page lists because of our own locks and queues passes without them
    details = "\n".join(
        f"{name}\n{ours.outcomes[name].detail}" for name in sorted(expected - passed & set(ours.outcomes))
    )
    assert not any(told.values()), f"{told}\n{details}"
    both = len(expected & passed)
    assert both >= SHARE * len(expected), f"{both} of {len(expected)} pass"


def test_no_more_is_listed_than_once():
    page = listed.read_page(listed.PAGE.read_text())
    assert {method: len(tests) for method, tests in page.items()} == listed.MOST


def test_only_whole_words_are_renamed():
    text = textwrap.dedent("""\
        import multiprocessing.pool, _multiprocessing, test.test_multiprocessing_fork
        from test._test_multiprocessing import x
        cmd = "from multiprocessing import Pool"
        "unclosed running multiprocessing pool"
    """)
    assert suite.rename(text, "klyng_mp") == textwrap.dedent("""\
        import klyng_mp.pool, _multiprocessing, test.test_multiprocessing_fork
        from test._test_multiprocessing import x
        cmd = "from klyng_mp import Pool"
        "unclosed running multiprocessing pool"
    """)
    assert suite.rename(text, "multiprocessing") == text


def test_modules_can_stay_the_standard_ones():
    text = "import multiprocessing.pool; from multiprocessing import util; multiprocessing.pools"
    assert suite.rename(text, "k", ["pool", "util"]) == (
        "import multiprocessing.pool; from multiprocessing import util; k.pools"
    )


@needs_suite
def test_nothing_but_what_is_in_the_mapping_is_left_in_the_copy(tmp_path):
    copy = suite.make_copy(tmp_path / "copy", "klyng_mp")
    for path in (copy / "test").glob("*.py"):
        text = path.read_text()
        for sentence in suite.SENTENCES:
            text = text.replace(sentence, "")
        assert suite.WORD.search(text) is None
    assert "import klyng_mp" in (copy / "test" / "_test_multiprocessing.py").read_text()


BEHAVING = """\
import os, signal, sys, time, unittest
from multiprocessing import Process

class Mixed(unittest.TestCase):
    def test_a_passes(self): pass
    def test_b_fails(self): self.assertEqual(1, 2)
    def test_c_hangs(self):
        Process(target=signal.pause).start()
        signal.pause()
    def test_d_dies(self): os._exit(3)
    def test_e_is_skipped(self): self.skipTest("not today")
    def test_f_passes(self): pass

class Broken(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise OSError("no set-up")
    def test_a(self): pass

class Once(unittest.TestCase):
    def test_a(self):
        if not os.path.exists("../mark"):
            open("../mark", "w").close()
            self.fail("the first time")
"""


@pytest.fixture
def behaving(tmp_path):
    """Make a suite whose tests behave in all ways, in place of the interpreter's."""
    copy = tmp_path / "copy"
    (copy / "test").mkdir(parents=True)
    (copy / "klyng_mp").mkdir()
    (copy / "test" / "__init__.py").write_text(suite.INIT.format(home=str(suite.find_suite())))
    (copy / "construction_audit.py").write_text((suite.REPOSITORY / "tests/compat/construction_audit.py").read_text())
    (copy / "test" / "behaving.py").write_text(BEHAVING)
    return copy


@pytest.mark.slow
@needs_suite
def test_each_test_has_its_own_limit_and_the_others_go_on(behaving, time_limit):
    runner = Shards(behaving, limit=time_limit(1.5))
    outcomes = runner.run([Request("test.behaving", name) for name in ("Mixed", "Broken", "Once")])
    assert {name: one.outcome for name, one in outcomes.items()} == {
        "Mixed.test_a_passes": "passed",
        "Mixed.test_b_fails": "failed",
        "Mixed.test_c_hangs": "hung",
        "Mixed.test_d_dies": "crashed",
        "Mixed.test_e_is_skipped": "skipped",
        "Mixed.test_f_passes": "passed",
        "Broken.test_a": "error",
        "Once.test_a": "failed",
    }
    assert "in test_c_hangs" in outcomes["Mixed.test_c_hangs"].detail
    assert "no set-up" in outcomes["Broken.test_a"].detail
    assert "the first time" in outcomes["Once.test_a"].detail
    again = runner.run([Request("test.behaving", "Once", tests=["Once.test_a"])], jobs=1)
    assert again["Once.test_a"].outcome == "passed"


@needs_suite
def test_the_audit_sees_what_is_not_ours_in_a_child_too(behaving):
    (behaving / "test" / "making.py").write_text(
        textwrap.dedent("""\
        import multiprocessing, unittest
        def work(): multiprocessing.Pipe()[0].close()
        class Making(unittest.TestCase):
            def test_it(self):
                process = multiprocessing.get_context("spawn").Process(target=work)
                process.start()
                process.join()
                self.assertEqual(process.exitcode, 0)
    """)
    )
    runner = Shards(behaving)
    outcomes = runner.run([Request("test.making", "Making")])
    assert outcomes["Making.test_it"].outcome == "passed", outcomes["Making.test_it"].detail
    run = shards.Run(outcomes, runner.notes(), 0.0)
    assert {line["class"] for line in run.foreign()} == {
        "multiprocessing.context.SpawnProcess",
        "multiprocessing.connection.Connection",
    }
    assert "in work" in next(line["stack"] for line in run.foreign() if line["kind"] == "Connection")


def test_a_class_is_ours_by_its_ancestors():
    mine = type("Process", (), {"__module__": "klyng_mp.process"})
    assert construction_audit.is_ours(type("Users", (mine,), {}))
    assert not construction_audit.is_ours(type("Users", (dict,), {}))


PAGE = """\
| test | methods | why |
| --- | --- | --- |
| `A.test_b` | all | because |
| `C.test_d` | fork, spawn | it is so |
| `E.test_f` | spawn, without the core | it has to be |
"""


def test_the_page_is_read():
    assert listed.read_page(PAGE) == {
        "fork": {"A.test_b": "because", "C.test_d": "it is so"},
        "spawn": {"A.test_b": "because", "C.test_d": "it is so"},
        "forkserver": {"A.test_b": "because"},
    }
    assert listed.read_page(PAGE, core=False)["spawn"].keys() == {"A.test_b", "C.test_d", "E.test_f"}


def test_each_failure_is_listed_and_nothing_else():
    unlisted, needless = listed.judge({"a", "b", "c"}, {"b", "d"}, {"a": "", "b": ""}).values()
    assert (unlisted, needless) == (["c"], ["b"])
