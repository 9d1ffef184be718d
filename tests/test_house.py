"""The house: who may import whom, how long things may be, and that every room has its tests.

A rule may be broken only by what stands in the tables below, each with its reason.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "klyng_mp"
TESTS = ROOT / "tests"

# From the lowest; one imports only from its own room and those before it.
ROOMS = (
    "version",
    "errors",
    "deadline",
    "machine",
    "leash",
    "_core",
    "native",
    "wire",
    "transports",
    "communicator",
    "objects",
    "launch",
    "green",
    "remote",
    "reduction",
    "util",
    "process",
    "cluster",
    "spawn",
    "forkserver",
    "resource_tracker",
    "resource_sharer",
    "popen_fork",
    "popen_spawn_posix",
    "popen_forkserver",
    "popen_zygote",
    "world_process",
    "connection",
    "robust",
    "synchronize",
    "heap",
    "sharedctypes",
    "shared_memory",
    "segments",
    "ring",
    "ringqueues",
    "carrierqueues",
    "queues",
    "pooling",
    "pool",
    "managers",
    "dummy",
    "context",
    "run",
    "world_job",
    "world_objects",
    "world_context",
    "world",
    "futures",
    "joblib",
    "MPI",
    "cli",
    "__main__",
    "beacon",
)

# What a room must not import: bytes are parsed where there is no socket, moved where there is no pickle.
FORBIDDEN = {
    "wire": {"socket", "select", "selectors", "ssl", "time", "subprocess", "asyncio", "signal"},
    "transports": {"pickle", "dill", "marshal", "subprocess"},
}

# Too slow to import, or not wanted in every rank: only inside the function that needs them.
HEAVY = {
    "IPython", "asyncio", "concurrent", "cryptography", "ctypes", "dataclasses", "difflib", "dill", "email", "http",
    "importlib.metadata", "inspect", "json", "logging", "numpy", "pathlib", "runpy", "spake2", "ssl", "subprocess",
    "tempfile",
    "threadpoolctl", "traceback",
}  # fmt: skip

MAX_FILE_LINES = 500
MAX_BODY_LINES = 50
MAX_PARAMETERS = 6
MAX_CLASS_LINES = 250
MAX_C_LINES = 600
MAX_PUBLIC_METHODS = 15
MAX_SETUP_LINES = 60

LONGER_FILES: dict[str, str] = {}
LONGER_BODIES: dict[str, str] = {}
MORE_PARAMETERS = {
    "klyng_mp/world.py:World.__init__": "all that a World can be told",
    "klyng_mp/pool.py:Pool.__init__": "multiprocessing's own parameters, and what is ours",
    "klyng_mp/MPI/buffer_messages.py:BufferMessages.Sendrecv": "MPI's own parameters",
    "klyng_mp/MPI/object_calls.py:ObjectMessages.sendrecv": "MPI's own parameters",
    "klyng_mp/launch/program.py:ProgramOptions.__init__": "the options record itself",
    "klyng_mp/wire/frames.py:PureMessage.__init__": "the record itself",
    "klyng_mp/communicator/point_to_point.py:PointToPoint.sendrecv": "MPI's own parameters",
    "klyng_mp/managers.py:AutoProxy": "multiprocessing's own parameters",
    "klyng_mp/managers.py:BaseProxy.__init__": "multiprocessing's own parameters",
}
LARGER_CLASSES: dict[str, str] = {
    "klyng_mp/context.py:BaseContext": "multiprocessing's own methods",
    "klyng_mp/launch/driver.py:Job": "the words of a driver to supervisors, which each kind of job says in its way",
    "klyng_mp/launch/supervisor.py:Owner": "the words of a supervisor to whoever has the job",
    "klyng_mp/remote/sessions.py:Sessions": "what becomes of a session, from its beginning to its end",
    "klyng_mp/remote/started.py:StartedProcesses": "an account: an entry for each thing that can happen to a process",
    "klyng_mp/launch/link.py:RankLink": "a rank's whole line to its supervisor: what is asked, heard and answered",
    "klyng_mp/launch/zygote.py:_Job": "an Owner: each of its methods is a word to the driver",
    "klyng_mp/transports/stream.py:StreamTransport": "one state machine: a part of it would know all of the rest",
    "klyng_mp/world.py:World": "a third of it says what its parameters are",
}
HEAVY_AT_THE_TOP = {
    "klyng_mp/cluster/job.py": "it starts a process, and is imported only for that",
    "klyng_mp/cli/beacon.py": "imported only when a beacon is asked for",
    "klyng_mp/cli/beacon_status.py": "imported only when a beacon is asked for",
    "klyng_mp/cli/doctor.py": "imported only when the doctor is asked for",
    "klyng_mp/cli/hosts.py": "imported only when hosts are looked at",
    "klyng_mp/cli/hosts_watch.py": "imported only when hosts are looked at",
    "klyng_mp/cli/manual.py": "imported only when klyng_mp is built",
    "klyng_mp/cli/ps.py": "imported only when ps is asked for",
    "klyng_mp/futures.py": "imported only by whoever wants concurrent.futures",
    "klyng_mp/launch/logs.py": "imported only by ranks, and by a driver whose ranks log",
    "klyng_mp/launch/rank.py": "imported only by zygotes and ranks",
    "klyng_mp/launch/zygote.py": "imported only by zygotes",
    "klyng_mp/objects/values.py": "imported only by who makes or gets a shared value",
    "klyng_mp/remote/bundle.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/remote/client.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/remote/confinement.py": "imported only by beacons",
    "klyng_mp/remote/daemon.py": "imported only by beacons",
    "klyng_mp/remote/hosting.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/remote/hosts.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/remote/job.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/remote/logfile.py": "imported only by beacons",
    "klyng_mp/remote/modules.py": "imported only by drivers with hosts",
    "klyng_mp/remote/options.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/remote/running.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/remote/schema.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/remote/security.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/remote/sessions.py": "imported only by beacons",
    "klyng_mp/remote/tls.py": "imported only by beacons, and by drivers and ranks with hosts",
    "klyng_mp/remote/versions.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/remote/world_hosts.py": "imported only by beacons, and by drivers with hosts",
    "klyng_mp/sharedctypes.py": "imported only by who makes shared ctypes",
    "klyng_mp/transports/secure.py": "imported only by whoever has peers on other hosts",
}
LATE_IMPORTS = {
    "klyng_mp/cluster/door.py": "cryptography is imported only where certificates are made",
    "klyng_mp/cluster/engine.py": "TLS is imported only when all that was asked for makes sense",
    "klyng_mp/context.py": "the factory methods: a program imports only what it makes",
    "klyng_mp/cli/main.py": "each command imports only what it needs: run must start fast",
    "klyng_mp/communicator/room.py": "only ranks with peers on other hosts are attended",
    "klyng_mp/green/turns.py": "greenlet is imported only where it is used",
    "klyng_mp/launch/job.py": "only a driver that is forked for its World becomes a zygote",
    "klyng_mp/launch/link.py": "only ranks of several hosts have a desk for shared objects",
    "klyng_mp/objects/passing.py": "most programs send no ends of pipes",
    "klyng_mp/launch/shell.py": "statistics and trace are only for who asks",
    "klyng_mp/cli/spread.py": "statistics are only for who asks",
    "klyng_mp/world_objects.py": "only Worlds with hosts have objects of their own",
    "klyng_mp/world_process.py": "a program whose Worlds only run imports no more than it needs",
    "klyng_mp/world.py": "few programs draw their heat map",
    "klyng_mp/run.py": "only a driver whose ranks log needs logging",
    "klyng_mp/cli/doctor.py": "a doctor must survive what cannot be imported",
}
TESTS_OF_NO_MODULE = {
    "tests/cluster/test_mpi_collectives.py": "transports/mpi_natives and communicator/shortcuts, over MPI",
    "tests/cluster/test_mpi_processes.py": "of the room as a whole, as processes of a World show it",
    "tests/cluster/test_mpi_world.py": "of the room as a whole, as a World shows it",
    "tests/cluster/test_mpiexec.py": "of the room as a whole, under MPI's own launchers",
    "tests/cluster/test_suites.py": "of the room as a whole, and transports/mpi: what each transport promises",
    "tests/MPI/test_mpi4py_page.py": "of docs/mpi4py.md",
    "tests/MPI/test_mpi4py_programs.py": "of the room as a whole, beside mpi4py",
    "tests/MPI/test_mpi4py_signatures.py": "of the room as a whole, beside mpi4py",
    "tests/benchmarks/test_benchmarks.py": "of benchmarks/",
    "tests/compat/test_far_programs.py": "of tests/compat/programs/, over hosts",
    "tests/cli/test_beacon_command.py": "of cli/beacon: there is another test_beacon",
    "tests/cli/test_hosts_command.py": "of cli/hosts: there is another test_hosts",
    "tests/communicator/test_local.py": "of the C core",
    "tests/green/test_green_contract.py": "of the room as a whole: what every communicator promises",
    "tests/green/test_green_page.py": "of docs/green.md",
    "tests/green/test_green_shell.py": "of green/shell: there is another test_shell",
    "tests/green/test_green_world.py": "of the room as a whole, as a World shows it",
    "tests/objects/test_object_desk.py": "of objects/desk: there is another test_desk",
    "tests/remote/test_control_link.py": "of remote/control: there is another test_control",
    "tests/remote/test_job_groups.py": "of remote/groups: there is another test_groups",
    "tests/remote/test_far_job.py": "of remote/job and below: there is another test_job",
    "tests/remote/test_mismatches.py": "of hosts that do not fit, as a user meets them",
    "tests/remote/test_far_program.py": "of remote/program: there is another test_program",
    "tests/compat/test_compat.py": "of the drop-in as a whole",
    "tests/compat/test_names.py": "of the drop-in as a whole",
    "tests/compat/test_page.py": "of docs/multiprocessing.md",
    "tests/compat/test_programs.py": "of the drop-in as a whole",
    "tests/dummy/test_dummy.py": "of dummy/ as a whole",
    "tests/examples/test_examples.py": "of examples/",
    "tests/fuzz/test_targets.py": "of all that reads what others wrote",
    "tests/remote/test_attacks.py": "of a beacon as a whole",
    "tests/remote/test_circumstances.py": "of other machines as a whole",
    "tests/remote/test_exhaustion.py": "of a beacon as a whole",
    "tests/remote/test_partitions.py": "of other machines as a whole",
    "tests/remote/test_far_messages.py": "of the network between ranks, where it is bad",
    "tests/remote/test_far_soak.py": "of everything on other machines, for long",
    "tests/remote/test_storm.py": "of a beacon as a whole",
    "tests/remote/test_badlinks.py": "of the bad links that tests have",
    "tests/remote/test_intruders.py": "of a beacon as a whole",
    "tests/remote/test_networks.py": "of the hosts that tests have",
    "tests/remote/test_pages.py": "of the pages about other machines",
    "tests/test_conftest.py": "of what every test has",
    "tests/test_coverage.py": "of a tool that people use with ranks",
    "tests/test_exports.py": "of the facade",
    "tests/test_house.py": "of the tree",
    "tests/test_interactive.py": "of IPython and Jupyter",
    "tests/test_main_rules.py": "of what wire promises, through Worlds",
    "tests/test_no_memory.py": "of the C core",
    "tests/test_pains.py": "of what the drop-in is for",
    "tests/test_sanitizers.py": "of the C core",
    "tests/test_soak.py": "of everything, for long",
    "tests/test_stress.py": "of everything, under load",
    "tests/transports/test_slabs.py": "of the C core",
}
SLEEPERS = {
    "tests/contracts/ranks.py": "a green rank's sleep, until it is woken",
    "tests/green/test_bridged.py": "klyng_mp.sleep is what a rank is ended in",
    "tests/green/test_green_world.py": "klyng_mp.sleep is what is tested",
    "tests/green/test_scheduler.py": "as in the contracts",
    "tests/memorywork/ports.py": "a port that says it will sleep does not",
    "tests/rankwork.py": "a rank that is in a blocking call which is not ours",
}
MODULES_TESTED_ELSEWHERE = {
    "klyng_mp/carrierqueues.py": "tests/test_queues.py",
    "klyng_mp/cli/values.py": "tests/cli/test_parser.py",
    "klyng_mp/cluster/__main__.py": "tests/cluster/test_mpi_world.py",
    "klyng_mp/cluster/book.py": "tests/cluster/test_mpi_processes.py",
    "klyng_mp/cluster/door.py": "tests/cluster/test_mpi_world.py",
    "klyng_mp/cluster/ear.py": "tests/cluster/test_mpi_processes.py",
    "klyng_mp/cluster/guest.py": "tests/cluster/test_mpi_processes.py",
    "klyng_mp/cluster/job.py": "tests/cluster/test_mpi_world.py",
    "klyng_mp/cluster/member.py": "tests/cluster/test_mpiexec.py",
    "klyng_mp/cluster/server.py": "tests/cluster/test_mpi_world.py",
    "klyng_mp/launch/fixed.py": "tests/green/test_green_world.py",
    "klyng_mp/cluster/shell.py": "tests/cluster/test_mpiexec.py",
    "klyng_mp/cluster/vigil.py": "tests/cluster/test_mpiexec.py",
    "klyng_mp/green/endpoint.py": "tests/green/test_green_contract.py",
    "klyng_mp/green/bridge.py": "tests/green/test_bridged.py",
    "klyng_mp/green/job.py": "tests/green/test_green_world.py",
    "klyng_mp/launch/labels.py": "tests/green/test_green_world.py",
    "klyng_mp/green/play.py": "tests/green/test_green_world.py",
    "klyng_mp/green/processless.py": "tests/green/test_green_world.py",
    "klyng_mp/green/shell.py": "tests/green/test_green_shell.py",
    "klyng_mp/green/turns.py": "tests/green/test_green_world.py",
    "klyng_mp/ring.py": "tests/test_queues.py",
    "klyng_mp/transports/mpi.py": "tests/cluster/test_suites.py",
    "klyng_mp/transports/mpi_natives.py": "tests/cluster/test_mpi_collectives.py",
    "klyng_mp/transports/mpi_receiving.py": "tests/cluster/test_suites.py",
    "klyng_mp/transports/mpi_sending.py": "tests/cluster/test_suites.py",
    "klyng_mp/transports/shortcuts.py": "tests/communicator/test_shortcuts.py",
    "klyng_mp/ringqueues.py": "tests/test_queues.py",
    "klyng_mp/dummy/connection.py": "tests/dummy/test_dummy.py",
    "klyng_mp/forkserver.py": "tests/test_context.py",
    "klyng_mp/heap.py": "tests/test_sharedctypes.py",
    "klyng_mp/cli/beacon.py": "tests/cli/test_beacon_command.py",
    "klyng_mp/cli/beacon_parser.py": "tests/cli/test_beacon_command.py",
    "klyng_mp/cli/hosts.py": "tests/cli/test_hosts_command.py",
    "klyng_mp/cli/hosts_look.py": "tests/cli/test_hosts_command.py",
    "klyng_mp/remote/control.py": "tests/remote/test_control_link.py",
    "klyng_mp/remote/groups.py": "tests/remote/test_job_groups.py",
    "klyng_mp/remote/program.py": "tests/remote/test_far_program.py",
    "klyng_mp/cli/pages.py": "tests/cli/test_manual.py",
    "klyng_mp/remote/client.py": "tests/remote/test_world_hosts.py",
    "klyng_mp/remote/daemon.py": "tests/remote/test_attacks.py",
    "klyng_mp/remote/hosting.py": "tests/remote/test_world_hosts.py",
    "klyng_mp/remote/job.py": "tests/remote/test_far_job.py",
    "klyng_mp/remote/session.py": "tests/remote/test_attacks.py",
    "klyng_mp/remote/sessions.py": "tests/remote/test_attacks.py",
    "klyng_mp/remote/supervisors.py": "tests/remote/test_far_job.py",
    "klyng_mp/launch/driver.py": "tests/launch/test_job.py",
    "klyng_mp/launch/zygotes.py": "tests/launch/test_job.py",
    "klyng_mp/popen_fork.py": "tests/test_process.py",
    "klyng_mp/popen_forkserver.py": "tests/test_process.py",
    "klyng_mp/popen_spawn_posix.py": "tests/test_process.py",
    "klyng_mp/resource_sharer.py": "tests/test_context.py",
    "klyng_mp/resource_tracker.py": "tests/test_context.py",
    "klyng_mp/spawn.py": "tests/test_context.py",
    "klyng_mp/util.py": "tests/test_context.py",
    "klyng_mp/launch/crew.py": "tests/launch/test_supervisor.py",
    "klyng_mp/launch/occupant.py": "tests/launch/test_supervisor.py",
    "klyng_mp/launch/processes.py": "tests/test_world_context.py",
    "klyng_mp/launch/started.py": "tests/test_popen_zygote.py",
    "klyng_mp/world_job.py": "tests/test_world.py",
    "klyng_mp/communicator/accounts.py": "tests/communicator/test_endpoint.py",
    "klyng_mp/communicator/room.py": "tests/communicator/test_waiting.py",
    "klyng_mp/pooling/books.py": "tests/pooling/test_crew.py",
    "klyng_mp/pooling/calls.py": "tests/test_pool.py",
    "klyng_mp/pooling/dealing.py": "tests/pooling/test_crew.py",
    "klyng_mp/pooling/inbox.py": "tests/pooling/test_crew.py",
    "klyng_mp/pooling/staff.py": "tests/pooling/test_crew.py",
    "klyng_mp/communicator/waiters.py": "tests/communicator/test_waiting.py",
    "klyng_mp/robust.py": "tests/test_synchronize.py",
    "klyng_mp/objects/asking.py": "tests/objects/test_object_desk.py",
    "klyng_mp/objects/settling.py": "tests/objects/test_queuing.py",
    "klyng_mp/objects/desk.py": "tests/objects/test_object_desk.py",
    "klyng_mp/objects/orders.py": "tests/objects/test_object_desk.py",
    "klyng_mp/communicator/carrying.py": "tests/objects/test_object_desk.py",
    "klyng_mp/objects/shared.py": "tests/objects/test_object_desk.py",
    "klyng_mp/objects/later.py": "tests/objects/test_ends.py",
    "klyng_mp/objects/passing.py": "tests/objects/test_ends.py",
    "klyng_mp/__main__.py": "tests/cli/test_main.py",
}


def sources(folder=PACKAGE):
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def shown(path):
    return path.relative_to(ROOT).as_posix()


def each_module(check):
    """Return one test of a check of a module: what is around a test costs more than any of these does."""

    def test():
        wrong = {}
        for path in sources():
            try:
                check(path)
            except AssertionError as error:
                wrong[shown(path)] = str(error)
        assert wrong == {}

    test.__name__ = check.__name__
    return test


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    """Return the room of a dotted name; the facade has none above it."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(node, *, inside=False, typing_only=False):
    """Yield (module, whether inside a function, whether for the type checker only) of each import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, inside, typing_only) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            for alias in child.names:
                deeper = f"{child.module}.{alias.name}"
                yield (deeper if is_module(deeper) else child.module), inside, typing_only
        elif isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            yield from imports_of(child, inside=inside, typing_only=True)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_of(child, inside=inside or function, typing_only=typing_only)


@functools.cache
def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return name.startswith("klyng_mp") and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def functions_of(node, prefix=""):
    """Yield (qualified name, function) of every function, methods and nested ones too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{child.name}", child
            yield from functions_of(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from functions_of(child, f"{prefix}{child.name}.")
        else:
            yield from functions_of(child, prefix)


def body_lines(function):
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def parameters(function):
    arguments = function.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def offenders(found, excused):
    """Split what breaks a rule into what nobody excused, and excuses that nothing needs any more."""
    unexcused = {key: value for key, value in found.items() if key not in excused}
    needless = [key for key in excused if key not in found]
    return unexcused, needless


# -- rooms -----------------------------------------------------------------------------------------


def test_every_module_is_in_a_room():
    assert {room_of(dotted(path)) for path in sources()} - {"__init__"} <= set(ROOMS)


@each_module
def test_imports_go_down(path):
    own = room_of(dotted(path))
    if own == "__init__":
        return  # the facade gathers from everywhere
    upward = [
        name
        for name, _, _ in imports_of(tree_of(path))
        if name.startswith("klyng_mp.") and ROOMS.index(room_of(name)) > ROOMS.index(own)
    ]
    assert upward == []
    facade = [name for name, _, _ in imports_of(tree_of(path)) if name == "klyng_mp"]
    assert facade == [] or own == "cli", "only the command may look at the facade"


def test_no_cycles():
    graph = {
        dotted(path): {
            name for name, _, typing_only in imports_of(tree_of(path)) if is_module(name) and not typing_only
        }
        for path in sources()
    }
    graph["klyng_mp"] = set()  # importing a module imports the facade before it, without needing it
    done, path = set(), []

    def visit(module):
        assert module not in path, f"cycle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            path.append(module)
            for other in sorted(graph.get(module, ())):
                if other != module:
                    visit(other)
            path.pop()
            done.add(module)

    for module in sorted(graph):
        visit(module)


@each_module
def test_a_room_keeps_out_what_is_not_its_business(path):
    forbidden = FORBIDDEN.get(room_of(dotted(path)), set())
    assert [name for name, _, _ in imports_of(tree_of(path)) if name.split(".")[0] in forbidden] == []


def test_imports_of_our_own_stand_at_the_top():
    late = {
        shown(path): sorted({name for name, inside, _ in imports_of(tree_of(path)) if inside and is_module(name)})
        for path in sources()
    }
    unexcused, needless = offenders({key: value for key, value in late.items() if value}, LATE_IMPORTS)
    assert unexcused == {}
    assert needless == []


# -- import time -----------------------------------------------------------------------------------


@each_module
def test_nothing_heavy_is_imported_at_the_top(path):
    if shown(path) in HEAVY_AT_THE_TOP:
        return
    heavy = [
        name
        for name, inside, typing_only in imports_of(tree_of(path))
        if not inside and not typing_only and {name, name.split(".")[0]} & HEAVY
    ]
    assert heavy == []


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, klyng_mp.cli; print(sorted({HEAVY!r} & set(sys.modules)))"
    words = [sys.executable, "-S", "-c", code]  # -S: a .pth file of some package may import what it likes
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_importing_the_package_does_nothing():
    code = (
        "import os, signal, sys, threading, warnings\n"
        "def state(): return (threading.enumerate(), os.listdir('/proc/self/fd'), dict(os.environ), sys.path[:],\n"
        "    sys.meta_path[:], sys.excepthook, warnings.filters[:], [signal.getsignal(s) for s in range(1, 32)])\n"
        "before = state()\n"
        "import klyng_mp.cli\n"
        "print(state() == before)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


# -- sizes -----------------------------------------------------------------------------------------


def test_files_are_not_too_long():
    found = {}
    for path in [*sources(), *sources(ROOT / "examples"), *sources(ROOT / "benchmarks")]:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            found[shown(path)] = lines
    assert offenders(found, LONGER_FILES) == ({}, [])


def test_setup_is_small():
    assert len((ROOT / "setup.py").read_text(encoding="utf-8").splitlines()) <= MAX_SETUP_LINES


def test_functions_are_not_too_long():
    found = {
        f"{shown(path)}:{name}": body_lines(function)
        for path in sources()
        for name, function in functions_of(tree_of(path))
        if body_lines(function) > MAX_BODY_LINES
    }
    assert offenders(found, LONGER_BODIES) == ({}, [])


def test_functions_do_not_take_too_much():
    found = {
        f"{shown(path)}:{name}": parameters(function)
        for path in sources()
        for name, function in functions_of(tree_of(path))
        if len(parameters(function)) > MAX_PARAMETERS
    }
    assert offenders(found, MORE_PARAMETERS) == ({}, [])


def test_files_of_the_core_are_not_too_large():
    sizes = {path.name: len(path.read_text().splitlines()) for path in (PACKAGE / "_core").glob("*.[ch]")}
    assert {name: lines for name, lines in sizes.items() if lines > MAX_C_LINES} == {}


def test_classes_are_not_too_large():
    found = {}
    for path in sources():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                methods = [child.name for child in node.body if isinstance(child, ast.FunctionDef)]
                public = [name for name in methods if not name.startswith("_")]
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_CLASS_LINES or len(public) > MAX_PUBLIC_METHODS:
                    found[f"{shown(path)}:{node.name}"] = (lines, len(public))
    assert offenders(found, LARGER_CLASSES) == ({}, [])


# -- words -----------------------------------------------------------------------------------------


@each_module
def test_each_module_says_what_it_is_and_offers(path):
    tree = tree_of(path)
    docstring = ast.get_docstring(tree) or ""
    first = docstring.split("\n\n")[0]
    assert first.endswith("."), "one sentence of purpose, then a blank line"
    assert "\nLayer:" in docstring, "then the layer"
    names = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    ]
    assert names.count("__all__") == 1
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


@each_module
def test_no_work_is_left_in_comments(path):
    marks = re.compile(r"\b(TO-?DO|FIX-?ME|X{3}|HACK)\b")
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if marks.search(line)] == []


