"""The tasks of ``run.py``: found by listing a folder, built, and run as one row on so many ranks.

A task is a folder below ``tasks/`` with

* ``kernel.c``: the loop, compiled once as a shared library for all rows that want it;
* ``mpi.c``: the C program using MPI, linked with that library (row ``mpi``);
* ``klyng.py``: our program, which loads that library with ctypes (row ``klyng``);
* any ``klyng_<row>.py``: a further row, say numba or plain Python;
* ``task.toml``: title, unit and size of the task, its answer, and the sizes of slower rows.

Programs are called with the size, ours with the library's path after it. Every rank prints one line
``report {"rank", "size", "startup_cpu", "task_cpu", "result"}``, all but rank 0 with result null.
"""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from pathlib import Path
from typing import NamedTuple

from common import BenchmarkError, find_program, klyng_command, run_command

__all__ = [
    "MPI",
    "BuiltTask",
    "Reading",
    "Task",
    "build",
    "check_answer",
    "find_mpi",
    "find_tasks",
    "measure",
    "read_reports",
]

TASKS = Path(__file__).resolve().parent / "tasks"
OPTIMISE = ("-O3", "-Wall", "-Wextra")


class Task(NamedTuple):
    """One folder of tasks/, as its task.toml describes it."""

    name: str
    folder: Path
    title: str
    unit: str
    size: int
    answer: float
    tolerance: float  # relative
    sizes: dict[str, int]  # of the rows that have a size of their own

    def size_of(self, row: str, scale: float) -> int:
        """Return the size at which `row` is run."""
        return int(self.sizes.get(row, self.size) * scale)

    def work(self, size: int) -> str:
        """Return `size` with its unit, its digits in groups."""
        return f"{size:,} {self.unit}".replace(",", " ")

    def source_of(self, row: str) -> Path:
        """Return the file that is the program of `row`."""
        return self.folder / {"mpi": "mpi.c", "klyng": "klyng.py"}.get(row, f"klyng_{row}.py")


class MPI(NamedTuple):
    """The MPI that C programs are compiled with and run by."""

    compiler: str
    runner: str
    version: str


class BuiltTask(NamedTuple):
    """A task, its kernel's library, and the C program if there is an MPI."""

    task: Task
    library: Path
    program: Path
    mpi: MPI | None


class Reading(NamedTuple):
    """What one run of one row said: seconds, and the task's result at rank 0."""

    rtet: float  # wall time of the runner
    mpct: float  # the largest CPU time that a rank spent on the task
    startup_cpu: float  # the largest that a rank spent before it
    result: float


def find_tasks(folder: Path = TASKS) -> dict[str, Task]:
    """Return the tasks in `folder` by name."""
    return {file.parent.name: read_task(file) for file in sorted(folder.glob("*/task.toml"))}


def read_task(file: Path) -> Task:
    """Return the task that `file` describes."""
    described = {"sizes": {}, **tomllib.loads(file.read_text())}
    try:
        return Task(name=file.parent.name, folder=file.parent, **described)
    except TypeError as error:
        wanted = ", ".join(field for field in Task._fields if field not in ("name", "folder"))
        raise BenchmarkError(f"{file} must have exactly the keys {wanted}: {error}") from error


def find_mpi() -> MPI | None:
    """Return the MPI of the running Python (the mpich wheel), else the system's, else None."""
    compiler, runner = find_program("mpicc"), find_program("mpiexec")
    if compiler is None or runner is None:
        return None
    lines = run_command([runner, "--version"])[1].splitlines() or ["of unknown version"]
    numbered = [line.partition(":")[2].strip() for line in lines if line.strip().startswith("Version:")]
    version = f"MPICH {numbered[0]}" if numbered else lines[0].strip()  # Hydra is numbered like its MPICH
    return MPI(compiler, runner, version)


def build(task: Task, mpi: MPI | None, folder: Path) -> BuiltTask:
    """Compile the kernel and, with an MPI, the C program into `folder`."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchmarkError("no C compiler (cc, gcc, clang) on PATH: the kernels cannot be built; install one")
    folder.mkdir(parents=True, exist_ok=True)
    library, program = folder / f"lib{task.name}.so", folder / "mpi"
    run_command([compiler, *OPTIMISE, "-fPIC", "-shared", str(task.folder / "kernel.c"), "-o", str(library)])
    if mpi is not None:
        source = str(task.source_of("mpi"))
        run_command([mpi.compiler, *OPTIMISE, source, str(library), f"-Wl,-rpath,{folder}", "-o", str(program)])
    return BuiltTask(task, library, program, mpi)


def measure(built: BuiltTask, row: str, count: int, size: int) -> Reading:
    """Run `row` of a task on `count` ranks at `size`."""
    if row == "mpi":
        if built.mpi is None:
            raise BenchmarkError("the row mpi needs an MPI")
        command = [built.mpi.runner, "-n", str(count), str(built.program), str(size)]
    else:
        command = klyng_command(count, str(built.task.source_of(row)), str(size), str(built.library))
    rtet, printed = run_command(command)
    return read_reports(printed, count, rtet, " ".join(command))


def read_reports(printed: str, count: int, rtet: float, command: str) -> Reading:
    """Return the reading in the ranks' reports.

    Raises:
        BenchmarkError: there is not exactly one report of every rank. The maximum over those that
            happen to be there would be a number, and a wrong one.
    """
    lines = [line.partition("report ")[2] for line in printed.splitlines() if line.startswith("report ")]
    try:
        reports = sorted((json.loads(line) for line in lines), key=lambda report: report["rank"])
    except ValueError as error:
        raise BenchmarkError(f"{command}: a report is not JSON ({error}):\n{printed}") from error
    ranks = [report["rank"] for report in reports]
    if ranks != list(range(count)) or any(report["size"] != count for report in reports):
        raise BenchmarkError(
            f"{command}: expected one report of each of {count} ranks, got those of {ranks}:\n{printed}",
        )
    return Reading(
        rtet=rtet,
        mpct=max(report["task_cpu"] for report in reports),
        startup_cpu=max(report["startup_cpu"] for report in reports),
        result=reports[0]["result"],
    )


def check_answer(task: Task, row: str, size: int, result: float) -> None:
    """Refuse a time whose result is wrong; only the task's own size has an answer that is known."""
    if size == task.size and not math.isclose(result, task.answer, rel_tol=task.tolerance):
        raise BenchmarkError(f"{task.name}, {row}: the result is {result}, but it is {task.answer}")
