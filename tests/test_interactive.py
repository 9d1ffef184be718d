"""Where main has no file: the interactive interpreter, IPython, and notebooks."""

from __future__ import annotations

import os
import signal
import sys
import textwrap

import programs
import pytest

pytest.importorskip("IPython")
pytest.importorskip("nbclient")

CELLS = {
    "function": """
        import klyng_mp as mp
        w = mp.World(2)
        def square(x):
            return x * x + mp.rank()
        w.run(square, 3)
    """,
    "lambda": "w.run(lambda: mp.rank() * 10)",
    "class": """
        class Thing:
            version = 1
            def __init__(self, value):
                self.value = value
        def make():
            return Thing(mp.rank())
        things = w.run(make)
        [type(thing) is Thing for thing in things], [thing.value for thing in things]
    """,
    "output": """
        def hello():
            print("hello from", mp.rank())
        w.run(hello)
    """,
    "flood": """
        def chatter():
            for number in range(300):
                print(mp.rank(), number, "end")
        _ = w.run(chatter)
    """,
    "below": """
        import os, subprocess
        _ = w.run(lambda: subprocess.run(["echo", "from below"]) and None)
    """,
    "stderr": """
        import sys
        _ = w.run(lambda: print("to stderr", file=sys.stderr))
    """,
    "redefined": """
        old = things[0]
        class Thing:
            version = 2
        new = w.run(lambda: Thing())[0]
        type(new) is Thing, new.version, isinstance(old, Thing), w.run(lambda t: isinstance(t, Thing), old)
    """,
    "later definition": """
        limit = 5
        def clip(x):
            return min(x, limit)
        limit = 7
        w.run(clip, 100)
    """,
    "error": """
        def fail():
            if mp.rank() == 1:
                raise ValueError("in a cell")
            mp.recv()
        try:
            w.run(fail)
        except mp.RankFailedError as error:
            print(type(error.__cause__).__name__, "line 3, in fail" in error.traceback)
        w.run(mp.rank)
    """,
    "magic": "%timeit -n 2 -r 1 -q w.run(mp.rank)",
    "many runs": "[w.run(lambda: number) for number in range(3)]",
    "nested": """
        with mp.World(2) as other:
            found = other.run(square, 2)
        found
    """,
    "input": """
        w.run(lambda: sys.stdin.read(1))
    """,
    "end": """
        pids = w.run(os.getpid)
        w.close(); w.join()
        print("pids", *pids)
    """,
}