# -- tests mirror the map --------------------------------------------------------------------------


def mirrored(path):
    """Return where the tests of a module are."""
    inside = path.relative_to(PACKAGE)
    return TESTS / inside.parent / f"test_{inside.name}"


def test_every_module_has_its_tests():
    missing = {
        shown(path): shown(mirrored(path))
        for path in sources()
        if path.name != "__init__.py" and not mirrored(path).is_file() and shown(path) not in MODULES_TESTED_ELSEWHERE
    }
    assert missing == {}
    assert all((ROOT / path).is_file() for path in MODULES_TESTED_ELSEWHERE.values())


def test_every_test_is_of_a_module():
    expected = {mirrored(path) for path in sources()}
    strangers = [
        shown(path)
        for path in sources(TESTS)
        if path.name.startswith("test_") and path not in expected and shown(path) not in TESTS_OF_NO_MODULE
    ]
    assert strangers == []


def test_no_two_tests_have_a_name_in_common():
    names = [path.name for path in sources(TESTS) if path.name.startswith("test_")]
    assert [name for name in names if names.count(name) > 1] == []  # pytest imports them by it


def test_no_test_sleeps():
    sleepers = {
        shown(path): ast.unparse(node)
        for path in sources(TESTS)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and "sleep" in ast.unparse(node.func).rpartition(".")[2].split("_")
        if ast.unparse(node) != "asyncio.sleep(0)"  # which lets other tasks run, and does not wait
    }
    assert offenders(sleepers, SLEEPERS) == ({}, [])
