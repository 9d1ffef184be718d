"""The benchmarks: their arithmetic, their kernels, what they refuse, and each script once at a tiny size."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parent.parent.parent
BENCHMARKS = REPOSITORY / "benchmarks"
TIMEOUT = 100 * float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))
MODULES = (
    "callables",
    "charts",
    "collectives",
    "collectives_charts",
    "collectives_peer",
    "common",
    "messaging",
    "messaging_peer",
    "pools",
    "pools_charts",
    "pools_peer",
    "run",
    "series",
    "task",
)

needs_mpi = pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: the kernels cannot be built")


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports a module of benchmarks/, which is a folder of scripts and no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def run_script(name, *arguments):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# common


def test_alternate_takes_turns_and_leaves_the_warm_up_out(load):
    order = []

    def measure(name):
        def call():
            order.append(name)
            return float(len(order))

        return call

    samples = load("common").alternate({name: measure(name) for name in "ab"}, 2, progress=False)
    assert sorted(order[:2]) == ["a", "b"]
    assert [order[2:4], order[4:]] in ([["a", "b"], ["b", "a"]], [["b", "a"], ["a", "b"]])
    assert sorted(samples["a"] + samples["b"]) == [3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.345, "12.35 s"),
        (1.0, "1.000 s"),
        (0.0123, "12.30 ms"),
        (5e-4, "500.0 us"),
        (0.0, "0.000 us"),
        (-2e-3, "-2.000 ms"),
    ],
)
def test_seconds_have_four_digits_and_the_unit_that_suits(load, value, text):
    assert load("common").seconds(value) == text


def test_a_figure_is_judged_by_its_ratio_or_else_by_its_time(load):
    figure = load("common").Figure
    assert figure("a", 0.6, 0.6, 1.0, "peer").met
    assert not figure("a", 0.61, 0.6, 1.0, "peer").met
    assert figure("a", 0.4e-3, 0.5e-3).met
    assert figure("a", 0.6e-3, 0.5e-3).cells()[-1] == "MISSED"
    assert figure("a", 3 << 18, 1 << 20, unit="bytes").cells() == ["a", "768 KiB", "-", "-", "-", "1 MiB", "ok"]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (2.5 * 2**20, "2.5 MiB"), (2**40, "1024 GiB")]
)
def test_bytes_have_the_largest_unit_of_which_there_is_one(load, size, text):
    assert load("common").binary(size) == text


def test_a_command_that_fails_is_an_error_with_what_it_printed(load):
    common = load("common")
    with pytest.raises(common.BenchmarkError, match=r"exit code 3:\s+out of luck"):
        common.run_command([sys.executable, "-c", "import sys; print('out of luck'); sys.exit(3)"])


def test_tables_have_one_shape_in_text_and_markdown(load):
    common = load("common")
    rows = [["a", "1"], ["bcd", "22"]]
    assert common.text_table(("row", "n"), rows).splitlines() == ["row   n", "---  --", "a     1", "bcd  22"]
    assert common.markdown_table(("row", "n"), rows).splitlines()[1:] == ["| --- | ---: |", "| a | 1 |", "| bcd | 22 |"]


def test_a_script_of_ranks_goes_on_without_mpi_and_a_compiler_and_says_so(load, monkeypatch, capsys, tmp_path):
    common = load("common")
    monkeypatch.setattr(common, "find_program", lambda _name: None)
    monkeypatch.setenv("PATH", "")
    assert common.find_mpiexec() is None
    assert common.build_limits(str(tmp_path)) is None
    printed = capsys.readouterr().out
    assert "no mpiexec or no mpi4py here" in printed
    assert "no C compiler" in printed


# task


def report(rank, size=2, cpu=0.5):
    line = {"rank": rank, "size": size, "startup_cpu": 0.1, "task_cpu": cpu, "result": None if rank else 7}
    return "report " + json.dumps(line)


def test_mpct_is_the_maximum_over_all_ranks(load):
    reading = load("task").read_reports("\n".join([report(1, cpu=0.9), "chatter", report(0)]), 2, 1.5, "x")
    assert reading == (1.5, 0.9, 0.1, 7)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [report(0)],
        [report(0), report(0)],
        [report(0), report(1), report(1)],
        [report(0, 1), report(1)],
        ["report {"],
    ],
    ids=["none", "one missing", "one twice", "one too many", "another world", "torn"],
)
def test_anything_but_one_report_a_rank_is_refused(load, lines):
    task = load("task")
    with pytest.raises(load("common").BenchmarkError):
        task.read_reports("\n".join(lines), 2, 1.0, "x")


def test_tasks_are_what_folders_there_are(load, tmp_path):
    task = load("task")
    assert list(task.find_tasks()) == ["pi", "primes"]
    shutil.copytree(BENCHMARKS / "tasks" / "pi", tmp_path / "mine")
    assert task.find_tasks(tmp_path)["mine"].source_of("numba") == tmp_path / "mine" / "klyng_numba.py"


def test_a_task_description_with_an_unknown_key_is_refused(load, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "task.toml").write_text('title = "mine"\nflavour = "sweet"\n')
    with pytest.raises(load("common").BenchmarkError, match="must have exactly the keys title, unit, size"):
        load("task").find_tasks(tmp_path)


def test_a_wrong_result_at_the_full_size_is_refused(load):
    task = load("task")
    primes = task.find_tasks()["primes"]
    task.check_answer(primes, "klyng", primes.size, 664579)
    task.check_answer(primes, "klyng", 100, 25)
    with pytest.raises(load("common").BenchmarkError, match="664578"):
        task.check_answer(primes, "klyng", primes.size, 664578)


@pytest.fixture
def kernel(load, tmp_path):
    def build(name):
        task = load("task")
        return ctypes.CDLL(str(task.build(task.find_tasks()[name], None, tmp_path).library)).kernel

    return build


@needs_compiler
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_the_primes_kernel_is_right_about_0_1_and_blocks_that_do_not_divide(kernel, size):
    count = kernel("primes")
    count.argtypes, count.restype = [ctypes.c_int64] * 2, ctypes.c_int64
    assert [count(number, number + 1) for number in range(-1, 12)] == [0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0, 0, 1]
    for limit in (0, 1, 2, 3, 10, 1000, 7919, 7920):
        blocks = [(rank * limit // size, (rank + 1) * limit // size) for rank in range(size)]
        expected = sum(all(number % divisor for divisor in range(2, number)) for number in range(2, min(limit, 1000)))
        assert sum(count(*block) for block in blocks) == (expected if limit <= 1000 else 1000 - (limit == 7919))


@needs_compiler
def test_the_pi_kernel_sums_its_steps_and_nothing_for_an_empty_interval(kernel):
    integrate = kernel("pi")
    integrate.argtypes, integrate.restype = [ctypes.c_double] * 3, ctypes.c_double
    assert integrate(0.0, 0.0, 1.0) == 0.0
    assert math.isclose(integrate(0.0, 1.0, 1e-5) * 1e-5, math.pi, abs_tol=5e-5)


# series


def make_series(load, row, rtet, empty, mpct, count=1):
    series, task = load("series"), load("task")
    one = series.Series(load("task").find_tasks()["pi"], row, count, 100)
    for full, start, cpu in zip(rtet, empty, mpct, strict=True):
        one.add(task.Reading(full, cpu, 0.01, 3.14), task.Reading(start, 0.0, 0.01, 0.0))
    return one


def test_rtet_is_judged_net_of_size_0_and_mpct_as_it_is(load):
    ours = make_series(load, "klyng", [1.3, 1.2, 1.1], [0.2, 0.2, 0.2], [1.0, 1.0, 1.0])
    peer = make_series(load, "mpi", [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.9, 0.9, 0.9])
    results = load("series").Results([ours, peer], ["rtet", "mpct"])
    rtet, mpct = results.verdicts()
    assert math.isclose(rtet.ratio, 1.0)
    assert rtet.met
    assert math.isclose(mpct.ratio, 1 / 0.9)
    assert not mpct.met


def test_scaling_is_relative_to_the_first_count_of_the_same_row(load):
    series = [make_series(load, "klyng", [2.0], [0.0], [2.0]), make_series(load, "klyng", [1.0], [0.0], [0.5], count=2)]
    results = load("series").Results(series, ["rtet", "mpct"])
    assert [results.cells(one, "rtet")[6] for one in series] == ["1.00 x", "2.00 x"]
    assert [results.cells(one, "mpct")[6] for one in series] == ["1.00 x", "4.00 x"]
    assert results.verdicts() == []


# The scripts themselves


@needs_compiler
@pytest.mark.parametrize("mpi", [[], ["--no-mpi"]], ids=["mpi if there is one", "no mpi"])
def test_run_writes_tables_json_and_charts(tmp_path, mpi):
    pytest.importorskip("tqdm")
    pytest.importorskip("matplotlib")
    options = ["--process-counts", 1, 2, "--iterations", 2, "--scale", 0.001, "--rows", "klyng", "mpi", "plain"]
    printed = run_script("run.py", *options, *mpi, "--output", tmp_path)
    series = json.loads((tmp_path / "run.json").read_text())["series"]
    assert {(one["task"], one["ranks"]) for one in series} == {(t, n) for t in ("pi", "primes") for n in (1, 2)}
    assert all(len(one[metric]) == 2 for one in series for metric in ("rtet", "rtet_size_0", "mpct", "startup_cpu"))
    assert all(one["size"] == 5000 for one in series if (one["task"], one["row"]) == ("pi", "plain"))
    for chart in ("pi_rtet", "pi_mpct", "primes_rtet", "primes_mpct"):
        assert (tmp_path / f"{chart}.png").read_bytes().startswith(b"\x89PNG")
    rows = {one["row"] for one in series}
    if "mpi" in rows:
        assert "of 8 figures are within 1.05 x C" in printed
        assert not mpi
    else:
        assert "No figure is judged" in printed
        assert mpi or "No MPI:" in printed
    assert rows >= {"klyng", "plain"}


@needs_compiler
def test_every_program_of_every_task_does_no_work_at_size_0_and_agrees_at_a_small_one(load, tmp_path):
    """All rows at once, numba's too if it is there."""
    pytest.importorskip("tqdm")
    rows = ["klyng", "mpi", "plain"]
    if importlib.util.find_spec("numba"):
        rows.append("numba")
    run_script(
        "run.py",
        "--process-counts",
        3,
        "--iterations",
        1,
        "--scale",
        0,
        "--rows",
        *rows,
        "--metrics",
        "mpct",
        "--output",
        tmp_path,
    )
    series = json.loads((tmp_path / "run.json").read_text())["series"]
    assert all(one["size"] == 0 and one["mpct"][0] < 1.0 for one in series)