# -- a notebook --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """Run all cells as Jupyter does; give the outputs of each."""
    import nbformat
    from nbclient import NotebookClient

    folder = tmp_path_factory.mktemp("notebook")
    book = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(textwrap.dedent(text).strip(), metadata={"name": name})
            for name, text in CELLS.items()
        ]
    )
    book.cells.insert(1, nbformat.v4.new_code_cell("import os, sys"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("JUPYTER_RUNTIME_DIR", folder), ("IPYTHONDIR", folder), ("PYTHONPATH", programs.ROOT)):
            patch.setenv(name, str(value))
        client = NotebookClient(
            book, timeout=60 * programs.FACTOR, allow_errors=True, resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    return {cell.metadata["name"]: cell.outputs for cell in book.cells if "name" in cell.metadata}


def value(outputs):
    errors = [output for output in outputs if output.output_type == "error"]
    assert not errors, "\n".join(errors[0].traceback)
    return eval(next(output.data["text/plain"] for output in outputs if output.output_type == "execute_result"))


def stream(outputs, name="stdout"):
    assert [output for output in outputs if output.output_type == "error"] == []
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == name)


def test_functions_and_lambdas_of_a_cell_run(notebook):
    assert value(notebook["function"]) == [9, 10]
    assert value(notebook["lambda"]) == [0, 10]
    assert value(notebook["many runs"]) == [[0, 0], [1, 1], [2, 2]]
    assert value(notebook["nested"]) == [4, 5]
    assert notebook["magic"] == []


def test_instances_of_a_cells_class_come_home(notebook):
    assert value(notebook["class"]) == ([True, True], [0, 1])


def test_output_of_ranks_appears_in_the_cell(notebook):
    assert sorted(stream(notebook["output"]).splitlines()) == ["hello from 0", "hello from 1"]
    lines = stream(notebook["flood"]).splitlines()
    assert sorted(lines) == sorted(f"{rank} {number} end" for rank in range(2) for number in range(300))
    assert stream(notebook["below"]) == "from below\n" * 2
    assert stream(notebook["stderr"], "stderr") == "to stderr\n" * 2


def test_a_class_that_is_defined_again_in_a_later_cell_is_another(notebook):
    assert value(notebook["redefined"]) == (True, 2, False, [False, False])


def test_functions_see_the_values_of_now(notebook):
    assert value(notebook["later definition"]) == [7, 7]


def test_a_failure_names_the_cells_own_lines(notebook):
    assert stream(notebook["error"]) == "ValueError True\n"
    assert value(notebook["error"]) == [0, 1]


def test_ranks_of_a_notebook_have_no_input_but_an_end_of_it(notebook):
    assert value(notebook["input"]) == ["", ""]


def test_ranks_end_with_the_notebook(notebook):
    pids = stream(notebook["end"]).split()[1:]
    assert len(pids) == 2
    assert not programs.still_there(pids, 0)


@pytest.mark.slow
@pytest.mark.may_leave("fds", "threads", why="jupyter_client keeps its event loops")
def test_interrupting_the_kernel_leaves_a_usable_world(tmp_path, monkeypatch):
    """What a notebook's stop button does."""
    from jupyter_client import KernelManager

    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(programs.ROOT))
    manager = KernelManager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        seen = []

        def hook(message):
            seen.append(message)
            if "up" in message["content"].get("text", ""):
                manager.interrupt_kernel()

        code = (
            "import klyng_mp as mp\nw = mp.World(2)\ndef wait():\n    print('up')\n    mp.recv(timeout=99)\nw.run(wait)"
        )
        reply = client.execute_interactive(code, output_hook=hook, timeout=60)
        assert reply["content"]["status"] == "error"
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        seen.clear()
        reply = client.execute_interactive("print(w.run(mp.rank)); w.terminate()", output_hook=seen.append, timeout=60)
        assert reply["content"]["status"] == "ok"
        assert "".join(one["content"].get("text", "") for one in seen) == "[0, 1]\n"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy()


# -- IPython and the interpreter ---------------------------------------------------------------------------

SESSION = """
import klyng_mp as mp
w = mp.World(2)
class Thing:
    value = 1

def make():
    print("in a rank")
    return Thing()

[type(thing) is Thing for thing in w.run(make)]
w.run(lambda: Thing.value)
class Thing:
    value = 2

w.run(lambda: Thing.value)
w.close(); w.join()
"""


def test_ipython_by_a_line_of_code(tmp_path):
    code = "import klyng_mp as mp; w = mp.World(2); print(w.run(lambda: mp.rank())); w.close(); w.join()"
    environment = {"IPYTHONDIR": str(tmp_path)}
    with programs.Program("-m", "IPython", "-c", code, cwd=tmp_path, env=environment) as program:
        assert program.finish(60) == 0, program.err
        assert program.out == "[0, 1]\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["-i", "-q"], ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=nocolor"]],
    ids=["python", "ipython"],
)
def test_a_session_at_a_terminal(tmp_path, words):
    pexpect = pytest.importorskip("pexpect")
    environment = programs.environment({"IPYTHONDIR": str(tmp_path), "TERM": "dumb"})
    prompt = r">>> " if words[0] == "-i" else r"In \[\d+\]: "
    child = pexpect.spawn(
        sys.executable, words, cwd=str(tmp_path), env=environment, timeout=30 * programs.FACTOR, encoding="utf8"
    )
    try:
        child.expect(prompt)
        replies = []
        for line in SESSION.strip("\n").split("\n"):
            child.sendline(line)
            child.expect([prompt, r"\.\.\. ", r"   \.\.\.: "])
            replies.append(child.before)
        said = "\n".join(replies)
        assert said.count("in a rank\r\n") == 2
        assert "[True, True]" in said
        assert "[1, 1]" in said
        assert "[2, 2]" in said
        child.sendline("w = mp.World(2); pid = w.run(lambda: print('up') or mp.recv(timeout=60))")
        child.expect("up\r\n.*up\r\n")
        child.sendintr()
        child.expect("KeyboardInterrupt")
        child.expect(prompt)
        child.sendline("w.run(lambda: mp.rank() + 100)")
        child.expect(r"\[100, 101\]")
        child.expect(prompt)
        child.sendline("exit()")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0
    finally:
        if child.isalive():
            os.kill(child.pid, signal.SIGKILL)
        child.close(force=True)