@pytest.mark.parametrize(
    ("script", "options", "figures"),
    [
        ("startup.py", ["--rounds", 1], 1),
        ("worlds.py", ["--rounds", 1, "--runs", 3], 4),
        ("streams.py", ["--rounds", 1, "--calls", 10], 4),
        ("tracing.py", ["--rounds", 1, "--pairs", 200], 2),
        pytest.param("mpi.py", ["--rounds", 1, "--small", 20, "--large", 1], 2, marks=needs_mpi),
        ("green.py", ["--rounds", 1, "--ranks", 50, "--many", 60, "--hops", 200], 4),
    ],
)
def test_a_script_of_figures_prints_and_writes_its_verdicts(tmp_path, script, options, figures):
    file = tmp_path / "figures.json"
    printed = run_script(script, *options, "--json", file)
    record = json.loads(file.read_text())
    assert len(record["figures"]) >= figures
    assert printed.count(" ok\n") + printed.count(" MISSED\n") == len(record["figures"])
    assert all(record["samples"].values())


def test_remote_prints_and_writes_its_verdicts_or_says_why_it_has_none(tmp_path):
    pytest.importorskip("numpy")
    file = tmp_path / "figures.json"
    printed = run_script("remote.py", "--quick", "--rounds", 1, "--json", file)
    if printed.startswith("no figures of other machines: "):
        pytest.skip(printed)
    record = json.loads(file.read_text())
    assert len(record["figures"]) == 15
    assert printed.count(" ok\n") + printed.count(" MISSED\n") == 15
    assert all(values and min(values) >= 0 for values in record["samples"].values())
    counted = [figure for figure in record["figures"] if figure["unit"] == "messages"]
    assert [figure["met"] for figure in counted] == [True, True], counted


def test_messaging_prints_and_writes_its_verdicts_and_draws_its_charts(tmp_path):
    pytest.importorskip("numpy")
    pytest.importorskip("matplotlib")
    file = tmp_path / "figures.json"
    printed = run_script("messaging.py", "--quick", "--rounds", 2, "--json", file, "--output", tmp_path)
    record = json.loads(file.read_text())
    assert printed.count(" ok\n") + printed.count(" MISSED\n") == len(record["figures"])
    sides = {name.partition(":")[0] for name in record["samples"]}
    assert sides >= {"klyng_mp", "Pipe"}
    assert ("mpi4py" in sides) != ("no mpiexec or no mpi4py" in printed)
    assert ("bare" in sides) != ("no C compiler" in printed)
    assert all(len(values) == 2 for name, values in record["samples"].items() if name != "klyng_mp: idle")
    assert all(value > 0 for values in record["samples"].values() for value in values)
    for chart in ("latency", "bandwidth"):
        assert (tmp_path / f"messaging_{chart}.png").read_bytes().startswith(b"\x89PNG")


def test_collectives_prints_and_writes_its_verdicts_and_draws_its_charts(tmp_path):
    pytest.importorskip("numpy")
    pytest.importorskip("matplotlib")
    file = tmp_path / "figures.json"
    printed = run_script("collectives.py", "--quick", "--rounds", 2, "--json", file, "--output", tmp_path)
    record = json.loads(file.read_text())
    assert printed.count(" ok\n") + printed.count(" MISSED\n") == len(record["figures"])
    sides = {name.partition(":")[0] for name in record["samples"]}
    assert "klyng_mp" in sides
    assert ("mpi4py" in sides) != ("no mpiexec or no mpi4py" in printed)
    assert ("bare" in sides) != ("no C compiler" in printed)
    assert len(record["figures"]) == 26 * ("mpi4py" in sides) + ("bare" in sides)
    assert len([name for name in record["samples"] if name.endswith(", 64 ranks")]) == 11
    assert all(len(values) == 2 and min(values) > 0 for values in record["samples"].values())
    for chart in ("small", "arrays"):
        assert (tmp_path / f"collectives_{chart}.png").read_bytes().startswith(b"\x89PNG")


def test_pools_prints_and_writes_its_verdicts_and_draws_its_chart(tmp_path):
    pytest.importorskip("numpy")
    pytest.importorskip("matplotlib")
    file, chart = tmp_path / "figures.json", tmp_path / "pools.png"
    printed = run_script("pools.py", "--quick", "--rounds", 1, "--json", file, "--png", chart)
    record = json.loads(file.read_text())
    assert printed.count(" ok\n") + printed.count(" MISSED\n") == len(record["figures"])
    missing = {side for side in ("loky", "multiprocess") if importlib.util.find_spec(side) is None}
    assert len(record["figures"]) == 13 - len(missing)
    assert ("left out" in printed) == bool(missing)
    sides = {name.partition(":")[0] for name in record["samples"]}
    assert sides == {"klyng_mp", "multiprocessing", "concurrent.futures", "threading", "loky", "multiprocess"} - missing
    assert all(len(values) == 1 and values[0] > 0 for values in record["samples"].values())
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_pools_judges_only_what_both_sides_did(load):
    pools = load("pools")
    mine = {f"klyng_mp: {row}": 1.0 for row in pools.ROWS}
    assert pools.figures_of(mine) == []
    loky, spawn = pools.figures_of(
        mine | {f"loky: {pools.MAP}": 10.0, f"loky: {pools.APPLY}": 9.0, f"multiprocessing: {pools.SPAWN}": 6.0}
    )
    assert (loky.what, loky.ratio, loky.limit, loky.met) == (pools.MAP, 0.1, 0.05, False)
    assert (spawn.what, spawn.peer_name, spawn.met) == (pools.FORK, "multiprocessing (spawn)", True)
    assert len(pools.figures_of(mine | {f"multiprocessing: {row}": 1.0 for row in pools.ROWS})) == 10


def test_what_comes_back_wrong_from_a_pool_has_no_time(load):
    peer = load("pools_peer")
    with pytest.raises(peer.BadAnswerError, match="got 41 where it is 42"):
        peer.check(41, 42)


def test_executors_have_no_queues_and_no_default_chunks(load):
    peer = load("pools_peer")
    assert [row for row in peer.ROWS if peer.has_row("loky", row)] == [
        "map, 20 000 tasks, chunksize=1",
        "1 task of 1 s, 1 000 of 1 ms",
        "apply, there and back",
        "map over 1 MiB arrays, each",
        "map over 1 MiB arrays, first map",
    ]
    assert all(peer.has_row("multiprocess", row) for row in peer.ROWS)
    assert [row for row in peer.ROWS if peer.has_row(peer.IDEAL, row)] == ["1 task of 1 s, 1 000 of 1 ms"]


def test_messaging_judges_only_what_both_sides_did(load):
    messaging = load("messaging")
    mine = {"klyng_mp: " + row: 1.0 for row in (*messaging.SMALL_ROWS, "1 MiB", "16 MiB", "ring", "stream", "exchange")}
    assert messaging.figures_of(mine) == []
    (ring,) = messaging.figures_of(mine | {"bare: hop of 8": 0.5})
    assert (ring.ratio, ring.limit, ring.met) == (2.0, 2.5, True)
    objects, buffers = messaging.figures_of(mine | {"mpi4py: 1 MiB": 10.0, "mpi4py: 1 MiB, buffer": 0.5})
    assert (objects.ratio, objects.limit, objects.met) == (0.1, 0.15, True)
    assert (buffers.ratio, buffers.limit, buffers.met) == (2.0, 1.0, False)
    mine |= {"klyng_mp: 16 MiB, recv_into": 0.9, "klyng_mp: 16 MiB, given away": 0.5, "klyng_mp: giving": 1e-5}
    _, into, given, giving = messaging.figures_of(mine | {"mpi4py: 16 MiB, buffer": 1.0})
    assert [(one.limit, one.met) for one in (into, given, giving)] == [(0.8, False), (0.6, True), (20e-6, True)]


def test_a_message_that_arrives_changed_is_refused(load):
    with pytest.raises(load("common").BenchmarkError, match="arrived as 41, but it was 42"):
        load("messaging_peer").check(41, 42)


def test_collectives_judges_only_what_both_sides_did(load):
    collectives, peer = load("collectives"), load("collectives_peer")
    small = [peer.of_ranks(name, ranks) for name in peer.SMALL_NAMES for ranks in (2, 8)]
    arrays = [peer.of_ranks(peer.array_row(name, peer.MIB), 4) for name in peer.ARRAY_NAMES]
    mine = {f"klyng_mp: {row}": 1.0 for row in (*small, *arrays)}
    assert collectives.figures_of(mine) == []
    (barrier,) = collectives.figures_of(mine | {"bare: barrier, 8 ranks": 0.2})
    assert (barrier.ratio, barrier.limit, barrier.met) == (5.0, 4.0, False)
    few, many = collectives.figures_of(
        mine | {"mpi4py: scan, 2 ranks": 9.0, **{f"mpi4py: {row}": 1.0 for row in small[:2]}}
    )
    assert [(one.what, one.limit, one.met) for one in (few, many)] == [
        ("barrier, 2 ranks", 1.0, True),
        ("barrier, 8 ranks", 0.5, False),
    ]
    its = {"mpi4py: bcast of 1 MiB, 4 ranks": 4.0, "mpi4py: bcast of 1 MiB, buffer, 4 ranks": 0.5}
    objects, buffers = collectives.figures_of(mine | its)
    assert (objects.ratio, objects.limit, objects.met, objects.peer_name) == (0.25, 0.3, True, "mpi4py bcast")
    assert (buffers.ratio, buffers.limit, buffers.met, buffers.peer_name) == (2.0, 1.0, False, "mpi4py Bcast")


class LoneComm:
    """A communicator of as much as a barrier is checked with: of two ranks, the other of which left at `other_left`."""

    def __init__(self, other_left):
        self.other_left = other_left

    def barrier(self):
        """Let it pass."""

    def allgather(self, mine):
        """Return this rank's and the other's."""
        return [mine, (self.other_left, self.other_left)]


def test_a_wrong_result_of_a_collective_is_refused(load):
    peer, refused = load("collectives_peer"), load("common").BenchmarkError
    call = peer.Call(lambda: 41, 42)
    with pytest.raises(refused, match="scan returned 41 where it is 42"):
        peer.time_call(None, "scan", call, 1)
    with pytest.raises(refused, match="barrier returned False"):
        peer.check_barrier(LoneComm(other_left=0.0))  # before this rank had come


@needs_compiler
def test_the_bare_barrier_holds_more_processes_than_there_are_cpus(load, tmp_path):
    common = load("common")
    program = common.build_limits(str(tmp_path))
    assert all(0 < common.bare_limit(program, "barrier", count, 50, timeout=TIMEOUT) < 1 for count in (2, 3, 8, 64))


def test_run_goes_on_without_mpi_and_says_so(load, monkeypatch, capsys):
    pytest.importorskip("tqdm")
    run = load("run")
    monkeypatch.setattr(run, "find_mpi", lambda: None)
    options = run.parse(["--rows", "klyng", "mpi"])
    assert run.choose_mpi(options) is None
    assert options.rows == ["klyng"]
    assert "pip install mpich" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rows", "fortran"], "has no row fortran"),
        (["--tasks", "tea"], "invalid choice: 'tea'"),
        (["--iterations", "0"], "0 is not a positive number"),
    ],
)
def test_run_refuses_what_does_not_exist(load, capsys, arguments, sentence):
    pytest.importorskip("tqdm")
    with pytest.raises(SystemExit):
        load("run").parse(arguments)
    assert sentence in capsys.readouterr().err
